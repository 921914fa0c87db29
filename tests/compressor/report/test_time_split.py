"""Where the time went: what counts as training, what as everything else, and a budget beside what was used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from compressor.report.markdown import report_markdown
from compressor.report.schema import Report, StageRecord, TimeBudget, TimeSplit
from compressor.report.time_split import time_lines, time_split, time_warnings

PLAN = {"budget_s": 600, "before_s": 30.0, "training_s": 480.0, "after_s": 50.0, "factor": 0.31, "phases": []}


def stage(name: str, seconds: float, *, cached: bool = False) -> StageRecord:
    return StageRecord(name=name, cached=cached, seconds=seconds, fingerprint="0" * 64)


def facts(*seconds: float, **more: Any) -> dict[str, Any]:
    return {"phases": [{"seconds": value} for value in seconds], **more}


def test_training_is_the_phases_and_all_else_is_the_rest() -> None:
    stages = [stage("teacher", 2.0, cached=True), stage("distill", 105.0), stage("report", 8.0)]
    split = time_split(stages, facts(60.0, 40.0), outside_s=5.0)
    assert split.training_s == 100.0
    assert split.other_s == pytest.approx(2.0 + 5.0 + 8.0 + 5.0)  # 5 s of `distill` are no step
    assert split.budget is None
    assert list(time_lines(split)) == ["Time: training 1 min 40 s, everything else 20.0 s, which is 16.7 % of all."]


def test_a_training_of_several_sessions_counts_whole() -> None:
    split = time_split([stage("distill", 30.0), stage("report", 8.0)], facts(100.0), outside_s=0.0)
    assert (split.training_s, split.other_s) == (100.0, 8.0)


def test_a_budget_stands_beside_what_was_used() -> None:
    split = time_split([stage("distill", 500.0), stage("report", 80.0)], facts(500.0, budget=PLAN), outside_s=0.0)
    assert split.budget == TimeBudget(budget_s=600.0, training_s=480.0, other_s=80.0, share=0.31)
    assert list(time_lines(split))[1] == (
        "Budget 10m, 9 min 40 s of it used: 8 min 00 s were planned for training, with 31.0 % of the effort's steps, "
        "and 1 min 20 s for everything else."
    )
    assert list(time_warnings(split)) == []


def test_a_budget_that_did_not_hold_is_a_warning() -> None:
    split = time_split([stage("distill", 700.0)], facts(700.0, budget=PLAN), outside_s=0.0)
    assert list(time_warnings(split)) == ["The run took 11 min 40 s, longer than --budget 10m."]
    assert list(time_warnings(None)) == []


def test_report_md_says_it(build_report: Callable[..., Report]) -> None:
    report = build_report(time=TimeSplit(training_s=400.0, other_s=20.0))
    assert "Time: training 6 min 40 s, everything else 20.0 s, which is 4.8 % of all." in report_markdown(report)
    assert "Time: training" not in report_markdown(build_report(time=None))
    nothing = report_markdown(build_report(time=TimeSplit(training_s=0.0, other_s=0.0)))
    assert "Time: training 0.0 s, everything else 0.0 s." in nothing
