"""What the student is worth: HiDFD as repaired, our recipe, and each of its parts, beside what the original data give.

    python -m benchmarks.quality --data PACKS [--device cuda] [--only SETTING ...] [--minutes 9.5]
    python -m benchmarks.quality --list

One protocol for every setting (a data set, a teacher, a student and a number of few images). All rows of one setting
and seed share the teacher, the few images, the student's architecture and its number of updates:

    teacher                      what the student is compared with
    student on original data     the upper anchor: labels, all of the original images, a classifier of its own
    ... from teacher's blocks    the same, started as our students are where the student has blocks of the teacher's
                                 shapes (elsewhere the two are one): what original data give beyond that start
    vanilla                      distillation on the few images alone
    repaired HiDFD               the paper's method with its defects mended (`hidfd.PAPER`)
    ours                         `--method hidfd` as it is
    ours without/with ...        the same without one of its parts, or with one that it left out, in the settings that
                                 have several seeds

Agreement is with the teacher and accuracy with the label, both on test images that nothing was trained or chosen on,
with the last weights: nothing is selected in a row, and no row looks at another one's result. Where the recipe comes
from is in docs/experiments.md: from other seeds, and from images that are not in these tests.

Rows are appended to the JSON file as they finish and finished rows are skipped; inside a row the training resumes from
its checkpoint, so that the program may be stopped anywhere, or stop by itself after `--minutes`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.packs import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    CLOTHING_MEAN,
    CLOTHING_STD,
    Pack,
    add_data_argument,
    cifar10,
    cifarlike_pool,
    clothing,
    resized,
)
from benchmarks.rows import append_row, provenance
from benchmarks.tasks import logits
from compressor.distill.supervised import train_classifier
from compressor.distill.training import Context, best_precision
from compressor.errors import Interrupted
from compressor.inputs.card import TeacherCard
from compressor.inputs.teacher import Normalise, Teacher, load_teacher
from compressor.methods import TrainingImages, hidfd, vanilla
from compressor.progress import Reporter
from compressor.students.architectures import build_network, split_backbone
from compressor.students.inherit import inherit_weights
from compressor.students.student import named_backbone, own_classifier

RESULTS = Path("benchmarks/results/quality.json")
TEACHER, ORIGINAL, VANILLA, REPAIRED, OURS = (
    "teacher",
    "student on original data",
    "vanilla",
    "repaired HiDFD",
    "ours",
)
ORIGINAL_FROM_BLOCKS = "student on original data, from teacher's blocks"


@dataclass(frozen=True)
class Configuration:
    """One row: the method, its settings beside those of the setting, and which generator it trains or shares.

    Attributes:
        generator: configurations with the same name here differ in their student only, and share a trained generator.
        from_blocks: whether the student starts from its teacher's blocks, where it has such.
    """

    method: str
    generator: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    from_blocks: bool = True


# What is taken from our recipe, one part at a time.
PARTS: Mapping[str, Configuration] = {
    "synthetic images": Configuration("hidfd", "", {"generator_steps": 0}),
    "feature integration": Configuration("hidfd", "no-integration", {"matched_weight": 0.0, "crossed_weight": 0.0}),
    "frequency smoothing": Configuration("hidfd", "no-smoothing", {"smoothing_weight": 0.0}),
    # KL on logits has other gradients than feature alignment, so this row takes vanilla's learning rate.
    "classifier sharing": Configuration("hidfd", "whole", {"classifier_sharing": "off", "student_lr": 0.05}),
    "stage alignment": Configuration("hidfd", "whole", {"stage_weight": 0.0}),
    "teacher's blocks": Configuration("hidfd", "whole", from_blocks=False),
}
CONFIGURATIONS: Mapping[str, Configuration] = {
    VANILLA: Configuration("vanilla", from_blocks=False),
    REPAIRED: Configuration("hidfd", "whole", hidfd.PAPER, from_blocks=False),
    OURS: Configuration("hidfd", "whole"),
    **{f"ours without {part}": configuration for part, configuration in PARTS.items()},
    "ours with a projector": Configuration("hidfd", "whole", {"projector": "on"}),
    "ours with a logit term": Configuration("hidfd", "whole", {"logit_weight": 0.1}),
    **{
        f"ours with a generator of {side} px": Configuration("hidfd", f"{side}px", {"generator_side": side})
        for side in (32, 128)
    },
}
MAIN_ROWS = (TEACHER, ORIGINAL, ORIGINAL_FROM_BLOCKS, VANILLA, REPAIRED, OURS)


@dataclass(frozen=True)
class Setting:
    """One comparison.

    Attributes:
        data: "cifar10", whose few images are of another source, or "clothing", whose few are of its validation part.
        side: pixels; images of CIFAR-10 are averaged down to it. Clothing has 128.
        teacher, student: architecture and width.
        num_few: images that are left of the task.
        seeds: how many; each has its own few images and random numbers, and the teacher is one for all.
        ablation: whether the parts of the recipe are taken away one by one. Of images larger than the generator's, what
            varies is its resolution.
        student_lr: of the student on the original data.
        options: settings of the method in all rows.
    """

    data: str
    side: int
    teacher: tuple[str, float]
    student: tuple[str, float]
    num_few: int
    teacher_steps: int
    teacher_batch: int
    options: Mapping[str, Any]
    seeds: int = 1
    ablation: bool = False
    student_lr: float = 0.1

    def rows(self) -> tuple[str, ...]:
        """The names of its rows, in the order in which they are made."""
        others = [name for name in CONFIGURATIONS if name not in MAIN_ROWS]
        about_side = [name for name in others if name.endswith(" px")]
        if self.side > hidfd.GENERATOR_SIDE:
            return (*MAIN_ROWS, *about_side)
        return (*MAIN_ROWS, *(name for name in others if self.ablation and name not in about_side))


# On a CPU: a quarter of the channels, a quarter of the pixels, and as many updates as two cores can do in three hours.
SMALL: Mapping[str, Any] = {
    "generator_steps": 500,
    "generator_batch_size": 64,
    "generator_width": 32,
    "discriminator_width": 32,
    "latent_dim": 32,
    "student_steps": 500,
    "student_batch_size": 128,
}
R34, R18 = ("cifar_resnet34", 0.25), ("cifar_resnet18", 0.25)
WRN_40, WRN_16 = ("cifar_wrn40_2", 0.5), ("cifar_wrn16_2", 0.5)
MOBILE = ("cifar_mobilenet_v2", 0.35)
SHORT: Mapping[str, Any] = {**SMALL, "generator_steps": 200, "student_steps": 200}
PHOTOGRAPHS: Mapping[str, Any] = {**SHORT, "student_batch_size": 32, "generator_batch_size": 32}
CPU_SETTINGS: Mapping[str, Setting] = {
    "cifar10-16px-r34-r18-500": Setting("cifar10", 16, R34, R18, 500, 3_000, 128, SMALL, seeds=3, ablation=True),
    "cifar10-16px-r34-r18-5000": Setting("cifar10", 16, R34, R18, 5_000, 3_000, 128, SMALL),
    "cifar10-16px-r34-r18-100": Setting("cifar10", 16, R34, R18, 100, 3_000, 128, SMALL),
    "cifar10-16px-wrn40-wrn16-500": Setting("cifar10", 16, WRN_40, WRN_16, 500, 800, 128, SHORT),
    "cifar10-16px-r34-mobilenet_v2-500": Setting("cifar10", 16, R34, MOBILE, 500, 3_000, 128, SMALL),
    "clothing-128px-r34-r18-200": Setting(
        "clothing", 128, ("resnet34", 0.25), ("resnet18", 0.25), 200, 500, 64, PHOTOGRAPHS
    ),
}

# On a CUDA GPU: the published sizes, at full effort (`hidfd.defaults`).
FULL: Mapping[str, Any] = {}
BIG_R34, BIG_R18 = ("cifar_resnet34", 1.0), ("cifar_resnet18", 1.0)
CUDA_SETTINGS: Mapping[str, Setting] = {
    "cifar10-r34-r18-5000": Setting("cifar10", 32, BIG_R34, BIG_R18, 5_000, 40_000, 128, FULL),
    "cifar10-r34-r18-500": Setting("cifar10", 32, BIG_R34, BIG_R18, 500, 40_000, 128, FULL),
    "cifar10-r34-r18-100": Setting("cifar10", 32, BIG_R34, BIG_R18, 100, 40_000, 128, FULL),
    "cifar10-wrn40-wrn16-500": Setting(
        "cifar10", 32, ("cifar_wrn40_2", 1.0), ("cifar_wrn16_2", 1.0), 500, 40_000, 128, FULL
    ),
    "cifar10-r34-mobilenet_v2-500": Setting(
        "cifar10", 32, BIG_R34, ("cifar_mobilenet_v2", 1.0), 500, 40_000, 128, FULL
    ),
    "clothing-128px-r34-r18-200-full": Setting(
        "clothing", 128, ("resnet34", 1.0), ("resnet18", 1.0), 200, 5_000, 64, FULL
    ),
}


def tiny(setting: Setting) -> Setting:
    """The same comparison of narrow networks with hardly any training."""
    (teacher, teacher_width), (student, student_width) = setting.teacher, setting.student
    narrow = {"teacher": (teacher, teacher_width / 8), "student": (student, student_width / 8)}
    return replace(setting, **narrow, teacher_steps=4, teacher_batch=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser, required=False)
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="also decides which settings, where --only does not"
    )
    parser.add_argument("--list", action="store_true", help="print the settings and their rows")
    parser.add_argument("--only", nargs="+", help="some of the settings", metavar="SETTING")
    parser.add_argument("--configurations", nargs="+", help="only these rows", metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the setting's own")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop by then, to be continued")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--tiny", action="store_true", help="a few updates of everything: does the program run?")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "compress-quality",
                        help="teachers, generators and checkpoints; may be deleted")  # fmt: skip
    options = parser.parse_args()
    settings = {**CPU_SETTINGS, **CUDA_SETTINGS}
    usual = CPU_SETTINGS if options.device == "cpu" else CUDA_SETTINGS
    for name in options.only or usual:
        if name not in settings:
            parser.error(f"no setting is called {name}; there are {', '.join(settings)}")
    if options.list:
        for name, setting in usual.items():
            print(f"{name}: {', '.join(setting.rows())}; {setting.seeds} seed(s)")
        return
    if options.data is None:
        parser.error("--data is needed to run")
    bench = Bench(options)
    try:
        for name in options.only or usual:
            for seed in options.seeds or range(settings[name].seeds):
                bench.run(name, tiny(settings[name]) if options.tiny else settings[name], seed)
    except Interrupted as stopped:
        sys.exit(str(stopped))
    print("every row is there")


@dataclass(frozen=True)
class Images:
    """One setting's data: original train and test images with labels, and the candidates for the few; uint8."""

    train: Pack
    test: Pack
    candidates: Tensor
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@cache
def images_of(data: Path, name: str, side: int) -> Images:
    """The packs of one data set at `side` pixels."""
    if name == "clothing":
        # The few are of the validation part, which no teacher is trained on.
        return Images(
            clothing(data, "train"), clothing(data, "test"), clothing(data, "val").images, CLOTHING_MEAN, CLOTHING_STD
        )
    train, test = cifar10(data, "train"), cifar10(data, "test")
    pool = cifarlike_pool(data, train.class_names)
    small = [resized(pack.images, side, side) for pack in (train, test, pool)]
    return Images(
        Pack(small[0], train.labels, train.class_names),
        Pack(small[1], test.labels, test.class_names),
        small[2],
        CIFAR10_MEAN,
        CIFAR10_STD,
    )


class Bench:
    """All rows that the options ask for, with a deadline."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.device = torch.device(options.device)
        self.deadline = time.monotonic() + 60.0 * options.minutes

    def run(self, name: str, setting: Setting, seed: int) -> None:
        """The rows of one setting and seed that are not in the file yet.

        Raises:
            Interrupted: the time is up; what was trained so far is kept in the work folder.
        """
        options = self.options
        rows = json.loads(options.out.read_text()) if options.out.exists() else []
        done = {(row["setting"], row["configuration"], row["seed"]) for row in rows}
        wanted = [
            row
            for row in setting.rows()
            if (name, row, seed) not in done and row in (options.configurations or setting.rows())
        ]
        if not wanted:
            return
        images = images_of(options.data, setting.data, setting.side)
        teacher = self.teacher(setting, images)
        few = images.candidates[torch.randperm(len(images.candidates), generator=torch.Generator().manual_seed(seed))]
        few = few[: setting.num_few].to(self.device)
        test, labels = images.test.images.to(self.device), images.test.labels.to(self.device)
        teacher_logits = logits(lambda batch: teacher(batch).logits, test)
        for row in wanted:
            self.stop_in_time()
            found: dict[str, Any] = {"seconds": 0.0}
            predicted = teacher_logits.argmax(dim=1)
            if row != TEACHER:
                student, found = self.student(name, setting, row, teacher, images, few, seed)
                predicted = logits(student, test).argmax(dim=1)
            result = {
                "setting": name,
                "configuration": row,
                "seed": seed,
                "agreement": float((predicted == teacher_logits.argmax(dim=1)).float().mean()),
                "accuracy": float((predicted == labels).float().mean()),
                "num_test": len(test),
                "num_few": len(few),
                **found,
                **provenance(),
            }
            append_row(options.out, result)
            print(json.dumps(result), flush=True)

    def stop_in_time(self) -> None:
        if time.monotonic() > self.deadline:
            raise Interrupted("The time is up.", "Finished rows are in the file.", "Run the same command to go on.")

    def context(self, folder: Path, setting: Setting, seed: int) -> Context:
        folder.mkdir(parents=True, exist_ok=True)
        precision = self.options.precision
        if precision == "auto":
            precision, _ = best_precision(self.device, setting.side)
        return Context(
            folder,
            device=self.options.device,
            seed=seed,
            precision=precision,
            observer=Reporter(),
            should_stop=lambda: time.monotonic() > self.deadline,
        )

    def teacher(self, setting: Setting, images: Images) -> Teacher:
        """The setting's teacher, trained once on the original data and kept in the work folder."""
        architecture, width = setting.teacher
        card = TeacherCard(
            architecture=architecture,
            width=width,
            num_classes=len(images.train.class_names),
            class_names=images.train.class_names,
            input_shape=(3, setting.side, setting.side),
            mean=images.mean,
            std=images.std,
        )
        steps = setting.teacher_steps
        folder = self.options.work / f"teacher-{setting.data}-{setting.side}-{architecture}-{width}-{steps}"
        path = folder / "teacher.pt"
        if not path.exists():
            context = self.context(folder, setting, seed=0)
            network = nn.Sequential(Normalise(card), build_network(architecture, card.num_classes, width=width))
            train_classifier(
                network,
                images.train.images.to(self.device),
                images.train.labels.to(self.device),
                context,
                num_steps=steps,
                batch_size=setting.teacher_batch,
                flip=True,
            )
            torch.save(network[1].state_dict(), path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
        return load_teacher(weights, card).to(self.device)

    def student(
        self, name: str, setting: Setting, row: str, teacher: Teacher, images: Images, few: Tensor, seed: int
    ) -> tuple[Callable[[Tensor], Tensor], dict[str, Any]]:
        """One configuration's student, and what there is to say of its training."""
        architecture, width = setting.student
        torch.manual_seed(seed)
        backbone = named_backbone(architecture, 3, width=width)
        if row == ORIGINAL_FROM_BLOCKS or (row in CONFIGURATIONS and CONFIGURATIONS[row].from_blocks):
            backbone.inherited = inherit_weights(backbone, split_backbone(teacher.network, teacher.card.architecture))
        folder = self.options.work / f"{name}-{seed}"
        work = folder / row.replace(" ", "-")
        context = self.context(work, setting, seed)
        if row in (ORIGINAL, ORIGINAL_FROM_BLOCKS):
            config = self.config(setting, CONFIGURATIONS[OURS])
            student = own_classifier(backbone, teacher)
            train_classifier(
                student,
                images.train.images.to(self.device),
                images.train.labels.to(self.device),
                context,
                num_steps=config.student_steps,
                batch_size=config.student_batch_size,
                lr=setting.student_lr,
                flip=True,
                phase="student",
            )
            facts: Mapping[str, Any] = {}
        else:
            configuration = CONFIGURATIONS[row]
            config = self.config(setting, configuration)
            shared = folder / f"generator-{configuration.generator}.pt"
            if configuration.generator and shared.exists() and not (work / "checkpoint-generator.pt").exists():
                # A finished phase is restored with all its random state, so it is the one that this row would train.
                shutil.copy(shared, work / "checkpoint-generator.pt")
            method: Any = {"hidfd": hidfd, "vanilla": vanilla}[configuration.method]
            distilled = method.distill(teacher, backbone, TrainingImages(few, few[:0]), config, context)
            student, facts = distilled.student, distilled.facts
            if configuration.generator and not shared.exists():
                shutil.copy(work / "checkpoint-generator.pt", shared)
        shutil.rmtree(work)
        return student, {
            "settings": config.model_dump(mode="json") if row in CONFIGURATIONS else {},
            "inherited": round(backbone.inherited, 3),
            "student_params_m": round(sum(parameter.numel() for parameter in student.parameters()) / 1e6, 4),
            "precision": context.precision,
            "seconds": round(sum(phase.seconds for phase in context.phases), 1),
            "synthetic_class_consistency": facts.get("synthetic_class_consistency"),
            "synthetic_class_entropy": facts.get("synthetic_class_entropy"),
        }

    def config(self, setting: Setting, configuration: Configuration) -> Any:
        """The settings of one row: the method's for this device, the setting's, then the configuration's own."""
        method: Any = {"hidfd": hidfd, "vanilla": vanilla}[configuration.method]
        chosen = {**setting.options, **configuration.options}
        if self.options.tiny:
            small = {"steps": 4, "batch_size": 8, "width": 8, "latent_dim": 4, "student_lr": 0.01}
            chosen |= {
                key: next(value for ending, value in small.items() if key.endswith(ending))
                for key in method.Config.model_fields
                if key.endswith(tuple(small)) and chosen.get(key) != 0
            }
        fitted = method.defaults("full", (3, setting.side, setting.side), self.device.type)
        known = {key: value for key, value in chosen.items() if key in method.Config.model_fields}
        return method.Config(**{**fitted, **known})


if __name__ == "__main__":
    main()
