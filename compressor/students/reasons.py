"""Why a student was chosen, or none could be, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from compressor.errors import InputRefused
from compressor.report import text
from compressor.students.bounds import DIGITS, MOST_DIGITS, PREDICTED_DIGITS, Bound, Quantity
from compressor.students.trial import Row

CLOSEST = 3
FLAGS: dict[Quantity, str] = {
    "latency_ms": "--max-latency-ms",
    "size_mib": "--max-size-mib",
    "params_m": "--max-params-m",
}
KINDS = {"pruned": "pruned copy", "narrower": "narrower copy", "other": "other architecture"}


class NoStudentFits(InputRefused):
    """No candidate holds every limit; the message names the closest."""


def reason_of(chosen: Row, whole: Row, bounds: Sequence[Bound], given_up: Sequence[Bound]) -> str:
    """Why this one, then what was given up for it, or what is unproven.

    Args:
        whole: the teacher.
        bounds: everything that candidates were held to.
        given_up: those that no candidate holds.
    """
    share = text.percent(chosen.costs["macs_g"] / whole.costs["macs_g"])
    kind = KINDS[chosen.candidate.kind]
    held = [bound for bound in bounds if bound not in given_up and bound.source in ("limit", "wish")]
    known = [bound for bound in held if bound.quantity in chosen.costs]
    within = [bound.within(chosen.costs, _origin(chosen)) for bound in known]
    half = [bound for bound in bounds if bound.source == "half"]
    if half and half[0] in given_up:
        first = f"No candidate has half of the teacher's MACs or fewer; {chosen.candidate.spec} has the fewest, {share}"
    elif half:
        first = f"{chosen.candidate.spec} is the {kind} with the most MACs up to half of the teacher's, {share} of them"
    else:
        first = f"{chosen.candidate.spec} is the {kind} with the most MACs ({share} of the teacher's) that fits"
    sentences = [f"{first}: {'; '.join(within)}." if within else f"{first}."]
    sentences += [
        f"No candidate holds the target's wish of {most}; this one has {cost}."
        for cost, most in (
            bound.side_by_side(chosen.costs, _origin(chosen))
            for bound in given_up
            if bound.source == "wish" and bound.quantity in chosen.costs
        )
    ]
    return " ".join([*sentences, *_unproven(chosen, held)])


def no_faster(chosen: Row, whole: Row) -> str | None:
    """Said of a choice as slow as its teacher: fewer MACs help little where starting kernels takes the time."""
    student, teacher = chosen.candidate.latency, whole.candidate.latency
    if student is None or teacher is None or student.latency_p50_ms < teacher.latency_p50_ms:
        return None
    digits, about = (PREDICTED_DIGITS, "≈") if student.origin == "predicted" else (DIGITS, "")
    pair = student.latency_p50_ms, teacher.latency_p50_ms
    while pair[0] != pair[1] and digits < MOST_DIGITS and len({text.significant(ms, digits) for ms in pair}) == 1:
        digits += 1
    times = " against ".join(f"{about}{text.significant(ms, digits)} ms" for ms in pair)
    return f"{chosen.candidate.spec} is smaller but no faster than the teacher: {times} {student.origin}."


def nothing_fits(whole: Row, rows: Sequence[Row], bounds: Sequence[Bound]) -> NoStudentFits:
    """The refusal, with the candidates that come closest."""
    hard = [bound for bound in bounds if bound.hard]
    asked = [str(bound) for bound in hard if bound.source == "limit"]
    limits = f"within {text.joined(asked)}" if asked else "on this target"
    received = f"No student of {whole.candidate.spec} fits {limits}."
    made = [row for row in rows if row.candidate.failure is None]
    if not made:
        failures = " ".join(dict.fromkeys(row.candidate.failure or "" for row in rows))
        return NoStudentFits(received, f"No candidate could be made: {failures}", "Name a network with --student.")
    # One that its counts alone rule out was not timed, so it only seems close.
    closest = sorted(made, key=lambda row: (row.candidate.latency is None, row.excess(hard)))[:CLOSEST]
    shown = "; ".join(str(row.judged(hard)) for row in closest)
    expected = f"Of {text.count(len(made), 'candidate')} the closest are {shown}."
    return NoStudentFits(received, expected, _way_out(closest[0], hard))


def _way_out(closest: Row, hard: Sequence[Bound]) -> str:
    missed = {bound.quantity: bound for bound in closest.missed(hard)}
    if "macs_g" in missed:
        return "Deploy the teacher as it is, or name a network with --student."
    if "memory_gib" in missed:
        return "Choose a target with more memory, or a teacher for smaller images."
    raised = text.joined(
        f"{FLAGS[quantity]} above {text.significant(closest.costs[quantity], bound.digits(closest.costs))}"
        for quantity, bound in missed.items()
    )
    return f"Use {raised}, a faster target, or a smaller teacher."


def _origin(row: Row) -> str:
    return row.candidate.latency.origin if row.candidate.latency is not None else ""


def _unproven(chosen: Row, held: Sequence[Bound]) -> list[str]:
    """What is said of a limit of latency that is not known to be held."""
    limit = next((bound for bound in held if bound.quantity == "latency_ms"), None)
    if limit is None:
        return []
    latency = chosen.candidate.latency
    if latency is None:
        return [f"Without a latency, {limit} is unproven."]
    low, high = latency.latency_p50_interval_ms or (latency.latency_p50_ms, latency.latency_p50_ms)
    if high <= limit.most:
        return []
    digits = PREDICTED_DIGITS if latency.origin == "predicted" else DIGITS
    span = f"{text.significant(low, digits)} to {text.beside(high, limit.most, digits)} ms"
    return [f"The {latency.origin} latency may be {span}, so that it holds {limit} is unproven."]
