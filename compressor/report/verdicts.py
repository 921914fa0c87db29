"""Whether what ships holds each limit that is set, and what that means for the run as a whole.

    latency     measured on the target, or sent back by it: held or missed, by the median at the machine's reference
                pace; unproven where the median as it was timed is on the other side of the limit
                predicted alone: unproven; where the user accepts predictions, held or missed, by the predicted median
                neither, or measured in another power mode alone: unproven
    size        of the file: held or missed
    parameters  of the network: held or missed

Where the limit lies inside the interval of a latency, the sentence says so. Judged is the recommended artefact; where
no artefact holds the limits, it is the student's that comes closest.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias, get_args

from compressor.report.comparing import as_timed, holds, other_mode, place
from compressor.report.limits import UNCOUNTED, Limits, ParamsM
from compressor.report.predicted import Prediction
from compressor.report.shipping import LimitName, Recommendation, Variant, Verdict
from compressor.report.text import approximate, beside, significant
from profiles.schema import DeviceProfile

Decision: TypeAlias = Literal["ungated", "pass", "warn", "fail"]
State: TypeAlias = Literal["held", "missed", "unproven"]


def verdicts_of(
    variants: Sequence[Variant],
    recommendation: Recommendation | None,
    limits: Limits,
    target: DeviceProfile,
    params_m: ParamsM = UNCOUNTED,
) -> tuple[Verdict, ...]:
    """One for each limit that the user or the target's budget set."""
    judged = _judged(variants, recommendation, limits, params_m)
    return tuple(
        Verdict(
            name=name,
            set_by="target" if name in limits.wishes else "user",
            artefact=None if judged is None else judged.label,
            limit=getattr(limits, name),
            **asdict(_finding(name, judged, limits, target, params_m)),
        )
        for name in get_args(LimitName)
        if getattr(limits, name) is not None
    )


def decision_of(verdicts: Sequence[Verdict], recommendation: Recommendation | None) -> Decision:
    """What the limits say of the run.

    fail: what ships misses a limit of the user's, or no artefact holds them all. warn: a wish of the target is missed,
    or a limit is unproven. ungated: the user set no limit, and no wish is known to be missed.
    """
    of_the_user = [verdict for verdict in verdicts if verdict.set_by == "user"]
    nothing_ships = recommendation is not None and recommendation.model is None
    if of_the_user and (nothing_ships or any(verdict.state == "missed" for verdict in of_the_user)):
        return "fail"
    states = {verdict.state for verdict in verdicts}
    if nothing_ships or "missed" in states or (of_the_user and "unproven" in states):
        return "warn"
    return "pass" if of_the_user else "ungated"


def _judged(
    variants: Sequence[Variant], recommendation: Recommendation | None, limits: Limits, params_m: ParamsM
) -> Variant | None:
    made = [variant for variant in variants if variant.path is not None]
    if recommendation is not None and recommendation.model is not None:
        return next(variant for variant in made if recommendation.takes(variant))

    def distance(variant: Variant) -> tuple[bool, bool, float]:
        excess = max(_excesses(variant, limits, params_m), default=0.0)
        return variant.model != "student", variant.failed_on_target is not None, excess

    return min(made, key=distance, default=None)


def _excesses(variant: Variant, limits: Limits, params_m: ParamsM) -> Iterator[float]:
    """Each value that is known, as a multiple of its limit."""
    latency = variant.measured or variant.latency_predicted
    for value, limit in (
        (None if latency is None else latency.latency_p50_ms, limits.max_latency_ms),
        (variant.size_mib, limits.max_size_mib),
        (params_m.get(variant.model), limits.max_params_m),
    ):
        if value is not None and limit is not None:
            yield value / limit


@dataclass(frozen=True)
class _Finding:
    """What is known of one limit; the fields are those of `Verdict`."""

    state: State
    sentence: str
    value: float | None = None
    interval: tuple[float, float] | None = None
    origin: Literal["measured", "merged", "predicted"] | None = None


def _finding(
    name: LimitName, judged: Variant | None, limits: Limits, target: DeviceProfile, params_m: ParamsM
) -> _Finding:
    if judged is None:
        return _Finding("unproven", f"Nothing was made that could hold {limits.called(name)}.")
    label = judged.label.capitalize()
    match name:
        case "max_latency_ms":
            return _latency(judged, limits, target)
        case "max_size_mib":
            value = judged.size_mib
            words = None if value is None else f"{label} is {limits.spelled(name, value)}"
        case "max_params_m":
            value = params_m.get(judged.model)
            words = None if value is None else f"The {judged.model} has {limits.spelled(name, value)}"
    if value is None:
        return _Finding("unproven", f"Nothing says whether {judged.label} holds {limits.called(name)}.")
    state, relation = _against(name, value, limits)
    return _Finding(state, f"{words}, {relation}.", value, origin="measured")


def _latency(judged: Variant, limits: Limits, target: DeviceProfile) -> _Finding:
    """Measured before predicted; a predicted one decides only where the user accepts that."""
    label, where = judged.label.capitalize(), f"on {place(target)}"
    found, elsewhere = judged.measured or judged.latency_predicted, other_mode(judged, target)
    if found is None:
        known = f"{label} was {elsewhere or f'not measured {where}'}"
        return _Finding("unproven", f"{known}: {limits.called('max_latency_ms')} is unproven.")
    state, relation = _against("max_latency_ms", found.latency_p50_ms, limits)
    interval = found.latency_p50_interval_ms
    if interval is not None and limits.max_latency_ms is not None and interval[0] < limits.max_latency_ms < interval[1]:
        relation += ", which lies inside the interval"
    if isinstance(found, Prediction):
        taken = approximate(found, " ms", limits.max_latency_ms)
        sentence = f"{label} is predicted to take {taken} {where}, {relation}"
        if limits.accept_predicted:
            sentence += "; predictions were accepted."
        else:
            known = f"it was {elsewhere}" if elsewhere else "nothing was measured there"
            state, sentence = "unproven", f"{sentence}; {known}."
    else:
        shaky = "" if found.stable else ", unstable,"
        span = "" if interval is None else f" ({significant(interval[0])} to {significant(interval[1])})"
        taken = f"{label} takes {limits.spelled('max_latency_ms', found.latency_p50_ms)}{span}{shaky} {where}"
        timed_ms, limit_ms = found.latency_p50_as_timed_ms, limits.max_latency_ms
        if timed_ms is not None and limit_ms is not None and holds(found, limit_ms) is None:
            state = "unproven"
            sentence = (
                f"{taken} at its reference pace, {beside(timed_ms, limit_ms)} ms as timed: "
                f"{limits.called('max_latency_ms')} lies between the two."
            )
        else:
            timed = as_timed(found)
            sentence = f"{taken}{'' if timed is None else f' at its reference pace, {timed}'}, {relation}."
    return _Finding(state, sentence, found.latency_p50_ms, interval, found.origin)


def _against(name: LimitName, value: float, limits: Limits) -> tuple[State, str]:
    """A value against its limit, and that in words."""
    held = value <= getattr(limits, name)
    return "held" if held else "missed", f"{'within' if held else 'above'} {limits.called(name)}"
