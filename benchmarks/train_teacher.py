"""Train a CIFAR-10 teacher and write it as a user would have it: t.pt, and on request folders of images beside it.

    python -m benchmarks.train_teacher --data PACKS --out teachers/cifar10 --few 200 --val

Writes OUT/t.pt (a compress checkpoint: weights and card), OUT/few/<class>/*.png of `cifarlike_pool32`,
OUT/val/<class>/*.png of the CIFAR-10 test set, and OUT/result.json with the teacher's accuracy on that set. Stopped and
started again, it goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.packs import (
    CIFAR10_MEAN,
    CIFAR10_STD,
    Pack,
    add_data_argument,
    cifar10,
    cifarlike_pool,
    write_folder,
)
from compressor.distill.supervised import train_classifier
from compressor.distill.training import Context, best_precision
from compressor.inputs.card import TeacherCard
from compressor.inputs.intake import save_checkpoint
from compressor.inputs.teacher import Normalise
from compressor.progress import Reporter
from compressor.students.architectures import build_network


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--architecture", default="cifar_resnet20")
    parser.add_argument("--steps", type=int, default=6_000, help="updates of 128 images")
    parser.add_argument("--few", type=int, default=0, help="write this many images of the pool to OUT/few")
    parser.add_argument("--val", action="store_true", help="write the test set to OUT/val")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    test = cifar10(options.data, "test")
    if not (options.out / "t.pt").exists():
        result = train(cifar10(options.data, "train"), test, options)
        (options.out / "result.json").write_text(json.dumps(result, indent=2) + "\n")
    print((options.out / "result.json").read_text())
    if options.few:
        pool = cifarlike_pool(options.data, test.class_names)
        random = torch.Generator().manual_seed(options.seed)
        write_folder(pool, torch.randperm(len(pool.images), generator=random)[: options.few], options.out / "few")
    if options.val:
        write_folder(test, torch.arange(len(test.images)), options.out / "val")


def train(pack: Pack, test: Pack, options: argparse.Namespace) -> dict[str, object]:
    card = TeacherCard(
        architecture=options.architecture,
        num_classes=10,
        class_names=pack.class_names,
        input_shape=(3, 32, 32),
        mean=CIFAR10_MEAN,
        std=CIFAR10_STD,
    )
    device = torch.device(options.device)
    precision, _ = best_precision(device, 32)
    context = Context(options.out, device=options.device, seed=options.seed, precision=precision, observer=Reporter())
    network = nn.Sequential(Normalise(card), build_network(options.architecture, 10))
    started = time.monotonic()
    train_classifier(
        network,
        pack.images.to(device),
        pack.labels.to(device),
        context,
        num_steps=options.steps,
        flip=True,
    )
    save_checkpoint(options.out / "t.pt", network[1].state_dict(), card)
    return {
        "architecture": options.architecture,
        "steps": options.steps,
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
