"""When training goes wrong: back to the phase's last good state, with smaller steps or smaller parts of a batch.

    a loss term or a weight is not finite          every learning rate of the phase times RATE_CUT, at most twice
    the generator has collapsed                    the same
    the memory does not hold a batch               its gradient from twice as many parts, added up

What was done is part of the phase's checkpoint, so that a run that is killed later comes to the same result.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from compressor.distill.parallel import World
from compressor.errors import StageFailed
from compressor.stages import atomic_path

RATE_CUT = 0.3  # two of them are about a tenth
MOST_RATE_CUTS = 2
ADVICE = "Lower the learning rate, use --precision fp32, or look at the curves in log.jsonl for where it began."
LEAST_EVENNESS = 0.1  # of ten classes: one in 97 of 100 images. Healthy runs stay above 0.6 (docs/experiments.md)
SHORTEST_COLLAPSE = 100  # steps, and at least a twentieth of the phase: adversaries wander, and come back


class Checkpoint:
    """The last state of a phase, in a file, and beside it the last one whose generator showed enough classes.

    The latter is a file of its own only while the former's generator may be collapsing. Of several processes the first
    one writes and reads, and the others hear from it what is there.
    """

    def __init__(self, folder: Path, phase: str, world: World) -> None:
        self.path, self.even = folder / f"checkpoint-{phase}.pt", folder / f"checkpoint-{phase}-even.pt"
        self.world = world
        self._start = b""

    def exists(self) -> bool:
        """Whether the phase was saved before."""
        (there,) = self.world.any(self.world.first and self.path.exists())
        return there

    def start(self, snapshot: Mapping[str, Any]) -> None:
        """Keep the state that the phase starts from in memory, until there is a file."""
        if not self.world.first:
            return
        buffer = BytesIO()
        torch.save(snapshot, buffer)
        self._start = buffer.getvalue()

    def save(self, snapshot: Mapping[str, Any], *, even: bool) -> None:
        """Write the file anew. Where the classes are uneven, what is in it now is kept first."""
        if not self.world.first:
            return
        if not even and not self.even.exists():
            with atomic_path(self.even) as copy:
                copy.write_bytes(self._start or self.path.read_bytes())
        write_tensors(snapshot, self.path)
        self._start = b""
        if even:
            self.even.unlink(missing_ok=True)

    def load(self, device: torch.device, *, even: bool = False) -> dict[str, Any]:
        """The last state, or the last one with enough classes."""
        file = self.even if even and self.even.exists() else self.path
        source = BytesIO(self._start) if self._start else file
        if self.world.size > 1:
            kept = (self._start or file.read_bytes()) if self.world.first else b""
            source = BytesIO(self.world.send(kept))
        loaded: dict[str, Any] = read_checkpoint(source, device, file)
        return loaded


class DamagedCheckpoint(StageFailed):
    """What an interrupted training left is no longer what it wrote."""


def read_checkpoint(source: Path | BytesIO, device: torch.device, file: Path) -> Any:
    """What was saved, if every byte of it is as it was written: torch looks at no checksum.

    Raises:
        DamagedCheckpoint: it is not; going on from there would train on noise without a word.
    """
    try:
        with zipfile.ZipFile(source) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"its record {damaged} has another checksum")
        if isinstance(source, BytesIO):
            source.seek(0)
        return torch.load(source, map_location=device, weights_only=True)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a damaged file can break the reader anywhere, and the file is the cause
        said = (str(error) or type(error).__name__).splitlines()[0][:200].rstrip(".")
        raise DamagedCheckpoint(
            f"The checkpoint {file} of an interrupted training is damaged: {said}.",
            "The file as the run wrote it was expected.",
            "Restore it, or delete it: the same command then trains this phase from its start.",
        ) from error


@runtime_checkable
class ShowsClasses(Protocol):
    """An item of a loop's state that sees what the teacher says of generated images."""

    def judged_evenness(self) -> float | None:
        """Entropy of the classes seen lately over that of equal shares; None: too few were seen, or they mean nothing.

        Asked when a row is written; it may wait for the device.
        """
        ...


@dataclass(frozen=True)
class Fault:
    """What went wrong, in a sentence, and what the user may do where going back did not help."""

    seen: str
    advice: str
    out_of_memory: bool = False
    collapse: bool = False


@dataclass
class Recovery:
    """What one phase has met so far, and what was done about it.

    Attributes:
        num_parts: parts that a batch is divided into.
        most_even: the evenness of the generator's classes at its best.
        even: False while they are less than half as even, or too few: such a state is nothing to go back to.
        uneven_since: the step from which on they have been too few; None: they are not.
        remedies: a sentence for each time that training went back.
    """

    num_parts: int = 1
    num_rate_cuts: int = 0
    most_even: float = 0.0
    even: bool = True
    uneven_since: int | None = None
    remedies: list[str] = field(default_factory=list)

    @property
    def rate_factor(self) -> float:
        return float(RATE_CUT**self.num_rate_cuts)

    def collapse(self, phase: str, step: int, num_steps: int, state: Mapping[str, object]) -> Fault | None:
        """Whether what `state` shows of the classes has been below the bound for too long."""
        shown = [item.judged_evenness() for item in state.values() if isinstance(item, ShowsClasses)]
        judged = [evenness for evenness in shown if evenness is not None]
        if not judged:
            return None
        evenness = min(judged)
        self.most_even = max(self.most_even, evenness)
        self.even = evenness >= max(LEAST_EVENNESS, self.most_even / 2)
        if evenness >= LEAST_EVENNESS:
            self.uneven_since = None
            return None
        since = self.uneven_since = step if self.uneven_since is None else self.uneven_since
        if step - since < max(SHORTEST_COLLAPSE, num_steps // 20):
            return None
        return Fault(
            f"The generator of phase {phase} has collapsed: from step {since} to step {step} the entropy of the "
            f"classes that the teacher sees in its images was below {LEAST_EVENNESS:.0%} of a uniform one's "
            f"(lately {evenness:.1%}).",
            "Lower generator_lr, raise the weight of the term that evens the classes, or use another method.",
            collapse=True,
        )

    def answer(self, fault: Fault, back_to: int, then: Recovery, state: Mapping[str, object]) -> None:
        """Change what has to change in a `state` that was just brought back to the step `back_to`.

        Args:
            then: what the phase had met by that step; the rates in `state` are as low as they were then.

        Raises:
            StageFailed: the learning rates were cut as often as they may be.
        """
        if fault.out_of_memory:
            self.num_parts *= 2
            remedy = f"batches in {self.num_parts} parts, whose gradients add up; batch norm sees a part at a time"
        elif self.num_rate_cuts == MOST_RATE_CUTS:
            cuts = " and then ".join(f"{RATE_CUT**count:.2g}" for count in range(1, MOST_RATE_CUTS + 1))
            raise StageFailed(
                fault.seen,
                f"Training cannot go on from there; it went back to its last good state with {cuts} of the learning "
                "rate, and that did not help.",
                fault.advice,
            )
        else:
            self.num_rate_cuts += 1
            remedy = f"{self.rate_factor:.2g} of the learning rate"
        self.most_even, self.even, self.uneven_since = then.most_even, then.even, then.uneven_since
        cut_rates(state, RATE_CUT ** (self.num_rate_cuts - then.num_rate_cuts))
        self.remedies.append(f"{fault.seen} Training went back to step {back_to} and on with {remedy}.")


def cut_rates(state: Mapping[str, object], factor: float) -> None:
    """Every optimiser's learning rate times `factor`, and what the schedules derive it from."""
    for item in state.values():
        if isinstance(item, torch.optim.Optimizer):
            for group in item.param_groups:
                group.update({name: group[name] * factor for name in ("lr", "initial_lr") if name in group})
        elif isinstance(item, torch.optim.lr_scheduler.LRScheduler):
            item.base_lrs = [rate * factor for rate in item.base_lrs]


def broken_terms(terms: Mapping[str, float], phase: str, step: int) -> Fault | None:
    """Loss terms that are not finite."""
    names = [name for name, value in terms.items() if not math.isfinite(value)]
    seen = f"Loss term {', '.join(names)} of phase {phase} is not finite by step {step}."
    return Fault(seen, ADVICE) if names else None


def broken_state(state: Mapping[str, Mapping[str, Any]], phase: str, step: int) -> Fault | None:
    """Weights, averages and momenta that are not finite, although the loss terms still were."""
    names = [
        name
        for name, values in state.items()
        if not all(bool(t.isfinite().all()) for t in tensors_in(values) if t.is_floating_point())
    ]
    seen = f"The state of the {', '.join(names)} of phase {phase} is not finite by step {step}."
    return Fault(seen, ADVICE) if names else None


def out_of_memory(phase: str, step: int) -> Fault:
    """No room for a batch, or for a part of one."""
    return Fault(f"The memory did not hold a batch of phase {phase} in step {step}.", "", out_of_memory=True)


def write_tensors(value: object, path: Path) -> None:
    """`torch.save`, whole or not at all.

    Raises:
        OSError, or RuntimeError in the context of one: it could not be written.
    """
    # Given a name, torch opens the file itself, and of a failed write it keeps neither the reason nor its number.
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        torch.save(value, file)


def drifted(size: int, phase: str, step: int) -> StageFailed:
    """The refusal where processes that make the same steps no longer have the same weights."""
    return StageFailed(
        f"The {size} processes of this training no longer hold the same weights in phase {phase} by step {step}.",
        "All compute the same from the same bits; GPUs of different kinds, or a faulty one, do not.",
        "Run the same command again to go on from what was saved last, on devices of one kind or in one process.",
    )


def tensors_in(value: object) -> Iterable[Tensor]:
    """All tensors of a state, however deep."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors_in(item)
