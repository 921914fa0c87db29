"""All that was judged in one run, in one form: gates, the user's limits and the target's wishes.

Every file that a pipeline reads takes its verdicts from here, so that none of them says anything else than another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compressor.report.gate_record import Outcome, State
from compressor.report.schema import Report
from compressor.report.shipping import Verdict

Kind = Literal["gate", "limit", "wish"]


@dataclass(frozen=True)
class Judgement:
    """One thing that was asked, what was found, and what follows.

    Attributes:
        name: unique among those of its kind.
        outcome: a wish of the target is never `fail`.
    """

    kind: Kind
    name: str
    state: State
    outcome: Outcome
    sentence: str

    @property
    def decided(self) -> bool:
        """Whether there was enough to judge by."""
        return self.state in ("held", "missed")


def judgements(report: Report) -> tuple[Judgement, ...]:
    """Gates first, in the order of the report."""
    gates = tuple(Judgement("gate", gate.name, gate.state, gate.outcome, gate.sentence) for gate in report.gates)
    return (*gates, *map(_of_limit, report.verdicts), *_nothing_ships(report))


def _of_limit(verdict: Verdict) -> Judgement:
    wish = verdict.set_by == "target"
    outcome: Outcome = "pass"
    if verdict.state == "missed":
        outcome = "warn" if wish else "fail"
    elif verdict.state == "unproven" and not wish:
        outcome = "warn"
    return Judgement("wish" if wish else "limit", verdict.name, verdict.state, outcome, verdict.sentence)


def _nothing_ships(report: Report) -> tuple[Judgement, ...]:
    """Each limit may be held by some artefact, and all of them by none."""
    found = report.recommendation
    if found is None or found.model is not None:
        return ()
    limited = any(verdict.set_by == "user" for verdict in report.verdicts)
    return (Judgement("limit", "an artefact to ship", "missed", "fail" if limited else "warn", found.reason),)
