"""What the student is worth: HiDFD against its baselines and without each of its parts, at sizes that a CPU can do.

    python -m benchmarks.cpu_quality --data PACKS [--only digits mnist cifar10]

One row is one (data set, configuration, seed). Rows are appended to the JSON file as they finish and finished rows are
skipped, so that the program survives being stopped; inside a row the training itself resumes. All rows of one seed
share teacher, few images, student architecture and number of student steps; rows whose generator would be the same
share it. Agreement is with the teacher and accuracy with the label, both on test images that no stage trained or chose
on, with the last weights. Nothing is selected in a row; where the settings come from is in docs/experiments.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.packs import CIFAR10_MEAN, CIFAR10_STD, add_data_argument, cifar10, cifarlike_pool, mnist
from compressor.demo import CARD as DIGITS_CARD
from compressor.demo import FEW_PER_CLASS, NUM_TRAIN, TEACHER_STEPS, digits, first_of_each_class
from compressor.distill.supervised import train_classifier
from compressor.distill.training import Context, best_precision
from compressor.inputs.card import TeacherCard
from compressor.inputs.teacher import Normalise, Teacher, load_teacher
from compressor.methods import hidfd, vanilla
from compressor.progress import Reporter
from compressor.students.architectures import build_network
from compressor.students.student import named_backbone, own_classifier
from profiles.host import host_name

# Each configuration: the method and its options beside the effort's defaults. `generator` names the generator that it
# trains or shares; configurations with the same name differ in their student only.
CONFIGURATIONS: Mapping[str, tuple[str, str, dict[str, Any]]] = {
    "vanilla": ("vanilla", "", {}),
    "HiDFD without synthetic images": ("hidfd", "", {"generator_steps": 0}),
    "HiDFD": ("hidfd", "whole", {}),
    "without data inflation": ("hidfd", "whole", {"real_fraction": "natural"}),
    # KL on logits has other gradients than feature alignment, so this row takes vanilla's learning rate.
    "without classifier sharing": ("hidfd", "whole", {"classifier_sharing": "off", "student_lr": 0.05}),
    "without feature integration": ("hidfd", "no-integration", {"matched_weight": 0.0, "crossed_weight": 0.0}),
    "without frequency smoothing": ("hidfd", "no-smoothing", {"smoothing_weight": 0.0}),
}
SYNTHETIC_SET = 50_000  # what the paper generates; without inflation a real image is as rare as it is in that union


@dataclass(frozen=True)
class Task:
    """One data set at one seed, as tensors: images (N, C, H, W) uint8."""

    name: str
    card: TeacherCard
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    few: Tensor
    teacher_steps: int
    flip: bool
    teacher_batch: int = 128


def digits_task(_data: Path, seed: int) -> Task:
    images, labels = digits(seed)
    train = (images[:NUM_TRAIN], labels[:NUM_TRAIN])
    few = train[0][first_of_each_class(train[1], FEW_PER_CLASS)]
    test = (images[NUM_TRAIN:], labels[NUM_TRAIN:])
    return Task("digits", DIGITS_CARD, train, test, few, TEACHER_STEPS, flip=False, teacher_batch=64)


def mnist_task(data: Path, seed: int) -> Task:
    train, test = mnist(data, "train", 16), mnist(data, "test", 16)
    order = torch.randperm(len(train.images), generator=torch.Generator().manual_seed(seed))
    few = order[first_of_each_class(train.labels[order], 10)]
    card = TeacherCard(
        architecture="cifar_resnet14",
        num_classes=10,
        class_names=train.class_names,
        input_shape=(1, 16, 16),
        channel_order="L",
        mean=(0.1307,),
        std=(0.28,),
    )
    return Task("mnist", card, (train.images, train.labels), (test.images, test.labels), train.images[few],
                teacher_steps=1_500, flip=False)  # fmt: skip


def cifar10_task(data: Path, seed: int) -> Task:
    train, test = cifar10(data, "train"), cifar10(data, "test")
    pool = cifarlike_pool(data, train.class_names)
    order = torch.randperm(len(pool.images), generator=torch.Generator().manual_seed(seed))
    card = TeacherCard(
        architecture="cifar_resnet20",
        num_classes=10,
        class_names=train.class_names,
        input_shape=(3, 32, 32),
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    )
    return Task("cifar10", card, (train.images, train.labels), (test.images, test.labels), pool.images[order[:500]],
                teacher_steps=6_000, flip=True)  # fmt: skip


# Each task with its number of seeds.
TASKS: Mapping[str, tuple[Callable[[Path, int], Task], int]] = {
    "digits": (digits_task, 5),
    "mnist": (mnist_task, 3),
    "cifar10": (cifar10_task, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--only", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK")
    parser.add_argument("--configurations", nargs="+", help="only these rows", metavar="NAME")
    parser.add_argument("--seeds", type=int, help="fewer seeds than the task's own number")
    parser.add_argument("--effort", default="quick", choices=("quick", "standard", "full"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/cpu_quality.json"))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "compress-cpu-quality",
                        help="teachers, generators and checkpoints; may be deleted")  # fmt: skip
    options = parser.parse_args()
    for name in options.only:
        make_task, num_seeds = TASKS[name]
        for seed in range(options.seeds or num_seeds):
            run_seed(make_task(options.data, seed), seed, options)


def run_seed(task: Task, seed: int, options: argparse.Namespace) -> None:
    """All rows of one task and seed that are not in the file yet."""
    wanted = ["teacher", "student on original data", *CONFIGURATIONS]
    if options.configurations:
        wanted = [name for name in wanted if name in options.configurations]
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    done = {(row["task"], row["configuration"], row["seed"]) for row in rows if row["effort"] == options.effort}
    if all((task.name, name, seed) in done for name in wanted):
        return
    folder = options.work / f"{task.name}-{seed}"
    teacher = trained_teacher(task, seed, folder)
    teacher_logits = logits(lambda images: teacher(images).logits, task.test[0])
    for name in wanted:
        if (task.name, name, seed) in done:
            continue
        started = time.monotonic()
        facts: Mapping[str, Any] = {}
        if name == "teacher":
            student_logits, seconds = teacher_logits, 0.0
        else:
            student, facts = trained_student(name, task, teacher, seed, options.effort, folder)
            student_logits, seconds = logits(student, task.test[0]), time.monotonic() - started
        predicted = student_logits.argmax(dim=1)
        row = {
            "task": task.name,
            "configuration": name,
            "seed": seed,
            "agreement": float((predicted == teacher_logits.argmax(dim=1)).float().mean()),
            "accuracy": float((predicted == task.test[1]).float().mean()),
            "num_test": len(predicted),
            "num_few": len(task.few),
            "effort": options.effort,
            "seconds": round(seconds, 1),
            "synthetic_class_consistency": facts.get("synthetic_class_consistency"),
            "synthetic_class_entropy": facts.get("synthetic_class_entropy"),
            **provenance(),
        }
        append_row(options.out, row)
        print(json.dumps(row), flush=True)


def trained_teacher(task: Task, seed: int, folder: Path) -> Teacher:
    """The task's teacher, trained once per seed and kept in the work folder."""
    path = folder / "teacher.pt"
    if not path.exists():
        context = make_context(task, folder / "teacher", seed)
        network = nn.Sequential(
            Normalise(task.card), build_network(task.card.architecture, 10, task.card.input_shape[0])
        )
        train_classifier(
            network, *task.train, context, num_steps=task.teacher_steps, batch_size=task.teacher_batch, flip=task.flip
        )
        torch.save(network[1].state_dict(), path)
    return load_teacher(torch.load(path, weights_only=True), task.card)


def trained_student(
    name: str, task: Task, teacher: Teacher, seed: int, effort: str, folder: Path
) -> tuple[Callable[[Tensor], Tensor], Mapping[str, Any]]:
    """One configuration's student and what its method says of itself."""
    torch.manual_seed(seed)
    backbone = named_backbone(task.card.architecture, task.card.input_shape[0], width=0.5)
    work = folder / name.replace(" ", "-")
    if name == "student on original data":
        # The upper anchor: the same student and steps, with the original images and labels and a classifier of its own.
        context = make_context(task, work, seed)
        student = own_classifier(backbone, teacher)
        steps = hidfd.defaults(effort, task.card.input_shape, "cpu")["student_steps"]
        train_classifier(student, *task.train, context, num_steps=steps, lr=0.05, flip=task.flip, phase="student")
        shutil.rmtree(work)
        return student, {}
    method_name, generator, extra = CONFIGURATIONS[name]
    if extra.get("real_fraction") == "natural":
        extra = {**extra, "real_fraction": len(task.few) / (len(task.few) + SYNTHETIC_SET)}
    method: Any = {"hidfd": hidfd, "vanilla": vanilla}[method_name]
    config = method.Config(**{**method.defaults(effort, task.card.input_shape, "cpu"), **extra})
    context = make_context(task, work, seed)
    shared = folder / f"generator-{generator}-{effort}.pt"
    if generator and shared.exists():
        # A finished phase is restored with all its random state, so a shared generator is the one it would train.
        shutil.copy(shared, work / "checkpoint-generator.pt")
    distilled = method.distill(teacher, backbone, task.few, config, context)
    if generator and not shared.exists():
        shutil.copy(work / "checkpoint-generator.pt", shared)
    shutil.rmtree(work)
    return distilled.student, distilled.facts


def make_context(task: Task, folder: Path, seed: int) -> Context:
    folder.mkdir(parents=True, exist_ok=True)
    precision, _ = best_precision(torch.device("cpu"), task.card.input_shape[1])
    return Context(folder, seed=seed, precision=precision, observer=Reporter())


@torch.no_grad()
def logits(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 to (N, K)."""
    return torch.cat([network(batch.float() / 255.0) for batch in images.split(500)])


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row to the JSON list, whole or not at all."""
    rows = json.loads(path.read_text()) if path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in [*rows, row]) + "\n]\n")
    temporary.replace(path)


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what a page holds between two marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, _, rest = page.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page} does not have both marks {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def provenance() -> dict[str, Any]:
    """The machine, the versions and the revision that made a row; `-dirty` with changes that were not committed."""
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "device": host_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "revision": revision,
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    main()
