"""How fast HiDFD's two steps are, beside plain loops on the same machine in the same run.

    python -m benchmarks.speed measure [--device cuda] [--tiny] [--rounds 8] [--compile inductor]
    python -m benchmarks.speed table
    python -m benchmarks.speed split RUN

For each size and each phase three loops take turns: the product's own (`hidfd.train_generator`, `hidfd.train_student`,
as `compress run` calls them), and two of `benchmarks/plain_loop.py`, which computes as research code does:

* plain: the same mathematics. One synthetic batch for both halves of a GAN step; in a student step new synthetic
  images, and the hints of earlier stages that are in the product's recipe.
* published: the paper's own steps, whose mathematics differ. A GAN step makes two synthetic batches; a student step
  takes synthetic images from a fixed set that was made before, so that it runs no generator, and has no hints.

A round times a few steps of each loop; a ratio is taken within a round, where all met the same machine, and what is
reported is the median over the rounds with its interval (order statistics, 95 % from six rounds on). All three have the
number of threads that the product chooses; where that is not torch's own number, as in research code that never sets
it, the plain loop also takes turns with that one. A DataLoader's workers fill their queue between two turns.

The arithmetic of a step is counted by torch's FlopCounterMode (convolutions and matrix products, two for each
multiply-accumulate) as that loop executes it: the product's loop reaches the same result with fewer. Its share of the
peak is that of the fastest of a few matrix products in the loop's own precision, timed in every round.

The minutes of a whole training are a prediction: the steps of `--effort full` times the time of one. Weights are random
and images are noise: a step takes as long. Each row of the JSON file is one (phase, size, device), appended as it is
finished; a row of this device that is there is not measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.nn.utils import parametrize
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.plain_loop import PlainGanStep, PlainStudentStep
from benchmarks.rows import append_row, provenance
from compressor.distill.generator import ConditionalGenerator, Discriminator, GeneratorShape
from compressor.distill.losses import ClassFrequency
from compressor.distill.training import Context, Stateful, best_precision, fitting_threads
from compressor.inputs.card import TeacherCard
from compressor.inputs.teacher import Teacher
from compressor.methods import hidfd
from compressor.report.schema import Report, read_report
from compressor.students.architectures import build_network
from compressor.students.student import named_backbone
from profiles.host import contention, host_name, host_snapshot
from profiles.timing_statistics import median_interval

RESULTS = Path("benchmarks/results/speed.json")
NUM_CLASSES = 10
NUM_IMAGES = 500
SETTLE_S = 0.3  # workers fill their queues meanwhile
PEAK_SIDE = {"cpu": 1024, "cuda": 8192}  # of the matrices whose product is the peak
PEAK_CALLS = 3

Step = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """What a row is about: pixels, channels of generator and discriminator, batch sizes, architectures."""

    side: int
    width: int
    batch: int
    student_batch: int
    teacher: str
    student: str
    student_width: float


SIZES: Mapping[str, tuple[Size, ...]] = {
    "cpu": (
        Size(8, 32, 64, 128, "cifar_resnet14", "cifar_resnet14", 0.5),  # the demo
        Size(16, 32, 64, 128, "cifar_resnet14", "cifar_resnet14", 0.5),
        Size(32, 32, 64, 128, "cifar_resnet20", "cifar_resnet20", 0.5),
        Size(32, 64, 64, 128, "cifar_resnet20", "cifar_resnet20", 0.5),
    ),
    "cuda": (
        Size(32, 128, 100, 128, "cifar_resnet34", "cifar_resnet18", 1.0),
        Size(32, 256, 100, 256, "cifar_resnet34", "cifar_resnet18", 1.0),  # the paper's
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="append the rows that are missing")
    measuring.add_argument("--device", choices=tuple(SIZES), default="cpu")
    measuring.add_argument("--sizes", choices=tuple(SIZES), help="those of another device than --device")
    measuring.add_argument("--tiny", action="store_true", help="8 px, 8 channels, batch 4: shows that it runs, no more")
    measuring.add_argument("--phases", nargs="+", choices=("generator", "student"), default=("generator", "student"))
    measuring.add_argument("--rounds", type=int, default=8)
    measuring.add_argument("--steps", type=int, default=4, help="of each loop in a round")
    measuring.add_argument("--workers", type=int, default=2, help="of each DataLoader")
    measuring.add_argument("--precision", choices=("fp32", "bf16"), help="instead of what the product would choose")
    measuring.add_argument("--compile", metavar="BACKEND", help="torch.compile the networks; without hints")
    measuring.add_argument("--cudnn-benchmark", action="store_true", help="let cuDNN try its kernels")
    measuring.add_argument("--seed", type=int, default=0)
    measuring.add_argument("--out", type=Path, default=RESULTS)
    showing = commands.add_parser("table", help="print the rows as markdown")
    showing.add_argument("--out", type=Path, default=RESULTS)
    splitting = commands.add_parser("split", help="training and the rest in a finished run")
    splitting.add_argument("run", type=Path)
    options = parser.parse_args()
    if options.command == "split":
        print(time_split(read_report(options.run / "report.json")))
        return
    if options.command == "measure":
        measure(options)
    print(table(json.loads(options.out.read_text())))


# --- measuring -------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> None:
    """Every row that is not in the file yet."""
    torch.backends.cudnn.benchmark = options.cudnn_benchmark
    for size in SIZES[options.sizes or options.device]:
        if options.tiny:
            size = replace(size, side=8, width=8, batch=4, student_batch=4, student_width=0.25)
        for phase in options.phases:
            with fitting_threads(size.side):
                precision = options.precision or best_precision(torch.device(options.device), size.side)[0]
            key = {
                "phase": phase,
                **asdict(size),
                "device": device_name(options.device),
                "precision": precision,
                "compile": options.compile,
                "cudnn_benchmark": options.cudnn_benchmark,
            }
            rows = json.loads(options.out.read_text()) if options.out.exists() else []
            if any(key.items() <= row.items() for row in rows):
                continue
            threads = torch.get_num_threads()
            with fitting_threads(size.side, precision):
                row = measured(phase, size, precision, threads, options) | provenance() | key
            append_row(options.out, row)
            print(json.dumps(row), flush=True)


def measured(phase: str, size: Size, precision: str, threads: int, options: argparse.Namespace) -> dict[str, Any]:
    """One row's numbers; `threads` is torch's own number."""
    before = host_snapshot()
    device = torch.device(options.device)
    with tempfile.TemporaryDirectory() as folder:
        turns = Turns(Path(folder), precision, threads, options)
        teacher = seeded_teacher(size).to(device)
        random = torch.Generator().manual_seed(options.seed)
        images = torch.randint(256, (NUM_IMAGES, *teacher.card.input_shape), generator=random, dtype=torch.uint8)
        images = images.to(device)
        config = settings(size, options.device)
        if options.compile:  # what hooks record in a step, torch.compile does not see
            config = config.model_copy(update={"stage_weight": 0.0})
        if phase == "generator":
            turns.rivals_of = gan_rivals(copy.deepcopy(teacher), images, config, options)
            with teacher.folded():
                hidfd.train_generator(teacher, images, True, config, turns)
        else:
            generator = seeded_generator(size, config).to(device)
            turns.rivals_of = student_rivals(copy.deepcopy(teacher), generator, images, config, options)
            backbone = named_backbone(size.student, 3, size.student_width)
            with teacher.folded(), parametrize.cached():  # as hidfd.distill does
                hidfd.train_student(teacher, backbone, images, generator, True, config, turns)
    per_step = 2 * size.batch if phase == "generator" else size.student_batch
    return {
        "seed": options.seed,
        "rounds": options.rounds,
        "steps_per_round": options.steps,
        "workers": options.workers,
        "images_per_step": per_step,
        "full_steps": config.generator_steps if phase == "generator" else config.student_steps,
        "loops": {name: turns.found(name, per_step) for name in turns.seconds},
        "speedup": {
            name: with_interval(ratios(turns.seconds[name], turns.seconds["product"]))
            for name in turns.seconds
            if name != "product"
        },
        "peak_tflops": {name: max(values) / 1e12 for name, values in turns.peaks.items()},
        "compiled_graphs": compiled_graphs() if options.compile else None,
        "terms": {name: sorted(terms) for name, terms in turns.terms.items()},
        "torchvision": torchvision.__version__,
        "contention": contention(before, host_snapshot()),
    }


def settings(size: Size, device: str) -> hidfd.Config:
    """Those of `--effort full`, at this size."""
    defaults = hidfd.defaults("full", (3, size.side, size.side), device)
    return hidfd.Config(
        **{
            **defaults,
            "generator_steps": 20_000,
            "generator_batch_size": size.batch,
            "generator_width": size.width,
            "discriminator_width": size.width,
            "student_batch_size": size.student_batch,
        }
    )


class Turns(Context):
    """A context whose `steps` lets the caller's loop and its rivals take turns, and then ends, before the last step.

    Attributes:
        rivals_of: what the caller's loop changes, by name, to the rivals' steps, by name.
        seconds: of a step, by loop, one for each round.
        gflop: of a step, by loop.
        peaks: floating point operations in a second of a matrix product in the precision of each loop, by round.
        terms: names of the loss terms, by loop.
    """

    def __init__(self, folder: Path, precision: str, threads: int, options: argparse.Namespace) -> None:
        super().__init__(folder, device=options.device, seed=options.seed, precision=precision)
        self.options, self.threads = options, threads
        self.rivals_of: Callable[[Mapping[str, Stateful]], Mapping[str, Step]] = lambda _state: {}
        self.seconds: dict[str, list[float]] = {"product": []}
        self.gflop: dict[str, float] = {}
        self.peaks: dict[str, list[float]] = {"fp32": [], precision: []}
        self.terms: dict[str, Sequence[str]] = {}

    def steps(self, phase: str, num_steps: int, state: Mapping[str, Stateful]) -> Iterator[int]:  # noqa: ARG002
        rivals = dict(self.rivals_of(state))
        with FlopCounterMode(display=False) as counter:
            yield 0
        self.gflop["product"] = counter.get_total_flops() / 1e9
        if self.options.compile:  # after the count: what torch 2.11 first runs under a counter, it never compiles
            compile_networks(state, self.options.compile)
        self.terms["product"] = tuple(self._terms)
        for name, rival in rivals.items():
            with FlopCounterMode(display=False) as counter:
                self.terms[name] = tuple(rival())
            self.gflop[name] = counter.get_total_flops() / 1e9
            rival()
        if "plain" in rivals and self.threads != torch.get_num_threads():
            rivals[f"plain, {self.threads} threads"] = with_threads(self.threads, rivals["plain"])
            self.gflop[f"plain, {self.threads} threads"] = self.gflop["plain"]
        self.seconds |= {name: [] for name in rivals}
        yield 1
        done = 2
        for index in range(self.options.rounds):
            for precision, found in self.peaks.items():
                found.append(matmul_flops(self.device, torch.bfloat16 if precision == "bf16" else torch.float32))
            names = [*self.seconds]
            # Another one begins each time, so that none always runs after the same.
            for name in names[index % len(names) :] + names[: index % len(names)]:
                time.sleep(SETTLE_S)
                self._synchronise()
                started = time.perf_counter()
                for _ in range(self.options.steps):
                    if name == "product":
                        yield done
                        done += 1
                    else:
                        rivals[name]()
                self._synchronise()
                self.seconds[name].append((time.perf_counter() - started) / self.options.steps)
            self._terms.clear()

    def found(self, name: str, images_per_step: int) -> dict[str, Any]:
        """What there is to say of one loop."""
        seconds = self.seconds[name]
        peaks = self.peaks[self.precision if name == "product" else "fp32"]
        return {
            "step_ms": with_interval([1e3 * value for value in seconds]),
            "images_per_s": with_interval([images_per_step / value for value in seconds]),
            "gflop": self.gflop[name],
            "share_of_peak": with_interval(
                [self.gflop[name] * 1e9 / value / peak for value, peak in zip(seconds, peaks, strict=True)]
            ),
        }


def with_threads(threads: int, step: Step) -> Step:
    """The same step with another number of CPU threads."""

    def changed() -> object:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return step()
        finally:
            torch.set_num_threads(before)

    return changed


def gan_rivals(
    teacher: Teacher, images: Tensor, config: hidfd.Config, options: argparse.Namespace
) -> Callable[[Mapping[str, Stateful]], Mapping[str, Step]]:
    """Plain loops that begin with the product's weights."""
    labels, feature_norm = hidfd.survey(teacher, images)

    def rivals(state: Mapping[str, Stateful]) -> Mapping[str, Step]:
        generator, discriminator, frequency = (state[name] for name in ("generator", "discriminator", "frequency"))
        assert isinstance(generator, ConditionalGenerator)
        assert isinstance(discriminator, Discriminator)
        assert isinstance(frequency, ClassFrequency)
        return {
            name: PlainGanStep(
                teacher,
                generator,
                discriminator,
                images,
                labels,
                feature_norm,
                frequency,
                config,
                separate=name == "published",
                workers=options.workers,
                seed=options.seed,
            )
            for name in ("plain", "published")
        }

    return rivals


def student_rivals(
    teacher: Teacher,
    generator: ConditionalGenerator,
    images: Tensor,
    config: hidfd.Config,
    options: argparse.Namespace,
) -> Callable[[Mapping[str, Stateful]], Mapping[str, Step]]:
    """Plain loops that begin with the student's weights; for the time noise is as good as a set made before."""
    context = Context(Path(), device=options.device, seed=options.seed)  # keeps no file

    def rivals(state: Mapping[str, Stateful]) -> Mapping[str, Step]:
        trained = state["student"]
        assert isinstance(trained, torch.nn.ModuleList)
        return {
            name: PlainStudentStep(
                teacher,
                trained[0],
                generator,
                images,
                config,
                context,
                stages=name == "plain" and config.stage_weight > 0,
                drawn=images.flip(0) if name == "published" else None,
                workers=options.workers,
                seed=options.seed,
            )
            for name in ("plain", "published")
        }

    return rivals


def seeded_teacher(size: Size) -> Teacher:
    """Untrained weights that are the same every time."""
    card = TeacherCard(
        architecture=size.teacher,
        num_classes=NUM_CLASSES,
        class_names=tuple(str(label) for label in range(NUM_CLASSES)),
        input_shape=(3, size.side, size.side),
        mean=(0.49, 0.48, 0.45),
        std=(0.25, 0.24, 0.26),
    )
    torch.manual_seed(0)
    return Teacher(build_network(size.teacher, NUM_CLASSES), card)


def seeded_generator(size: Size, config: hidfd.Config) -> ConditionalGenerator:
    """The frozen generator of the student phase."""
    resolution = (size.side, size.side)
    shape = GeneratorShape((3, *resolution), resolution, NUM_CLASSES, config.latent_dim, size.width)
    return ConditionalGenerator(shape).to(memory_format=torch.channels_last).eval().requires_grad_(False)


def compile_networks(state: Mapping[str, Stateful], backend: str) -> None:
    """Let torch.compile have what trains; where it fails, it computes as before, and `compiled_graphs` tells."""
    torch._dynamo.config.suppress_errors = True
    torch._dynamo.utils.counters.clear()
    compiler = backend_of(backend)
    for name, item in state.items():
        if isinstance(item, torch.nn.ModuleList):  # of the student phase
            item[0].backbone.compile(backend=compiler)
            item[0].projector.compile(backend=compiler)
        elif isinstance(item, torch.nn.Module) and name != "average":
            item.compile(backend=compiler)


def backend_of(name: str) -> str | Callable[..., Any]:
    """What torch.compile takes for a backend of this name."""
    return name


def compiled_graphs() -> int:
    """How many graphs torch.compile has made since `compile_networks`; 0: nothing was compiled."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Floating point operations in a second of the fastest of a few products of square matrices."""
    side = PEAK_SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    torch.mm(a, b)
    times = []
    for _ in range(PEAK_CALLS):
        _synchronise(device)
        started = time.perf_counter()
        torch.mm(a, b)
        _synchronise(device)
        times.append(time.perf_counter() - started)
    return 2.0 * side**3 / min(times)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def device_name(device: str) -> str:
    """Of the machine that computes."""
    return torch.cuda.get_device_name() if device == "cuda" else host_name()


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Round by round."""
    return [one / other for one, other in zip(numerators, denominators, strict=True)]


def with_interval(values: Sequence[float]) -> dict[str, float]:
    """The median of all rounds and where it lies."""
    low, high, confidence = median_interval(values)
    return {"median": statistics.median(values), "low": low, "high": high, "confidence": confidence}


# --- tables ----------------------------------------------------------------------------------------------------------


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One line for each row, and one for each pair of phases with the predicted minutes of a whole training."""
    lines = [
        "| phase, px, width, batch | device, precision | images/s | share of matmul peak | plain images/s | share "
        "| times plain | times plain with all threads | times published |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        loops, speedup = row["loops"], row["speedup"]
        batch = row["batch"] if row["phase"] == "generator" else row["student_batch"]
        others = [found for name, found in speedup.items() if name.startswith("plain, ")]
        compiled = f", {row['compile']}" if row["compile"] else ""
        lines.append(
            f"| {row['phase']}, {row['side']}, {row['width']}, {batch} | {row['device']}, {row['precision']}{compiled} "
            f"| {loops['product']['images_per_s']['median']:,.0f} | {loops['product']['share_of_peak']['median']:.0%} "
            f"| {loops['plain']['images_per_s']['median']:,.0f} | {loops['plain']['share_of_peak']['median']:.0%} "
            f"| {_range(speedup['plain'])} | {_range(others[0]) if others else 'the same'} "
            f"| {_range(speedup['published'])} |"
        )
    lines += ["", "| px, width, device | steps of a whole training | predicted minutes | plain, predicted |",
              "| --- | ---: | ---: | ---: |"]  # fmt: skip
    for row in rows:
        if row["phase"] != "generator":
            continue
        same = ("side", "width", "teacher", "student", "device", "precision", "compile", "cudnn_benchmark")
        for other in rows:
            if other["phase"] == "student" and all(other[name] == row[name] for name in same):
                minutes = {
                    name: sum(one["full_steps"] * one["loops"][name]["step_ms"]["median"] for one in (row, other)) / 6e4
                    for name in ("product", "plain")
                }
                lines.append(
                    f"| {row['side']}, {row['width']}, {row['device']} "
                    f"| {row['full_steps']:,} and {other['full_steps']:,} "
                    f"| {minutes['product']:,.0f} | {minutes['plain']:,.0f} |"
                )
    return "\n".join(lines)


def _range(found: Mapping[str, float]) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"


def time_split(report: Report) -> str:
    """How long the training of a run took, and everything else, by stage."""
    training = sum(phase.seconds for phase in report.distillation.phases)
    lines = ["| part | seconds | share |", "| --- | ---: | ---: |"]
    parts = [(f"training: {phase.name}", phase.seconds) for phase in report.distillation.phases]
    for stage in report.stages:
        # A stage's seconds are those of the session that finished it, a phase's those of all its sessions.
        seconds = max(0.0, stage.seconds - training) if stage.name == "distill" else stage.seconds
        parts.append(("distill, outside its loops" if stage.name == "distill" else stage.name, seconds))
    total = sum(seconds for _, seconds in parts)
    parts.append(("all but training", total - training))
    lines += [f"| {name} | {seconds:.1f} | {seconds / total:.1%} |" for name, seconds in parts]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
