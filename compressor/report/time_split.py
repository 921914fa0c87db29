"""Where the time of a run went: training, and everything else; with a budget, beside what was planned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from compressor.durations import written
from compressor.report.schema import StageRecord, TimeBudget, TimeSplit
from compressor.report.text import duration, percent


def time_split(stages: Sequence[StageRecord], distillation: Mapping[str, Any], outside_s: float) -> TimeSplit:
    """Of stages that have finished.

    Args:
        distillation: the facts of the stage `distill`.
        outside_s: the time of the command outside of the stages that it ran.
    """
    training = sum(phase["seconds"] for phase in distillation["phases"])
    # A stage has the seconds of the session that finished it, a phase those of all.
    around = sum(max(0.0, stage.seconds - training * (stage.name == "distill")) for stage in stages)
    plan = distillation.get("budget")
    return TimeSplit(
        training_s=training,
        other_s=around + outside_s,
        budget=plan
        and TimeBudget(
            budget_s=plan["budget_s"],
            training_s=plan["training_s"],
            other_s=plan["before_s"] + plan["after_s"],
            share=plan["factor"],
        ),
    )


def time_lines(time: TimeSplit | None) -> Iterator[str]:
    """`Time: training 4 min 10 s, everything else 31.2 s, which is 11.1 % of all.`"""
    if time is None:
        return
    whole = time.training_s + time.other_s
    share = f", which is {percent(time.other_s / whole)} of all" if whole else ""
    yield f"Time: training {duration(time.training_s)}, everything else {duration(time.other_s)}{share}."
    if (budget := time.budget) is not None:
        given = written(int(budget.budget_s))
        yield (
            f"Budget {given}, {duration(whole)} of it used: {duration(budget.training_s)} were planned for "
            f"training, with {percent(budget.share)} of the effort's steps, and {duration(budget.other_s)} for "
            "everything else."
        )


def time_warnings(time: TimeSplit | None) -> Iterator[str]:
    """A budget that did not hold."""
    if time is None or time.budget is None:
        return
    whole, given = time.training_s + time.other_s, time.budget.budget_s
    if whole > given:
        yield f"The run took {duration(whole)}, longer than --budget {written(int(given))}."
