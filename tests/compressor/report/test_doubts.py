"""What makes a student useless is said first, with what to try next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compressor.report.doubts import doubts_of
from compressor.report.measured import (
    ClassFlips,
    ClassOverlap,
    Comparison,
    Proportion,
    Scores,
    SegmentationComparison,
)
from compressor.report.schema import ModelRow, Report
from compressor.report.summary import summarise


def judged(report: Report, value: float, of: Any, n: int = 40) -> ModelRow:
    share = Proportion(value=value, low=min(value, 0.0) if of == "variance" else 0.0, high=1.0, n=n, of=of)
    return report.student.model_copy(update={"agreement": Scores(evidence=share)})


def counted(report: Report, *images: int) -> Comparison:
    assert isinstance(report.comparison_evidence, Comparison)
    flips = tuple(ClassFlips(class_index=i, num_images=n, num_flipped=0) for i, n in enumerate(images))
    return report.comparison_evidence.model_copy(update={"flips": flips})


def test_nothing_is_said_of_a_student_that_is_worth_something(report: Report) -> None:
    assert doubts_of(report.teacher, report.student, report.comparison_evidence, None, "standard") == ()
    assert doubts_of(report.teacher, judged(report, 0.01, "variance"), None, None, "standard") == ()


@pytest.mark.parametrize("value", [0.0, -301.028])
def test_none_of_the_variance(report: Report, value: float) -> None:
    student = judged(report, value, "variance")
    (said,) = doubts_of(report.teacher, student, None, None, "quick")
    assert said == (
        "The student is no better than to answer the teacher's mean always: over 40 held-out images it explains none "
        "of the variance; train longer (--effort standard), give more images, or try another --method."
    )
    summary = summarise(report.teacher, student, report.target, doubts=(said,))
    assert summary.points[0] == said
    assert "30102" not in summary.headline
    if value < 0:
        assert summary.headline.startswith("The student explains none of the variance of its teacher over 40 held-out")


def test_no_better_than_the_most_frequent_class(report: Report) -> None:
    comparison = counted(report, 24, 10, 6)
    for value, doubted in ((0.6, True), (0.5, True), (0.625, False), (1.0, False)):
        found = doubts_of(report.teacher, judged(report, value, "images"), comparison, None, "full")
        assert bool(found) == doubted
    (said,) = doubts_of(report.teacher, judged(report, 0.5, "images"), comparison, None, "full")
    assert said == (
        "The student agrees with its teacher on 50.0 % of 40 held-out images, no better than to answer the teacher's "
        "most frequent class always, which would on 60.0 %; give more images, or try another --method."
    )


def test_the_larger_set_speaks(report: Report) -> None:
    few, many = (judged(report, value, "images", n).agreement.evidence for value, n in ((0.5, 40), (0.9, 1000)))
    student = report.student.model_copy(update={"agreement": Scores(evidence=few, eval=many)})
    assert doubts_of(report.teacher, student, counted(report, 24, 16), counted(report, 800, 200), "full") == ()


def test_a_segmentation_that_paints_one_class(report: Report) -> None:
    classes = tuple(ClassOverlap(class_index=i, teacher_share=s, iou=0.5) for i, s in enumerate((0.7, 0.3)))
    comparison = SegmentationComparison(num_images=40, lowest_image=0.5, classes=classes)
    for value, doubted in ((0.7, True), (0.71, False)):
        found = doubts_of(report.teacher, judged(report, value, "pixels"), comparison, None, "standard")
        assert bool(found) == doubted


def test_a_student_that_is_larger_than_its_teacher(report: Report, build_report: Callable[..., Report]) -> None:
    student = report.student.model_copy(update={"params_m": 0.4, "agreement": Scores()})
    (said,) = doubts_of(report.teacher, student, None, None, "standard")
    assert said.startswith("The student has more parameters than its teacher, 400 k against 272 k; choose a smaller")
