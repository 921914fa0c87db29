"""Each limit is held, missed or unproven, by what was measured, sent back or predicted; and what that decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from compressor.report.limits import UNCOUNTED, Limits, ParamsM
from compressor.report.predicted import Prediction
from compressor.report.recommend import recommend
from compressor.report.shipping import LimitName, Recommendation, Variant, Verdict
from compressor.report.verdicts import decision_of, verdicts_of
from profiles.catalogue import load_target
from profiles.latency import LatencyStats

JETSON, CPU = load_target("jetson-orin-nano-super"), load_target("cpu")
WISH: tuple[LimitName, ...] = ("max_latency_ms",)


def judged(
    rows: Sequence[Variant], limits: Limits, params_m: ParamsM = UNCOUNTED
) -> tuple[tuple[Verdict, ...], Recommendation | None]:
    found = recommend(rows, (), limits, JETSON, params_m)
    return verdicts_of(rows, found, limits, JETSON, params_m), found


@pytest.fixture
def board(variant: Callable[..., Variant], latency: Callable[..., LatencyStats]) -> Callable[..., Variant]:
    """The student's fp16 with a p50 that the target sent back."""

    def make(p50_ms: float, **changes: Any) -> Variant:
        values = {"origin": "merged", "is_target": True, "latency_p50_interval_ms": None, **changes}
        return variant("student", "fp16", latency_target=latency(p50_ms, **values))

    return make


@pytest.fixture
def guessed(variant: Callable[..., Variant], prediction: Callable[..., Prediction]) -> Callable[..., Variant]:
    """The student's fp16 with a predicted p50, known to a quarter."""
    return lambda p50_ms: variant("student", "fp16", latency_predicted=prediction(p50_ms))


def test_without_limits_there_is_no_verdict_and_a_person_judges(board: Callable[..., Variant]) -> None:
    verdicts, found = judged([board(3.0)], Limits())
    assert verdicts == ()
    assert decision_of(verdicts, found) == "ungated"


def test_each_limit_that_is_set_is_judged_on_what_ships(board: Callable[..., Variant]) -> None:
    limits = Limits(max_latency_ms=5.0, max_size_mib=1.0, max_params_m=0.1, wishes=("max_size_mib",))
    verdicts, found = judged([board(3.0)], limits, {"student": 0.0713})
    assert [(one.name, one.set_by, one.state, one.value, one.origin) for one in verdicts] == [
        ("max_latency_ms", "user", "held", 3.0, "merged"),
        ("max_size_mib", "target", "held", 0.29, "measured"),
        ("max_params_m", "user", "held", 0.0713, "measured"),
    ]
    assert [one.sentence for one in verdicts] == [
        f"Student fp16 takes 3.00 ms on {JETSON.title}, within the limit of 5 ms.",
        "Student fp16 is 0.290 MiB, within the target's wish of 1 MiB.",
        "The student has 0.0713 M parameters, within the limit of 0.1 M parameters.",
    ]
    assert {one.artefact for one in verdicts} == {"student fp16"}
    assert decision_of(verdicts, found) == "pass"


def test_a_prediction_alone_proves_nothing(guessed: Callable[..., Variant]) -> None:
    for p50_ms, relation in ((3.0, "within"), (6.0, "above")):
        (verdict,), found = judged([guessed(p50_ms)], Limits(max_latency_ms=5.0))
        assert (verdict.state, verdict.origin, verdict.value) == ("unproven", "predicted", p50_ms)
        assert verdict.interval == (0.75 * p50_ms, 1.25 * p50_ms)
        assert f", {relation} the limit of 5 ms" in verdict.sentence
        assert verdict.sentence.endswith("nothing was measured there.")
        assert decision_of([verdict], found) == "warn"


@pytest.mark.parametrize(
    ("p50_ms", "state", "decision", "words"),
    [
        (3.0, "held", "pass", "≈3.0 ms (2.2 to 3.8) on {}, within the limit of 5 ms; predictions were accepted."),
        (
            4.5,
            "held",
            "pass",
            "≈4.5 ms (3.4 to 5.6) on {}, within the limit of 5 ms, which lies inside the interval; predictions were "
            "accepted.",
        ),
        (
            5.5,
            "missed",
            "fail",
            "≈5.5 ms (4.1 to 6.9) on {}, above the limit of 5 ms, which lies inside the interval; predictions were "
            "accepted.",
        ),
    ],
)
def test_an_accepted_prediction_decides_by_its_median(
    guessed: Callable[..., Variant], p50_ms: float, state: str, decision: str, words: str
) -> None:
    (verdict,), found = judged([guessed(p50_ms)], Limits(max_latency_ms=5.0, accept_predicted=True))
    assert (verdict.state, decision_of([verdict], found)) == (state, decision)
    assert verdict.sentence == f"Student fp16 is predicted to take {words.format(JETSON.title)}"


def test_a_measurement_is_judged_even_where_predictions_are_accepted(
    board: Callable[..., Variant], prediction: Callable[..., Prediction]
) -> None:
    row = board(3.0).model_copy(update={"latency_predicted": prediction(9.0)})
    (verdict,), _ = judged([row], Limits(max_latency_ms=5.0, accept_predicted=True))
    assert (verdict.state, verdict.origin, verdict.value) == ("held", "merged", 3.0)


def test_another_power_mode_proves_nothing_and_both_are_named(
    board: Callable[..., Variant], prediction: Callable[..., Prediction]
) -> None:
    target, limits = load_target("jetson@15W"), Limits(max_latency_ms=2.5)
    blind = board(2.1, other_power_mode="MAXN_SUPER")
    found = recommend([blind], (), limits, target)
    (verdict,) = verdicts_of([blind], found, limits, target)
    assert (verdict.state, verdict.value, verdict.origin) == ("unproven", None, None)
    assert verdict.sentence == (
        "Student fp16 was measured in power mode MAXN_SUPER (2.10 ms), not in 15W: the limit of 2.5 ms is unproven."
    )
    assert decision_of([verdict], found) == "warn"
    row = blind.model_copy(update={"latency_predicted": prediction(3.0)})
    (verdict,) = verdicts_of([row], recommend([row], (), limits, target), limits, target)
    assert (verdict.state, verdict.value, verdict.origin) == ("unproven", 3.0, "predicted")
    assert verdict.sentence.endswith(
        "above the limit of 2.5 ms, which lies inside the interval; it was measured in power mode MAXN_SUPER "
        "(2.10 ms), not in 15W."
    )
    trusting = Limits(max_latency_ms=2.5, accept_predicted=True)
    (verdict,) = verdicts_of([row], recommend([row], (), trusting, target), trusting, target)
    assert (verdict.state, verdict.origin) == ("missed", "predicted")


def test_a_limit_inside_a_measured_interval_is_said_and_so_is_unrest(board: Callable[..., Variant]) -> None:
    row = board(4.9, latency_p50_interval_ms=(4.7, 5.2), stable=False)
    (verdict,), _ = judged([row], Limits(max_latency_ms=5.0))
    assert verdict.state == "held"
    assert verdict.sentence == (
        f"Student fp16 takes 4.90 ms (4.70 to 5.20), unstable, on {JETSON.title}, within the limit of 5 ms, which "
        "lies inside the interval."
    )


def test_a_near_miss_is_seen_to_be_one(board: Callable[..., Variant], guessed: Callable[..., Variant]) -> None:
    for row, limits, words in (
        (board(0.61254), Limits(max_latency_ms=0.6125), "takes 0.613 ms on {}, above the limit of 0.6125 ms"),
        (board(0.6134), Limits(max_latency_ms=0.613), "takes 0.6134 ms on {}, above the limit of 0.613 ms"),
        (guessed(0.6134), Limits(max_latency_ms=0.61), "≈0.613 ms (0.46 to 0.77) on {}, above the limit of 0.61 ms"),
    ):
        (verdict,), _ = judged([row], limits)
        assert words.format(JETSON.title) in verdict.sentence


def test_what_is_not_known_is_unproven(variant: Callable[..., Variant]) -> None:
    limits = Limits(max_latency_ms=5.0, max_params_m=1.0)
    verdicts, found = judged([variant("student", "fp32")], limits)
    assert [(one.state, one.value, one.origin) for one in verdicts] == [("unproven", None, None)] * 2
    assert verdicts[0].sentence == (f"Student fp32 was not measured on {JETSON.title}: the limit of 5 ms is unproven.")
    assert verdicts[1].sentence == "Nothing says whether student fp32 holds the limit of 1 M parameters."
    assert decision_of(verdicts, found) == "warn"
    (nothing,) = verdicts_of((), None, Limits(max_latency_ms=5.0), JETSON)
    assert (nothing.artefact, nothing.state) == (None, "unproven")
    assert nothing.sentence == "Nothing was made that could hold the limit of 5 ms."
    assert decision_of([nothing], None) == "warn"


def test_where_nothing_holds_the_limits_the_closest_of_the_student_is_judged(
    board: Callable[..., Variant], variant: Callable[..., Variant], latency: Callable[..., LatencyStats]
) -> None:
    there = {"origin": "merged", "is_target": True}
    rows = [
        variant("student", "fp32", size_mib=0.9, latency_target=latency(9.0, **there)),
        board(6.0),
        variant("student", "int8", size_mib=2.0, latency_target=latency(1.0, **there), failed_on_target="It is wrong."),
        variant("teacher", "fp32", size_mib=0.9, latency_target=latency(5.1, **there)),
    ]
    verdicts, found = judged(rows, Limits(max_latency_ms=5.0, max_size_mib=1.0))
    assert found is not None
    assert found.model is None
    assert [(one.artefact, one.state) for one in verdicts] == [("student fp16", "missed"), ("student fp16", "held")]
    assert decision_of(verdicts, found) == "fail"
    # Nothing ships, though what is known of it holds: the board says that its outputs are wrong.
    verdicts, found = judged([rows[2]], Limits(max_latency_ms=5.0))
    assert [one.state for one in verdicts] == ["held"]
    assert decision_of(verdicts, found) == "fail"
    assert decision_of((), found) == "warn"


def test_a_wish_warns_where_it_is_missed_and_is_silent_where_it_is_unproven(
    board: Callable[..., Variant], guessed: Callable[..., Variant]
) -> None:
    verdicts, found = judged([board(40.0)], Limits(max_latency_ms=33.3, wishes=WISH))
    assert [(one.set_by, one.state) for one in verdicts] == [("target", "missed")]
    assert verdicts[0].sentence == f"Student fp16 takes 40.0 ms on {JETSON.title}, above the target's wish of 33.3 ms."
    assert found is not None
    assert found.model == "student"
    assert decision_of(verdicts, found) == "warn"
    verdicts, found = judged([guessed(3.0)], Limits(max_latency_ms=33.3, wishes=WISH))
    assert decision_of(verdicts, found) == "ungated"
    verdicts, found = judged([guessed(3.0)], Limits(max_latency_ms=33.3, max_size_mib=1.0, wishes=WISH))
    assert [one.state for one in verdicts] == ["unproven", "held"]
    assert decision_of(verdicts, found) == "warn"


def test_the_engine_that_ships_is_judged_and_not_the_file_of_its_precision(
    board: Callable[..., Variant], latency: Callable[..., LatencyStats]
) -> None:
    fast = latency(1.0, origin="merged", is_target=True)
    engine = board(1.0).model_copy(update={"format": "engine", "path": "engine/x.engine", "latency_target": fast})
    (verdict,), _ = judged([board(4.0), engine], Limits(max_latency_ms=5.0))
    assert (verdict.artefact, verdict.value) == ("student fp16 engine", 1.0)


@pytest.mark.parametrize(("p50_ms", "as_timed_ms"), [(1.81, 1.97), (1.97, 1.81)])
def test_a_limit_between_the_reference_pace_and_what_was_timed_is_unproven(
    board: Callable[..., Variant], p50_ms: float, as_timed_ms: float
) -> None:
    paced = {"pace": p50_ms / as_timed_ms, "latency_p50_as_timed_ms": as_timed_ms}
    (verdict,), found = judged([board(p50_ms, **paced)], Limits(max_latency_ms=1.9))
    assert (verdict.state, verdict.value) == ("unproven", p50_ms)
    assert verdict.sentence == (
        f"Student fp16 takes {p50_ms} ms on {JETSON.title} at its reference pace, {as_timed_ms} ms as timed: the limit "
        "of 1.9 ms lies between the two."
    )
    assert found is not None
    assert found.model == "student"  # what is unknown excludes nothing
    assert decision_of([verdict], found) == "warn"
    for limit_ms, state, relation in ((2.5, "held", "within"), (1.5, "missed", "above")):
        (verdict,), _ = judged([board(p50_ms, **paced)], Limits(max_latency_ms=limit_ms))
        assert verdict.state == state
        assert f"{as_timed_ms} ms as timed, {relation} the limit" in verdict.sentence


def test_what_was_timed_at_the_reference_pace_is_said_once(board: Callable[..., Variant]) -> None:
    (verdict,), _ = judged([board(3.0, pace=0.99, latency_p50_as_timed_ms=3.03)], Limits(max_latency_ms=5.0))
    assert verdict.sentence == f"Student fp16 takes 3.00 ms on {JETSON.title}, within the limit of 5 ms."


def test_a_teacher_that_holds_a_limit_at_one_pace_alone_does_not_suffice(
    variant: Callable[..., Variant], latency: Callable[..., LatencyStats]
) -> None:
    paced = latency(1.8, origin="merged", is_target=True, pace=0.9, latency_p50_as_timed_ms=2.0)
    rows = [variant("teacher", "fp32", latency_target=paced), variant("student", "fp32")]
    for limit_ms, suffices in ((1.9, False), (2.1, True)):
        found = recommend(rows, (), Limits(max_latency_ms=limit_ms), JETSON)
        assert found is not None
        assert (found.teacher_suffices is not None) == suffices
