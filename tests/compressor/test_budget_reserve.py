"""What is kept back for the stages behind the training: more work is more time, and none is negative."""

from __future__ import annotations

from typing import Any

import pytest

from compressor.pipeline.budget import plan_choices, plan_warnings, schedule_in_words, seconds_after_training

RUN: dict[str, Any] = {
    "num_files": 6,
    "num_timed": 2,
    "num_threads": 2,
    "num_calibration": 500,
    "num_judged": 100,
    "cpu_query_seconds": 1e-3,
    "most_latency_s": 10.0,
}


@pytest.mark.parametrize("name", RUN)
def test_whatever_grows_takes_longer(name: str) -> None:
    more = {**RUN, name: 3 * RUN[name]}
    if name == "most_latency_s":  # it only bounds
        assert seconds_after_training(**more) == seconds_after_training(**RUN)
        more = {**RUN, name: 0.5}
        assert seconds_after_training(**more) < seconds_after_training(**RUN)
    else:
        assert seconds_after_training(**more) > seconds_after_training(**RUN) > 0.0


def test_timing_ends_where_the_user_says_so() -> None:
    slow = {**RUN, "cpu_query_seconds": 10.0, "num_calibration": 0, "num_judged": 0}
    assert seconds_after_training(**slow) < 4 * 10.0 + 60.0


def plan(steps: int, whole: int = 4000, *, fixed: bool = False, **changes: Any) -> dict[str, Any]:
    phase = {"name": "student", "whole": whole, "steps": steps, "fixed": fixed, "step_s": 0.104}
    facts = {"budget_s": 1800, "before_s": 20.0, "training_s": 1500.0, "after_s": 60.0, "factor": steps / whole}
    return {**facts, "phases": [phase], **changes}


def test_what_was_cut_is_said() -> None:
    assert plan_choices(plan(1200)) == [
        {"name": "student_steps", "value": "1,200 of 4,000", "reason": "--budget 30m; a step takes 104 ms"}
    ]
    assert schedule_in_words("full", {}, plan(1200)) == (
        "30.0 % of effort full fits into the budget: 1,200 of 4,000 student steps; about 25 min 00 s of training and "
        "1 min 00 s behind it"
    )
    assert plan_warnings(plan(1200), "full") == []


def test_less_than_a_quarter_is_a_warning() -> None:
    (warning,) = plan_warnings(plan(999), "standard")
    assert "leaves 25.0 % of effort standard's steps" in warning


def test_nothing_is_said_of_what_was_not_cut() -> None:
    assert plan_choices(plan(4000)) == []
    assert schedule_in_words("quick", {"student": 1500}, None) == "effort quick: 1,500 student steps"
    assert "the whole schedule of effort quick fits" in schedule_in_words("quick", {}, plan(4000))


def test_a_budget_that_cannot_hold_is_a_warning() -> None:
    (warning,) = plan_warnings(plan(4000, fixed=True, training_s=5000.0), "standard")
    assert "--budget 30m cuts nothing" in warning
