"""What every training loop shares: seeding, precision, schedules, weight averaging, and steps that survive a kill.

A loop reads

    for step in context.steps("student", num_steps, {"student": student, "optimiser": optimiser}):
        ...forward...
        context.log({"feature_alignment": loss})
        ...backward, and one optimiser step...

and is otherwise plain code. `steps` restores all loop state before the first step, saves it between steps, measures the
first steps for a forecast, and stops between steps when asked to.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from compressor.errors import Interrupted, StageFailed
from compressor.stages import atomic_path, atomic_write_text

NUM_TIMED_STEPS = 3
SMALL_SIDE = 24  # pixels below which neither bf16 nor a second CPU thread pays
LOG_ROWS_PER_PHASE = 200


class Stateful(Protocol):
    """A module, an optimiser, or anything else that the loop changes."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


@dataclass(frozen=True)
class Forecast:
    """What one phase of training will take, from its first timed steps.

    Attributes:
        seconds: for the steps that remain.
        memory_mib: peak of this process so far (of the GPU's allocator on CUDA).
        disk_mib: size of one checkpoint.
    """

    phase: str
    num_steps: int
    step_seconds: float
    seconds: float
    memory_mib: float
    disk_mib: float


@dataclass(frozen=True)
class Phase:
    """One finished training loop; `seconds` adds up all sessions that worked on it."""

    name: str
    num_steps: int
    seconds: float


class Observer(Protocol):
    """Whoever shows progress. None of these calls changes the training."""

    def phase_started(self, phase: str, num_steps: int, first_step: int) -> None: ...
    def forecast(self, forecast: Forecast) -> None: ...
    def progress(self, phase: str, step: int, num_steps: int, terms: Mapping[str, float]) -> None: ...
    def note(self, message: str) -> None: ...


class SilentObserver:
    """Shows nothing."""

    def phase_started(self, phase: str, num_steps: int, first_step: int) -> None: ...
    def forecast(self, forecast: Forecast) -> None: ...
    def progress(self, phase: str, step: int, num_steps: int, terms: Mapping[str, float]) -> None: ...
    def note(self, message: str) -> None: ...


class Context:
    """What a method gets besides its science: a device, randomness, precision, and loops that can be resumed.

    Args:
        folder: where `checkpoint-<phase>.pt` and `log.jsonl` are kept.
        device: "cpu" or "cuda".
        seed: seeds the libraries and `random`, the generator on the device that all sampling draws from.
        precision: "fp32" or "bf16" (autocast; parameters and losses stay fp32).
        should_stop: asked between steps; True ends the run resumably.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str = "cpu",
        seed: int = 0,
        precision: str = "fp32",
        observer: Observer | None = None,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.folder = folder
        self.device = torch.device(device)
        self.precision = precision
        self.observer: Observer = observer or SilentObserver()
        self.should_stop = should_stop
        self.random = seed_everything(seed, self.device)
        self.phases: list[Phase] = []
        self._terms: dict[str, list[Tensor]] = {}

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for forward passes. Losses convert to float32 themselves."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def log(self, terms: Mapping[str, Tensor]) -> None:
        """Record loss terms of this step, before their backward pass; they stay on the device until a row is written.

        A step may log more than once: each half of an adversarial step has its own terms.
        """
        for name, value in terms.items():
            self._terms.setdefault(name, []).append(value.detach())

    def steps(self, phase: str, num_steps: int, state: Mapping[str, Stateful]) -> Iterator[int]:
        """Yield the steps of one phase that are still to be done.

        Everything in `state`, `self.random` and the global random states is restored first and saved between steps,
        so that a run killed anywhere continues to the same result. A finished phase yields nothing.

        Args:
            state: what the loop changes, by name; a network that a loss term trains by the name in LOSS_TERMS.

        Raises:
            Interrupted: `should_stop` said so; the state is saved.
            StageFailed: a loss term is not finite; found when its row is written.
        """
        checkpoint = self.folder / f"checkpoint-{phase}.pt"
        first, earlier_seconds = self._restore(checkpoint, state)
        log = _PhaseLog(self.folder / "log.jsonl", phase, first)
        self.observer.phase_started(phase, num_steps, first)
        log_every = max(1, num_steps // LOG_ROWS_PER_PHASE)
        started = saved_at = time.monotonic()
        save_seconds = 0.0
        timed_from = 0.0
        for step in range(first, num_steps):
            yield step
            done = step + 1
            if done - first == 1:
                self._synchronise()  # the first step pays for set-up and is not timed
                timed_from = time.monotonic()
            if done - first == 1 + NUM_TIMED_STEPS:
                self._synchronise()
                seconds = (time.monotonic() - timed_from) / NUM_TIMED_STEPS
                self.observer.forecast(self._forecast(phase, num_steps, done, seconds, state))
            if done % log_every == 0 or done == num_steps:
                terms = self._mean_terms(phase, step)
                log.write(step, terms)
                self.observer.progress(phase, done, num_steps, terms)
            stop = self.should_stop()
            # Saving at most a fiftieth of the time keeps its cost under two per cent without a knob.
            due = time.monotonic() - saved_at > max(2.0, 50.0 * save_seconds)
            if stop or due or done == num_steps:
                before = time.monotonic()
                self._save(checkpoint, done, earlier_seconds + before - started, state)
                saved_at = time.monotonic()
                save_seconds = saved_at - before
            if stop:
                raise Interrupted(
                    f"The run was stopped in phase {phase} after step {done} of {num_steps}.",
                    "Everything up to this step is saved.",
                    "Run the same command again to go on from here.",
                )
        self.phases.append(Phase(phase, num_steps, earlier_seconds + time.monotonic() - started))

    def _restore(self, checkpoint: Path, state: Mapping[str, Stateful]) -> tuple[int, float]:
        """Load `state` and all random states; returns the number of steps done and the seconds that they took."""
        if not checkpoint.exists():
            return 0, 0.0
        saved = torch.load(checkpoint, map_location=self.device, weights_only=True)
        for name, item in state.items():
            item.load_state_dict(saved["state"][name])
        self.random.set_state(saved["random"].cpu())
        torch.set_rng_state(saved["torch_random"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda_random"].cpu(), self.device)
        return int(saved["step"]), float(saved["seconds"])

    def _save(self, checkpoint: Path, step: int, seconds: float, state: Mapping[str, Stateful]) -> None:
        saved: dict[str, Any] = {
            "step": step,
            "seconds": seconds,
            "state": {name: item.state_dict() for name, item in state.items()},
            "random": self.random.get_state(),
            "torch_random": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            saved["cuda_random"] = torch.cuda.get_rng_state(self.device)
        with atomic_path(checkpoint) as temporary:
            torch.save(saved, temporary)

    def _mean_terms(self, phase: str, step: int) -> dict[str, float]:
        """Mean of every term since the last row. The only place where a loop waits for the device."""
        means = {name: float(torch.stack(values).float().mean()) for name, values in self._terms.items()}
        self._terms.clear()
        broken = [name for name, value in means.items() if not math.isfinite(value)]
        if broken:
            raise StageFailed(
                f"Loss term {', '.join(broken)} of phase {phase} is not finite by step {step}.",
                "Training cannot go on from there.",
                "Lower the learning rate, use --precision fp32, or look at the curves in log.jsonl for where it began.",
            )
        return means

    def _forecast(
        self, phase: str, num_steps: int, done: int, step_seconds: float, state: Mapping[str, Stateful]
    ) -> Forecast:
        if self.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(self.device) / 2**20
        else:
            memory = peak_memory_mib()
        disk = sum(_num_bytes(item.state_dict()) for item in state.values()) / 2**20
        return Forecast(phase, num_steps, step_seconds, step_seconds * (num_steps - done), memory, disk)

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class _PhaseLog:
    """`log.jsonl`, one row per logged step; rows that a resumed phase will write again are dropped first."""

    def __init__(self, path: Path, phase: str, first_step: int) -> None:
        self.path, self.phase = path, phase
        kept = [row for row in read_log(path) if row["phase"] != phase or row["step"] < first_step]
        whole = "".join(json.dumps(row) + "\n" for row in kept)
        # A line that a kill cut short goes too: the next row would be written onto its end.
        if path.exists() and path.read_text() != whole:
            atomic_write_text(path, whole)

    def write(self, step: int, terms: Mapping[str, float]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({"phase": self.phase, "step": step, "terms": terms}) + "\n")


def read_log(path: Path) -> list[dict[str, Any]]:
    """Rows of a `log.jsonl`; a line that a kill cut short is left out. No file: no rows."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else ():
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def seed_everything(seed: int, device: torch.device) -> torch.Generator:
    """Seed the libraries' global randomness (initial weights, dropout); returns the generator for all sampling."""
    torch.manual_seed(seed)
    return torch.Generator(device).manual_seed(seed)


def best_precision(device: torch.device, image_side: int) -> tuple[str, str]:
    """("fp32" or "bf16", why): bf16 where the hardware multiplies it natively and images are large enough to gain."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU multiplies bf16 natively"
        return "fp32", "this GPU has no native bf16"
    if image_side < SMALL_SIDE:
        return "fp32", f"at {image_side} px the conversions cost more than bf16 saves"
    if torch.cpu._is_amx_tile_supported():
        return "bf16", "this CPU has AMX"
    return "fp32", "this CPU does not multiply bf16 natively"


@contextmanager
def fitting_threads(image_side: int) -> Iterator[None]:
    """One CPU thread for small images: their operators are too short to share, and threads that meet after each of them
    wait for whatever else runs on the machine (docs/experiments.md)."""
    before = torch.get_num_threads()
    if image_side < SMALL_SIDE:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cosine_schedule(optimiser: torch.optim.Optimizer, num_steps: int, warmup: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Linear warm-up over `warmup` steps, then half a cosine down to zero."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, num_steps - warmup)))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: weight matrices decay; norms and biases do not."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]


@torch.no_grad()
def update_average(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Exponential moving average of parameters. Buffers are copied: a mean of spectral-norm vectors is none."""
    for mean, value in zip(average.parameters(), current.parameters(), strict=True):
        mean.lerp_(value, 1.0 - decay)
    for copied, buffer in zip(average.buffers(), current.buffers(), strict=True):
        copied.copy_(buffer)


def peak_memory_mib() -> float:
    """Peak resident memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _num_bytes(value: object) -> int:
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(_num_bytes(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(_num_bytes(item) for item in value)
    return 0
