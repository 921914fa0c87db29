"""metrics.txt through the parser of Prometheus' own client, which is strict about OpenMetrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from judged import every_outcome, hostile
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from compressor.report.gate_record import GateResult
from compressor.report.measured import Calibration, Comparison, Proportion
from compressor.report.openmetrics import metrics_text
from compressor.report.robustness_record import Robustness
from compressor.report.schema import ImageSet, Report
from compressor.report.shipping import Variant
from profiles.latency import LatencyStats


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Every sample by its name, after the checks that hold for every file."""
    assert text.endswith("\n# EOF\n")
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    for family in families:
        assert family.documentation
        assert family.name == "compress" or family.name.startswith("compress_")
        assert family.unit == "" or family.name.endswith(f"_{family.unit}")
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    for same in found.values():
        labels = [tuple(sorted(one.items())) for one, _ in same]
        assert len(set(labels)) == len(labels)
    return found


def value(found: dict[str, list[tuple[dict[str, str], float]]], name: str, **labels: str) -> float:
    (only,) = [number for own, number in found[name] if labels.items() <= own.items()]
    return only


@pytest.fixture
def full(
    report: Report,
    build_report: Callable[..., Report],
    latency: Callable[..., LatencyStats],
    proportion: Callable[[int, int], Proportion],
) -> Report:
    """With what a report may hold beside the usual."""
    on_target = latency(0.31, device=report.target.title, is_target=True, origin="merged")
    kept: dict[str, Any] = {
        "agreement": proportion(900, 1000),
        "teacher_kept": proportion(950, 1000),
        "student_kept": proportion(910, 1000),
    }
    assert isinstance(report.comparison_evidence, Comparison)
    error = Calibration(error=0.04, n=40, num_bins=4, against="teacher")
    changes = {"latency_target": on_target}
    return build_report(
        variants=tuple(one.model_copy(update=changes if one.precision == "fp16" else {}) for one in report.variants),
        robustness=(Robustness(corruption="jpeg", strength="quality 50", images="eval", **kept),),
        image_sets=(ImageSet(name="eval", num_images=1000, sha256="f" * 64),),
        comparison_evidence=report.comparison_evidence.model_copy(update={"calibration": error}),
        gates=every_outcome(),
    )


def test_numbers_are_those_of_the_report_in_base_units(full: Report) -> None:
    found = samples(metrics_text(full))
    int8 = {"artefact": "student int8", "images": "eval"}
    assert value(found, "compress_agreement_ratio", **int8) == 0.97
    assert (
        value(found, "compress_agreement_low_ratio", **int8)
        < 0.97
        < value(found, "compress_agreement_high_ratio", **int8)
    )
    assert value(found, "compress_agreement_images", **int8) == 1000
    assert value(found, "compress_size_bytes", artefact="student fp32") == round(0.29 * 2**20)
    assert value(found, "compress_parameters", model="student") == 71_300
    assert value(found, "compress_images", set="eval") == 1000
    host = {"artefact": "student fp32", "device": "Example CPU @ 2.70GHz", "origin": "measured"}
    assert value(found, "compress_latency_seconds", quantile="0.5", **host) == pytest.approx(0.148e-3)
    assert value(found, "compress_latency_seconds", quantile="0.99", **host) == pytest.approx(1.4 * 0.148e-3)
    assert value(found, "compress_corrupted_kept_ratio", model="teacher", corruption="jpeg") == 0.95
    assert value(found, "compress_calibration_error_ratio", images="evidence", against="teacher") == 0.04
    assert value(found, "compress_stage_seconds", stage="distill") == 101.2


def test_predicted_merged_and_measured_latencies_stay_apart(full: Report) -> None:
    found = samples(metrics_text(full))
    fp16 = [own for own, _ in found["compress_latency_seconds"] if own["artefact"] == "student fp16"]
    assert {own["origin"] for own in fp16} == {"measured", "merged", "predicted"}
    assert [own["quantile"] for own in fp16 if own["origin"] == "predicted"] == ["0.5"]


def test_each_state_is_one_of_its_set(full: Report) -> None:
    found = samples(metrics_text(full))
    on = {own["gate"]: own["compress_gate_state"] for own, number in found["compress_gate_state"] if number == 1}
    assert {gate.name: gate.state for gate in full.gates}.items() <= on.items()
    assert value(found, "compress_decision", compress_decision=full.summary.decision) == 1
    assert sum(number for _, number in found["compress_decision"]) == 1
    assert value(found, "compress_gate_failed", gate="accuracy.max_drop") == 1
    assert value(found, "compress_gate_failed", gate="size.max") == 0


def test_what_is_not_known_has_no_line(report: Report, full: Report) -> None:
    unknown: GateResult = full.gates[5]
    found = samples(metrics_text(full))
    assert unknown.name not in {own["gate"] for own, _ in found["compress_gate_value"]}
    bare = samples(metrics_text(report.model_copy(update={"variants": (), "comparison_evidence": None})))
    assert "compress_latency_seconds" not in bare
    assert "compress_corrupted_kept_ratio" not in bare
    assert "compress_gate_value" not in bare


def test_words_from_outside_are_label_values(report: Report) -> None:
    text = metrics_text(hostile(report))
    found = samples(text)
    (info,) = [own for own, _ in found["compress_info"]]
    assert info["run"].startswith("::error::<b>")
    assert '"q"' in info["run"]
    assert "\x1b" not in text


def test_the_same_report_gives_the_same_text(full: Report, variant: Callable[..., Variant]) -> None:
    assert metrics_text(full) == metrics_text(full.model_copy(deep=True))
