"""`--budget` as a user meets it: what is cut, what is said of it, what is kept, and what is refused.

How long a step takes is made up here, so that no clock decides what a test sees; what the probe finds is in
`compressor/methods/test_speed.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_run
from safetensors.torch import load_file
from tiny_run import Compress, refused

from compressor import pipeline
from compressor.distill.probe import StepTime
from compressor.distill.training import read_log
from compressor.errors import Interrupted
from compressor.method_speed import Speed
from compressor.pipeline import budget
from compressor.report.schema import read_report

STEP_S = 60.0


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A machine on which every step seems to take a minute; tells which methods were timed."""
    timed: list[str] = []

    def measure(name: str, *_: object, **__: object) -> Speed:
        timed.append(name)
        step = StepTime(STEP_S, 0.0)
        return Speed({"generator": step, "student": step}, setup_seconds=1.0, cpu_query_seconds=1e-4, makes_images=True)

    monkeypatch.setattr(budget, "measure_speed", measure)
    return timed


def line(inputs: Path, out: Path, *more: str) -> list[str]:
    """A run whose steps are those of its effort, in small networks."""
    sizes = {name: value for name, value in tiny_run.OPTIONS.items() if not name.endswith("_steps")}
    words = ["run", "--teacher", f"{inputs}/t.pt", "--samples", f"{inputs}/few", "--out", f"{out}", *tiny_run.SHORT]
    words += [word for name, value in sizes.items() for word in ("--option", f"{name}={value}")]
    return [*words, "--effort", "quick", *more]


def planned(out: Path) -> dict[str, Any]:
    """The facts of the training."""
    facts: dict[str, Any] = json.loads((out / "distill" / "facts.json").read_text())
    return facts


@pytest.mark.slow
def test_what_is_announced_is_what_is_trained(
    inputs: Path, tmp_path: Path, compress: Compress, slow_steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    outcome = compress(*line(inputs, out, "--budget", "180m"))
    assert outcome.code == 0, outcome.err
    assert slow_steps == ["hidfd"]
    phases = {phase["name"]: phase for phase in planned(out)["budget"]["phases"]}
    assert {name: phase["whole"] for name, phase in phases.items()} == {"generator": 1200, "student": 1500}
    steps = {name: phase["steps"] for name, phase in phases.items()}
    assert 0 < STEP_S * sum(steps.values()) < 180 * 60
    assert steps["generator"] / 1200 == pytest.approx(steps["student"] / 1500, rel=0.05)
    last = {row["phase"]: row["step"] + 1 for row in read_log(out / "distill" / "log.jsonl")}
    assert last == steps
    announced = f"{steps['generator']:,} of 1,200 generator and {steps['student']:,} of 1,500 student steps"
    assert announced in outcome.err
    report, text = read_report(out / "report.json"), (out / "report.md").read_text()
    assert {phase.name: phase.num_steps for phase in report.distillation.phases} == steps
    choices = {choice.name: choice for choice in report.distillation.choices}
    for name, phase in phases.items():
        choice = choices[f"{name}_steps"]
        assert choice.value == f"{phase['steps']:,} of {phase['whole']:,}"
        assert choice.reason == "--budget 3h; a step takes 60,000 ms"
        assert choice.value in text
    warning = next(warning for warning in report.warnings if "--budget 3h leaves" in warning)
    assert "of effort quick's steps" in warning
    assert warning in outcome.err.replace("\n", " ")
    assert report.time is not None
    assert report.time.budget is not None
    assert (report.time.budget.budget_s, report.time.budget.share) == (10800, planned(out)["budget"]["factor"])
    assert "Time: training" in text
    assert "Budget 3h, " in text
    assert "Budget 3h, " in " ".join(outcome.out.split())
    assert "--budget 3h" in report.command

    # The same command changes nothing, and another budget trains anew.
    again = compress(*line(inputs, out, "--budget", "3h"))
    assert set(again.states().values()) == {"cached"}
    assert slow_steps == ["hidfd"]
    monkeypatch.setattr(pipeline, "export_the_student", tiny_run.failing(RuntimeError("enough")))
    outcome = compress(*line(inputs, out, "--budget", "4h"))
    assert outcome.states()["distill"] == "runs"
    assert slow_steps == ["hidfd", "hidfd"]
    longer = {phase["name"]: phase["steps"] for phase in planned(out)["budget"]["phases"]}
    assert all(longer[name] > steps[name] for name in steps)


def test_a_resumed_run_keeps_its_steps(
    inputs: Path,
    tmp_path: Path,
    compress: Compress,
    slow_steps: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(*_: object) -> None:
        raise Interrupted("The run was stopped.", "It is kept.", "Run it again.")

    words = line(inputs, tmp_path / "run", "--budget", "3h")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "save_student", stopped)
        assert compress(*words).code == 130
    chosen = json.loads((tmp_path / "run" / "choices.json").read_text())
    monkeypatch.setattr(pipeline, "export_the_student", tiny_run.failing(RuntimeError("enough")))
    monkeypatch.setattr(budget, "measure_speed", tiny_run.failing(AssertionError("timed again")))
    outcome = compress(*words)
    assert outcome.states()["distill"] == "resumes"
    assert json.loads((tmp_path / "run" / "choices.json").read_text()) == chosen
    plan = planned(tmp_path / "run")["budget"]
    assert plan in chosen.values()
    last = {row["phase"]: row["step"] + 1 for row in read_log(tmp_path / "run" / "distill" / "log.jsonl")}
    assert last == {phase["name"]: phase["steps"] for phase in plan["phases"]}


def test_a_budget_for_nothing_is_refused_with_one_that_would_do(
    inputs: Path, tmp_path: Path, compress: Compress, slow_steps: list[str]
) -> None:
    outcome = compress(*line(inputs, tmp_path / "run", "--budget", "30m"))
    refused(outcome, 2, "--budget 30m leaves no time to train", "24 of phase generator and 30 of phase student steps")
    assert slow_steps == ["hidfd"]
    assert not (tmp_path / "run" / "distill" / "log.jsonl").exists()
    enough = outcome.err.split("Give --budget ")[1].split(";")[0]
    outcome = compress(*line(inputs, tmp_path / "other", "--budget", enough, "--method", "vanilla"))
    assert "leaves no time to train" not in outcome.err


def test_steps_that_the_user_names_win(
    inputs: Path, tmp_path: Path, compress: Compress, slow_steps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "export_the_student", tiny_run.failing(RuntimeError("enough")))
    out = tmp_path / "run"
    outcome = compress(*line(inputs, out, "--budget", "2h", "--option", "student_steps=5"))
    phases = {phase["name"]: phase for phase in planned(out)["budget"]["phases"]}
    assert (phases["student"]["steps"], phases["student"]["fixed"]) == (5, True)
    assert 5 < phases["generator"]["steps"] < 1200
    assert "student_steps" not in {choice["name"] for choice in planned(out)["method_facts"]["choices"]}
    assert "as --option has them: 5 student" in outcome.err

    options = ("--option", "student_steps=5", "--option", "generator_steps=40")
    outcome = compress(*line(inputs, out, "--budget", "10m", *options))
    steps = {phase["name"]: phase["steps"] for phase in planned(out)["budget"]["phases"]}
    assert steps == {"generator": 40, "student": 5}
    assert "--budget 10m cuts nothing, because --option fixes the steps of every phase" in outcome.err
    assert slow_steps == ["hidfd", "hidfd"]


def test_a_budget_that_is_enough_changes_nothing(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The steps are really timed here, and the student is the same bit for bit."""
    monkeypatch.setattr(pipeline, "export_the_student", tiny_run.failing(RuntimeError("enough")))
    monkeypatch.setattr(budget, "PROBE_S", 0.0)
    students = []
    for name, more in (("without", ()), ("with", ("--budget", "999h"))):
        outcome = compress(*tiny_run.line(inputs, tmp_path / name, *more))
        assert outcome.code == 5, outcome.err
        students.append(load_file(tmp_path / name / "distill" / "student.safetensors"))
    assert tiny.equal(*students)
    assert planned(tmp_path / "without")["budget"] is None
    plan = planned(tmp_path / "with")["budget"]
    assert plan["factor"] == 1.0
    assert plan["training_s"] > 0.0
    assert "the whole schedule of effort standard fits into the budget" in outcome.err


def test_a_plan_says_that_steps_are_timed_later(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    outcome = compress("plan", *line(inputs, tmp_path / "run", "--budget", "90m")[1:])
    assert outcome.code == 0
    rows = [row.split() for row in outcome.out.splitlines()]
    assert ["budget", "1h30m", "--budget"] in rows
    assert "cut to what --budget 1h30m leaves then" in outcome.out
