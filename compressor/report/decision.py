"""The decision of a report in words: what was judged, and what came of it."""

from __future__ import annotations

from collections.abc import Iterator

from compressor.report.schema import Report
from compressor.report.text import count, joined

# Of reports whose schema had neither verdicts nor gates yet.
_WITHOUT_PARTS = {"fail": "a limit is not held", "warn": "not every limit is known to hold", "pass": "the limits hold"}
_QUANTITIES = {"max_latency_ms": "latency", "max_size_mib": "size", "max_params_m": "parameters"}


def decision_sentence(report: Report) -> str:
    """What passed is named, since nothing else was judged."""
    decision = report.summary.decision
    if decision == "ungated":
        return "No limit was asked for."
    said = joined(tuple(_parts(report)) or (_WITHOUT_PARTS[decision],))
    doubt = decision == "warn" and _all_hold(report)  # there was no image to say what the student is worth
    return f"{said[0].upper()}{said[1:]}{'; nothing says how good the student is' if doubt else ''}."


def _parts(report: Report) -> Iterator[str]:
    """Failing gates first, then limits, then what passes."""
    outcomes: list[str] = [gate.outcome for gate in report.gates]
    for outcome, verb in (("fail", "fail"), ("warn", "warn")):
        if number := outcomes.count(outcome):
            yield f"{count(number, 'gate')} {verb}{'s' if number == 1 else ''}"
    own = [verdict for verdict in report.verdicts if verdict.set_by == "user"]
    nothing_ships = report.recommendation is not None and report.recommendation.model is None
    if (nothing_ships and report.verdicts) or any(verdict.state == "missed" for verdict in own):
        yield "a limit is not held"
    elif own and all(verdict.state == "held" for verdict in own):
        held = [_QUANTITIES[verdict.name] for verdict in own]
        yield f"the limit{'' if len(held) == 1 else 's'} on {joined(held)} hold{'s' if len(held) == 1 else ''}"
    elif own or any(verdict.state == "missed" for verdict in report.verdicts):
        yield "not every limit is known to hold"
    if number := outcomes.count("pass"):
        yield f"{count(number, 'gate')} pass{'es' if number == 1 else ''}"


def _all_hold(report: Report) -> bool:
    return all(gate.outcome == "pass" for gate in report.gates) and {one.state for one in report.verdicts} <= {"held"}
