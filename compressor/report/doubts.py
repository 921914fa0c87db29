"""What makes a student useless whatever its limits say, with what to try next."""

from __future__ import annotations

from collections.abc import Iterator

from compressor.report.measured import AnyComparison, Comparison, Proportion, SegmentationComparison
from compressor.report.schema import ModelRow
from compressor.report.text import agrees, count, params, percent

LONGER = {"quick": "standard", "standard": "full"}
ROUNDING = 1e-6  # of a share of pixels, which is a float32


def doubts_of(
    teacher: ModelRow,
    student: ModelRow,
    evidence: AnyComparison | None,
    evaluation: AnyComparison | None,
    effort: str,
) -> tuple[str, ...]:
    """In sentences; the larger set of images speaks.

    Args:
        evidence, evaluation: student against teacher on the held-out images and on those of --eval.
        effort: of the training, which may be longer.
    """
    agreement = student.agreement.larger
    comparison, noun = evidence, "held-out image"
    if agreement is not None and agreement is student.agreement.eval:
        comparison, noun = evaluation, "--eval image"
    worthless = () if agreement is None else _worthless(agreement, comparison, noun)
    return (*(f"{said}; {_next_step(effort)}." for said in worthless), *_larger(teacher, student))


def _worthless(agreement: Proportion, comparison: AnyComparison | None, noun: str) -> Iterator[str]:
    """Where one answer for all images would do as well."""
    if agreement.of == "variance":
        if agreement.value <= 0:
            yield (
                "The student is no better than to answer the teacher's mean always: over "
                f"{count(agreement.n, noun)} it explains none of the variance"
            )
        return
    share = _most_frequent(comparison)
    if share is not None and agreement.value <= share + ROUNDING and agreement.value < 1:
        found = agrees(agreement, "its teacher", percent(agreement.value), noun)
        yield (
            f"The student {found}, no better than to answer the teacher's most frequent class always, which would "
            f"on {percent(share)}"
        )


def _most_frequent(comparison: AnyComparison | None) -> float | None:
    """Share of the class that the teacher gives to most images, or to most pixels of them."""
    match comparison:
        case Comparison():
            images = [flips.num_images for flips in comparison.flips]
            return max(images) / sum(images) if images else None
        case SegmentationComparison():
            return max((one.teacher_share for one in comparison.classes), default=None)
        case _:
            return None


def _larger(teacher: ModelRow, student: ModelRow) -> Iterator[str]:
    if student.params_m > teacher.params_m:
        yield (
            f"The student has more parameters than its teacher, {params(student.params_m)} against "
            f"{params(teacher.params_m)}; choose a smaller --student, or set --max-params-m."
        )


def _next_step(effort: str) -> str:
    longer = f"train longer (--effort {LONGER[effort]}), " if effort in LONGER else ""
    return f"{longer}give more images, or try another --method"
