"""The evidence beyond agreement as strings: calibration, what became of the accuracy, and disturbed images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compressor.report.measured import ClassAccuracy, Comparison, Difference, Shift
from compressor.report.schema import Report
from compressor.report.shipping import Variant
from compressor.report.text import ABSENT, ACCURACY, count, percent, significant, with_interval

_CORRUPTIONS = {
    "jpeg": "JPEG",
    "blur": "blurred",
    "noise": "noisy",
    "brighter": "brighter",
    "darker": "darker",
}


@dataclass(frozen=True)
class DisturbedLine:
    """One corruption: shares with their intervals, the accuracies absent without labels."""

    corruption: str
    agreement: str
    teacher_kept: str
    student_kept: str
    teacher_accuracy: str
    student_accuracy: str


def sureness(comparison: Comparison) -> Iterator[str]:
    """How the student's confidence differs from the teacher's, and how far both are from their hit rates; the clauses
    of a sentence, of what is known."""
    if (shift := comparison.confidence_shift) is not None:
        yield f"its confidence differs by {_in_points(shift)}"
    if (found := comparison.calibration) is not None:
        yield f"calibration error {percent(found.error)} against the teacher's classes"
    mine, its = comparison.calibration_labels, comparison.teacher_calibration_labels
    if mine is not None and its is not None:
        yield f"{percent(mine.error)} against {mine.n:,} labels, the teacher's {percent(its.error)}"


def shipped(report: Report) -> Variant | None:
    """The artefact whose accuracy is told: the recommended one, where that is judged, or else the first student."""
    known = [variant for variant in report.variants if variant.class_accuracy or _larger(variant) is not None]
    best = report.recommendation
    recommended = [variant for variant in known if best is not None and best.takes(variant)]
    return next(iter([*recommended, *(variant for variant in known if variant.model == "student")]), None)


def accuracy_line(variant: Variant) -> str | None:
    """What became of the teacher's accuracy, on the set with more labels; None without labels."""
    found = _larger(variant)
    if found is None:
        return None
    where, difference = found
    accuracy = ACCURACY["pixels" if difference.gained is None else "images"]
    against = f"{_in_points(difference)} against the teacher's on {_images(difference.n, where)}"
    line = f"{variant.label}: {accuracy} {against}"
    if difference.gained is not None and difference.lost is not None:
        line += f"; it alone is right on {difference.gained:,}, the teacher alone on {difference.lost:,}"
    if difference.p_value is not None:
        line += f" (p = {significant(difference.p_value, 2)})"
    return f"{line}."


def worst_classes(variant: Variant) -> Sequence[ClassAccuracy]:
    """The labels of which it has fewer right than the teacher, those first that lose the largest share."""
    losing = [one for one in variant.class_accuracy if one.num_right < one.num_right_teacher]
    return sorted(losing, key=lambda one: ((one.num_right - one.num_right_teacher) / one.num_images, one.class_index))


def class_words(one: ClassAccuracy) -> str:
    """`3 fewer of 40 right, -17.1 to +0.6 points`."""
    fewer = one.num_right_teacher - one.num_right
    return f"{fewer:,} fewer of {one.num_images:,} right, {_signed(one.low)} to {_signed(one.high)} points"


def disturbed_lines(report: Report) -> tuple[DisturbedLine, ...]:
    return tuple(
        DisturbedLine(
            corruption=f"{_CORRUPTIONS[one.corruption]}, {one.strength}",
            agreement=with_interval(one.agreement),
            teacher_kept=with_interval(one.teacher_kept),
            student_kept=with_interval(one.student_kept),
            teacher_accuracy=ABSENT if one.teacher_accuracy is None else percent(one.teacher_accuracy.value),
            student_accuracy=ABSENT if one.student_accuracy is None else percent(one.student_accuracy.value),
        )
        for one in report.robustness
    )


def disturbed_on(report: Report) -> str:
    """`256 images of --eval`; there is one record at least."""
    first = report.robustness[0]
    return _images(first.agreement.n, first.images)


def _larger(variant: Variant) -> tuple[str, Difference] | None:
    found = variant.accuracy_difference
    known = [(where, one) for where, one in (("eval", found.eval), ("evidence", found.evidence)) if one is not None]
    if not known:
        return None
    return max(known, key=lambda pair: pair[1].n)


def _images(number: int, where: str) -> str:
    return f"{count(number, 'image')} of --eval" if where == "eval" else count(number, "held-out image")


def _in_points(found: Shift | Difference) -> str:
    return f"{_signed(found.value)} points ({_signed(found.low)} to {_signed(found.high)})"


def _signed(fraction: float) -> str:
    """In points, to two digits after the point: `+0.34`, `-1.20`, `0`."""
    text = f"{100 * fraction:+.2f}"
    return "0" if float(text) == 0.0 else text
