"""A student that the user named is held to what can be counted before any training."""

from __future__ import annotations

import pytest
import tiny

from compressor.errors import InputRefused
from compressor.students.named import check_named_student
from compressor.students.search_record import StudentLimits


def check(limits: StudentLimits, *, memory_gib: float | None = None) -> None:
    check_named_student(
        "width:0.5", tiny.backbone(), tiny.teacher(), limits=limits, memory_gib=memory_gib, precisions=("fp32", "int8")
    )


def test_what_fits_passes() -> None:
    check(StudentLimits(max_params_m=1.0, max_size_mib=1.0, max_latency_ms=1e-9), memory_gib=1.0)


@pytest.mark.parametrize(
    ("limits", "memory_gib", "words"),
    [
        (StudentLimits(max_params_m=0.001), None, "parameters, above the limit of 1.00 k parameters"),
        (StudentLimits(max_size_mib=0.001), None, "above the limit of 1.02 KiB"),
        (StudentLimits(), 1e-6, "of memory"),
    ],
)
def test_what_cannot_fit_is_refused_with_its_cost(limits: StudentLimits, memory_gib: float | None, words: str) -> None:
    with pytest.raises(InputRefused) as refused:
        check(limits, memory_gib=memory_gib)
    assert refused.value.received.startswith("The student width:0.5 has ")
    assert words in refused.value.received
    assert "Use --student auto" in refused.value.action


def test_a_size_counts_in_the_smallest_precision_that_is_made() -> None:
    params = sum(p.numel() for p in tiny.backbone().parameters())
    check(StudentLimits(max_size_mib=3 * params / 2**20))  # the fp32 file would be four bytes a parameter
