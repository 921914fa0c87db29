"""Whether a student that the user named can hold what was asked, as far as counting tells before any training."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.errors import InputRefused
from compressor.inputs.teacher import Teacher
from compressor.report import text
from compressor.students.bounds import Bound, Costs, bounds_of
from compressor.students.footprint import footprint
from compressor.students.search_record import StudentLimits
from compressor.students.student import Backbone, as_shipped
from profiles.schema import Precision

SMALLEST = {"fp32": 4, "fp16": 2, "int8": 1}  # bytes of a weight


def check_named_student(
    spec: str,
    backbone: Backbone,
    teacher: Teacher,
    *,
    limits: StudentLimits,
    memory_gib: float | None,
    precisions: Sequence[Precision],
) -> None:
    """Refuse a student that misses a limit on parameters, size or memory in every precision that will be made.

    Args:
        memory_gib: the target's; None: not known.

    Raises:
        InputRefused: with every limit that it misses.
    """
    counted = footprint(as_shipped(backbone, teacher), teacher.card.input_shape)
    width = min(SMALLEST[precision] for precision in precisions)
    costs: Costs = {
        "params_m": counted.params / 1e6,
        "size_mib": counted.weights_mib(width),
        "memory_gib": counted.memory_gib(width),
    }
    bounds = [bound for bound in bounds_of(limits, "limit") if bound.quantity in costs]
    if memory_gib is not None:
        bounds.append(Bound("memory_gib", memory_gib, "device"))
    missed = [bound.words(costs) for bound in bounds if bound.missed(costs)]
    if missed:
        raise InputRefused(
            f"The student {spec} has {text.joined(missed)}.",
            "What is counted before any training has to fit, in the smallest of the precisions that are made.",
            "Use --student auto, which looks for one that fits, a smaller student, or a larger limit.",
        )
