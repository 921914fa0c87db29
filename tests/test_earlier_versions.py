"""Run folders and exports of earlier versions: they open, or say why not.

`earlier/` has what the tool of each schema wrote for the tiny run of `tiny_run.py`: the last revision before the schema
changed, with this file's settings; paths are shortened. A schema that is raised leaves a folder here of the one before.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny_run import Compress, refused

from compressor.config import resolve
from compressor.report import export_schema, schema
from compressor.report.export_schema import read_export
from compressor.report.rendering import RENDERINGS, rendered
from compressor.report.schema import read_report
from exporters import kit_manifest
from profiles import board_result

EARLIER = Path(__file__).parent / "earlier"
REPORTS = [f"report-{version}" for version in schema.EARLIER_VERSIONS]


def test_every_earlier_schema_has_its_fixture() -> None:
    """One that is missing was raised without leaving an example behind."""
    exports = [f"export-{version}" for version in export_schema.EARLIER_VERSIONS]
    assert sorted(folder.name for folder in EARLIER.iterdir()) == sorted([*REPORTS, *exports])
    assert (kit_manifest.SCHEMA_VERSION, board_result.SCHEMA_VERSION) == ("1.0", "1.0")  # the first ones


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_opens_and_is_rendered(name: str, tmp_path: Path) -> None:
    report = read_report(EARLIER / name / "report.json")
    assert f"report-{json.loads((EARLIER / name / 'report.json').read_text())['schema_version']}" == name
    assert report.schema_version == schema.SCHEMA_VERSION
    texts = rendered(report, tmp_path)
    assert set(texts) == set(RENDERINGS)
    assert "run" in texts["report.html"]


@pytest.mark.parametrize("name", REPORTS)
def test_commands_that_read_a_run(name: str, tmp_path: Path, compress: Compress) -> None:
    run = Path(shutil.copytree(EARLIER / name, tmp_path / "run"))
    outcome = compress("gate", f"{run}", "--gate", "agreement:min=0%", "--json")
    assert outcome.code in (0, 1), outcome.err
    # Schema 1.0 had no agreement of a single artefact, and a gate on what is not there fails.
    (gate,) = json.loads(outcome.out)["gates"]
    assert gate["outcome"] == ("fail" if name == "report-1.0" else "pass")
    assert compress("compare", f"{run}", f"{EARLIER / REPORTS[-1]}").code == 0
    outcome = compress("verify", f"{run}")
    assert outcome.code == 1
    assert "failed" in outcome.out
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("name", REPORTS)
def test_settings_of_a_run_are_read_back(name: str) -> None:
    resolved = resolve({}, EARLIER / name / "config.yaml")
    config = resolved.config
    assert [warning for warning in resolved.warnings if "export_generator" not in warning] == []
    assert config.student.spec == "width:0.5"
    assert config.distill.method == "hidfd"


@pytest.mark.parametrize("version", export_schema.EARLIER_VERSIONS)
def test_an_export_opens(version: str) -> None:
    assert read_export(EARLIER / f"export-{version}" / "export.json").schema_version == export_schema.SCHEMA_VERSION


@pytest.mark.parametrize("version", ["0.9", "1.99", "2.0"])
@pytest.mark.parametrize("command", [("gate",), ("compare", "RUN"), ("verify",)])
def test_a_report_of_another_schema_says_which_are_read(
    version: str, command: tuple[str, ...], tmp_path: Path, compress: Compress
) -> None:
    run = Path(shutil.copytree(EARLIER / REPORTS[-1], tmp_path / "run"))
    content: dict[str, Any] = json.loads((run / "report.json").read_text())
    (run / "report.json").write_text(json.dumps({**content, "schema_version": version}))
    outcome = compress(*(word.replace("RUN", f"{run}") for word in command), f"{run}")
    refused(outcome, 2, f"is a report of schema {version}.", f"reads those of schema 1.0 to {schema.SCHEMA_VERSION}")
