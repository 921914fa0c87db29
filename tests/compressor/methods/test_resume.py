"""Every method, stopped or killed anywhere, ends with the same bits on a CPU; the same seed gives the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from compressor.distill.training import Context, read_log
from compressor.errors import Interrupted, StageFailed
from compressor.methods import load_method, method_names
from compressor.students.student import Backbone

STEPS = 6  # of every phase

methods = pytest.mark.parametrize("name", method_names())


class Killed(BaseException):
    """Stands for SIGKILL."""


@dataclass(frozen=True)
class Result:
    student: dict[str, Tensor]
    generator: dict[str, Tensor]
    facts: str
    rows: list[tuple[str, int]]

    def assert_same(self, other: Result) -> None:
        assert tiny.equal(self.student, other.student)
        assert tiny.equal(self.generator, other.generator)
        assert self.facts == other.facts
        assert self.rows == other.rows


def run(
    name: str,
    folder: Path,
    should_stop: Callable[[], bool] = lambda: False,
    *,
    seed: int = 1,
    make_backbone: Callable[[], Backbone] = tiny.backbone,
    **changes: Any,
) -> Result:
    method = load_method(name)
    config = method.Config
    steps = {field: STEPS for field in config.model_fields if field.endswith("_steps")}
    context = Context(folder, seed=seed, should_stop=should_stop)
    distilled = method.distill(
        tiny.teacher(), make_backbone(), tiny.training_images(), tiny.settings(config, **{**steps, **changes}), context
    )
    generator = tiny.snapshot(distilled.generator) if distilled.generator is not None else {}
    rows = [(row["phase"], row["step"]) for row in read_log(folder / "log.jsonl")]
    return Result(tiny.snapshot(distilled.student), generator, json.dumps(distilled.facts), rows)


def num_steps(name: str) -> int:
    """Of all phases together."""
    return STEPS * sum(field.endswith("_steps") for field in load_method(name).Config.model_fields)


def stop_after(steps: int) -> Callable[[], bool]:
    calls = iter(range(1, steps + 1))
    return lambda: next(calls) == steps


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    return {name: run(name, tmp_path_factory.mktemp(name)) for name in method_names()}


@pytest.mark.parametrize(
    ("name", "step"),
    [(name, step) for name in method_names() for step in range(3, num_steps(name) + 1, 3)],
)
def test_a_stop_and_the_same_command_again(
    tmp_path: Path, uninterrupted: dict[str, Result], name: str, step: int
) -> None:
    with pytest.raises(Interrupted):
        run(name, tmp_path, stop_after(step))
    run(name, tmp_path).assert_same(uninterrupted[name])


@methods
def test_a_kill_after_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Result], name: str
) -> None:
    now = [0.0]
    monkeypatch.setattr("compressor.distill.training.time.monotonic", lambda: now[0])
    for _ in range(num_steps(name)):
        calls = iter((False, True))

        def save_one_step_then_die(calls: Any = calls) -> bool:
            now[0] += 60.0  # long enough for a checkpoint to be due
            if next(calls):
                raise Killed
            return False

        try:
            result = run(name, tmp_path, save_one_step_then_die)
        except Killed:
            continue
        break
    result.assert_same(uninterrupted[name])
    assert len(result.rows) == len(set(result.rows)) == num_steps(name)


@methods
def test_dropout_in_the_student_is_resumed_too(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    options: dict[str, Any] = {"make_backbone": tiny.backbone_with_dropout, "generator_steps": 0}
    if "generator_steps" not in load_method(name).Config.model_fields:
        del options["generator_steps"]
    whole = run(name, tmp_path_factory.mktemp("whole"), **options)
    with pytest.raises(Interrupted):
        run(name, tmp_path, stop_after(3), **options)
    run(name, tmp_path, **options).assert_same(whole)


@methods
def test_the_same_seed_is_the_same_run(tmp_path: Path, uninterrupted: dict[str, Result], name: str) -> None:
    torch.rand(17)  # whatever happened in the process before
    run(name, tmp_path).assert_same(uninterrupted[name])


@methods
def test_another_seed_is_another_run(tmp_path: Path, uninterrupted: dict[str, Result], name: str) -> None:
    other = run(name, tmp_path, seed=2)
    assert not tiny.equal(other.student, uninterrupted[name].student)
    if other.generator:
        assert not tiny.equal(other.generator, uninterrupted[name].generator)


@methods
def test_a_training_that_diverges_names_its_term(tmp_path: Path, name: str) -> None:
    with pytest.raises(StageFailed, match=r"Loss term .+ of phase student is not finite by step") as failed:
        run(name, tmp_path, student_lr=1e25)
    terms = [term for term, network in load_method(name).LOSS_TERMS.items() if network == "student"]
    assert any(term in failed.value.received for term in terms)
