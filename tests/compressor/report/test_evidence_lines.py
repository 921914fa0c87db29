"""The sentences about calibration, accuracy and disturbed images, for what is known and what is not."""

from __future__ import annotations

from collections.abc import Callable

from compressor.report.evidence_lines import (
    accuracy_line,
    class_words,
    disturbed_lines,
    disturbed_on,
    shipped,
    sureness,
    worst_classes,
)
from compressor.report.markdown import report_markdown
from compressor.report.measured import ClassAccuracy, Comparison, Difference, Differences, Proportion, Shift
from compressor.report.robustness_record import Robustness
from compressor.report.schema import Report
from compressor.report.shipping import Variant


def test_what_is_known_of_confidence_is_said(report: Report) -> None:
    comparison = report.comparison_evidence
    assert isinstance(comparison, Comparison)
    assert list(sureness(comparison)) == [
        "its confidence differs by -2.30 points (-4.10 to -0.80)",
        "calibration error 6.1 % against the teacher's classes",
        "5.8 % against 40 labels, the teacher's 3.1 %",
    ]
    unlabelled = comparison.model_copy(update={"calibration_labels": None, "teacher_calibration_labels": None})
    assert len(list(sureness(unlabelled))) == 2
    same = comparison.model_copy(update={"confidence_shift": Shift(value=0.0, low=-1e-7, high=0.002, n=40)})
    assert next(sureness(same)) == "its confidence differs by 0 points (0 to +0.20)"
    earlier = unlabelled.model_copy(update={"confidence_shift": None, "calibration": None})
    assert list(sureness(earlier)) == []


def test_the_recommended_artefact_is_the_one_whose_accuracy_is_told(
    report: Report, build_report: Callable[..., Report], variant: Callable[..., Variant]
) -> None:
    found = shipped(report)
    assert found is not None
    assert report.recommendation is not None
    assert report.recommendation.takes(found)
    assert shipped(build_report(variants=(variant("student", "fp32"), variant("teacher", "fp32")))) is None
    difference = Differences(evidence=Difference(value=0.01, low=-0.02, high=0.03, n=9))
    other = shipped(build_report(variants=(variant("student", "fp32", accuracy_difference=difference),)))
    assert other is not None
    assert accuracy_line(other) == (
        "student fp32: accuracy of pixels +1.00 points (-2.00 to +3.00) against the teacher's on 9 held-out images."
    )
    assert accuracy_line(variant("student", "fp32")) is None


def test_labels_that_lose_stand_in_their_order(variant: Callable[..., Variant]) -> None:
    rows = [(0, 10, 9, 9), (1, 100, 90, 80), (2, 10, 10, 7), (3, 10, 5, 8), (4, 10, 9, 6)]
    classes = tuple(
        ClassAccuracy(class_index=index, num_images=n, num_right_teacher=before, num_right=after, low=-0.5, high=0.1)
        for index, n, before, after in rows
    )
    worst = worst_classes(variant("student", "fp32", class_accuracy=classes))
    assert [one.class_index for one in worst] == [2, 4, 1]
    assert class_words(worst[0]) == "3 fewer of 10 right, -50.00 to +10.00 points"


def test_many_labels_that_lose_are_counted(
    build_report: Callable[..., Report], variant: Callable[..., Variant]
) -> None:
    classes = tuple(
        ClassAccuracy(class_index=index, num_images=4, num_right_teacher=4, num_right=3, low=-0.7, high=0.1)
        for index in range(10)
    )
    text = report_markdown(build_report(variants=(variant("student", "fp32", class_accuracy=classes),)))
    assert "`4` (1 fewer of 4 right, -70.00 to +10.00 points), and 5 more in report.json." in text


def test_disturbed_images_are_a_table(
    report: Report, build_report: Callable[..., Report], proportion: Callable[[int, int], Proportion]
) -> None:
    jpeg = Robustness(
        corruption="jpeg",
        strength="quality 65",
        images="eval",
        agreement=proportion(240, 256),
        teacher_kept=proportion(250, 256),
        student_kept=proportion(243, 256),
        teacher_accuracy=proportion(247, 256),
        student_accuracy=proportion(239, 256),
    )
    darker = jpeg.model_copy(update={"corruption": "darker", "strength": "25 of 255 less"})
    disturbed = build_report(robustness=(jpeg, darker))
    assert disturbed_on(disturbed) == "256 images of --eval"
    first, second = disturbed_lines(disturbed)
    assert (first.corruption, first.student_accuracy) == ("JPEG, quality 65", "93.4 %")
    assert second.corruption == "darker, 25 of 255 less"
    assert (
        "| JPEG, quality 65 | 93.8 % (90.1 to 96.1 %) | 97.7 % (95.0 to 98.9 %) | 94.9 % (91.5 to 97.0 %) | 96.5 % | "
        "93.4 % |"
    ) in report_markdown(disturbed)
    changes = {"teacher_accuracy": None, "student_accuracy": None, "images": "evidence"}
    unlabelled = build_report(robustness=(jpeg.model_copy(update=changes),))
    assert disturbed_on(unlabelled) == "256 held-out images"
    assert "the student's accuracy |" not in report_markdown(unlabelled)
    assert "On disturbed images" not in report_markdown(report)
