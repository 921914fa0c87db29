"""Distillation of a segmentation network on CamVid: how much of the teacher is left, with all images, few, and none.

    python -m benchmarks.camvid --data PACKS [--only dfad noise] [--seeds 1] [--full]
    python -m benchmarks.camvid --data PACKS --part val --only dfad --set adversarial_form=mae
    python -m benchmarks.camvid --table [--page]

One row is one (size, part, student, changed settings, seed). Rows are appended to the JSON file as they finish and
finished rows are skipped; inside a row the training itself resumes. The split is SegNet's: 367 images train, 233 test.
All students are one network and make the same number of updates of the same size, with last weights. Settings are tried
on the 101 validation images, by agreement with the teacher and without a label (`--part val`); the table is about the
test images, which nothing was chosen on.

    small    48x64 px whole, a U-Net as the teacher and one of half its width as the student; for a CPU
    full     180x240 px, trained on crops of 128: DeepLabV3 with a ResNet-50 and with a MobileNetV3, as in DFAD's table
             (there with a MobileNetV2, and with a teacher that began with ImageNet's weights); for a GPU (`--full`)

mIoU is the mean over the classes that the masks hold, pixel accuracy and mIoU leave void out, agreement does not. The
intervals are of 95 %, by drawing images anew, because pixels of one image are not independent; they say nothing about
other seeds.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.packs import MaskPack, add_data_argument, camvid
from benchmarks.rows import append_row, provenance, write_between
from compressor.distill.augment import random_flip
from compressor.distill.training import Context, Stateful, best_precision, cosine_schedule, parameter_groups
from compressor.inputs.card import TeacherCard
from compressor.inputs.teacher import Classifier, Normalise, Teacher, load_teacher
from compressor.methods import TrainingImages, load_method
from compressor.progress import Reporter
from compressor.students.architectures import build_network
from compressor.students.student import Student, named_backbone, own_classifier, rebuild_student

RESULTS = Path("benchmarks/results/camvid.json")
PAGE = Path("docs/methods.md")
BEGIN, END = "<!-- tables, made by benchmarks/camvid.py -->", "<!-- end of the tables of benchmarks/camvid.py -->"
TEACHER = "teacher"
ORIGINAL = "student on original data"
VOID = 255
NUM_FEW = 20
NUM_DRAWS = 1_000  # of the images, for an interval
# Each student with the method that makes it and how many of the 367 images it may see.
STUDENTS: Mapping[str, tuple[str, int | None]] = {
    "vanilla, all images": ("vanilla", None),
    f"vanilla, {NUM_FEW} images": ("vanilla", NUM_FEW),
    "dfad": ("dfad", 0),
    "ddad": ("ddad", 0),
    "noise": ("noise", 0),
}


@dataclass(frozen=True)
class Size:
    """One comparison.

    Attributes:
        image: (H, W) that images and masks are brought to, and are judged at.
        crop: (h, w) that the networks are trained at.
        margin: pixels that an image is continued by at its edges before it is cropped; its largest shift where the crop
            is as large as the image.
        teacher, student: architecture and width.
        budget: settings of every student.
        options: settings of one method.
    """

    image: tuple[int, int]
    crop: tuple[int, int]
    margin: int
    teacher: tuple[str, float]
    student: tuple[str, float]
    teacher_steps: int
    teacher_batch: int
    teacher_lr: float
    budget: Mapping[str, Any]
    options: Mapping[str, Mapping[str, Any]]


SIZES: Mapping[str, Size] = {
    "small": Size(
        image=(48, 64),
        crop=(48, 64),
        margin=6,
        teacher=("unet", 1.0),
        student=("unet", 0.5),
        teacher_steps=2_000,
        teacher_batch=16,
        teacher_lr=0.05,
        budget={"student_steps": 800, "student_batch_size": 16},
        options={
            "dfad": {"generator_width": 32, "latent_dim": 100},
            "ddad": {"generator_width": 32, "latent_dim": 100, "generator_every": 2},
        },
    ),
    "full": Size(
        image=(180, 240),
        crop=(128, 128),
        margin=0,
        teacher=("deeplabv3_resnet50", 1.0),
        student=("deeplabv3_mobilenet_v3_large", 1.0),
        teacher_steps=20_000,
        teacher_batch=16,
        teacher_lr=0.05,
        budget={"student_steps": 75_000, "student_batch_size": 64},
        options={name: {"generator_width": 64, "latent_dim": 256} for name in ("dfad", "ddad")},
    ),
}


def tiny(size: Size) -> Size:
    """The same comparison with hardly any training."""
    budget = {"student_steps": 5, "student_batch_size": 2}
    return replace(size, teacher_steps=2, teacher_batch=2, budget=budget)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser, required=False)
    parser.add_argument("--table", action="store_true", help=f"print the tables of {PAGE} from the results")
    parser.add_argument("--page", action="store_true", help=f"with --table: write them into {PAGE}")
    parser.add_argument("--full", action="store_true", help="GPU size")
    parser.add_argument("--part", choices=("val", "test"), default="test", help="the images to judge on")
    parser.add_argument("--only", nargs="+", choices=[TEACHER, ORIGINAL, *STUDENTS], metavar="ROW")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="other settings of the methods")
    parser.add_argument("--try", dest="trial", action="store_true",
                        help="a few steps of few images, to see that the program runs; no result is kept")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "compress-camvid",
                        help="teachers and checkpoints; may be deleted")  # fmt: skip
    options = parser.parse_args()
    if options.trial:
        options.out, options.work = (Path(tempfile.mkdtemp()) / part for part in ("trial.json", "work"))
    if not options.table:
        if options.data is None:
            parser.error("--data is needed to run")
        for seed in range(options.seeds):
            run_seed("full" if options.full else "small", seed, options)
    if options.trial:
        return
    text = tables(json.loads(options.out.read_text()))
    print(f"{BEGIN}\n{text}\n{END}")
    if options.page:
        write_between(PAGE, BEGIN, END, text)


def run_seed(name: str, seed: int, options: argparse.Namespace) -> None:
    """All rows of one size and seed that are not in the file yet."""
    changes = dict(change.split("=", 1) for change in options.set)
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    done = {(row["size"], row["part"], row["student"], json.dumps(row["changes"]), row["seed"]) for row in rows}
    wanted = [
        student
        for student in options.only or [TEACHER, ORIGINAL, *STUDENTS]
        if (name, options.part, student, json.dumps(changes), seed) not in done
    ]
    if not wanted:
        return
    size = tiny(SIZES[name]) if options.trial else SIZES[name]
    train, judged = (camvid(options.data, part, *size.image) for part in ("train", options.part))
    if options.trial:
        judged = MaskPack(judged.images[:4], judged.masks[:4], judged.class_names)
    folder = options.work / f"{name}-{seed}"
    teacher = trained_teacher(size, train, seed, folder, options)
    teacher_maps = class_maps(Classifier(teacher), judged.images, options.device)
    for student in wanted:
        row: dict[str, Any] = {"size": name, "part": options.part, "student": student, "changes": changes, "seed": seed}
        facts: dict[str, Any] = {}
        if student == TEACHER:
            maps = teacher_maps
        else:
            trained, facts = trained_student(student, size, teacher, train, changes, seed, folder, options)
            maps = class_maps(at_size(trained, size.image).to(options.device), judged.images, options.device)
        row |= {**judgement(maps, teacher_maps, judged.masks, len(judged.class_names)), **facts, **provenance()}
        append_row(options.out, row)
        print(json.dumps(row), flush=True)


# --- training ---------------------------------------------------------------------------------------------------------


def trained_teacher(size: Size, train: MaskPack, seed: int, folder: Path, options: argparse.Namespace) -> Teacher:
    """The teacher, trained once per seed and kept in the work folder."""
    path = folder / "teacher.pt"
    architecture, width = size.teacher
    mean, std = pixel_moments(train.images)
    card = TeacherCard(
        architecture=architecture,
        width=width,
        task="segmentation",
        num_classes=len(train.class_names),
        class_names=train.class_names,
        input_shape=(3, *size.crop),
        mean=mean,
        std=std,
    )
    if not path.exists():
        context = make_context(size, folder / "teacher", seed, options.device)  # which seeds the weights
        network = nn.Sequential(Normalise(card), build_network(architecture, card.num_classes, 3, width))
        train_with_masks(network, train, size, context, size.teacher_batch, size.teacher_steps,
                         size.teacher_lr, "teacher")  # fmt: skip
        torch.save(network[1].cpu().state_dict(), path)
    return load_teacher(torch.load(path, weights_only=True), card).to(options.device)


def trained_student(
    name: str,
    size: Size,
    teacher: Teacher,
    train: MaskPack,
    changes: Mapping[str, str],
    seed: int,
    folder: Path,
    options: argparse.Namespace,
) -> tuple[Student, dict[str, Any]]:
    """One student with its last weights, and what it took; trained once, and kept in the work folder."""
    architecture, width = size.student
    torch.manual_seed(seed)
    backbone = named_backbone(architecture, 3, width)
    label = "-".join([name.replace(",", "").replace(" ", "-"), *(f"{key}={value}" for key, value in changes.items())])
    work, kept = folder / label, folder / f"{label}.pt"
    if kept.exists():
        saved = torch.load(kept, weights_only=True)
        student = own_classifier(backbone, teacher)
        student.load_state_dict(saved["weights"])
        return student.eval(), saved["facts"]
    resumed = work.exists()  # what an earlier session took, and asked, nobody knows any more
    queries, started, processor = teacher.num_queries, time.monotonic(), time.process_time()
    facts: dict[str, Any] = {}
    context = make_context(size, work, seed, options.device)
    if name == ORIGINAL:
        student = own_classifier(backbone, teacher)
        batch, steps = size.budget["student_batch_size"], size.budget["student_steps"]
        train_with_masks(student, train, size, context, batch, steps, 0.05, "student")
    else:
        method_name, count = STUDENTS[name]
        method: Any = load_method(method_name)
        given = {**size.budget, **size.options.get(method_name, {})}
        asked = method.Config.model_validate_strings(changes).model_dump(include=set(changes))
        config = method.Config(**{**method.defaults("quick", (3, *size.crop), options.device), **given, **asked})
        few = few_images(train, size, count, seed).to(options.device)
        student = method.distill(teacher, backbone, TrainingImages(few, few[:0]), config, context).student
        facts = {
            "num_images": len(train.images) if count is None else count,
            "settings": config.model_dump(mode="json"),
        }
    facts = {
        "seconds": round(max(time.monotonic() - started, sum(phase.seconds for phase in context.phases)), 1),
        "processor_seconds": None if resumed else round(time.process_time() - processor, 1),
        "teacher_queries": None if resumed else teacher.num_queries - queries,
        **facts,
    }
    torch.save({"weights": student.cpu().state_dict(), "facts": facts}, kept)
    shutil.rmtree(work)
    return student, facts


def train_with_masks(
    network: nn.Module,
    train: MaskPack,
    size: Size,
    context: Context,
    batch_size: int,
    num_steps: int,
    lr: float,
    phase: str,
) -> None:
    """Cross-entropy on pixels that have a class, of random crops and their mirror images; trained in place."""
    network.to(context.device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(parameter_groups(network, 5e-4), lr=lr, momentum=0.9, nesterov=True)
    schedule = cosine_schedule(optimiser, num_steps, warmup=num_steps // 20)
    state: dict[str, Stateful] = {"network": network, "optimiser": optimiser, "schedule": schedule}
    # The mask goes through the same views as a fourth channel; every view takes whole pixels.
    together = torch.cat([train.images, train.masks[:, None]], dim=1).to(context.device)
    for _ in context.steps(phase, num_steps, state):
        rows = torch.randint(len(together), (batch_size,), generator=context.random, device=context.device)
        views = random_flip(random_crops(together[rows].float(), size, context.random), context.random)
        images, masks = views[:, :3] / 255.0, views[:, 3].long()
        with context.autocast():
            logits = network(images)
        loss = F.cross_entropy(logits.float(), masks, ignore_index=VOID)
        context.log({"cross_entropy": loss})

        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    network.eval()


def few_images(train: MaskPack, size: Size, count: int | None, seed: int) -> Tensor:
    """(N, 3, h, w) uint8 for a method: so many of the images, or all; where they are larger than a crop, 8 of each."""
    random = torch.Generator().manual_seed(seed)
    images = train.images[torch.randperm(len(train.images), generator=random)[:count]]
    if size.crop == size.image:
        return images
    return torch.cat([random_crops(images.float(), size, random).to(torch.uint8) for _ in range(8)])


def random_crops(images: Tensor, size: Size, random: torch.Generator) -> Tensor:
    """(B, C, H, W) float to (B, C, h, w), each at its own place, which may lie up to `margin` beyond the edges."""
    padded = F.pad(images, (size.margin,) * 4, mode="replicate") if size.margin else images
    batch, device = len(padded), padded.device
    rows, columns = (
        torch.randint(whole - part + 1, (batch, 1), generator=random, device=device) + torch.arange(part, device=device)
        for whole, part in zip(padded.shape[-2:], size.crop, strict=True)
    )
    index = torch.arange(batch, device=device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def make_context(size: Size, folder: Path, seed: int, device: str) -> Context:
    folder.mkdir(parents=True, exist_ok=True)
    precision, _ = best_precision(torch.device(device), min(size.crop))
    return Context(folder, device=device, seed=seed, precision=precision, observer=Reporter())


def pixel_moments(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (3,) of images (N, 3, H, W) uint8 in [0, 1]."""
    values = images.float().transpose(0, 1).flatten(1) / 255.0
    return tuple(values.mean(dim=1).tolist()), tuple(values.std(dim=1).tolist())


# --- judging ----------------------------------------------------------------------------------------------------------


def at_size(student: Student, image: tuple[int, int]) -> Student:
    """The same student for images (H, W); it has no layer that depends on the size."""
    card = student.card.input.model_copy(update={"input_shape": (3, *image)})
    weights = {name: value.cpu() for name, value in student.state_dict().items()}
    return rebuild_student(student.card.model_copy(update={"input": card}), weights)


@torch.no_grad()
def class_maps(network: nn.Module, images: Tensor, device: str) -> Tensor:
    """(N, 3, H, W) uint8 to the most probable class of every pixel (N, H, W) int64."""
    parts = [network(batch.to(device).float() / 255.0).argmax(dim=1).cpu() for batch in images.split(16)]
    return torch.cat(parts)


def judgement(maps: Tensor, teacher_maps: Tensor, masks: Tensor, num_classes: int) -> dict[str, Any]:
    """mIoU with its interval, pixel accuracy, and the share of pixels on which a network agrees with the teacher."""
    confusions = confusion(maps, masks, num_classes)
    drawn = torch.randint(len(maps), (NUM_DRAWS, len(maps)), generator=torch.Generator().manual_seed(0))
    mious = torch.stack([mean_iou(confusions[rows].sum(dim=0)) for rows in drawn])
    low, high = torch.quantile(mious, torch.tensor([0.025, 0.975], dtype=mious.dtype)).tolist()
    whole = confusions.sum(dim=0)
    return {
        "miou": float(mean_iou(whole)),
        "miou_low": low,
        "miou_high": high,
        "pixel_accuracy": float(whole.diagonal().sum() / whole.sum()),
        "agreement": float((maps == teacher_maps).float().mean()),
        "num_judged": len(maps),
    }


def confusion(maps: Tensor, masks: Tensor, num_classes: int) -> Tensor:
    """(N, K, K) float64: pixels of each image by the mask's class (rows) and the network's; void is left out."""
    image = torch.arange(len(maps))[:, None, None].expand_as(maps)
    known = masks != VOID
    cells = (image[known] * num_classes + masks[known].long()) * num_classes + maps[known]
    counts = torch.bincount(cells, minlength=len(maps) * num_classes**2)
    return counts.view(len(maps), num_classes, num_classes).double()


def mean_iou(counts: Tensor) -> Tensor:
    """Mean of intersection over union over the classes that the masks hold, from counts (K, K)."""
    both = counts.diagonal()
    held = counts.sum(dim=1)
    union = held + counts.sum(dim=0) - both
    return (both / union.clamp_min(1))[held > 0].mean()


# --- tables -----------------------------------------------------------------------------------------------------------


def tables(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows on test images, and below them what was tried on validation images, in Markdown."""
    lines: list[str] = []
    for size in dict.fromkeys(row["size"] for row in rows):
        tested = [row for row in rows if (row["size"], row["part"]) == (size, "test")]
        if tested:
            lines += _tested(size, tested)
        tried = [row for row in rows if (row["size"], row["part"]) == (size, "val")]
        if tried:
            lines += _tried(size, tried)
    return "\n".join(lines).rstrip("\n")


def _tested(size: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    height, width = SIZES[size].image
    lines = [
        f"**CamVid, {height}x{width} px**, {rows[0]['num_judged']} test images",
        "",
        "| network | images | mIoU (95 % over images) | of the teacher's | pixel accuracy % | pixel agreement % "
        "| processor seconds | teacher queries | seed |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    teachers = {row["seed"]: row["miou"] for row in rows if row["student"] == TEACHER}
    for row in rows:
        share = f"{row['miou'] / teachers[row['seed']]:.2f}" if row["seed"] in teachers else ""
        cost = " | ".join(
            "" if row.get(key) is None else f"{row[key]:,.0f}" for key in ("processor_seconds", "teacher_queries")
        )
        images = row.get("num_images", "367 with masks")
        lines.append(
            f"| {row['student']} | {images} | {row['miou']:.3f} ({row['miou_low']:.3f} to {row['miou_high']:.3f}) "
            f"| {share} | {100 * row['pixel_accuracy']:.1f} | {100 * row['agreement']:.1f} | {cost} | {row['seed']} |"
        )
    return [*lines, ""]


def _tried(size: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        f"Tried at {size} size on {rows[0]['num_judged']} validation images:",
        "",
        "| network | settings | pixel agreement % |",
        "| --- | --- | ---: |",
    ]
    for row in rows:
        changes = ", ".join(f"{name} {value}" for name, value in row["changes"].items())
        lines.append(f"| {row['student']} | {changes or 'as in the program'} | {100 * row['agreement']:.1f} |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
