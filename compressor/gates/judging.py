"""What each gate finds in a report, in a record and a sentence, and what follows for the run.

An interval is judged by its worse end: a minimum holds if all of the interval is above it. What may be lost against the
teacher is judged on the interval of pairs; what may be lost against an earlier report on the values, because the worse
end would fail the very artefact of that report. A number that is not there, on too few images, or not to be compared
with the baseline's, has not been shown to hold, so it counts like one that does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compressor.gates.gate import RELATIVE, Gate
from compressor.gates.metrics import METRICS, UNITS, Found, Lost, Metric, incomparable, judged_artefact
from compressor.gates.wording import number, with_interval
from compressor.report.gate_record import GateResult, Outcome, State
from compressor.report.intervals import images_needed
from compressor.report.schema import Report
from compressor.report.shipping import Variant
from compressor.report.summary import limits_decision
from compressor.report.text import as_typed, count, significant
from compressor.report.verdicts import Decision

OUTCOME_RANK: dict[str, int] = {"ungated": 0, "pass": 1, "warn": 2, "fail": 3}


def judge(
    report: Report, gates: Sequence[Gate], baseline: Report | None = None, *, require_measured: bool = False
) -> tuple[GateResult, ...]:
    """One result for each gate, in their order.

    Args:
        baseline: the earlier report of those gates that limit a regression.
        require_measured: whether a latency that is only predicted fails.
    """
    return tuple(_judge(report, gate, baseline, require_measured=require_measured) for gate in gates)


def decide(report: Report, results: Iterable[GateResult]) -> Decision:
    """What limits and gates say of the run together: the worst of them; ungated only where there are neither."""
    words: list[Decision] = [limits_decision(report), *(result.outcome for result in results)]
    return max(words, key=lambda word: OUTCOME_RANK[word])


# --- one gate ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Judged:
    """What is held against the limit, in its unit: the metric, or what is lost of it; and that at the worse end."""

    value: float
    worst: float
    reference: float | None = None


def _judge(report: Report, gate: Gate, baseline: Report | None, *, require_measured: bool) -> GateResult:
    metric = METRICS[gate.metric]
    variant = judged_artefact(report, gate.artefact or metric.artefact)
    found = None if variant is None else metric.find(report, variant, gate.images)
    judged: _Judged | None = None
    state: State
    if variant is None or found is None:
        state, sentence = "missing", _missing(report, gate, metric, variant)
    elif found.n is not None and found.n < gate.min_samples:
        state, sentence = "too_few", _too_few(gate, metric, variant, found)
    else:
        state, judged, sentence = _compared(report, gate, metric, variant, found, baseline)
    return GateResult(
        name=gate.name,
        metric=gate.metric,
        artefact=gate.artefact if variant is None else variant.label,
        images=None if found is None else found.images,
        rule=gate.rule,
        limit=gate.limit,
        severity=gate.severity,
        min_samples=gate.min_samples,
        judged=gate.judged,
        value=None if found is None else found.value,
        low=None if found is None else found.low,
        high=None if found is None else found.high,
        n=None if found is None else found.n,
        reference=None if judged is None else judged.reference,
        change=None if judged is None or gate.rule in ("min", "max") else judged.value,
        origin=None if found is None else found.origin,
        state=state,
        outcome=_outcome(state, gate, require_measured=require_measured),
        more_images=_more_images(gate, found, state),
        sentence=sentence,
    )


def _outcome(state: State, gate: Gate, *, require_measured: bool) -> Outcome:
    if state == "held":
        return "pass"
    if state == "unproven" and not require_measured:
        return "warn"
    return gate.severity


def _compared(
    report: Report, gate: Gate, metric: Metric, variant: Variant, found: Found, baseline: Report | None
) -> tuple[State, _Judged | None, str]:
    """The state, what was held against the limit, and the sentence, of a metric that the report has."""
    if gate.rule in ("min", "max"):
        end = found.low if gate.rule == "min" else found.high
        judged = _Judged(found.value, found.value if end is None else end)
    elif gate.rule in ("max_drop", "max_drop_relative"):
        lost = metric.reference(report, variant, found.images) if metric.reference is not None else None
        if lost is None:
            return "missing", None, f"{_whose(variant, metric)} is not known beside the teacher's on the same images."
        judged = _in_unit(gate, lost)
    else:
        earlier, why = _of_baseline(report, gate, metric, baseline, found)
        if earlier is None:
            state: State = "missing" if baseline is None else "stale"
            return state, None, f"{_whose(variant, metric)} cannot be compared with an earlier one: {why}."
        worse = earlier.value - found.value if metric.better == "higher" else found.value - earlier.value
        end = found.low if metric.better == "higher" else found.high
        further = 0.0 if end is None else abs(end - found.value)
        judged = _in_unit(gate, Lost(earlier.value, worse, worse + further))
        if earlier.origin == "predicted":
            found = Found(**{**vars(found), "origin": "predicted"})
    decisive = judged.worst if gate.judged == "interval" else judged.value
    held = decisive >= gate.limit if gate.rule == "min" else decisive <= gate.limit
    sentence = _sentence(gate, metric, variant, found, judged, held=held)
    if found.origin == "predicted":
        return "unproven", judged, f"{sentence} It is only predicted."
    return "held" if held else "missed", judged, sentence


def _in_unit(gate: Gate, lost: Lost) -> _Judged:
    """Relative rules divide by the reference, of which nothing makes every loss more than any limit.

    Without the rounding of 0.984 - 0.974, which would be above a limit of 0.01.
    """
    scale = abs(lost.reference) if gate.rule in RELATIVE else 1.0
    change, worst = (
        round(part / scale, 12) if scale else 0.0 if part <= 0 else 1e9 for part in (lost.change, lost.worst)
    )
    return _Judged(change, worst, lost.reference)


def _of_baseline(
    report: Report, gate: Gate, metric: Metric, baseline: Report | None, found: Found
) -> tuple[Found | None, str]:
    """The metric in the earlier report, or why it cannot be compared."""
    if baseline is None:
        return None, "no --baseline was given to compare with"
    variant = judged_artefact(baseline, gate.artefact or metric.artefact)
    earlier = None if variant is None else metric.find(baseline, variant, found.images)
    if earlier is None:
        return None, "the baseline does not have this number"
    reason = incomparable(metric, (baseline, earlier), (report, found))
    return (earlier, "") if reason is None else (None, f"the baseline's is {reason}")


def _more_images(gate: Gate, found: Found | None, state: State) -> int | None:
    """How many more would narrow the interval to the right side of the limit, if the share stays as it is."""
    if found is None or found.n is None or found.images is None or found.low is None:
        return None
    if state == "too_few":
        return gate.min_samples - found.n
    all_of_it = gate.rule == "max_drop" and METRICS[gate.metric].of_teacher  # the least that may be left
    if state != "missed" or gate.judged == "value" or not (gate.rule in ("min", "max") or all_of_it):
        return None
    limit = 1 - gate.limit if all_of_it else gate.limit
    needed = images_needed(found.value, limit, side="high" if gate.rule == "max" else "low")
    return None if needed is None or needed <= found.n else needed - found.n


# --- in words ---------------------------------------------------------------------------------------------------------


def _whose(variant: Variant, metric: Metric) -> str:
    return f"{variant.label.capitalize()}: its {metric.title}"


def _missing(report: Report, gate: Gate, metric: Metric, variant: Variant | None) -> str:
    if variant is None and gate.artefact is not None:
        labels = ", ".join(one.label for one in report.variants if one.path is not None)
        return f"There is no artefact {gate.artefact!r}; made were {labels or 'none'}."
    if variant is None:
        return f"Nothing was made of which to tell the {metric.title}."
    if metric.artefact is not None and variant.label != metric.artefact:
        return f"The {metric.title} is known of {metric.artefact} alone."
    where = "" if gate.images is None else f" on {_SETS[gate.images]}"
    return f"{_whose(variant, metric)} is not known{where}."


_SETS = {"evidence": "held-out images", "eval": "--eval images"}


def _too_few(gate: Gate, metric: Metric, variant: Variant, found: Found) -> str:
    noun = "image" if metric.on_images else "call"
    assert found.n is not None
    on = count(found.n, noun)
    more = count(gate.min_samples - found.n, f"more {noun}")
    return f"{_whose(variant, metric)} is known on {on}, and the gate asks for {gate.min_samples:,}: {more} would do."


def _sentence(gate: Gate, metric: Metric, variant: Variant, found: Found, judged: _Judged, *, held: bool) -> str:
    """What was found, against what, and which end of the interval decided."""
    value = with_interval(metric, found, gate.limit if gate.rule in ("min", "max") else None)
    shaky = "" if found.stable else ", unstable"
    said = f"{_whose(variant, metric)} is {value}{shaky}{_images(metric, found)}"
    relation = _relation(gate, metric, held=held)
    if gate.rule in ("min", "max"):
        if gate.judged == "value" or judged.worst == judged.value:
            return f"{said}, {relation}."
        inside = (judged.value >= gate.limit) if gate.rule == "min" else (judged.value <= gate.limit)
        end = number(metric.unit, judged.worst, gate.limit)
        if held or not inside:
            return f"{said}; its worse end, {end}, is {relation}."
        return (
            f"{said}; the value would hold, but the interval's worse end, {end}, is {relation}.{_enough(gate, found)}"
        )
    against = "the teacher's" if gate.rule.startswith("max_drop") else "the baseline's"
    reference = "" if judged.reference is None else f" against {against} {number(metric.unit, judged.reference)}"
    change = _change(gate, metric, judged.value)
    if gate.judged == "value" or judged.worst == judged.value:
        return f"{said}{reference}: {change}, {relation}."
    inside = judged.value <= gate.limit
    worst = _amount(gate, metric, judged.worst)
    what = f"at most {worst} {'lost' if metric.better == 'higher' else 'more'}" if judged.worst > 0 else "none"
    if held or not inside:
        return f"{said}{reference}: {change}, {what} by its interval, {relation}."
    said += f"{reference}: {change}, which would hold; by its interval it may be {worst}, {relation}."
    return said + _enough(gate, found)


def _enough(gate: Gate, found: Found) -> str:
    """How many more images would do, as a sentence after others."""
    more = _more_images(gate, found, "missed")
    if more is None:
        return ""
    of_class = " of that class" if gate.metric == "worst_class_agreement" else ""
    return f" About {count(more, 'more image')}{of_class} would narrow it enough, were the share equal."


def _relation(gate: Gate, metric: Metric, *, held: bool) -> str:
    if gate.rule in ("min", "max"):
        limit = number(metric.unit, gate.limit, typed=True)
        side = {"min": ("at or above the minimum", "below the minimum"), "max": ("within the limit", "above the limit")}
        return f"{side[gate.rule][0 if held else 1]} of {limit}"
    limit = _amount(gate, metric, gate.limit, typed=True)
    allowed = "lost" if metric.better == "higher" else "added"
    return f"{'within' if held else 'above'} the {limit} that may be {allowed}"


def _change(gate: Gate, metric: Metric, change: float) -> str:
    if change == 0:
        return "nothing is lost" if metric.better == "higher" else "no more"
    amount = _amount(gate, metric, abs(change))
    if metric.better == "higher":
        return f"{amount} lost" if change > 0 else f"{amount} gained"
    return f"{amount} more" if change > 0 else f"{amount} less"


def _amount(gate: Gate, metric: Metric, value: float, *, typed: bool = False) -> str:
    """A loss: of a share in points, relative to something in per cent, otherwise in the metric's unit."""
    shown = as_typed if typed else significant
    if gate.rule in RELATIVE:
        return f"{shown(round(100 * value, 9))} %"
    if metric.unit == "share":
        text = shown(round(100 * value, 9))
        return f"{text} point" if text in ("1", "1.00") else f"{text} points"
    return f"{shown(value)}{UNITS[metric.unit]}"


def _images(metric: Metric, found: Found) -> str:
    if found.images is None or found.n is None:
        return ""
    noun = {"evidence": "held-out image", "eval": "--eval image"}[found.images]
    return f" {'of' if found.low is not None and metric.unit == 'share' else 'on'} {count(found.n, noun)}"
