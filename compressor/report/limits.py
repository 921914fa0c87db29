"""What an artefact must hold to ship, and whether it is known not to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compressor.report.comparing import p50, place, precision_rank
from compressor.report.measured import Proportion
from compressor.report.shipping import Int8Calibration, Variant
from compressor.report.text import count, joined, points, significant, size
from compressor.report.variants import ENOUGH_TO_PROVE
from profiles.schema import Budget, DeviceProfile


@dataclass(frozen=True)
class Limits:
    """What an artefact must hold to be recommended.

    Attributes:
        max_drop: percentage points of agreement that it may lose against the same network's fp32 file.
        max_latency_ms: p50 of one image on the target.
        max_size_mib: of the file.
    """

    max_drop: float = 1.0
    max_latency_ms: float | None = None
    max_size_mib: float | None = None


def limits_of(
    max_drop: float, max_latency_ms: float | None, max_size_mib: float | None, budget: Budget | None
) -> Limits:
    """The user's limits, and those of the target's budget where the user gives none."""
    wishes = budget or Budget()
    return Limits(
        max_drop,
        wishes.max_latency_ms if max_latency_ms is None else max_latency_ms,
        wishes.max_size_mib if max_size_mib is None else max_size_mib,
    )


def missed_limit(
    variant: Variant, calibrations: Sequence[Int8Calibration], limits: Limits, target: DeviceProfile
) -> str | None:
    """The first limit that a variant is known to miss."""
    if limits.max_size_mib is not None and (variant.size_mib or 0.0) > limits.max_size_mib:
        return f"is {size(variant.size_mib or 0.0)}, above the limit of {size(limits.max_size_mib)}"
    latency = variant.latency_target
    if limits.max_latency_ms is not None and latency is not None and latency.latency_p50_ms > limits.max_latency_ms:
        limit = significant(limits.max_latency_ms)
        return f"takes {p50(variant)} ms on {place(target)}, above the limit of {limit} ms"
    allowed = f"more than the {points(limits.max_drop)} allowed"
    for calibration in calibrations:
        known = variant.precision == "int8" and calibration.model == variant.model
        if known and calibration.drop_points > limits.max_drop:
            return f"loses {points(calibration.drop_points)} against fp32 on the images to choose on, {allowed}"
    agreement = variant.agreement_with_fp32.larger
    if agreement is not None and _refuted(agreement, limits.max_drop):
        return f"loses {points(agreement.points_lost)} against fp32 on {count(agreement.n, 'image')}, {allowed}"
    return None


def teacher_within_limits(teachers: Sequence[Variant], limits: Limits, target: DeviceProfile) -> str | None:
    """Said where the user set a limit of latency or size, and the teacher is known to hold all that were set."""
    if limits.max_latency_ms is None and limits.max_size_mib is None:
        return None
    known = [
        variant
        for variant in teachers
        if (limits.max_latency_ms is None or variant.latency_target is not None)
        and (limits.max_size_mib is None or variant.size_mib is not None)
    ]
    if not known:
        return None
    best = min(known, key=precision_rank)
    held = []
    if limits.max_latency_ms is not None:
        held.append(f"takes {p50(best)} of {significant(limits.max_latency_ms)} ms on {place(target)}")
    if limits.max_size_mib is not None and best.size_mib is not None:
        held.append(f"is {size(best.size_mib)} of {size(limits.max_size_mib)}")
    return f"The teacher holds the limits without any distillation: {best.label} {joined(held)}."


def _refuted(agreement: Proportion, max_drop: float) -> bool:
    if agreement.n >= ENOUGH_TO_PROVE:
        return agreement.points_lost > max_drop
    return 100 * (1 - agreement.high) > max_drop
