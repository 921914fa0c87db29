"""report.json: what it refuses, that it survives a round trip, and that the published schema is this one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from compressor.report.markdown import report_markdown
from compressor.report.predicted import Prediction
from compressor.report.schema import Artefact, Report, Target, read_report, write_report, write_schema
from profiles.latency import LatencyStats

PUBLISHED = Path(__file__).parents[3] / "docs" / "report-schema.json"


def test_the_published_schema_is_that_of_the_models(tmp_path: Path) -> None:
    write_schema(tmp_path / "schema.json")
    assert json.loads(PUBLISHED.read_text()) == json.loads((tmp_path / "schema.json").read_text()), (
        "raise schema_version if needed, then: python -c "
        "'from pathlib import Path; from compressor.report.schema import write_schema; "
        'write_schema(Path("docs/report-schema.json"))\''
    )


def test_round_trip(report: Report, tmp_path: Path) -> None:
    write_report(report, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]
    written = json.loads((tmp_path / "report.json").read_text())
    assert written["schema_version"] == "1.5"
    assert written["student"]["latency_target"] is None
    assert written["student"]["agreement"]["evidence"]["n"] == 40
    assert set(json.loads(PUBLISHED.read_text())["required"]) == set(written)


def test_a_report_is_immutable_and_knows_its_keys(report: Report) -> None:
    with pytest.raises(ValidationError, match="frozen"):
        report.run_name = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="unknown_key"):
        Report.model_validate({**report.model_dump(), "unknown_key": 1})
    with pytest.raises(ValidationError, match="schema_version"):
        Report.model_validate({**report.model_dump(), "schema_version": "0.9"})


OF_1_1 = ("variants", "variant_notes", "int8", "limits", "recommendation", "kit")
OF_1_2 = ("student_search", "verdicts")
OF_1_4 = ("time",)


def test_a_report_of_an_earlier_schema_says_nothing_of_what_came_later(report: Report, tmp_path: Path) -> None:
    later = {*OF_1_1, *OF_1_2, *OF_1_4}
    earlier = {name: value for name, value in report.model_dump(mode="json").items() if name not in later}
    (tmp_path / "report.json").write_text(json.dumps({**earlier, "schema_version": "1.0"}))
    read = read_report(tmp_path / "report.json")
    assert (read.variants, read.int8, read.limits, read.recommendation, read.kit) == ((), (), None, None, None)
    assert read.schema_version == "1.5"
    assert read.student == report.student
    assert read.time is None
    assert "Time: training" not in report_markdown(read)
    assert "What to ship" not in report_markdown(read)


def test_a_report_of_schema_1_1_has_limits_and_neither_verdicts_nor_predictions(report: Report, tmp_path: Path) -> None:
    earlier = {name: value for name, value in report.model_dump(mode="json").items() if name not in OF_1_2}
    for one in earlier["variants"]:
        del one["latency_predicted"]
    earlier["limits"] = {"max_drop": 1.0, "max_latency_ms": 5.0, "max_size_mib": None}
    (tmp_path / "report.json").write_text(json.dumps({**earlier, "schema_version": "1.1"}))
    read = read_report(tmp_path / "report.json")
    assert (read.student_search, read.verdicts) == (None, ())
    assert {one.latency_predicted for one in read.variants} == {None}
    assert read.limits is not None
    assert (read.limits.max_latency_ms, read.limits.accept_predicted, read.limits.wishes) == (5.0, False, ())
    markdown = report_markdown(read)
    for absent in ("## Limits", "## The student", "predicted p50"):
        assert absent not in markdown


def test_no_number_is_nan(report: Report) -> None:
    with pytest.raises(ValidationError, match="finite"):
        type(report.student).model_validate({**report.student.model_dump(), "macs_g": float("nan")})


def test_the_targets_column_holds_the_target_only(
    report: Report,
    build_report: Callable[..., Report],
    latency: Callable[..., LatencyStats],
    prediction: Callable[..., Prediction],
) -> None:
    def student(**changes: Any) -> Report:
        return build_report(student=report.student.model_copy(update=changes))

    with pytest.raises(ValidationError, match="is not jetson-orin-nano-super"):
        student(latency_target=latency(0.1))
    with pytest.raises(ValidationError, match="is not attached"):
        student(latency_target=latency(0.1, is_target=True))
    with pytest.raises(ValidationError, match="on this host is merged"):
        student(latency_host=latency(0.1, origin="merged"))
    merged = student(latency_target=latency(0.1, is_target=True, origin="merged"))
    assert merged.student.latency_target is not None
    other = report.variants[1].model_copy(update={"latency_predicted": prediction(1.0, device="NVIDIA T4")})
    with pytest.raises(ValidationError, match="is predicted for NVIDIA T4, not for Jetson Orin Nano Super"):
        build_report(variants=(other,))
    int8 = report.variants[2].model_copy(update={"latency_target": latency(0.1)})
    with pytest.raises(ValidationError, match="is not jetson-orin-nano-super"):
        build_report(variants=(int8,))


def test_a_missing_latency_needs_a_reason(build_report: Callable[..., Report]) -> None:
    with pytest.raises(ValidationError, match="without a reason"):
        build_report(target=Target(profile="t4", title="NVIDIA T4", attached=False))


def test_pseudo_labels_count_every_class(report: Report, build_report: Callable[..., Report]) -> None:
    with pytest.raises(ValidationError, match="2 pseudo-labels for 10 classes"):
        build_report(samples=report.samples.model_copy(update={"pseudo_labels": (1, 2)}))


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret", "onnx/../../x", "a\\b", ""])
def test_artefacts_lie_in_the_run_folder(path: str) -> None:
    with pytest.raises(ValidationError, match="not a relative POSIX path"):
        Artefact(path=path, sha256="0" * 64, size_bytes=1)


def test_reading_and_rendering_need_no_torch() -> None:
    program = (
        "import sys; from compressor.report import candidate_picture, markdown, recommend, schema, terminal, variants; "
        "sys.exit('torch' in sys.modules)"
    )
    root = Path(__file__).parents[3]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0
