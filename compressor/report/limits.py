"""What an artefact must hold to ship, and whether it is known not to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from compressor.report.comparing import holds, milliseconds, place, precision_rank
from compressor.report.measured import Proportion
from compressor.report.shipping import Int8Calibration, LimitName, ModelName, Variant
from compressor.report.text import approximate, as_typed, beside, count, joined, points
from compressor.report.variants import enough_to_prove
from profiles.schema import Budget, DeviceProfile

ParamsM: TypeAlias = Mapping[ModelName, float]
"""Millions of parameters of each network."""

UNCOUNTED: ParamsM = MappingProxyType({})

UNITS: Mapping[LimitName, str] = MappingProxyType(
    {"max_latency_ms": " ms", "max_size_mib": " MiB", "max_params_m": " M parameters"}
)


@dataclass(frozen=True)
class Limits:
    """What an artefact must hold to be recommended.

    Attributes:
        max_drop: percentage points of agreement that it may lose against the same network's fp32 file.
        max_latency_ms: p50 of one image on the target.
        max_size_mib: of the file.
        max_params_m: millions of parameters of the network.
        accept_predicted: whether a latency that is only predicted decides.
        wishes: those that the target's budget set; they give way where nothing holds them.
    """

    max_drop: float = 1.0
    max_latency_ms: float | None = None
    max_size_mib: float | None = None
    max_params_m: float | None = None
    accept_predicted: bool = False
    wishes: tuple[LimitName, ...] = ()

    @property
    def unset(self) -> bool:
        """Whether neither latency nor size nor parameters are limited."""
        return (self.max_latency_ms, self.max_size_mib, self.max_params_m) == (None, None, None)

    @property
    def of_the_user(self) -> Limits:
        """Without the wishes."""

        def asked(name: LimitName) -> float | None:
            return None if name in self.wishes else getattr(self, name)

        return replace(
            self,
            max_latency_ms=asked("max_latency_ms"),
            max_size_mib=asked("max_size_mib"),
            max_params_m=asked("max_params_m"),
            wishes=(),
        )

    def called(self, name: LimitName) -> str:
        """`the limit of 5 ms`, `the target's wish of 33.3 ms`: as it was typed."""
        whose = "the target's wish" if name in self.wishes else "the limit"
        return f"{whose} of {as_typed(getattr(self, name))}{UNITS[name]}"

    def spelled(self, name: LimitName, value: float) -> str:
        """A value in the unit of its limit, with as many digits as tell it from that: `0.613 ms`, `0.29 MiB`."""
        return f"{beside(value, getattr(self, name))}{UNITS[name]}"


def limits_of(
    max_drop: float,
    max_latency_ms: float | None,
    max_size_mib: float | None,
    budget: Budget | None,
    *,
    max_params_m: float | None = None,
    accept_predicted: bool = False,
) -> Limits:
    """The user's limits, and the wishes of the target's budget where the user gives none."""
    given: dict[LimitName, float | None] = {
        "max_latency_ms": max_latency_ms,
        "max_size_mib": max_size_mib,
        "max_params_m": max_params_m,
    }
    wishes: dict[LimitName, float] = {
        name: wish for name, value in given.items() if value is None and (wish := getattr(budget, name, None))
    }
    return Limits(max_drop, **(given | wishes), accept_predicted=accept_predicted, wishes=tuple(wishes))


def missed_limit(
    variant: Variant,
    calibrations: Sequence[Int8Calibration],
    limits: Limits,
    target: DeviceProfile,
    params_m: ParamsM = UNCOUNTED,
) -> str | None:
    """The first limit that a variant is known to miss, as what follows its name."""
    found = params_m.get(variant.model)
    if limits.max_params_m is not None and found is not None and found > limits.max_params_m:
        return f"has {limits.spelled('max_params_m', found)}, above {limits.called('max_params_m')}"
    size_mib = variant.size_mib or 0.0
    if limits.max_size_mib is not None and size_mib > limits.max_size_mib:
        return f"is {limits.spelled('max_size_mib', size_mib)}, above {limits.called('max_size_mib')}"
    return _too_slow(variant, limits, target) or _too_different(variant, calibrations, limits)


def teacher_within_limits(
    teachers: Sequence[Variant], limits: Limits, target: DeviceProfile, params_m: ParamsM = UNCOUNTED
) -> str | None:
    """Said where a limit of latency, size or parameters is set, and the teacher is known to hold all that are."""
    known = [
        variant
        for variant in teachers
        if (limits.max_latency_ms is None or (variant.measured and holds(variant.measured, limits.max_latency_ms)))
        and (limits.max_size_mib is None or variant.size_mib is not None)
        and (limits.max_params_m is None or variant.model in params_m)
    ]
    if limits.unset or not known:
        return None
    best = min(known, key=precision_rank)
    held = []
    if limits.max_latency_ms is not None:
        held.append(f"takes {_of(milliseconds(best), limits.max_latency_ms)} ms on {place(target)}")
    if limits.max_size_mib is not None and best.size_mib is not None:
        held.append(f"is {_of(best.size_mib, limits.max_size_mib)} MiB")
    if limits.max_params_m is not None:
        held.append(f"has {_of(params_m[best.model], limits.max_params_m)} M parameters")
    whose = "the target's wishes" if limits.of_the_user.unset else "the limits"
    return f"The teacher holds {whose} without any distillation: {best.label} {joined(held)}."


def _of(value: float, limit: float) -> str:
    return f"{beside(value, limit)} of {as_typed(limit)}"


def _too_slow(variant: Variant, limits: Limits, target: DeviceProfile) -> str | None:
    """By measurement, or where there is none by a prediction that the user accepts."""
    if limits.max_latency_ms is None:
        return None
    measured, predicted = variant.measured, variant.latency_predicted
    if measured is not None:
        if holds(measured, limits.max_latency_ms) is False:
            taken = limits.spelled("max_latency_ms", measured.latency_p50_ms)
            return f"takes {taken} on {place(target)}, above {limits.called('max_latency_ms')}"
    elif limits.accept_predicted and predicted is not None and predicted.latency_p50_ms > limits.max_latency_ms:
        slow = f"is predicted to take {approximate(predicted, ' ms', limits.max_latency_ms)} on {place(target)}"
        return f"{slow}, above {limits.called('max_latency_ms')}"
    return None


def _too_different(variant: Variant, calibrations: Sequence[Int8Calibration], limits: Limits) -> str | None:
    allowed = f"more than the {points(limits.max_drop)} allowed"
    for calibration in calibrations:
        known = variant.precision == "int8" and calibration.model == variant.model
        if known and calibration.drop_points > limits.max_drop:
            return f"loses {points(calibration.drop_points)} against fp32 on the images to choose on, {allowed}"
    agreement = variant.agreement_with_fp32.larger
    if agreement is not None and _refuted(agreement, limits.max_drop):
        return f"loses {points(agreement.points_lost)} against fp32 on {count(agreement.n, 'image')}, {allowed}"
    return None


def _refuted(agreement: Proportion, max_drop: float) -> bool:
    if agreement.n >= enough_to_prove(agreement):
        return agreement.points_lost > max_drop
    return 100 * (1 - agreement.high) > max_drop
