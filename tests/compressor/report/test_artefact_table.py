"""The artefacts as strings: one row for each that exists, and sentences for what is doubtful or missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compressor.report.artefact_table import (
    calibration_lines,
    judged_on,
    missing_lines,
    prediction_lines,
    prediction_summary,
    recommendation_lines,
    variant_lines,
    variant_notes,
)
from compressor.report.markdown import report_markdown
from compressor.report.measured import Proportion, Scores
from compressor.report.predicted import Prediction
from compressor.report.schema import Report
from compressor.report.shipping import Int8Calibration, Recommendation, Rejected, Variant, VariantParity
from profiles.latency import LatencyStats

Maker = Callable[..., Report]


def test_one_row_for_each_artefact_that_exists(report: Report) -> None:
    rows = {row.label: row for row in variant_lines(report)}
    assert list(rows) == ["student fp32", "student fp16", "student int8", "teacher fp32"]
    assert [label for label, row in rows.items() if row.recommended] == ["student fp16"]
    int8 = rows["student int8"]
    assert (int8.size, int8.parity, int8.host, int8.target) == ("92.2 KiB", "3.1e-02", "0.120 (unstable)", "–")
    assert int8.agreement == "97.0 % (95.7 to 97.9 %)"
    assert int8.as_fp32 == "99.2 % (98.4 to 99.6 %)"
    assert int8.verdict == "was not measured to be faster"
    assert rows["student fp32"].as_fp32 == rows["teacher fp32"].agreement == "reference"
    assert judged_on(report) == "1,000 --eval images"


def test_a_merged_latency_is_marked_and_its_device_named(
    build_report: Maker, variant: Callable[..., Variant], latency: Callable[..., LatencyStats]
) -> None:
    board = latency(
        1.5,
        origin="merged",
        is_target=True,
        device="Orin",
        runtime="TensorRT 10.3",
        what="gpu compute",
        conditions=("mode 25W",),
        latency_p50_interval_ms=None,
        warmup_count=None,
        warnings=("Hot.",),
    )
    report = build_report(variants=(variant("student", "fp16", latency_target=board),), variant_notes=())
    assert variant_lines(report)[0].target == "1.50 (merged)"
    assert len(variant_notes(report, told=[board])) == 1
    assert variant_notes(report) == (
        "All are made for TensorRT 10 and 11, typed.",
        "student fp16: merged on Orin with TensorRT 10.3, mode 25W, gpu compute alone, batch 1, 3,000 calls.",
        "student fp16: Hot.",
    )


def test_another_power_mode_marks_the_number(
    build_report: Maker, variant: Callable[..., Variant], latency: Callable[..., LatencyStats]
) -> None:
    board = latency(1.5, origin="merged", is_target=True, other_power_mode="MAXN_SUPER")
    report = build_report(variants=(variant("student", "fp16", latency_target=board),))
    assert variant_lines(report)[0].target == "1.50 (merged, in MAXN_SUPER)"


def test_a_predicted_latency_never_stands_in_a_measured_column(
    build_report: Maker, variant: Callable[..., Variant], prediction: Callable[..., Prediction]
) -> None:
    doubt = "Batch 64 lies beyond all measurements."
    shared = {"latency_p50_interval_ms": (2.4, 4.0), "doubts": (doubt,)}
    report = build_report(
        variants=(
            variant("student", "fp32", latency_predicted=prediction(3.14, precision="fp32", **shared)),
            variant("student", "fp16", latency_predicted=prediction(0.0456, basis="roofline", anchors=())),
            variant("student", "int8", latency_predicted=prediction(812.0, precision="int8", **shared)),
        )
    )
    rows = variant_lines(report)
    assert [(row.host, row.target) for row in rows] == [("–", "–")] * 3
    assert [row.predicted for row in rows] == ["≈3.1 (2.4 to 4.0)", "≈0.046 (0.034 to 0.057)", "≈810 (2.4 to 4.0)"]
    assert prediction_lines(report) == (
        "student fp32, student int8: predicted for Jetson Orin Nano Super, batch 1, and not measured: calibrated at "
        "this precision, with 23 measurements of the device in all, 90 % interval.",
        "student fp16: predicted for Jetson Orin Nano Super, batch 1, and not measured: from its peak rates and "
        "what devices reach on average, 90 % interval.",
        "student fp32, student int8: the nearest measurement is yolo11n at 640x640 in fp16.",
        f"student fp32, student int8: {doubt}",
    )
    assert prediction_summary(report) == (
        "≈ is predicted, with its 90 % interval, from 23 measurements of Jetson Orin Nano Super and those of its "
        "relatives.",
        f"In doubt: {doubt}",
    )


def test_what_all_predictions_rest_on_is_said_once_and_one_anchor_for_each_precision(
    build_report: Maker, variant: Callable[..., Variant], prediction: Callable[..., Prediction]
) -> None:
    def row(precision: str) -> Variant:
        anchors = (f"yolov8n in {precision}", "yolo11n")
        return variant("student", precision, latency_predicted=prediction(3.0, precision=precision, anchors=anchors))

    report = build_report(variants=(row("fp32"), row("fp16"), row("int8")))
    assert [line.partition(":")[0] for line in prediction_lines(report)] == [
        "all",
        *("student fp32", "student fp16", "student int8"),
    ]
    assert report_markdown(report).count("calibrated at this precision") == 1
    assert "yolo11n" not in " ".join(prediction_lines(report))
    alone = build_report(variants=(row("fp32"),))
    assert [line.partition(":")[0] for line in prediction_lines(alone)] == ["student fp32"] * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_measurements": 1}, "from 1 measurement of Jetson Orin Nano Super and those of its relatives."),
        ({"basis": "transferred"}, "from measurements of its relatives; none of Jetson Orin Nano Super is known."),
        (
            {"basis": "roofline", "anchors": ()},
            "from the peak rates of Jetson Orin Nano Super alone; no measurement is known.",
        ),
    ],
)
def test_a_device_that_nobody_measured_is_said_to_be_one(
    build_report: Maker,
    variant: Callable[..., Variant],
    prediction: Callable[..., Prediction],
    changes: dict[str, Any],
    words: str,
) -> None:
    guess = prediction(3.0, **{"num_measurements": 0, "doubts": ("One.", "Two."), **changes})
    report = build_report(variants=(variant("student", "fp16", latency_predicted=guess),))
    assert prediction_summary(report) == (
        f"≈ is predicted, with its 90 % interval, {words}",
        "The first of 2 doubts: One.",
    )


def test_artefacts_with_one_note_share_it(build_report: Maker, variant: Callable[..., Variant]) -> None:
    missing = {"format": "engine", "path": None, "note": "skipped: no GPU"}
    report = build_report(
        variants=(
            variant("student", "fp32", made_for="TensorRT 8"),
            variant("student", "fp16", made_for="TensorRT 8 with --fp16"),
            *(variant("student", precision, **missing) for precision in ("fp32", "fp16")),
        )
    )
    assert variant_notes(report) == (
        "student fp32: made for TensorRT 8.",
        "student fp16: made for TensorRT 8 with --fp16.",
        "student fp32 engine, student fp16 engine: skipped: no GPU.",
        "TensorRT 10.3 with --stronglyTyped on a board is unproven.",
    )


def test_the_calibration_says_its_images_its_ranges_and_its_cost(report: Report) -> None:
    assert calibration_lines(report) == (
        "student int8, calibration: 40 real + 512 generated, percentile; the ranges of real and generated images "
        "overlap by 93.0 % in the median tensor, 41.0 % at least.",
        "student int8 loses 0.34 points of agreement with fp32, within the limit of 1 point, on the images to choose "
        "on: 40 select + 256 generated images.",
        "student int8 agrees with fp32 on 99.2 % (98.4 to 99.6 %) of 1,000 images held out from that: the limit of "
        "1 point holds on these but is not proven, the interval reaches 1.57 points.",
    )


def test_one_note_on_generated_images_is_said_once(
    build_report: Maker, calibration: Callable[..., Int8Calibration]
) -> None:
    note = "They are drawn from the run's own generator."
    both = tuple(calibration(model=model, generator_note=note) for model in ("student", "teacher"))
    lines = calibration_lines(build_report(int8=both))
    assert [line for line in lines if note in line] == [f"student int8, teacher int8: {note}"]
    assert f"teacher int8: {note}" in calibration_lines(build_report(int8=both), "teacher")


def test_a_proven_limit_says_so(
    build_report: Maker,
    calibration: Callable[..., Int8Calibration],
    proportion: Callable[[int, int], Proportion],
) -> None:
    proven = calibration(agreement_with_fp32=proportion(400, 400), limit_proven=True)
    assert calibration_lines(build_report(int8=(proven,)))[-1] == (
        "student int8 agrees with fp32 on 100 % (99.0 to 100 %) of 400 images held out from that, which proves the "
        "limit of 1 point."
    )


@pytest.mark.parametrize(
    ("same", "n", "words"),
    [
        (299, 299, "299 images held out from that; with fewer than 300 the limit of 1 point is unproven."),
        (300, 300, "the limit of 1 point holds on these but is not proven, the interval reaches 1.26 points."),
        (39, 40, "40 images held out from that; with fewer than 300 the limit of 1 point is unproven."),
        (977, 1000, "1,000 images held out from that and misses the limit of 1 point by 1.3 points."),
        (None, 0, "student int8 was judged on no held-out image, so its limit of 1 point is unproven."),
    ],
)
def test_a_limit_that_is_not_proven_says_so(
    build_report: Maker,
    calibration: Callable[..., Int8Calibration],
    proportion: Callable[[int, int], Proportion],
    same: int | None,
    n: int,
    words: str,
) -> None:
    found = None if same is None else proportion(same, n)
    unproven = calibration(
        agreement_with_fp32=found,
        limit_proven=False,
        generator_note="The method leaves no generator.",
        num_generated=0,
        range_agreement_median=None,
        drop_points=1.5,
        limit_held=False,
    )
    first, note, cost, proof = calibration_lines(build_report(int8=(unproven,)))
    assert first == "student int8, calibration: 40 real + 0 generated, percentile."
    assert note == "student int8: The method leaves no generator."
    assert "loses 1.5 points" in cost
    assert "above the limit of 1 point" in cost
    assert proof.endswith(words)


def test_what_the_target_said_of_an_artefact_is_told(
    report: Report, build_report: Maker, variant: Callable[..., Variant]
) -> None:
    wrong = VariantParity(max_rel=0.4, top1_agreement=0.125, num_images=8)
    failed = variant("student", "int8", failed_on_target="The outputs are wrong.", parity_target=wrong)
    told = build_report(variants=(*report.variants[:2], failed, report.variants[3]))
    assert missing_lines(told) == (
        "student int8: failed on the target: The outputs are wrong.",
        "student fp16 engine: skipped: no GPU.",
    )
    assert (
        "student int8: on the target within 4.0e-01 of what this machine gets from the same file, the same class on "
        "12.5 % of 8 images." in variant_notes(told)
    )


def test_where_nothing_holds_the_limits_each_reason_is_told(build_report: Maker) -> None:
    rejected = (Rejected(variant="student fp32", reason="is 9.00 MiB, above the limit of 8.00 MiB"),)
    nothing = Recommendation(reason="No artefact holds the limits.", rejected=rejected)
    assert recommendation_lines(build_report(recommendation=nothing)) == (
        "No artefact holds the limits.",
        "Student fp32 is 9.00 MiB, above the limit of 8.00 MiB.",
    )
    first = Recommendation(
        reason="Student fp16 is recommended.",
        model="student",
        format="onnx",
        precision="fp16",
        teacher_suffices="The teacher does.",
    )
    assert recommendation_lines(build_report(recommendation=first)) == (
        "The teacher does.",
        "Student fp16 is recommended.",
    )
    assert recommendation_lines(build_report(recommendation=None)) == ()


def test_without_images_there_is_no_number_of_them(build_report: Maker, variant: Callable[..., Variant]) -> None:
    blind = variant("student", "fp16", agreement=Scores(), agreement_with_fp32=Scores())
    assert judged_on(build_report(variants=(blind,))) == ""
