"""One form for all that was judged, and it says of the run what its summary says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from judged import every_outcome

from compressor.report.judgements import judgements
from compressor.report.schema import Report
from compressor.report.shipping import Recommendation, Verdict
from compressor.report.verdicts import decision_of


def verdict(set_by: str, state: str) -> Verdict:
    return Verdict(
        name="max_latency_ms", set_by=set_by, artefact="student fp16", limit=1.0, state=state, sentence="Said."
    )


def test_gates_come_first_and_stay_as_they_are(build_report: Callable[..., Report]) -> None:
    report = build_report(gates=every_outcome())
    found = judgements(report)
    assert [one.kind for one in found] == ["gate"] * 9 + ["limit", "wish"]
    assert [(one.name, one.state, one.outcome) for one in found[:9]] == [
        (gate.name, gate.state, gate.outcome) for gate in report.gates
    ]


@pytest.mark.parametrize("set_by", ["user", "target"])
@pytest.mark.parametrize("state", ["held", "missed", "unproven"])
def test_a_limit_weighs_what_the_decision_gives_it(
    set_by: str, state: str, report: Report, build_report: Callable[..., Report]
) -> None:
    verdicts = (verdict(set_by, state),)
    (found,) = judgements(build_report(verdicts=verdicts))
    decision = decision_of(verdicts, report.recommendation)
    assert found.outcome == ("pass" if decision == "ungated" else decision)
    assert found.kind == ("wish" if set_by == "target" else "limit")


@pytest.mark.parametrize(("set_by", "outcome"), [("user", "fail"), ("target", "warn")])
def test_nothing_to_ship_is_said_even_where_each_limit_holds(
    set_by: str, outcome: str, build_report: Callable[..., Report]
) -> None:
    nothing = Recommendation(reason="No artefact holds the limits.")
    verdicts = (verdict(set_by, "held"),)
    found = judgements(build_report(verdicts=verdicts, recommendation=nothing))[-1]
    assert (found.outcome, found.sentence) == (outcome, nothing.reason)
    assert decision_of(verdicts, nothing) == outcome
