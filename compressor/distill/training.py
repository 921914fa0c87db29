"""What every training loop shares: seeding, precision, schedules, weight averaging, and steps that survive a kill.

A loop reads

    for step in context.steps("student", num_steps, {"student": student, "optimiser": optimiser}):
        ...forward...
        context.log({"feature_alignment": loss})
        ...backward, and one optimiser step...

and is otherwise plain code. `steps` restores all loop state before the first step, saves it between steps, measures the
first steps for a forecast, stops between steps when asked to, and goes back to the last good state where a loss is not
finite, a generator collapses or the memory is too small (recovery.py). For the last of these the loop writes
`context.backward(loss_of, images)` where it would write `loss_of(images).backward()`; the same line divides the batch
among the processes of a data-parallel training (parallel.py), where there are several.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from compressor.distill.parallel import World, flattened, unflatten
from compressor.distill.recovery import (
    Checkpoint,
    Fault,
    Recovery,
    ShowsClasses,
    broken_state,
    broken_terms,
    drifted,
    out_of_memory,
    tensors_in,
)
from compressor.errors import Interrupted
from compressor.stages import atomic_write_text

NUM_TIMED_STEPS = 3
SMALL_SIDE = 24  # pixels below which a second CPU thread does not pay, nor bf16 with AMX
SMALLEST_BF16_SIDE = 12  # the same for bf16 in AVX-512, which starts cheaper
LOG_ROWS_PER_PHASE = 200


class Stateful(Protocol):
    """A module, an optimiser, or anything else that the loop changes."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


@runtime_checkable
class Averaged(Protocol):
    """An item of a loop's state that looks at images inside a loss, of which each process has its own."""

    def averaged(self) -> list[Tensor]:
        """Tensors whose mean over the processes is what one process would have; changed in place."""
        ...


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
    """One finished training loop.

    Attributes:
        seconds: of all sessions that worked on it, with the steps that were taken back.
        remedies: a sentence for each time that it went back to an earlier state, for the report.
    """

    name: str
    num_steps: int
    seconds: float
    remedies: tuple[str, ...] = ()


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
        world: the processes that train together. Each has a context of its own, with the same seed and folder.
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
        world: World | None = None,
    ) -> None:
        self.folder = folder
        self.device = torch.device(device)
        self.precision = precision
        self.observer: Observer = observer or SilentObserver()
        self.should_stop = should_stop
        self.world = world or World()
        self.random = seed_everything(seed, self.device)
        self.phases: list[Phase] = []
        self._terms: dict[str, list[Tensor]] = {}
        self._recovery = Recovery()
        self._out_of_memory = False
        self._trained: list[nn.Parameter] = []
        self._state: Mapping[str, Stateful] = {}

    @property
    def num_parts(self) -> int:
        """Parts that `backward` divides a batch into; 1 until the memory was too small."""
        return self._recovery.num_parts

    @property
    def divides(self) -> bool:
        """Whether `backward` may show a loss less than the whole batch."""
        return self.num_parts * self.world.size > 1

    @property
    def rate_factor(self) -> float:
        """What a loop multiplies the learning rate of an optimiser by that it makes anew, not in its `state`."""
        return self._recovery.rate_factor

    def autocast(self) -> AbstractContextManager[Any]:
        """Mixed precision for forward passes. Losses convert to float32 themselves."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def log(self, terms: Mapping[str, Tensor]) -> None:
        """Record loss terms of this step, before their backward pass; they stay on the device until a row is written.

        A step may log more than once: each half of an adversarial step has its own terms.
        """
        for name, value in terms.items():
            self._terms.setdefault(name, []).append(value.detach())

    def backward(self, loss_of: Callable[..., Tensor], *batch: Tensor, divisible: bool = True) -> bool:
        """`loss_of(*batch).backward()`, in parts of the batch if the phase has run out of memory before, and of several
        processes each for its own rows.

        A part's loss counts by its share of the batch, so that the gradient is that of the whole batch wherever the
        loss is a mean over images; batch norm then takes its statistics from a part. All processes end with the same
        gradient, of whatever `state` trains, and with the mean of their running statistics. A batch of fewer than two
        images a process, and one that is not divisible, is computed whole by all of them.

        Args:
            loss_of: tensors like those of `batch`, of fewer rows, to a loss; it logs its terms itself, and neither
                draws from `random` nor asks other processes.
            batch: tensors (B, ...), constants, the same in all processes.
            divisible: False where a term is about the batch as a whole, such as the marginal of its classes.

        Returns:
            False if the memory was too small: the gradient is unfinished, and `steps` will take back whatever the step
            still does, and yield it again with a batch in smaller parts.

        Raises:
            torch.OutOfMemoryError: the batch may not be divided, or is down to two images.
        """
        world, num_rows = self.world, len(batch[0])
        num_parts = self.num_parts if divisible else 1
        among = world.size if divisible and num_rows >= 2 * world.size else 1
        weight = among / world.size
        earlier = self._put_gradients_aside()
        flat, changed = torch.empty(0), list[Tensor]()
        short = False
        try:
            with self._own_randomness():
                if num_parts * among == 1:
                    loss = loss_of(*batch)
                    (loss if weight == 1 else loss * weight).backward()
                else:
                    for first in range(num_parts):
                        # Every so many rows, because a batch may be real images first and then synthetic ones.
                        part = [rows[world.rank % among + among * first :: among * num_parts] for rows in batch]
                        (loss_of(*part) * (weight * len(part[0]) / num_rows)).backward()
            if world.size > 1:
                flat, changed = self._changed()
        except torch.OutOfMemoryError:
            if world.size == 1 and (not divisible or num_rows < 4 * num_parts):
                raise
            short = True
        (anybody_short,) = world.any(short)
        if anybody_short:
            if not divisible or num_rows < 4 * num_parts * among:
                raise torch.OutOfMemoryError("one of the processes of this training has no room for a batch")
            self._out_of_memory = True
        elif world.size > 1:
            world.add_up(flat)
            unflatten(flat, changed)
            for parameter, gradient in earlier:
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return not self._out_of_memory

    def whole(self, rows: Tensor, num_rows: int) -> Tensor:
        """What each process knows of its own rows of a batch, as constants, for all of them and in any order.

        Asked between two steps' halves, never inside a loss.

        Args:
            rows: (b, ...), of what `backward` has given to this process, in all its parts.
            num_rows: B.

        Returns:
            (B, ...), the same in all processes.
        """
        world = self.world
        if world.size == 1:
            return rows
        every = torch.zeros(num_rows, *rows.shape[1:], dtype=rows.dtype, device=rows.device)
        if len(rows) < num_rows:
            every[world.rank :: world.size] = rows.detach()
        elif world.first:  # a batch that was not divided
            every.copy_(rows.detach())
        world.add_up(every)
        return every

    def agree(self, state: Mapping[str, Stateful]) -> None:
        """Take over what the first process has: for what all compute alike outside of `backward`, because a GPU's
        additions may come in another order."""
        self.world.take_over(list(tensors_in([item.state_dict() for item in state.values()])))

    def steps(self, phase: str, num_steps: int, state: Mapping[str, Stateful]) -> Iterator[int]:
        """Yield the steps of one phase that are still to be done; some of them again, where training had to go back.

        Everything in `state`, `self.random` and the global random states is restored first and saved between steps,
        so that a run killed anywhere continues to the same result. A finished phase yields nothing.

        Args:
            state: what the loop changes, by name; a network that a loss term trains by the name in LOSS_TERMS. The
                rates of all optimisers in it are cut where a loss is not finite, and an item with `judged_evenness`
                is asked whether the generator has collapsed.

        Raises:
            Interrupted: `should_stop` said so; the state is saved.
            StageFailed: a loss term is not finite, or a generator has collapsed, and going back did not help.
        """
        checkpoint = Checkpoint(self.folder, phase, self.world)
        self._recovery, self._out_of_memory = Recovery(), False
        self._state, self._trained = state, trained_parameters(state)
        first, earlier_seconds = 0, 0.0
        resumed = checkpoint.exists()
        if not resumed:
            checkpoint.start(self._snapshot(0, 0.0, state))
        if resumed or self.world.size > 1:  # of several processes all start from the first one's bits
            first, earlier_seconds = self._restore(checkpoint.load(self.device), state)
        log = self._log_of(phase, first)
        self.observer.phase_started(phase, num_steps, first)
        log_every = max(1, num_steps // LOG_ROWS_PER_PHASE)
        started = saved_at = time.monotonic()
        save_seconds = 0.0
        timed_from = 0.0
        done = first
        while done < num_steps:
            yield done
            step, done = done, done + 1
            if done - first == 1:
                self._synchronise()  # the first step pays for set-up and is not timed
                timed_from = time.monotonic()
            if done - first == 1 + NUM_TIMED_STEPS:
                self._synchronise()
                seconds = (time.monotonic() - timed_from) / NUM_TIMED_STEPS
                self.observer.forecast(self._forecast(phase, num_steps, done, seconds, state))
            stop = False
            fault = out_of_memory(phase, step) if self._out_of_memory else None
            if fault is None and (done % log_every == 0 or done == num_steps):
                terms = self._mean_terms()
                fault = self._of_anybody(
                    broken_terms(terms, phase, step) or self._recovery.collapse(phase, step, num_steps, state)
                )
                if fault is None:
                    self._terms.clear()
                    if log is not None:
                        log.write(step, terms)
                    self.observer.progress(phase, done, num_steps, terms)
            if fault is None:
                asked = self.should_stop()
                # Saving at most a fiftieth of the time keeps its cost under two per cent without a knob.
                late = time.monotonic() - saved_at > max(2.0, 50.0 * save_seconds)
                stop, due = self.world.any(asked, late and self.world.first)
                if stop or due or done == num_steps:
                    before = time.monotonic()
                    snapshot = self._snapshot(done, earlier_seconds + before - started, state)
                    # Terms since the last row, and what the last of them did to the weights.
                    fault = self._of_anybody(
                        broken_terms(self._mean_terms(), phase, step) or broken_state(snapshot["state"], phase, step)
                    )
                    if fault is None:
                        if not self.world.alike(list(tensors_in(snapshot))):
                            raise drifted(self.world.size, phase, step)
                        checkpoint.save(snapshot, even=self._recovery.even)
                        saved_at = time.monotonic()
                        save_seconds = saved_at - before
            if fault is not None:
                done = first = self._go_back(fault, checkpoint, state)
                seconds = earlier_seconds + time.monotonic() - started
                checkpoint.save(self._snapshot(done, seconds, state), even=self._recovery.even)
                log = self._log_of(phase, done)
            elif stop:
                raise Interrupted(
                    f"The run was stopped in phase {phase} after step {done} of {num_steps}.",
                    "Everything up to this step is saved.",
                    "Run the same command again to go on from here.",
                )
        seconds = earlier_seconds + time.monotonic() - started
        self.phases.append(Phase(phase, num_steps, seconds, tuple(self._recovery.remedies)))

    def _put_gradients_aside(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Of several processes, so that only what the next backward adds is added up over them."""
        if self.world.size == 1:
            return []
        assert self._trained, "several processes have the same gradient only inside of `steps`"
        earlier = [(parameter, parameter.grad) for parameter in self._trained if parameter.grad is not None]
        for parameter, _ in earlier:
            parameter.grad = None
        return earlier

    def _changed(self) -> tuple[Tensor, list[Tensor]]:
        """What a backward has changed besides: gradients, and a share of each running statistic; flat, and in place."""
        gradients = [parameter.grad for parameter in self._trained if parameter.grad is not None]
        modules = [module for item in self._state.values() if isinstance(item, nn.Module) for module in item.modules()]
        norms = [module for module in modules if isinstance(module, _BatchNorm)]
        means = [mean for norm in norms for mean in (norm.running_mean, norm.running_var) if mean is not None]
        means += [tensor for item in self._state.values() if isinstance(item, Averaged) for tensor in item.averaged()]
        if not means:
            return flattened(gradients), gradients
        return torch.cat([flattened(gradients), flattened(means) / self.world.size]), [*gradients, *means]

    @contextmanager
    def _own_randomness(self) -> Iterator[None]:
        """Of several processes each drops out of its own rows; afterwards all are at the same place of one sequence."""
        if self.world.size == 1:
            yield
            return
        seed = int(torch.randint(2**62, ()))
        with torch.random.fork_rng([torch.cuda.current_device()] if self.device.type == "cuda" else []):
            torch.manual_seed(seed + self.world.rank)
            yield

    def _of_anybody(self, fault: Fault | None) -> Fault | None:
        """What went wrong in one process went wrong in all."""
        if self.world.size == 1:
            return fault
        said = self.world.first_not_none(None if fault is None else json.dumps(asdict(fault)))
        return None if said is None else Fault(**json.loads(said))

    def _log_of(self, phase: str, first_step: int) -> _PhaseLog | None:
        """The log, for the process that writes it."""
        return _PhaseLog(self.folder / "log.jsonl", phase, first_step) if self.world.first else None

    def _go_back(self, fault: Fault, checkpoint: Checkpoint, state: Mapping[str, Stateful]) -> int:
        """Restore the last good state, and change what the fault calls for; returns the number of steps done there."""
        met = self._recovery
        done, _ = self._restore(checkpoint.load(self.device, even=fault.collapse), state)
        self._terms.clear()
        self._out_of_memory = False
        if fault.out_of_memory and self.device.type == "cuda":
            torch.cuda.empty_cache()
        met.answer(fault, done, self._recovery, state)
        self._recovery = met
        self.observer.note(self._recovery.remedies[-1])
        return done

    def _restore(self, saved: Mapping[str, Any], state: Mapping[str, Stateful]) -> tuple[int, float]:
        """Load `state` and all random states; returns the number of steps done and the seconds that they took."""
        for name, item in state.items():
            if name in saved["state"] or not isinstance(item, ShowsClasses):  # version 0.1 watched fewer generators
                item.load_state_dict(saved["state"][name])
        self.random.set_state(saved["random"].cpu())
        torch.set_rng_state(saved["torch_random"].cpu())
        if self.device.type == "cuda":
            torch.cuda.set_rng_state(saved["cuda_random"].cpu(), self.device)
        self._recovery = Recovery(**saved.get("recovery", {}))  # a checkpoint of version 0.1 has none
        return int(saved["step"]), float(saved["seconds"])

    def _snapshot(self, step: int, seconds: float, state: Mapping[str, Stateful]) -> dict[str, Any]:
        """All that a checkpoint holds; its tensors are the loop's own, not copies."""
        snapshot: dict[str, Any] = {
            "step": step,
            "seconds": seconds,
            "state": {name: item.state_dict() for name, item in state.items()},
            "random": self.random.get_state(),
            "torch_random": torch.get_rng_state(),
            "recovery": asdict(self._recovery),
        }
        if self.device.type == "cuda":
            snapshot["cuda_random"] = torch.cuda.get_rng_state(self.device)
        return snapshot

    def _mean_terms(self) -> dict[str, float]:
        """Mean of every term since the last row, of all processes. The only place where a loop waits for the device."""
        if self.world.size == 1 or not self._terms:
            return {name: float(torch.stack(values).float().mean()) for name, values in self._terms.items()}
        means = torch.stack([torch.stack(values).float().mean() for values in self._terms.values()]) / self.world.size
        self.world.add_up(means)
        return dict(zip(self._terms, means.tolist(), strict=True))

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
    """("fp32" or "bf16", why): bf16 where the hardware multiplies it natively and images are large enough to gain.

    On a CPU to be asked inside `fitting_threads`.
    """
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "this GPU multiplies bf16 natively"
        return "fp32", "this GPU has no native bf16"
    has_amx = torch.cpu._is_amx_tile_supported()
    if image_side < (SMALL_SIDE if has_amx else SMALLEST_BF16_SIDE):
        return "fp32", f"at {image_side} px the conversions cost more than bf16 saves"
    if has_amx:
        return "bf16", "this CPU has AMX"
    if not torch.cpu._is_avx512_bf16_supported():
        return "fp32", "this CPU does not multiply bf16 natively"
    if torch.get_num_threads() > 1:
        # Threads that share a bf16 weight gradient spin until all are there. Where something else runs on the machine
        # a step took up to ten times as long as in float32.
        return "fp32", "in bf16 several threads would wait for each other, which a busy machine makes long"
    return "bf16", "this CPU has AVX-512 with bf16, and one thread trains"


@contextmanager
def fitting_threads(image_side: int, precision: str = "auto") -> Iterator[None]:
    """One CPU thread for small images: their operators are too short to share, and threads that meet after each of them
    wait for whatever else runs on the machine (docs/experiments.md).

    One also in place of two, unless float32 was asked for, where that lets `best_precision` take bf16: one thread in
    bf16 takes about as long as two in float32, and leaves a core to others.
    """
    before = torch.get_num_threads()
    only_avx512 = torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
    if image_side < SMALL_SIDE or (before == 2 and only_avx512 and precision != "fp32"):
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


def trained_parameters(state: Mapping[str, Stateful]) -> list[nn.Parameter]:
    """Every parameter of the modules and optimisers in a loop's state, once."""
    found: dict[int, nn.Parameter] = {}
    for item in state.values():
        if isinstance(item, nn.Module):
            found |= {id(parameter): parameter for parameter in item.parameters()}
        elif isinstance(item, torch.optim.Optimizer):
            found |= {id(parameter): parameter for group in item.param_groups for parameter in group["params"]}
    return list(found.values())


@torch.no_grad()
def update_average(average: nn.Module, current: nn.Module, decay: float) -> None:
    """Exponential moving average of parameters. Buffers are copied: a mean of spectral-norm vectors is none."""
    # All at once: on a GPU starting a kernel for each of them takes longer than their arithmetic.
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(current.parameters()), None)
    if buffers := list(average.buffers()):
        torch._foreach_copy_(buffers, list(current.buffers()))


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
