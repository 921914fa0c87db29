"""How long a step takes: a context in which a method's own loops end after a few steps, and are timed.

A schedule must be known before its first step, since learning rates and averages follow it. So its steps are timed
before the training, by the method itself in a folder and on networks that are thrown away. A `Context` that is made
afterwards seeds all randomness anew, so that a training is the same with and without.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from compressor.distill.recovery import Recovery
from compressor.distill.training import Context, Stateful
from compressor.interruption import stopped

LONG_CYCLE = 16  # steps; of a longer cycle its two ends are timed, and a few steps between them
PLAIN_STEPS = 4
MOST_BLOCKS = 512


@dataclass(frozen=True)
class StepTime:
    """What the steps of one phase take, in seconds.

    Attributes:
        seconds: of a step, as a mean over the schedule: with its share of what is done every so many steps.
        first_seconds: what the first step does beyond that, such as a look at all images of a pool.
    """

    seconds: float
    first_seconds: float


class Probe(Context):
    """A context that times a few steps of each phase.

    Args:
        cycle: steps after which whatever is done every so many steps has been done once, by a setting `*_every`.
        most_seconds: after which a phase ends. One block of steps, or one of each kind, is timed in any case.
        clock: in seconds; a benchmark may count something else with it.
        folder, device, precision, should_stop: as for `Context`; the loops write nothing to the folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        cycle: int,
        most_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        device: str = "cpu",
        precision: str = "fp32",
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(folder, device=device, precision=precision, should_stop=should_stop)
        self.cycle, self.most_seconds, self.clock = cycle, most_seconds, clock
        self.times: dict[str, StepTime] = {}
        self.timed_seconds = 0.0

    def steps(self, phase: str, num_steps: int, state: Mapping[str, Stateful]) -> Iterator[int]:  # noqa: ARG002
        """Yield step 0 to warm up, then steps of the schedule that are like all of it."""
        self._recovery, self._out_of_memory = Recovery(), False
        if num_steps == 0:
            return
        yield from self._timed([0])
        first = yield from self._timed([0])
        cycle = min(self.cycle, num_steps)
        seconds = num_timed = 0.0
        for block in _blocks(num_steps, cycle):
            seconds += yield from self._timed(block)
            num_timed += len(block)
            if seconds > self.most_seconds:
                break
        mean = seconds / num_timed
        rare = 0.0
        if cycle > LONG_CYCLE:
            last = yield from self._timed([cycle - 1])
            rare = (max(0.0, first - mean) + max(0.0, last - mean)) / cycle
        self.times[phase] = StepTime(mean + rare, max(0.0, first - mean))

    def seconds_of(self, work: Callable[[], None]) -> float:
        """What it takes until the device has done it."""
        self._synchronise()
        started = self.clock()
        work()
        self._synchronise()
        return self.clock() - started

    def _timed(self, steps: Sequence[int]) -> Generator[int, None, float]:
        """Yield these steps and return their seconds; where the memory was too small, again with smaller parts."""
        while True:
            if self.should_stop():
                raise stopped("The run was stopped while its steps were timed.")
            self._synchronise()
            started = self.clock()
            yield from steps
            self._synchronise()
            seconds = self.clock() - started
            self.timed_seconds += seconds
            self._terms.clear()
            if not self._out_of_memory:
                return seconds
            self._recovery.num_parts *= 2
            self._out_of_memory = False
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


def _blocks(num_steps: int, cycle: int) -> Iterator[range]:
    """Whole cycles, or of a long one some steps from its inside, from all over the schedule: the middle, the quarters,
    the eighths and so on. Steps may become slower or faster on the way, as where blocks are connected one by one."""
    num_cycles = num_steps // cycle
    for index in range(1, MOST_BLOCKS):
        start = int(_halving(index) * num_cycles) * cycle
        yield range(start, start + cycle) if cycle <= LONG_CYCLE else range(start + 1, start + 1 + PLAIN_STEPS)


def _halving(index: int) -> float:
    """1/2, 1/4, 3/4, 1/8, 5/8, ... for 1, 2, 3, 4, 5: van der Corput's sequence, whose every start is spread evenly."""
    value, scale = 0.0, 0.5
    while index:
        index, bit = divmod(index, 2)
        value, scale = value + bit * scale, scale / 2
    return value
