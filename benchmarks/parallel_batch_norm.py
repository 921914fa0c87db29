"""What batch norm makes of a batch that several processes share: docs/parallel.md has the tables.

    OMP_NUM_THREADS=1 python -m benchmarks.parallel_batch_norm [--gradients 2 4 8] [--students 1 2] [--seeds 2]
    python -m benchmarks.parallel_batch_norm --table

Each process computes its own rows of a batch, and its batch norms take their statistics from these. On the digits of
`compress demo` (8 px, teacher ResNet-14, student half as wide), by number of processes:

    gradient    of HiDFD's student loss at the student's first step, batch of 128: distance to that of one process, over
                its norm; beside it the distance to that of 128 other images, which is what one step's gradient is worth
    student     that HiDFD trains, generator and all: agreement with the teacher on the 597 test images, and accuracy

Rows are appended to the JSON file as they finish, and finished rows are skipped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.rows import append_row, provenance
from benchmarks.tasks import Task, digits_task, logits
from compressor.demo import train_teacher
from compressor.distill.parallel import World, joined
from compressor.distill.training import Context
from compressor.inputs.teacher import Teacher, load_teacher
from compressor.methods import TrainingImages, hidfd
from compressor.students.student import classifier_sharing, named_backbone

RESULTS = Path("benchmarks/results/parallel_batch_norm.json")
BATCH = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gradients", type=int, nargs="*", default=[2, 4, 8], metavar="PROCESSES")
    parser.add_argument("--students", type=int, nargs="*", default=[1, 2], metavar="PROCESSES")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--generator-steps", type=int, default=1_200, help="as many as `quick` makes")
    parser.add_argument("--student-steps", type=int, default=1_500, help="as many as `quick` makes")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what is in the file, and measure nothing")
    options = parser.parse_args()
    steps = {name: getattr(options, name) for name in ("generator_steps", "student_steps")}
    for seed in range(0 if options.table else options.seeds):
        measure(seed, options.gradients, options.students, steps, options.out)
    print(table(json.loads(options.out.read_text())))


def measure(seed: int, gradients: list[int], students: list[int], steps: dict[str, int], out: Path) -> None:
    """The rows of one seed that are not in the file yet."""
    task = digits_task(Path(), seed)
    with tempfile.TemporaryDirectory() as folder:
        weights = train_teacher(*task.train, Context(Path(folder), seed=seed)).state_dict()
    teacher = load_teacher(weights, task.card)
    said = logits(lambda images: teacher(images).logits, task.test[0]).argmax(dim=1)

    def gradient(number: int) -> dict[str, Any]:
        alone, redrawn = (gradient_of(World(), seed, weights, draw) for draw in (0, 1))
        found = in_processes(gradient_of, number, seed, weights)
        deviation, other = (float((value - alone).norm() / alone.norm()) for value in (found, redrawn))
        return {"deviation": deviation, "another_draw": other}

    def student(number: int) -> dict[str, Any]:
        predicted = in_processes(train, number, seed, weights, steps)
        agreement, accuracy = (float((predicted == right).float().mean()) for right in (said, task.test[1]))
        return {"agreement": agreement, "accuracy": accuracy, "num_test": len(said), **steps}

    for what, numbers, work in (("gradient", gradients, gradient), ("student", students, student)):
        for number in numbers:
            rows = json.loads(out.read_text()) if out.exists() else []
            if (what, number, seed) not in {(row["what"], row["processes"], row["seed"]) for row in rows}:
                started = time.monotonic()
                row = {"what": what, "processes": number, "seed": seed, **work(number)}
                row |= {"seconds": round(time.monotonic() - started, 1), **provenance()}
                append_row(out, row)
                print(json.dumps(row), flush=True)


def in_processes(work: Callable[..., Tensor], number: int, *arguments: Any) -> Tensor:
    """What `work(world, *arguments)` returns in the first of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("spawn")
        processes = [
            context.Process(target=_one, args=(work, Path(folder), rank, number, arguments)) for rank in range(number)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        result: Tensor = torch.load(Path(folder) / "result.pt", weights_only=True)
    return result


def _one(work: Callable[..., Tensor], folder: Path, rank: int, size: int, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    with joined(dist.FileStore(str(folder / "meeting"), size), rank, size, torch.device("cpu")) as world:
        result = work(world, *arguments)
        if world.first:
            torch.save(result, folder / "result.pt")


def prepared(seed: int, weights: dict[str, Tensor]) -> tuple[Task, Teacher, Any]:
    """The task, its teacher, and a student's body."""
    task = digits_task(Path(), seed)
    torch.manual_seed(seed)
    return task, load_teacher(weights, task.card), named_backbone(task.card.architecture, 1, width=0.5)


def train(world: World, seed: int, weights: dict[str, Tensor], steps: dict[str, int]) -> Tensor:
    """The classes that the trained student sees in the test images, (N,)."""
    task, teacher, backbone = prepared(seed, weights)
    config = hidfd.Config(**(hidfd.defaults("quick", task.card.input_shape, "cpu") | steps))
    images = TrainingImages(task.few, task.few[:0])
    with tempfile.TemporaryDirectory() as folder:
        context = Context(Path(folder), seed=seed, world=world)
        distilled = hidfd.distill(teacher, backbone, images, config, context)
    return logits(distilled.student, task.test[0]).argmax(dim=1)


def gradient_of(world: World, seed: int, weights: dict[str, Tensor], draw: int = 0) -> Tensor:
    """The gradient of the student's loss at its first step, as one vector."""
    task, teacher, backbone = prepared(seed, weights)
    torch.manual_seed(seed)
    student = classifier_sharing(backbone, teacher).train()
    with tempfile.TemporaryDirectory() as folder:
        context = Context(Path(folder), seed=seed, world=world)

        def loss_of(images: Tensor) -> Tensor:
            terms = hidfd.student_terms(student, teacher, images, context, None, align=True, distil=False)
            return terms["feature_alignment"]

        images = task.train[0][BATCH * draw : BATCH * (draw + 1)].float() / 255.0
        for _ in context.steps("first", 1, {"student": student}):
            context.backward(loss_of, images)
    return torch.cat([value.grad.flatten() for value in student.parameters() if value.grad is not None])


def table(rows: list[dict[str, Any]]) -> str:
    """Means over the seeds; of the students the differences to one process, paired by seed."""
    lines = ["| processes | rows of each | gradient: distance to one process's | 128 other images' |"]
    lines += ["| ---: | ---: | ---: | ---: |"]
    for number in sorted({row["processes"] for row in rows if row["what"] == "gradient"}):
        found = [row for row in rows if (row["what"], row["processes"]) == ("gradient", number)]
        means = (100 * statistics.mean(row[key] for row in found) for key in ("deviation", "another_draw"))
        lines.append(f"| {number} | {BATCH // number} | {' | '.join(f'{mean:.0f} %' for mean in means)} |")
    lines += ["", "| processes | agreement, % | difference to one process, by seed |", "| ---: | ---: | ---: |"]
    students = [row for row in rows if row["what"] == "student"]
    alone = {row["seed"]: row["agreement"] for row in students if row["processes"] == 1}
    for number in sorted({row["processes"] for row in students}):
        found = [row for row in students if row["processes"] == number]
        gaps = [f"{100 * (row['agreement'] - alone[row['seed']]):+.1f}" for row in found if row["seed"] in alone]
        mean = 100 * statistics.mean(row["agreement"] for row in found)
        lines.append(f"| {number} | {mean:.1f} | {'' if number == 1 else ', '.join(gaps)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
