"""The probe: every method's loops end early, in all of their phases, and leave no trace in a training afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from compressor.distill.probe import LONG_CYCLE, Probe
from compressor.distill.training import Context, Stateful
from compressor.errors import Interrupted
from compressor.method_speed import Speed, measure_speed, steps_of
from compressor.methods import load_method, method_names

methods = pytest.mark.parametrize("name", method_names())


def speed_of(name: str, **changes: Any) -> Speed:
    return measure_speed(
        name,
        tiny.teacher(),
        tiny.backbone(),
        tiny.training_images(),
        tiny.settings(load_method(name).Config, **changes),
        most_seconds=0.0,
        device="cpu",
        precision="fp32",
    )


@methods
def test_every_phase_is_timed_under_the_name_of_its_steps(name: str) -> None:
    settings = tiny.settings(load_method(name).Config, **long(name))
    speed = speed_of(name, **long(name))
    assert speed.steps.keys() == steps_of(settings).keys()
    assert all(0.0 < step.seconds < 60.0 and step.first_seconds >= 0.0 for step in speed.steps.values())
    assert speed.setup_seconds > 0.0
    assert speed.cpu_query_seconds > 0.0
    assert speed.makes_images == (name not in ("vanilla", "noise", "pool", "kd3", "netgraft"))
    once, twice = steps_of(settings), {phase: 2 * count for phase, count in steps_of(settings).items()}
    assert speed.seconds_of(twice) == pytest.approx(2 * speed.seconds_of(once))


def long(name: str) -> dict[str, int]:
    """A schedule of which a probe must only see a part, to end."""
    return {field: 10**9 for field in load_method(name).Config.model_fields if field.endswith("_steps")}


@methods
def test_a_training_is_the_same_with_and_without_it(tmp_path: Path, name: str) -> None:
    students = []
    for probed in (False, True):
        if probed:
            speed_of(name)
        folder = tmp_path / str(probed)
        folder.mkdir()
        settings = tiny.settings(load_method(name).Config)
        images = tiny.training_images()
        context = Context(folder, seed=1)
        distilled = load_method(name).distill(tiny.teacher(), tiny.backbone(), images, settings, context)
        students.append(tiny.snapshot(distilled.student))
    assert tiny.equal(*students)


def watched(folder: Path, cycle: int, num_steps: int = 1000) -> list[int]:
    probe = Probe(folder, cycle=cycle, most_seconds=1e9)
    state: dict[str, Stateful] = {}
    return list(probe.steps("student", num_steps, state))


def test_whole_cycles_are_watched_all_over_the_schedule(tmp_path: Path) -> None:
    steps = watched(tmp_path, cycle=5)[2:]
    assert len(steps) % 5 == 0
    assert [step % 5 for step in steps] == [0, 1, 2, 3, 4] * (len(steps) // 5)
    assert min(steps) < 100
    assert max(steps) > 900
    assert 450 < sum(steps) / len(steps) < 550


def test_of_a_long_cycle_both_ends_are_watched_and_steps_between_them(tmp_path: Path) -> None:
    cycle = LONG_CYCLE + 4
    warm_up, first, *between, last = watched(tmp_path, cycle=cycle)
    assert (warm_up, first, last) == (0, 0, cycle - 1)
    assert {step % cycle for step in between} == {1, 2, 3, 4}


@pytest.mark.parametrize("cycle", [1, 3, 20])
def test_no_step_lies_outside_of_the_schedule(tmp_path: Path, cycle: int) -> None:
    for num_steps in (0, 1, 2, 17, 18, 40):
        assert all(0 <= step < num_steps for step in watched(tmp_path, cycle, num_steps))


def test_what_is_done_now_and_then_counts_by_how_often_it_is_done(tmp_path: Path) -> None:
    for every, expected in ((5, 1.0 + 10.0 / 5), (100, 1.0 + 10.0 / 100)):
        for at in (0, every - 1):
            clock = Counter(seconds=0.0)
            probe = Probe(tmp_path, cycle=every, most_seconds=1e9, clock=clock.total)
            for step in probe.steps("student", 100_000, {}):
                clock["seconds"] += 11.0 if step % every == at else 1.0
            assert probe.times["student"].seconds == pytest.approx(expected)


def test_a_batch_that_the_memory_does_not_hold_is_timed_in_parts(tmp_path: Path) -> None:
    probe = Probe(tmp_path, cycle=1, most_seconds=0.0)
    weight = torch.ones(1, requires_grad=True)

    def loss_of(rows: torch.Tensor) -> torch.Tensor:
        if len(rows) > 4:
            raise torch.OutOfMemoryError
        return (rows * weight).mean()

    steps: Iterator[int] = probe.steps("student", 100, {})
    parts = [probe.num_parts for _ in steps if probe.backward(loss_of, torch.ones(16))]
    assert set(parts) == {4}
    assert probe.times["student"].seconds > 0.0


def test_a_run_that_is_stopped_meanwhile_ends(tmp_path: Path) -> None:
    probe = Probe(tmp_path, cycle=1, most_seconds=1e9, should_stop=lambda: True)
    with pytest.raises(Interrupted, match="while its steps were timed"):
        next(probe.steps("student", 100, {}))
