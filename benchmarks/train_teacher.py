"""Train a teacher and write it as a user would have it: t.pt, and on request folders of images beside it.

    python -m benchmarks.train_teacher --data PACKS --pack cifar10 --out teachers/cifar10 --few 200 --val

Writes OUT/t.pt (a compress checkpoint: weights and card), OUT/few/<class>/*.png of images that the teacher did not see
(for CIFAR-10 `cifarlike_pool32`, which is another source; for clothing the pack's validation images),
OUT/val/<class>/*.png of the test set, and OUT/result.json with the teacher's accuracy on that set. Stopped and started
again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

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
    write_folder,
)
from compressor.distill.supervised import train_classifier
from compressor.distill.training import Context, best_precision
from compressor.inputs.card import TeacherCard
from compressor.inputs.intake import save_checkpoint
from compressor.inputs.teacher import Normalise
from compressor.progress import Reporter
from compressor.students.architectures import build_network


@dataclass(frozen=True)
class Recipe:
    """How one pack's teacher is trained, beside the SGD settings of `train_classifier`.

    Attributes:
        images: the pack's `train` or `test` images.
        few: the images that a user might have of the task, which the teacher is not trained on.
        architecture, width: the teacher, unless the command line says otherwise.
        mean, std: normalisation of images in [0, 1].
        steps, batch_size: updates, and images in each.
    """

    images: Callable[[Path, str], Pack]
    few: Callable[[Path, tuple[str, ...]], Pack]
    architecture: str
    width: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    steps: int
    batch_size: int


RECIPES: Mapping[str, Recipe] = {
    "cifar10": Recipe(
        cifar10, cifarlike_pool, "cifar_resnet20", 1.0, CIFAR10_MEAN, CIFAR10_STD, steps=6_000, batch_size=128
    ),
    # 3,068 images: half the width and 33 epochs are enough, and one CPU thread can do them.
    "clothing": Recipe(
        clothing,
        lambda data, _names: clothing(data, "val"),
        "resnet18",
        0.5,
        CLOTHING_MEAN,
        CLOTHING_STD,
        steps=1_600,
        batch_size=64,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--pack", choices=list(RECIPES), default="cifar10")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--architecture", help="default: the pack's own")
    parser.add_argument("--width", type=float, help="channel multiplier of the architecture; default: the pack's own")
    parser.add_argument("--steps", type=int, help="updates; default: the pack's own number")
    parser.add_argument("--few", type=int, default=0, help="write this many images that it never saw to OUT/few")
    parser.add_argument("--val", action="store_true", help="write the test set to OUT/val")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    recipe = RECIPES[options.pack]

    test = recipe.images(options.data, "test")
    if not (options.out / "t.pt").exists():
        result = train(recipe, recipe.images(options.data, "train"), test, options)
        (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print((options.out / "result.json").read_text())
    if options.few:
        few = recipe.few(options.data, test.class_names)
        random = torch.Generator().manual_seed(options.seed)
        write_folder(few, torch.randperm(len(few.images), generator=random)[: options.few], options.out / "few")
    if options.val:
        write_folder(test, torch.arange(len(test.images)), options.out / "val")


def train(recipe: Recipe, pack: Pack, test: Pack, options: argparse.Namespace) -> dict[str, object]:
    num_classes, side = len(pack.class_names), pack.images.shape[-1]
    card = TeacherCard(
        architecture=options.architecture or recipe.architecture,
        width=options.width or recipe.width,
        num_classes=num_classes,
        class_names=pack.class_names,
        input_shape=(3, side, side),
        mean=recipe.mean,
        std=recipe.std,
    )
    steps = options.steps or recipe.steps
    device = torch.device(options.device)
    precision, _ = best_precision(device, side)
    context = Context(options.out, device=options.device, seed=options.seed, precision=precision, observer=Reporter())
    network = nn.Sequential(Normalise(card), build_network(card.architecture, num_classes, width=card.width))
    started = time.monotonic()
    train_classifier(
        network,
        pack.images.to(device),
        pack.labels.to(device),
        context,
        num_steps=steps,
        batch_size=recipe.batch_size,
        flip=True,
    )
    save_checkpoint(options.out / "t.pt", network[1].state_dict(), card)
    return {
        "pack": options.pack,
        "architecture": card.architecture,
        "width": card.width,
        "steps": steps,
        "seed": options.seed,
        "test_accuracy": accuracy(network, test.images.to(device), test.labels.to(device)),
        "seconds_of_this_session": round(time.monotonic() - started, 1),
        "device": options.device,
        "precision": precision,
        "torch": torch.__version__,
    }


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of images (N, C, H, W) uint8 that `network` classifies as labelled."""
    predictions = torch.cat([network(batch.float() / 255.0).argmax(dim=1) for batch in images.split(500)])
    return float((predictions == labels).float().mean())


if __name__ == "__main__":
    main()
