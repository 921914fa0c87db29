"""The ready-made pipelines: they parse, their commands exist, and the action's shell steps do what its page says.

`compress` is a stand-in here that writes a run folder and ends as it is told; the servers themselves are not there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from compressor.cli import app
from compressor.gates.gate import read_gates
from profiles.catalogue import load_target

ROOT = Path(__file__).resolve().parents[2]
PIPELINES = ROOT / "docs" / "pipelines"
ACTION: dict[str, Any] = yaml.safe_load((PIPELINES / "github" / "action.yml").read_text())
WORKFLOW: dict[str, Any] = yaml.safe_load((PIPELINES / "github" / "workflow.yml").read_text())
GITLAB: dict[str, Any] = yaml.safe_load((PIPELINES / "gitlab" / ".gitlab-ci.yml").read_text())

FILES = (
    *("report.json", "report.md", "report.html", "junit.xml", "metrics.txt"),
    *("model-card.md", "manifest.json", "sbom.json"),
)

COMPRESS = """#!/usr/bin/env python3
import json, os, pathlib, sys

words = sys.argv[1:]
with open(os.environ["CALLS"], "a") as file:
    print(json.dumps(words), file=file)
code = int(os.environ["CODE"])
if code in (0, 1) and words[0] == "run":
    folder = pathlib.Path(words[words.index("--out") + 1])
    folder.mkdir(exist_ok=True)
    recommended = {"path": "precision/student.fp16.onnx"} if code == 0 else None
    report = {"summary": {"decision": "fail" if code else "pass"}, "recommendation": recommended}
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "report.md").write_text("# The report\\n")
if words[0] == "gate":
    if code == 2:
        sys.exit(2)
    print(json.dumps({"decision": "warn"}) if "--json" in words else "gate ```: fails")
    code = 0 if "--exit-zero" in words else code
sys.exit(code)
"""


def step(name: str) -> dict[str, Any]:
    (found,) = [one for one in ACTION["runs"]["steps"] if one["name"] == name]
    return dict(found)


@dataclass
class Job:
    """The shell steps of the action, in a folder of their own."""

    folder: Path

    def run(self, code: int = 0, **inputs: str) -> tuple[int, int]:
        """The exit codes of `compress` and of the step after it."""
        given = {name: one["default"] for name, one in ACTION["inputs"].items()}
        given |= {name.replace("_", "-"): value for name, value in inputs.items()}
        codes = [self._step(name, code, given) for name in ("Compress", "Results")]
        return codes[0], codes[1]

    def _step(self, name: str, code: int, given: dict[str, str]) -> int:
        declared = step(name)
        environment = {
            key: re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: given[match[1]], value)
            for key, value in declared["env"].items()
        }
        assert not any("${{" in value for value in environment.values())
        assert "${{" not in declared["run"]  # an expression inside a script is code, whoever wrote its value
        script = self.folder / "step.sh"
        script.write_text(declared["run"])
        system = {
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GITHUB_STEP_SUMMARY": f"{self.folder / 'summary.md'}",
            "GITHUB_OUTPUT": f"{self.folder / 'output'}",
            "CALLS": f"{self.folder / 'calls'}",
            "CODE": f"{code}",
        }
        line = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", str(script)]
        return subprocess.run(line, cwd=self.folder, env=environment | system, check=False).returncode

    @property
    def calls(self) -> list[list[str]]:
        return [json.loads(line) for line in (self.folder / "calls").read_text().splitlines()]

    @property
    def summary(self) -> str:
        return (self.folder / "summary.md").read_text()

    @property
    def outputs(self) -> dict[str, str]:
        lines = (self.folder / "output").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "compress"
    command.write_text(COMPRESS)
    command.chmod(0o755)
    return Job(tmp_path)


def test_a_run_gets_its_flags_and_leaves_summary_and_outputs(job: Job) -> None:
    arguments = "--teacher 'my models/t.pt' --samples ./few --option 'a=$(touch x)'"
    assert job.run(arguments=arguments, gates="gates.yaml", baseline="old/report.json", fail_on="warn") == (0, 0)
    assert job.calls == [
        [
            *("run", "--teacher", "my models/t.pt", "--samples", "./few", "--option", "a=$(touch x)"),
            *("--gates", "gates.yaml", "--baseline", "old/report.json", "--out", "compress-run", "--fail-on", "warn"),
        ]
    ]
    assert not (job.folder / "x").exists()
    assert job.summary == "# The report\n"
    assert job.outputs == {
        "decision": "pass",
        "student": "compress-run/precision/student.fp16.onnx",
        "report": "compress-run/report.json",
    }


def test_a_failing_gate_fails_the_step_and_is_still_shown(job: Job) -> None:
    assert job.run(code=1) == (1, 0)
    assert job.summary == "# The report\n"
    assert (job.outputs["decision"], job.outputs["student"]) == ("fail", "")


def test_a_run_that_ends_without_a_report_says_so(job: Job) -> None:
    assert job.run(code=4) == (4, 0)
    assert job.summary == "compress left no report in compress-run.\n"
    assert not (job.folder / "output").exists()


@pytest.mark.parametrize("code", [0, 1])
def test_gates_on_a_run_that_is_there(code: int, job: Job) -> None:
    job.run()
    (job.folder / "summary.md").unlink()
    (job.folder / "output").unlink()
    assert job.run(code=code, command="gate", arguments="--gate agreement:min=95%") == (code, 0)
    asked = ["gate", "compress-run", "--gate", "agreement:min=95%"]
    assert job.calls[1:] == [
        [*asked, "--exit-zero", "--json"],
        [*asked, "--fail-on", "fail", "--junit", "compress-run-gate.xml"],
    ]
    assert job.summary == "# compress gate\n\n    gate ```: fails\n\n# The report\n"
    assert job.outputs["decision"] == "warn"  # as the gates have it, and not as the run had
    job.run()
    assert not (job.folder / "compress-run-gate.json").exists()
    assert job.outputs["decision"] == "pass"


def test_a_wrong_gate_and_a_wrong_command_are_usage(job: Job) -> None:
    job.run()
    assert job.run(code=2, command="gate") == (2, 0)
    assert job.run(command="destroy") == (2, 0)


def test_evidence_is_kept_whatever_happened() -> None:
    steps = ACTION["runs"]["steps"]
    later = steps[[one["name"] for one in steps].index("Compress") + 1 :]
    assert len(later) == 4
    assert all(one["if"].startswith("always()") for one in later)
    kept = step("Keep the evidence")["with"]["path"].split("\n")
    assert [line for line in kept if line] == [f"${{{{ inputs.run-folder }}}}/{name}" for name in FILES]
    assert {output["value"] for output in ACTION["outputs"].values()} == {
        f"${{{{ steps.results.outputs.{name} }}}}" for name in ACTION["outputs"]
    }


def test_the_workflow_uses_inputs_and_outputs_that_exist() -> None:
    (used,) = [one for one in WORKFLOW["jobs"]["compress"]["steps"] if one.get("id") == "compress"]
    assert set(used["with"]) <= set(ACTION["inputs"])
    outputs = re.findall(r"steps\.compress\.outputs\.(\w+)", (PIPELINES / "github" / "workflow.yml").read_text())
    assert set(outputs) <= set(ACTION["outputs"])
    assert True in WORKFLOW  # YAML 1.1 reads the key `on` as true, and GitHub as the word


def test_gitlab_gets_its_reports_also_from_a_failing_job() -> None:
    made = GITLAB["compress"]["artifacts"]
    assert made["when"] == GITLAB["gate"]["artifacts"]["when"] == "always"
    assert made["reports"] == {
        "junit": "compress-run/junit.xml",
        "metrics": "compress-run/metrics.txt",
        "cyclonedx": "compress-run/sbom.json",
    }
    lines = [shlex.split(line) for line in GITLAB["gate"]["script"]]
    assert GITLAB["gate"]["artifacts"]["reports"]["junit"] in lines[1]


def commands() -> Iterator[list[str]]:
    """Every `compress` line of the pipelines, as words."""
    for job_ in GITLAB.values():
        yield from (shlex.split(line) for line in job_["script"])
    (used,) = [one for one in WORKFLOW["jobs"]["compress"]["steps"] if one.get("id") == "compress"]
    yield ["compress", "run", *shlex.split(used["with"]["arguments"])]
    for line in (PIPELINES / "github" / "action.yml").read_text().splitlines():
        if line.strip().startswith("compress "):
            yield shlex.split(line)
    dry = [
        "make",
        "--dry-run",
        "--file",
        str(PIPELINES / "Makefile"),
        "release",
        "compare",
        "BASELINE=released/report.json",
    ]
    printed = subprocess.run(dry, capture_output=True, text=True, check=True).stdout
    yield from (shlex.split(line) for line in printed.splitlines())


@pytest.mark.parametrize("words", [words for words in commands() if words[0] == "compress"], ids=" ".join)
def test_every_command_and_flag_exists(words: list[str]) -> None:
    command = typer.main.get_command(app).commands[words[1]]  # type: ignore[attr-defined]
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {word for word in words[2:] if word.startswith("--")} <= flags
    for flag, value in pairwise(words):
        if flag == "--target":
            load_target(value)
        if flag == "--gate":
            assert read_gates(None, [value])


def test_make_passes_the_baseline_only_where_there_is_one(tmp_path: Path) -> None:
    dry = ["make", "--dry-run", "--file", str(PIPELINES / "Makefile"), "gate"]
    first = subprocess.run(dry, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "--baseline" not in first
    (tmp_path / "released").mkdir()
    (tmp_path / "released" / "report.json").touch()
    second = subprocess.run(dry, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "--baseline released/report.json" in second


def test_links_of_the_page_exist_and_every_file_is_described() -> None:
    page = (ROOT / "docs" / "pipelines.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", page):
        assert (ROOT / "docs" / target).exists(), target
    assert re.findall(r"^\| `([\w.-]+)` \|", page, flags=re.MULTILINE) == list(FILES)
