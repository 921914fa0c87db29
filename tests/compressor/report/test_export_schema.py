"""export.json of an earlier version is read as one of today's."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from compressor.report.export_schema import Export, Source, read_export, write_export
from compressor.report.schema import Report
from compressor.report.shipping import LimitsRecord


@pytest.fixture
def export(report: Report) -> Export:
    source = Source(
        file="m.onnx",
        sha256="a" * 64,
        opset=20,
        input_name="x",
        image_shape=(1, 8, 8),
        num_classes=10,
        fixed_batch=None,
    )
    return Export(
        tool_version="0.1.0",
        created=datetime(2026, 11, 20, tzinfo=UTC),
        source=source,
        target=report.target,
        num_calibration=4,
        num_evidence=2,
        variants=report.variants,
        limits=LimitsRecord(max_drop=1.0, max_latency_ms=5.0),
        verdicts=report.verdicts,
    )


def test_round_trip(export: Export, tmp_path: Path) -> None:
    write_export(export, tmp_path / "export.json")
    assert read_export(tmp_path / "export.json") == export
    assert json.loads((tmp_path / "export.json").read_text())["schema_version"] == "1.2"


def test_an_earlier_export_has_no_verdicts(export: Export, tmp_path: Path) -> None:
    earlier = export.model_dump(mode="json", exclude={"verdicts"})
    for variant in earlier["variants"]:
        del variant["latency_predicted"]
    earlier["limits"] = {"max_drop": 1.0, "max_latency_ms": 5.0, "max_size_mib": None}
    (tmp_path / "export.json").write_text(json.dumps({**earlier, "schema_version": "1.0"}))
    read = read_export(tmp_path / "export.json")
    assert (read.schema_version, read.verdicts, read.limits) == ("1.2", (), export.limits)
    (tmp_path / "export.json").write_text(json.dumps({**earlier, "schema_version": "2.0"}))
    with pytest.raises(ValidationError, match="schema_version"):
        read_export(tmp_path / "export.json")
