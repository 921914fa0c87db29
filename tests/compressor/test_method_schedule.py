"""A schedule is cut by one factor, never lengthened, and never below what is worth training."""

from __future__ import annotations

import random

import pytest

from compressor.method_schedule import LEAST, Schedule, whole_schedule
from compressor.method_speed import steps_of
from compressor.methods import load_method, method_names

WHOLE = {"generator": 3000, "student": 4000}
STEP_S = {"generator": 0.05, "student": 0.1}  # 550 seconds in all

every_situation = pytest.mark.parametrize(
    ("name", "effort", "device"),
    [
        (name, effort, device)
        for name in method_names()
        for effort in ("quick", "standard", "full")
        for device in ("cpu", "cuda")
    ],
)


def cost(schedule: Schedule) -> float:
    return sum(count * STEP_S.get(phase, 0.0) for phase, count in schedule.steps.items())


def of(name: str, effort: str, device: str) -> dict[str, int]:
    method = load_method(name)
    return steps_of(method.Config(**method.defaults(effort, (3, 32, 32), device)))


def test_all_phases_are_cut_by_the_same_factor() -> None:
    schedule = whole_schedule(WHOLE, ()).within(55.0, STEP_S)
    assert schedule.factor == pytest.approx(0.1)
    assert schedule.steps == {"generator": 300, "student": 400}
    assert schedule.cut


def test_nothing_is_lengthened() -> None:
    schedule = whole_schedule(WHOLE, ()).within(1e9, STEP_S)
    assert schedule.steps == WHOLE
    assert (schedule.factor, schedule.cut) == (1.0, False)


def test_what_is_cut_fits_whatever_the_numbers_are() -> None:
    draw = random.Random(0)
    for _ in range(2000):
        whole = {"generator": draw.choice((0, 1, 7, 3000)), "student": draw.randint(1, 80_000)}
        fixed = draw.choice(((), ("generator",), ("student",), ("generator", "student")))
        seconds = draw.uniform(0.0, 2000.0)
        schedule = whole_schedule(whole, fixed).within(seconds, STEP_S)
        assert all(0 <= schedule.steps[phase] <= count for phase, count in whole.items())
        assert all(schedule.steps[phase] == whole[phase] for phase in fixed)
        assert all(count > 0 for phase, count in schedule.steps.items() if whole[phase])
        cuttable = [phase for phase, count in whole.items() if count and phase not in fixed]
        if cuttable and all(schedule.steps[phase] > 1 for phase in cuttable):
            assert cost(schedule) <= seconds + 1e-6
        if schedule.factor < 1.0 and cuttable:  # nothing is left over but the fraction of a step
            rest = seconds - cost(schedule)
            assert rest <= sum(STEP_S[phase] for phase in cuttable) + 1e-6


def test_phases_that_the_user_fixed_are_paid_first() -> None:
    schedule = whole_schedule(WHOLE, ("student",)).within(415.0, STEP_S)
    assert schedule.steps == {"generator": 300, "student": 4000}
    assert whole_schedule(WHOLE, ("student",)).within(400.0, STEP_S).factor == 0.0


def test_where_the_user_fixed_all_phases_nothing_is_cut() -> None:
    schedule = whole_schedule(WHOLE, WHOLE).within(1.0, STEP_S)
    assert (schedule.steps, schedule.factor) == (WHOLE, 1.0)


def test_a_phase_that_the_method_leaves_out_costs_nothing() -> None:
    schedule = whole_schedule(WHOLE, ()).within(40.0, {"student": 0.1})
    assert schedule.steps == {"generator": 300, "student": 400}


@every_situation
def test_the_least_is_a_share_of_the_quick_schedule_in_every_phase(name: str, effort: str, device: str) -> None:
    whole, quick = of(name, effort, device), of(name, "quick", device)
    least = whole_schedule(whole, ()).at_least(quick)
    assert 0.0 < least.factor <= 1.0
    assert all(int(LEAST * quick[phase]) <= count <= whole[phase] for phase, count in least.steps.items())


@every_situation
def test_every_method_has_settings_for_the_steps_that_are_left(name: str, effort: str, device: str) -> None:
    method, whole = load_method(name), of(name, effort, device)
    assert "student" in whole
    settings = method.Config(**method.defaults(effort, (3, 32, 32), device))
    for factor in (1.0, 0.3, 1e-6):
        left = Schedule(whole, frozenset(), factor).steps
        cut = method.Config(**{**settings.model_dump(), **{f"{phase}_steps": count for phase, count in left.items()}})
        assert steps_of(cut) == left
        others = {key: value for key, value in cut if not key.endswith("_steps")}
        assert others == {key: value for key, value in settings if not key.endswith("_steps")}
