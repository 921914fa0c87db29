"""How long quick, standard and full take: measured on a CPU, counted for GPUs that are not here.

    python -m benchmarks.effort_times                   # this CPU; then python docs/effort_table.py
    python -m benchmarks.effort_times --device cuda     # the same on a GPU: measured times replace its estimates

Every method runs for a few steps of each phase (`compressor.method_speed`, as `--budget` does) on random images and
untrained networks, which take as long as trained ones, and what a step takes is multiplied by the steps of the effort.
No whole training is run.

On the CPU one thread is timed by the system's account of its CPU time, so that other programs count less; they still
share caches and clocks. For a GPU the same steps run here with batches of two images, and what is counted is not
seconds but floating-point operations (torch's FlopCounterMode), which grow with the batch, and calls of operators,
which depend neither on that nor on widths. The estimate is the longer of the operations over SHARE of the card's peak
and the calls times CALL_US, which is what torch needs to start an operator.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.rows import append_row, provenance
from compressor.distill.training import best_precision
from compressor.inputs.card import TeacherCard
from compressor.inputs.teacher import Teacher
from compressor.method_speed import measure_speed, steps_of
from compressor.methods import TrainingImages, load_method, method_names
from compressor.students.architectures import build_network
from compressor.students.student import Backbone, named_backbone
from profiles.catalogue import load_target

RESULTS = Path(__file__).parent / "results" / "effort_times.json"
EFFORTS = ("quick", "standard", "full")
NUM_IMAGES = 32  # of each kind
SECONDS = 2.0  # of each phase's steps
SMALL_BATCH, SMALL_WIDTH = 2, 8  # where something is counted

CALL_US = 8.0  # an assumption: what an operator call costs on the host, with the launch of its kernel
SHARE = {"fp32": 0.5, "bf16": 0.25}  # assumptions: the share of the peak that convolutions of these sizes reach
GPUS: Mapping[str, tuple[str, str]] = {
    # precision as `best_precision` chooses it, and the peak of it in `profiles/devices`
    "t4": ("fp32", "fp32_tflops"),
    "a100": ("bf16", "fp16_tflops"),
    "h100": ("bf16", "fp16_tflops"),
    "h200": ("bf16", "fp16_tflops"),
}


@dataclass(frozen=True)
class Situation:
    """Networks and images."""

    name: str
    teacher: str
    student: str
    width: float
    image_shape: tuple[int, int, int]

    def parts(self) -> tuple[Teacher, Backbone]:
        channels = self.image_shape[0]
        card = TeacherCard(
            architecture=self.teacher,
            num_classes=10,
            class_names=tuple(map(str, range(10))),
            input_shape=self.image_shape,
            channel_order="L" if channels == 1 else "RGB",
            mean=(0.5,) * channels,
            std=(0.25,) * channels,
        )
        torch.manual_seed(0)
        return Teacher(build_network(self.teacher, 10, channels), card), named_backbone(
            self.student, channels, self.width
        )

    def images(self) -> TrainingImages:
        draw = torch.Generator().manual_seed(0)
        few, pool = torch.randint(0, 256, (2, NUM_IMAGES, *self.image_shape), dtype=torch.uint8, generator=draw)
        return TrainingImages(few, pool)


SITUATIONS = {
    "cpu": (
        Situation("8 px, ResNet-14 to its half (digits)", "cifar_resnet14", "cifar_resnet14", 0.5, (1, 8, 8)),
        Situation("16 px, ResNet-14 to its half (MNIST)", "cifar_resnet14", "cifar_resnet14", 0.5, (1, 16, 16)),
        Situation("32 px, ResNet-20 to its half (CIFAR-10)", "cifar_resnet20", "cifar_resnet20", 0.5, (3, 32, 32)),
    ),
    "cuda": (
        Situation("32 px, ResNet-34 to ResNet-18 (CIFAR-10)", "cifar_resnet34", "cifar_resnet18", 1.0, (3, 32, 32)),
        Situation("224 px, ResNet-50 to ResNet-18", "resnet50", "resnet18", 1.0, (3, 224, 224)),
    ),
}


# --- what is counted instead of seconds -------------------------------------------------------------------------------


class CallCounter(TorchDispatchMode):
    """Operator calls inside."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted_flops() -> Iterator[Callable[[], float]]:
    with FlopCounterMode(display=False) as counter:
        yield counter.get_total_flops


@contextmanager
def counted_calls() -> Iterator[Callable[[], float]]:
    with CallCounter() as counter:
        yield lambda: counter.calls


def steps_cost(
    name: str,
    situation: Situation,
    settings: BaseModel,
    clock: Callable[[], float],
    *,
    most: float = 0.0,
    device: str = "cpu",
    precision: str = "fp32",
) -> dict[str, float]:
    """What a step of each phase takes on this clock, whatever that counts, to four digits."""
    teacher, backbone = situation.parts()
    images = situation.images()
    speed = measure_speed(
        name,
        teacher.to(device),
        backbone,
        TrainingImages(images.few.to(device), images.pool),
        settings,
        most_seconds=most,
        device=device,
        precision=precision,
        clock=clock,
    )
    return {phase: float(f"{step.seconds:.4g}") for phase, step in speed.steps.items()}


def smaller(settings: BaseModel, ending: str, value: int) -> BaseModel:
    """The settings with a small value for all whose name ends so."""
    return type(settings)(
        **{name: value if name.endswith(ending) else setting for name, setting in settings.model_dump().items()}
    )


def batch_ratios(settings: BaseModel) -> dict[str, float]:
    """How many times SMALL_BATCH a phase's batches hold; one without a batch size of its own has the student's."""
    sizes = {name.removesuffix("_batch_size"): size for name, size in settings if name.endswith("_batch_size")}
    return {phase: sizes.get(phase, sizes["student"]) / SMALL_BATCH for phase in steps_of(settings)}


# --- one row: a method, a situation and an effort ---------------------------------------------------------------------


def row(name: str, situation: Situation, effort: str, device: str, known: dict[str, Any]) -> dict[str, Any]:
    """Steps, and what one takes. `known` has what was found for equal settings: efforts often differ in steps alone."""
    method = load_method(name)
    settings = method.Config(**method.defaults(effort, situation.image_shape, device))
    steps = steps_of(settings)
    key = json.dumps({k: v for k, v in settings.model_dump().items() if not k.endswith("_steps")}, sort_keys=True)
    if key not in known:
        known[key] = cost(name, situation, settings, device)
    return {"method": name, "situation": situation.name, "effort": effort, "steps": steps, **known[key]}


def cost(name: str, situation: Situation, settings: BaseModel, device: str) -> dict[str, Any]:
    """Seconds of a step, or where the GPU is not here what they follow from."""
    if device == "cpu":
        return {"step_s": steps_cost(name, situation, settings, time.process_time, most=SECONDS)}
    if torch.cuda.is_available():
        precision, _ = best_precision(torch.device(device), max(situation.image_shape))
        timed = steps_cost(name, situation, settings, time.monotonic, most=SECONDS, device=device, precision=precision)
        return {"step_s": timed}
    small, ratio = smaller(settings, "_batch_size", SMALL_BATCH), batch_ratios(settings)
    with counted_flops() as clock:
        flops = steps_cost(name, situation, small, clock)
    with counted_calls() as clock:
        calls = steps_cost(name, situation, smaller(small, "_width", SMALL_WIDTH), clock)
    return {"step_flops": {phase: value * ratio[phase] for phase, value in flops.items()}, "step_calls": calls}


def estimated_seconds(found: Mapping[str, Any], gpu: str) -> float:
    """The training of a counted row on a GPU, by the rule above."""
    precision, peak = GPUS[gpu]
    tflops = getattr(load_target(gpu).peaks, peak).value
    return sum(
        count
        * max(
            found["step_flops"].get(phase, 0.0) / (SHARE[precision] * tflops * 1e12),
            found["step_calls"].get(phase, 0.0) * CALL_US / 1e6,
        )
        for phase, count in found["steps"].items()
    )


def measured_seconds(found: Mapping[str, Any]) -> float:
    """The training of a row whose steps were timed."""
    return float(sum(count * found["step_s"].get(phase, 0.0) for phase, count in found["steps"].items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), nargs="*", default=["cpu", "cuda"])
    parser.add_argument("--methods", nargs="*", default=list(method_names()))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    finished = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    keys = {tuple(found[key] for key in ("on", "method", "situation", "effort")) for found in finished}
    for device in arguments.device:
        measured = torch.cuda.get_device_name() if torch.cuda.is_available() else "counted"
        on = measured if device == "cuda" else "one CPU thread"
        for name, situation in itertools.product(arguments.methods, SITUATIONS[device]):
            known: dict[str, Any] = {}
            for effort in EFFORTS:
                if (on, name, situation.name, effort) not in keys:
                    made = {"on": on, **row(name, situation, effort, device, known), **provenance()}
                    append_row(arguments.out, made)
                    print(json.dumps(made), flush=True)


if __name__ == "__main__":
    main()
