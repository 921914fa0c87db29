"""What the training of a method will take on this machine, from a few steps of each of its phases."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from pydantic import BaseModel
from torch import Tensor

from compressor.distill.probe import Probe, StepTime
from compressor.inputs.pixels import Images
from compressor.inputs.teacher import Teacher
from compressor.methods import TrainingImages, load_method
from compressor.students.student import Backbone
from exporters.logits import fitting_batch

STEPS, EVERY, TIMES = "_steps", "_every", "num_"  # how settings are named (compressor.methods)
# Images that the probe trains on; what looks at all of them is scaled. A selection looks at the pool again and again.
MOST_FEW, MOST_POOL = 32, 256
ASKED = 16  # images that the teacher is asked about at once, to time it


@dataclass(frozen=True)
class Speed:
    """What the parts of a training take, in seconds.

    Attributes:
        steps: of each phase, by its name.
        setup_seconds: everything outside of the phases, such as asking the teacher about every image of a pool.
        cpu_query_seconds: of the teacher for one image, on the CPU in float32.
        makes_images: whether images are left that int8 can be calibrated on.
    """

    steps: Mapping[str, StepTime]
    setup_seconds: float
    cpu_query_seconds: float
    makes_images: bool

    def seconds_of(self, num_steps: Mapping[str, int]) -> float:
        """The phases of a training, with so many steps each; one that the method leaves out takes no time."""
        return sum(self.steps[phase].seconds * count for phase, count in num_steps.items() if phase in self.steps)


def steps_of(settings: BaseModel) -> dict[str, int]:
    """The updates of each phase, by the phase's name."""
    return {name.removesuffix(STEPS): value for name, value in settings if name.endswith(STEPS)}


def measure_speed(
    name: str,
    teacher: Teacher,
    backbone: Backbone,
    images: TrainingImages,
    settings: BaseModel,
    *,
    most_seconds: float,
    device: str,
    precision: str,
    should_stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
) -> Speed:
    """Run the method for a few steps of each phase.

    Args:
        name: of the method.
        teacher, backbone: they are spoiled: trained on, and counted in.
        images: all that it will train on.
        settings: those of the whole training.
        most_seconds: of the steps that are timed of a phase, where a few do not take longer.
        device, precision, should_stop, clock: as for `Probe`.

    Raises:
        Interrupted: the run was stopped.
    """
    method = load_method(name)
    shown = TrainingImages(_spread(images.few, MOST_FEW), _spread(images.pool, MOST_POOL))
    every = [value for setting, value in settings if setting.endswith(EVERY)]
    with TemporaryDirectory(prefix="compress-probe-") as folder:
        probe = Probe(
            Path(folder),
            device=device,
            precision=precision,
            should_stop=should_stop,
            cycle=math.lcm(*every),
            most_seconds=most_seconds,
            clock=clock,
        )
        started = clock()
        distilled = method.distill(teacher, backbone, shown, settings, probe)
        setup = clock() - started - probe.timed_seconds
        query = cpu_query = _query_seconds(teacher, probe)
        if (device, precision) != ("cpu", "fp32"):
            cpu_query = _query_seconds(teacher.cpu(), Probe(Path(folder), cycle=1, most_seconds=0.0, clock=clock))
    # What comes before the phases is asked of every image, and the method says how many questions that are.
    counts = [(len(some.few), len(some.pool)) for some in (images, shown)]
    unasked = method.num_queries(settings, *counts[0]) - method.num_queries(settings, *counts[1])
    scale = sum(counts[0]) / max(1, sum(counts[1]))
    looks = sum(value for setting, value in settings if setting.startswith(TIMES))
    setup += unasked * query + looks * scale * sum(step.first_seconds for step in probe.times.values())
    makes_images = distilled.generator is not None or distilled.images is not None
    return Speed(probe.times, setup, cpu_query, makes_images)


def _spread(images: Images, most: int) -> Tensor:
    """At most so many of them, at even distances."""
    rows = torch.linspace(0, len(images) - 1, min(len(images), most), device=images.device).long()
    return images[rows]


@torch.no_grad()
def _query_seconds(teacher: Teacher, probe: Probe) -> float:
    """Of one image in a batch, after a first batch to warm up."""
    shape = teacher.card.input_shape
    batch = torch.rand(fitting_batch(shape[1:], ASKED), *shape, device=probe.device)

    def ask() -> None:
        with probe.autocast():
            teacher(batch)

    probe.seconds_of(ask)
    return probe.seconds_of(ask) / len(batch)
