"""The reports of a segmentation, of a regression, and of a run without any image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from compressor.report.artefact_table import variant_notes
from compressor.report.limits import Limits
from compressor.report.markdown import report_markdown
from compressor.report.measured import (
    ClassOverlap,
    OutputError,
    Proportion,
    RegressionComparison,
    Scores,
    SegmentationComparison,
)
from compressor.report.recommend import recommend
from compressor.report.schema import ModelRow, OnGenerated, Report, read_report, write_report
from compressor.report.shipping import Int8Calibration, LimitsRecord, Variant, VariantParity
from compressor.report.summary import summarise
from compressor.report.terminal import print_summary
from profiles.catalogue import load_target

Build = Callable[..., Report]
JETSON = load_target("jetson-orin-nano-super")
LIMITS = Limits()


def share(value: float, of: Any, n: int = 120) -> Proportion:
    return Proportion(value=value, low=value - 0.02, high=min(1.0, value + 0.015), n=n, of=of)


def variants(variant: Callable[..., Variant], of: Any, **more: Any) -> tuple[Variant, ...]:
    agreement = Scores(evidence=share(0.93, of))
    with_fp32 = Scores(evidence=share(0.995, of))
    parity = VariantParity(max_rel=0.031, top1_agreement=0.995, num_images=40)
    return (
        variant("student", "fp32", agreement=agreement, agreement_with_fp32=Scores(), **more),
        variant("student", "int8", agreement=agreement, agreement_with_fp32=with_fp32, parity_target=parity, **more),
        variant("teacher", "fp32", agreement=Scores(), agreement_with_fp32=Scores()),
    )


def calibrated(calibration: Callable[..., Int8Calibration], of: Any) -> Int8Calibration:
    return calibration(agreement_with_fp32=share(0.995, of), limit_proven=False)


def report_of(build: Build, report: Report, **changes: Any) -> Report:
    """`changes` with what follows from them."""
    found = recommend(changes["variants"], changes["int8"], LIMITS, JETSON)
    summary = summarise(changes["teacher"], changes["student"], report.target, found)
    limits = LimitsRecord(**asdict(LIMITS))
    return build(recommendation=found, verdicts=(), limits=limits, summary=summary, student_search=None, **changes)


@pytest.fixture
def segmentation(
    build_report: Build,
    report: Report,
    variant: Callable[..., Variant],
    calibration: Callable[..., Int8Calibration],
) -> Report:
    overlap = Scores(evidence=share(0.71, "overlap"))
    rows = {
        "teacher": {"accuracy": 0.9, "mean_iou_masks": 0.62},
        "student": {"accuracy": 0.88, "mean_iou_masks": 0.58, "agreement": 0.93, "mean_iou": 0.71},
    }
    of = {"accuracy": "pixels", "agreement": "pixels", "mean_iou": "overlap", "mean_iou_masks": "overlap"}
    models: dict[str, ModelRow] = {
        name: getattr(report, name).model_copy(
            update={"agreement": Scores()}
            | {metric: Scores(evidence=share(value, of[metric])) for metric, value in row.items()}
        )
        for name, row in rows.items()
    }
    comparison = SegmentationComparison(
        num_images=120,
        lowest_image=0.81,
        classes=(
            ClassOverlap(class_index=1, teacher_share=0.6, iou=0.9, teacher_iou=0.7, student_iou=0.68),
            ClassOverlap(class_index=4, teacher_share=0.4, iou=0.52),
        ),
    )
    samples = report.samples.model_copy(update={"teacher_accuracy": share(0.9, "pixels", 180)})
    return report_of(
        build_report,
        report,
        task="segmentation",
        **models,
        samples=samples,
        comparison_evidence=comparison,
        generated=OnGenerated(
            agreement=share(0.8, "pixels", 256), mean_iou=share(0.5, "overlap", 256), comparison=comparison
        ),
        variants=variants(variant, "pixels", mean_iou=overlap),
        int8=(calibrated(calibration, "pixels"),),
        distillation=report.distillation.model_copy(
            update={"method": "dfad", "chosen": "auto", "reason": "20 images are too few to train on alone"}
        ),
    )


@pytest.fixture
def regression(
    build_report: Build,
    report: Report,
    variant: Callable[..., Variant],
    calibration: Callable[..., Int8Calibration],
) -> Report:
    agreement = Scores(evidence=share(0.93, "variance"))
    comparison = RegressionComparison(
        num_images=120,
        rmse=0.42,
        outputs=(
            OutputError(index=0, explained=0.98, rmse=0.1, teacher_std=0.7),
            OutputError(index=2, explained=-0.4, rmse=0.6, teacher_std=0.5),
            OutputError(index=3, explained=None, rmse=0.01, teacher_std=0.0),
        ),
    )
    samples = report.samples.model_copy(
        update={"pseudo_labels": (), "teacher_confidence": None, "teacher_accuracy": None, "num_labelled": 0}
    )
    return report_of(
        build_report,
        report,
        task="regression",
        teacher=report.teacher.model_copy(update={"accuracy": Scores()}),
        student=report.student.model_copy(update={"accuracy": Scores(), "agreement": agreement}),
        samples=samples,
        comparison_evidence=comparison,
        variants=variants(variant, "variance"),
        int8=(calibrated(calibration, "variance"),),
    )


def test_a_segmentation_speaks_of_pixels_and_overlaps(segmentation: Report) -> None:
    text = report_markdown(segmentation)
    for said in (
        "The student agrees with its teacher on 93.0 % of the pixels of 120 held-out images, with 26.2 % of its",
        "Mean IoU of its class maps with the teacher's: 71.0 % (69.0 to 72.5 %).",
        "Mean IoU with the masks of 120 images: student 58.0 % (56.0 to 59.5 %), teacher 62.0 %",
        "| agreement of pixels, 120 held-out images | reference | 93.0 % (91.0 to 94.5 %) |",
        "| mean IoU, 120 held-out images | reference | 71.0 %",
        "| accuracy of pixels, 120 held-out images | 90.0 %",
        "| mean IoU with masks, 120 held-out images | 62.0 %",
        "agreement of pixels with the teacher, 120 held-out images",
        "student int8 agrees with fp32 on 99.5 % (97.5 to 100 %) of the pixels of 120 images held out from that",
        "in every one at least 81.0 % of the pixels agree; IoU by class, least alike first: `4` 52.0 % (40.0 % of the "
        "teacher's pixels), `1`",
        "with masks 68.0 %, the teacher 70.0 %)",
        "The teacher's accuracy: 90.0 % of the pixels of 180 labelled images.",
        "The teacher's most frequent classes:",
        "| on | images | largest difference | pixels with the same class |",
        "## On generated images",
        "The student agrees with its teacher on 80.0 % (78.0 to 81.5 %) of the pixels of 256 images.",
        "The tool chose it: 20 images are too few to train on alone.",
    ):
        assert said in text, said
    assert "top-1" not in text
    (note,) = [note for note in variant_notes(segmentation) if "on the target within" in note]
    assert "the same class on 99.5 % of the pixels of 40 images" in note


def test_a_regression_speaks_of_variance_and_errors(regression: Report) -> None:
    text = report_markdown(regression)
    for said in (
        "The student explains 93.0 % of the variance of its teacher over 120 held-out images, with 26.2 %",
        "| variance explained, 120 held-out images | reference | 93.0 %",
        "variance explained of the teacher, 120 held-out images",
        "student int8 explains 99.5 % (97.5 to 100 %) of the variance of fp32 over 120 images held out from that",
        "root mean square difference 0.420 over all outputs; by output: `2` 0.600 (none explained, the teacher's "
        "deviation 0.500), `0`",
        "`3` 0.0100 (the teacher's is constant)",
        "| on | images | largest difference | variance explained |",
    ):
        assert said in text, said
    for absent in ("top-1", "classes:", "accuracy", "confidence", "IoU", "On generated images"):
        assert absent not in text, absent
    (note,) = [note for note in variant_notes(regression) if "on the target within" in note]
    assert "explaining 99.5 % of their variance on 40 images" in note


@pytest.mark.parametrize("name", ["segmentation", "regression"])
def test_they_are_read_back_as_they_were(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    report: Report = request.getfixturevalue(name)
    write_report(report, tmp_path / "report.json")
    assert read_report(tmp_path / "report.json") == report


def test_the_terminal_has_the_same_words(segmentation: Report) -> None:
    console = Console(width=80, record=True, file=None)
    with console.capture() as capture:
        print_summary(segmentation, console)
    text = " ".join(capture.get().split())
    assert "agreement of pixels on 120 held-out images" in text
    assert "on 93.0 % of the pixels of 120 held-out images" in text
    assert max(len(line) for line in capture.get().splitlines()) <= 80


def test_only_variance_may_be_below_nothing() -> None:
    assert Proportion(value=-3.0, low=-5.0, high=0.2, n=9, of="variance").value == -3.0
    for of in ("images", "pixels", "overlap"):
        with pytest.raises(ValidationError, match="not below 0"):
            Proportion(value=0.1, low=-0.1, high=0.2, n=9, of=of)


def test_a_regression_without_classes_has_no_pseudo_labels(regression: Report) -> None:
    samples = regression.samples.model_copy(update={"pseudo_labels": (1, 2)})
    with pytest.raises(ValidationError, match="2 pseudo-labels for 0 classes"):
        Report.model_validate({**regression.model_dump(), "samples": samples.model_dump()})


@pytest.mark.parametrize(("n", "said"), [(99, "with fewer than 100 the limit"), (100, "is not proven, the interval")])
def test_a_hundred_images_prove_a_share_of_parts(
    n: int, said: str, build_report: Build, calibration: Callable[..., Int8Calibration]
) -> None:
    found = calibration(agreement_with_fp32=share(0.995, "pixels", n), limit_proven=False)
    assert said in report_markdown(build_report(int8=(found,)))


def test_without_any_image_nothing_passes_and_it_is_said(build_report: Build, report: Report) -> None:
    scoreless = {"agreement": Scores(), "accuracy": Scores()}
    teacher, student = (row.model_copy(update=scoreless) for row in (report.teacher, report.student))
    held = tuple(one.model_copy(update={"state": "held", "set_by": "user"}) for one in report.verdicts)
    seen = summarise(teacher, student, report.target, report.recommendation, held)
    unseen = summarise(teacher, student, report.target, report.recommendation, held, without_images=True)
    assert (seen.decision, unseen.decision) == ("pass", "warn")
    assert "no image of the task was given that says how good it is" in unseen.headline
    nothing = {"num_train": 0, "num_select": 0, "num_evidence": 0, "num_labelled": 0, "skipped": ()}
    samples = report.samples.model_copy(
        update={**nothing, "teacher_confidence": None, "teacher_accuracy": None, "pseudo_labels": (0,) * 10}
    )
    text = report_markdown(
        build_report(
            summary=unseen, teacher=teacher, student=student, samples=samples, comparison_evidence=None, verdicts=held
        )
    )
    assert "- No image of the task was given." in text
    assert "The teacher's classes" not in text
    assert "to train on" not in text
    assert "- No image of the task was given." in text
    assert "The limits on latency and size hold; nothing says how good the student is." in text
    assert "On random images, logits = classifier(pool(map)) holds" in text
    assert "the teacher, |" not in text


@pytest.mark.parametrize(
    ("uses", "said"),
    [
        (True, "3,000 other images to train on, from the pool."),
        (False, "3,000 other images in the pool, which `hidfd` does not use."),
    ],
)
def test_what_a_pool_was_for(uses: bool, said: str, build_report: Build, report: Report) -> None:
    samples = report.samples.model_copy(update={"num_pool": 3000})
    made = report.distillation.model_copy(update={"uses_pool": uses})
    assert f"- {said}" in report_markdown(build_report(samples=samples, distillation=made))
