"""Every method on the same teachers, images and budget: what it is worth, what it costs, and what it needs.

    python -m benchmarks.methods --data PACKS [--only digits mnist cifar10] [--methods dfad noise] [--seeds 1]
    python -m benchmarks.methods --data PACKS --device cuda --out FILE    # the rows of one file are of one device
    python -m benchmarks.methods --table [--page]    # the tables of docs/methods.md, from the results

One row is one (task, pool, method, seed). A method that needs no image, or a few of the task, is run once; one that
trains on a pool is run on three: `related` (unlabelled images of the task), `unrelated`, and `mixed` (a quarter
related); the few images are in each. Rows are appended to the JSON file as they finish and finished rows are skipped,
so that the program survives being stopped; inside a row the training itself resumes. Accuracy is with the label and
agreement with the teacher, both on test images that no stage trained or chose on, with the last weights. Queries are
what the teacher counted. Times are of one core; those of the clock are longer where other programs ran.

Tasks:

    digits      8 px, scikit-learn's; the teacher of `compress demo`. Unrelated: natural images in grey
    mnist       32 px, LeNet-5 trained on 8,000 images of the test file and judged on its other 2,000, half a LeNet-5 as
                the student. Unrelated: natural images in grey. It has no batch norm: what matches that is refused
    cifar10     32 px, ResNet-20, half as wide as the student. Related: natural images of the same ten words that are
                not CIFAR-10. Unrelated: photographs of clothing

All methods make the same number of student updates of the same size, but on MNIST, where each takes the setting of the
published comparison: 2,000 updates of 64 generated images (DFAD's), 12 passes over a pool in batches of 128 (KD3's).
The table of all rows in the file is printed at the end.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.packs import add_data_argument, cifarlike_pool, clothing, mnist, resized
from benchmarks.rows import append_row, provenance, write_between
from benchmarks.tasks import Task, cifar10_task, digits_task, logits, make_context, tiny_settings
from compressor.distill.supervised import train_classifier
from compressor.errors import InputRefused
from compressor.inputs.card import TeacherCard
from compressor.inputs.teacher import Classifier, Normalise, Teacher, load_teacher
from compressor.methods import TrainingImages, check_fit, load_method, method_names
from compressor.students.architectures import build_network
from compressor.students.specification import build_backbone
from compressor.students.student import own_classifier

RESULTS = Path("benchmarks/results/methods.json")
PAGE = Path("docs/methods.md")
BEGIN, END = "<!-- tables, made by benchmarks/methods.py -->", "<!-- end of the tables of benchmarks/methods.py -->"
NEEDS_BEGIN, NEEDS_END = "<!-- needs, made by benchmarks/methods.py -->", "<!-- end of the needs -->"
POOLS = ("related", "mixed", "unrelated")
NO_POOL = "none"
NUM_MIXED = 1_500  # related images in a mixed pool
NUM_UNRELATED = 4_500
NUM_FEW_FROM = 10_000  # MNIST's few images are among the first of its training file, and its pools among the others
CANDIDATE_SHIFTS = (0, 1, 2, 4)  # pixels; 4 is an eighth of 32
CHOOSING_SEEDS = (3, 4, 5)  # none of the table's
NUM_HELD_OUT = 1_000  # for that choice
ORIGINAL = "student on original data"  # the upper anchor, beside the methods


@dataclass(frozen=True)
class Bench:
    """One task and its pools.

    Attributes:
        make: the task at one seed, from the folder of packs.
        related, unrelated: images (N, C, H, W) uint8 in the task's own form, to fill pools from.
        budget: settings that every method takes.
        options: settings of one method, which win over the budget.
        teacher_lr: of its SGD.
        teacher_augment: whether it was trained on shifted images; DFAD's recipe for MNIST names none.
        seeds: how many.
    """

    make: Callable[[Path, int], Task]
    related: Callable[[Path], Tensor]
    unrelated: Callable[[Path], Tensor]
    budget: Mapping[str, Any]
    options: Mapping[str, Mapping[str, Any]]
    teacher_lr: float = 0.1
    teacher_augment: bool = True
    seeds: int = 3


@cache
def mnist_train(data: Path, side: int) -> Tensor:
    return mnist(data, "train", side).images


def lenet_task(data: Path, seed: int) -> Task:
    """DFAD's networks at CPU size; one split for all seeds, and 20 images of the other file as the few."""
    pack = mnist(data, "test", 32)
    few = torch.randperm(NUM_FEW_FROM, generator=torch.Generator().manual_seed(seed))[:20]
    order = torch.randperm(len(pack.images), generator=torch.Generator().manual_seed(0))
    train, test = order[:8_000], order[8_000:]
    card = TeacherCard(
        architecture="lenet5",
        num_classes=10,
        class_names=pack.class_names,
        input_shape=(1, 32, 32),
        channel_order="L",
        mean=(0.1307,),
        std=(0.3081,),
    )
    return Task(
        "mnist",
        card,
        (pack.images[train], pack.labels[train]),
        (pack.images[test], pack.labels[test]),
        mnist_train(data, 32)[few],
        teacher_steps=1_250,
        flip=False,
        teacher_batch=64,
    )


def in_grey(images: Tensor, side: int) -> Tensor:
    """(N, 3, H, W) to (N, 1, side, side), by the weights of ITU-R 601."""
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return resized((images.float() * weights).sum(dim=1, keepdim=True).round().to(torch.uint8), side, side)


def grey_natural(side: int) -> Callable[[Path], Tensor]:
    return lambda data: in_grey(cifarlike_pool(data, ()).images, side)


# The settings of the published comparison on MNIST. A pool of 6,000 passes 12 times in 562 updates of 128.
GENERATED: Mapping[str, Any] = {"student_lr": 0.01, "weight_decay": 1e-4}
ADVERSARIAL: Mapping[str, Any] = {**GENERATED, "generator_width": 16, "latent_dim": 100, "generator_lr": 1e-3}
PASSES: Mapping[str, Any] = {"student_steps": 562, "student_batch_size": 128, "student_lr": 0.02, "mirror": "off"}

BENCHES: Mapping[str, Bench] = {
    "digits": Bench(
        digits_task,
        lambda data: mnist_train(data, 8),
        grey_natural(8),
        {"student_steps": 1_500, "student_batch_size": 128},
        {},
    ),
    "mnist": Bench(
        lenet_task,
        lambda data: mnist_train(data, 32)[NUM_FEW_FROM:],
        grey_natural(32),
        {"student_steps": 2_000, "student_batch_size": 64},
        {
            "dfad": ADVERSARIAL,
            "dafl": ADVERSARIAL,
            "noise": GENERATED,
            "vanilla": {"student_lr": 0.02},
            "pool": PASSES,
            "kd3": PASSES,
        },
        teacher_lr=0.02,
        teacher_augment=False,
    ),
    "cifar10": Bench(
        cifar10_task,
        lambda data: cifarlike_pool(data, ()).images,
        lambda data: resized(clothing(data, "train").images, 32, 32),
        {"student_steps": 500, "student_batch_size": 128},
        {},
        seeds=1,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser, required=False)
    parser.add_argument("--table", action="store_true", help=f"print the tables of {PAGE} from the results")
    parser.add_argument("--page", action="store_true", help=f"with --table: write them into {PAGE}")
    parser.add_argument("--only", nargs="+", choices=list(BENCHES), default=list(BENCHES), metavar="TASK")
    parser.add_argument("--methods", nargs="+", choices=[*method_names(), ORIGINAL], metavar="METHOD")
    parser.add_argument("--pools", nargs="+", choices=POOLS, default=list(POOLS), metavar="POOL")
    parser.add_argument("--seeds", type=int, help="fewer seeds than the task's own number")
    parser.add_argument("--choose-shift", action="store_true",
                        help="how far to move the images of a pool, from images that are no evidence")  # fmt: skip
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--tiny", action="store_true",
                        help="a few updates, to see that the program runs; give an --out of its own")  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "compress-methods",
                        help="teachers and checkpoints; may be deleted")  # fmt: skip
    options = parser.parse_args()
    if options.table:
        rows = json.loads(options.out.read_text())
        for begin, text, end in ((NEEDS_BEGIN, needs_table(), NEEDS_END), (BEGIN, table(rows), END)):
            print(f"{begin}\n{text}\n{end}")
            if options.page:
                write_between(PAGE, begin, end, text)
        return
    if options.data is None:
        parser.error("--data is needed to run")
    if options.choose_shift:
        choose_shift(options)
        return
    for name in options.only:
        for seed in range(options.seeds or BENCHES[name].seeds):
            run_seed(name, seed, options)
    print(table(json.loads(options.out.read_text())))


def run_seed(name: str, seed: int, options: argparse.Namespace) -> None:
    """All rows of one task and seed that are not in the file yet."""
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    done = {(row["task"], row["pool"], row["method"], row["seed"]) for row in rows}
    wanted = [
        (pool, method)
        for method in options.methods or [ORIGINAL, *method_names()]
        for pool in (options.pools if method != ORIGINAL and load_method(method).NEEDS == "pool" else [NO_POOL])
        if (name, pool, method, seed) not in done
    ]
    if not wanted:
        return
    bench = BENCHES[name]
    task = on_device(bench.make(options.data, seed), options.device)
    if options.tiny:
        task = replace(task, teacher_steps=4, teacher_batch=8)
    folder = options.work / f"{name}-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    teacher = trained_teacher(task, bench, seed, folder)
    teacher_logits = logits(Classifier(teacher), task.test[0])
    same = {
        "task": name,
        "seed": seed,
        "teacher_accuracy": share(teacher_logits.argmax(dim=1) == task.test[1]),
        "num_test": len(task.test[1]),
    }
    for pool, method in wanted:
        others = pool_images(bench, pool, options.data, seed, like=task.few).to(task.few.device)
        images = TrainingImages(task.few, others)
        row = {**same, "pool": pool, "method": method, "num_few": len(images.few), "num_pool": len(images.pool)}
        try:
            row |= result(bench, task, teacher, teacher_logits, method, images, seed, folder, options.tiny)
        except InputRefused as refused:
            row["refused"] = refused.received
        append_row(options.out, {**row, **provenance()})
        print(json.dumps(row), flush=True)


def on_device(task: Task, device: str) -> Task:
    """The task with its images and labels there."""
    train, test = ((images.to(device), labels.to(device)) for images, labels in (task.train, task.test))
    return replace(task, train=train, test=test, few=task.few.to(device))


def choose_shift(options: argparse.Namespace) -> None:
    """How far `pool` and `kd3` should move MNIST's images: the student's agreement on images that are no evidence.

    These are 1,000 more of the file that the few images are from, which no pool is made of, and 1,000 of the pool that
    are then not trained on. No label takes part, and no seed of the table.
    """
    bench = BENCHES["mnist"]
    for seed in CHOOSING_SEEDS:
        task, folder = bench.make(options.data, seed), options.work / f"mnist-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        teacher = trained_teacher(task, bench, seed, folder)
        mixed = pool_images(bench, "mixed", options.data, seed, like=task.few)
        order = torch.randperm(len(mixed), generator=torch.Generator().manual_seed(seed))
        images = TrainingImages(task.few, mixed[order[NUM_HELD_OUT:]])
        candidates = torch.randperm(NUM_FEW_FROM, generator=torch.Generator().manual_seed(seed))
        of_task = mnist_train(options.data, 32)[candidates[len(task.few) :][:NUM_HELD_OUT]]
        held_out = {"the task": of_task, "the pool": mixed[order[:NUM_HELD_OUT]]}
        expected = {source: logits(Classifier(teacher), views).argmax(dim=1) for source, views in held_out.items()}
        for name in ("pool", "kd3"):
            method = load_method(name)
            for shift in CANDIDATE_SHIFTS:
                config = method.Config(**{**PASSES, "max_shift": shift})
                context = make_context(task, folder / f"{name}-shift-{shift}", seed)
                backbone = build_backbone("width:0.5", teacher, channel_multiple=1, seed=seed)
                student = method.distill(teacher, backbone, images, config, context).student
                for source, views in held_out.items():
                    agreement = share(logits(student, views).argmax(dim=1) == expected[source])
                    print(f"{name}, seed {seed}, shift {shift} px, images of {source}: {agreement:.4f}", flush=True)


def trained_teacher(task: Task, bench: Bench, seed: int, folder: Path) -> Teacher:
    """The task's teacher, trained once per seed and kept in the work folder."""
    path, card = folder / "teacher.pt", task.card
    if not path.exists():
        context = make_context(task, folder / "teacher", seed, task.few.device.type)  # which seeds the weights
        network = nn.Sequential(Normalise(card), build_network(card.architecture, 10, card.input_shape[0]))
        train_classifier(
            network, *task.train, context, num_steps=task.teacher_steps, batch_size=task.teacher_batch,
            lr=bench.teacher_lr, flip=task.flip, augment=bench.teacher_augment,
        )  # fmt: skip
        torch.save(network[1].cpu().state_dict(), path)
    return load_teacher(torch.load(path, weights_only=True), card).to(task.few.device)


def pool_images(bench: Bench, pool: str, data: Path, seed: int, *, like: Tensor) -> Tensor:
    """Related, mixed or unrelated images (M, C, H, W); as many unrelated ones in either as there are, up to 4,500."""
    if pool == NO_POOL:
        return like[:0]
    random = torch.Generator().manual_seed(seed)

    def some(images: Tensor, count: int) -> Tensor:
        return images[torch.randperm(len(images), generator=random)[:count]]

    if pool == "related":
        return some(bench.related(data), NUM_MIXED + NUM_UNRELATED)
    unrelated = some(bench.unrelated(data), NUM_UNRELATED)
    return unrelated if pool == "unrelated" else torch.cat([some(bench.related(data), NUM_MIXED), unrelated])


def result(
    bench: Bench,
    task: Task,
    teacher: Teacher,
    teacher_logits: Tensor,
    name: str,
    images: TrainingImages,
    seed: int,
    folder: Path,
    tiny: bool = False,
) -> dict[str, Any]:
    """Train one student, where the task's images are, and judge it.

    Raises:
        InputRefused: by the method, of this teacher or these images.
    """
    work, device = folder / f"{name.replace(' ', '-')}-{len(images.pool)}", task.few.device.type
    resumed = work.exists()  # what an earlier session took, and asked, nobody knows any more
    backbone = build_backbone("width:0.5", teacher, channel_multiple=1, seed=seed)
    facts: dict[str, Any] = {}
    queries_before, started, processor = teacher.num_queries, time.monotonic(), time.process_time()
    student: Callable[[Tensor], Tensor]
    if name == ORIGINAL:
        context = make_context(task, work, seed, device)
        network = own_classifier(backbone, teacher)
        steps, batch_size = (4, 8) if tiny else (bench.budget["student_steps"], bench.budget["student_batch_size"])
        train_classifier(
            network, *task.train, context, num_steps=steps, batch_size=batch_size, lr=0.05, flip=task.flip,
            phase="student",
        )  # fmt: skip
        student = network
    else:
        method = load_method(name)
        check_fit(name, teacher, len(images.few), len(images.pool))
        fitted = method.defaults("quick", task.card.input_shape, device)
        asked = {**bench.budget, **bench.options.get(name, {}), **(tiny_settings(method.Config) if tiny else {})}
        config = method.Config(**{**fitted, **{key: asked[key] for key in asked if key in method.Config.model_fields}})
        context = make_context(task, work, seed, device)
        distilled = method.distill(teacher, backbone, images, config, context)
        student = distilled.student
        facts = {
            "settings": config.model_dump(mode="json"),
            "synthetic_class_entropy": distilled.facts.get("synthetic_class_entropy"),
        }
    # All sessions that worked on this row, where it was stopped and resumed.
    seconds = max(time.monotonic() - started, sum(phase.seconds for phase in context.phases))
    queries = teacher.num_queries - queries_before
    predicted = logits(student, task.test[0]).argmax(dim=1)
    shutil.rmtree(work)
    return {
        "accuracy": share(predicted == task.test[1]),
        "agreement": share(predicted == teacher_logits.argmax(dim=1)),
        "seconds": round(seconds, 1),
        "processor_seconds": None if resumed else round(time.process_time() - processor, 1),
        "teacher_queries": None if resumed else queries,
        **facts,
    }


def share(hits: Tensor) -> float:
    return float(hits.float().mean())


def needs_table() -> str:
    """What every method declares, in Markdown."""
    marks = {"input_gradient": "gradients to the image", "batch_norm": "batch norm", "feature_map": "feature map"}
    images = {"nothing": "none", "few": "few, of the task", "pool": "a pool, or many of the task"}
    lines = ["| method | images | of the teacher | tasks |", "| --- | --- | --- | --- |"]
    for name in method_names():
        method = load_method(name)
        uses = ", ".join(marks.get(part, part) for part in method.USES)
        lines.append(f"| `{name}` | {images[method.NEEDS]} | {uses} | {', '.join(method.TASKS)} |")
    return "\n".join(lines)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Mean and standard deviation over the seeds, in Markdown, a task at a time."""
    return "\n\n".join(
        task_table([row for row in rows if row["task"] == task])
        for task in BENCHES
        if any(row["task"] == task for row in rows)
    )


def task_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows of one task: the upper anchor, then method by method, each with its pools."""
    teachers = {row["seed"]: row["teacher_accuracy"] for row in rows}
    lines = [
        f"**{rows[0]['task']}**: teacher {spread(list(teachers.values()))} %, {rows[0]['num_few']} few images, "
        f"{rows[0]['num_test']:,} test images",
        "",
        "| method | pool | accuracy % | agreement % | processor seconds | teacher queries | seeds |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for method in (ORIGINAL, *method_names()):
        for pool in (NO_POOL, *POOLS):
            cell = [row for row in rows if (row["method"], row["pool"]) == (method, pool)]
            if not cell:
                continue
            if "refused" in cell[0]:
                lines.append(f"| {method} | {pool} | refused: {cell[0]['refused']} | | | | |")
                continue
            worth = " | ".join(spread([row[key] for row in cell]) for key in ("accuracy", "agreement"))
            cost = " | ".join(
                mean_known([row[key] for row in cell]) for key in ("processor_seconds", "teacher_queries")
            )
            lines.append(f"| {method} | {pool} | {worth} | {cost} | {len(cell)} |")
    return "\n".join(lines)


def mean_known(numbers: Sequence[float | None]) -> str:
    """The mean of those that are known, or nothing."""
    known = [number for number in numbers if number is not None]
    return f"{statistics.mean(known):,.0f}" if known else ""


def spread(shares: list[float]) -> str:
    """Per cent, with the standard deviation where there is more than one."""
    mean = f"{100 * statistics.mean(shares):.1f}"
    return f"{mean} ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else mean


if __name__ == "__main__":
    main()
