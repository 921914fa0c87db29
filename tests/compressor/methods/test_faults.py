"""Every method, with a loss that breaks, a generator that collapses or a memory that is too small: it goes on, says so,
and kills change nothing."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor, nn

from compressor.distill import losses, monitor, recovery
from compressor.distill.adversarial_generator import AdversarialGenerator
from compressor.distill.generator import ConditionalGenerator, Discriminator
from compressor.distill.meta_generator import MetaGenerator
from compressor.distill.training import Context, Stateful, read_log
from compressor.errors import StageFailed
from compressor.methods import load_method, method_names

STEPS = 6  # of every phase
BROKEN = 3  # the step from which on something is wrong

methods = pytest.mark.parametrize("name", method_names())


class Killed(BaseException):
    """Stands for SIGKILL."""


class Faulty(Context):
    """A context in which a loss term is NaN at the first learning rate, from a step of the phase `breaks` on.

    Attributes:
        step: the one that is being taken.
    """

    breaks = phase = ""
    step = -1

    def steps(self, phase: str, num_steps: int, state: Mapping[str, Stateful]) -> Iterator[int]:
        self.phase = phase
        for self.step in super().steps(phase, num_steps, state):
            yield self.step
        self.phase, self.step = "", -1

    def log(self, terms: Mapping[str, Tensor]) -> None:
        broken = self.phase == self.breaks and self.step >= BROKEN and self.rate_factor == 1.0
        super().log({name: value * torch.nan if broken else value for name, value in terms.items()})


@dataclass(frozen=True)
class Result:
    student: dict[str, Tensor]
    generator: dict[str, Tensor]
    facts: str
    rows: list[tuple[str, int]]
    remedies: Mapping[str, tuple[str, ...]]

    def assert_same(self, other: Result) -> None:
        assert tiny.equal(self.student, other.student)
        assert tiny.equal(self.generator, other.generator)
        assert (self.facts, self.rows, self.remedies) == (other.facts, other.rows, other.remedies)


def run(
    name: str, context: Context, prepare: Callable[[nn.Module], None] = lambda _body: None, **changes: Any
) -> Result:
    method, backbone = load_method(name), tiny.backbone()
    prepare(backbone)
    steps = {field: STEPS for field in method.Config.model_fields if field.endswith("_steps")}
    settings = tiny.settings(method.Config, **{**steps, **changes})
    found = method.distill(tiny.teacher(), backbone, tiny.training_images(), settings, context)
    generator = tiny.snapshot(found.generator) if found.generator is not None else {}
    rows = [(row["phase"], row["step"]) for row in read_log(context.folder / "log.jsonl")]
    remedies = {phase.name: phase.remedies for phase in context.phases}
    return Result(tiny.snapshot(found.student), generator, json.dumps(found.facts), rows, remedies)


@pytest.fixture
def both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Faulty], Result]], Result]:
    """Runs with a checkpoint after every step, through and killed in every third; the results are the same."""
    now = [0.0]
    monkeypatch.setattr("compressor.distill.training.time.monotonic", lambda: now[0])

    def session(folder: Path, kill_at: int) -> Faulty:
        calls = itertools.count(1)

        def should_stop() -> bool:
            now[0] += 60.0  # long enough for a checkpoint to be due
            if next(calls) == kill_at:
                raise Killed
            return False

        folder.mkdir(exist_ok=True)
        return Faulty(folder, seed=1, should_stop=should_stop)

    def run_both(run_in: Callable[[Faulty], Result]) -> Result:
        whole = run_in(session(tmp_path / "whole", 10**9))
        for _ in range(20 * STEPS):
            try:
                killed = run_in(session(tmp_path / "killed", 3))
            except Killed:
                continue
            break
        killed.assert_same(whole)
        assert len(whole.rows) == len(set(whole.rows))
        return whole

    return run_both


# --- not finite -------------------------------------------------------------------------------------------------------

PHASES = [(name, phase) for name in method_names() for phase in ("generator", "graft", "student")
          if f"{phase}_steps" in load_method(name).Config.model_fields]  # fmt: skip


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_a_loss_that_is_not_finite(
    both_ways: Callable[[Callable[[Faulty], Result]], Result], name: str, phase: str
) -> None:
    def break_once(context: Faulty) -> Result:
        context.breaks = phase
        return run(name, context)

    remedies = both_ways(break_once).remedies
    (remedy,) = remedies[phase]
    assert f"of phase {phase} is not finite by step {BROKEN}. Training went back to step {BROKEN}" in remedy
    assert remedy.endswith("on with 0.3 of the learning rate.")
    assert sum(map(len, remedies.values())) == 1


# --- out of memory ----------------------------------------------------------------------------------------------------


def without_room(rows: int) -> Callable[[nn.Module], None]:
    """A first layer that runs out of memory where it needs a gradient of more rows than that."""

    def refuse(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if len(inputs[0]) > rows and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("CUDA out of memory")

    def prepare(body: nn.Module) -> None:
        next(layer for layer in body.modules() if isinstance(layer, nn.Conv2d)).register_forward_pre_hook(refuse)

    return prepare


# What leaves every term a mean over images.
DIVISIBLE: Mapping[str, Mapping[str, float]] = {
    "dafl": {"batch_norm_distance_weight": 0, "class_balance_weight": 0},
    "ddad": {"batch_norm_distance_weight": 0, "class_balance_weight": 0},
    "dfad": {"batch_norm_distance_weight": 0, "class_balance_weight": 0},
    "dfq": {"batch_norm_distance_weight": 0, "class_balance_weight": 0},
    "fast": {"adversarial_weight": 0},
    "kd3": {"contrast_weight": 0},
}


@methods
def test_a_student_without_room(both_ways: Callable[[Callable[[Faulty], Result]], Result], name: str) -> None:
    if name == "fast":  # a round shows the student a whole batch, so here it fits
        changes: dict[str, Any] = {"generator_batch_size": 3}
    else:
        changes = dict(DIVISIBLE.get(name, {}))
    remedies = both_ways(lambda context: run(name, context, without_room(3), **changes)).remedies
    (remedy,) = remedies["student"]
    assert remedy.startswith("The memory did not hold a batch of phase student in step 0.")
    assert "batches in 2 parts" in remedy


def test_a_discriminator_without_room(
    monkeypatch: pytest.MonkeyPatch, both_ways: Callable[[Callable[[Faulty], Result]], Result]
) -> None:
    """It sees six real and six synthetic images."""
    forward = Discriminator.forward

    def refuse(self: Discriminator, images: Tensor) -> Any:
        if len(images) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    monkeypatch.setattr(Discriminator, "forward", refuse)
    result = both_ways(lambda context: run("hidfd", context))
    assert "batches in 2 parts" in result.remedies["generator"][0]
    assert result.remedies["student"] == ()


@pytest.mark.parametrize("name", ["dafl", "ddad", "dfad", "dfq", "kd3"])
def test_terms_about_the_whole_batch_are_never_divided(tmp_path: Path, name: str) -> None:
    rows = 5 if name == "kd3" else 3
    with pytest.raises(torch.OutOfMemoryError):
        run(name, Faulty(tmp_path, seed=1), without_room(rows))


# --- collapse ---------------------------------------------------------------------------------------------------------

GENERATORS = {
    "hidfd": ("generator", ConditionalGenerator),
    "dfad": ("student", AdversarialGenerator),
    "dafl": ("student", AdversarialGenerator),
    "ddad": ("student", AdversarialGenerator),
    "dfq": ("student", AdversarialGenerator),
    "fast": ("student", MetaGenerator),
}

COLLAPSING: Mapping[str, Mapping[str, int]] = {
    "hidfd": {"generator_batch_size": 24, "generator_steps": 14, "student_steps": 1},
    "fast": {"generator_batch_size": 16, "generator_steps": 1, "student_steps": 12, "tuning": 1, "pool_size": 64},
    **{name: {"student_batch_size": 16, "student_steps": 12} for name in ("dfad", "dafl", "ddad", "dfq")},
}


@pytest.fixture
def soon_judged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Judgement after few images, of few images, and a collapse after few steps."""
    monkeypatch.setattr(recovery, "SHORTEST_COLLAPSE", 3)
    monkeypatch.setattr(recovery, "LEAST_EVENNESS", 0.4)
    monkeypatch.setattr(losses, "LEAST_COUNTS", 5.0)
    monkeypatch.setattr(monitor, "KEPT", 0.1)
    monkeypatch.setattr(monitor, "NUM_KEPT", 1)
    torch.set_flush_denormal(True)  # the gradients of images that are all alike are tiny, and slow for it
    yield
    torch.set_flush_denormal(False)


def collapse(monkeypatch: pytest.MonkeyPatch, name: str, context: Faulty, *, until: float) -> None:
    """From step 6 on all images are alike, unless the rate is `until` of what it was, or less."""
    phase, generator = GENERATORS[name]
    forward = generator.forward

    def alike(self: nn.Module, *inputs: Tensor) -> Tensor:
        images: Tensor = forward(self, *inputs)  # type: ignore[arg-type]
        collapsed = context.phase == phase and context.step >= 6 and context.rate_factor > until
        return 0.5 + 0.01 * images if collapsed else images

    monkeypatch.setattr(generator, "forward", alike)


@pytest.mark.usefixtures("soon_judged")
@pytest.mark.parametrize("name", GENERATORS)
def test_a_generator_that_collapses(
    monkeypatch: pytest.MonkeyPatch, both_ways: Callable[[Callable[[Faulty], Result]], Result], name: str
) -> None:
    def run_in(context: Faulty) -> Result:
        with monkeypatch.context() as patch:
            collapse(patch, name, context, until=0.3)
            return run(name, context, **COLLAPSING[name])

    remedies = both_ways(run_in).remedies
    (remedy,) = remedies[GENERATORS[name][0]]
    assert "has collapsed: from step" in remedy
    back_to = int(remedy.partition("went back to step ")[2].partition(" ")[0])
    assert back_to <= 8
    assert remedy.endswith("on with 0.3 of the learning rate.")


@pytest.mark.usefixtures("soon_judged")
def test_a_generator_that_stays_collapsed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    context = Faulty(tmp_path, seed=1)
    collapse(monkeypatch, "dfad", context, until=0.0)
    with pytest.raises(StageFailed, match="The generator of phase student has collapsed") as failed:
        run("dfad", context, **COLLAPSING["dfad"])
    assert "0.3 and then 0.09 of the learning rate" in failed.value.expected
