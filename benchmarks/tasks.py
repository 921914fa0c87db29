"""The data sets of the benchmarks as tensors, each with the card of its teacher and with the few images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor

from benchmarks.packs import CIFAR10_MEAN, CIFAR10_STD, cifar10, cifarlike_pool
from compressor.demo import CARD as DIGITS_CARD
from compressor.demo import FEW_PER_CLASS, NUM_TRAIN, TEACHER_STEPS, digits, first_of_each_class
from compressor.distill.training import Context, best_precision
from compressor.inputs.card import TeacherCard
from compressor.progress import Reporter


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


def make_context(task: Task, folder: Path, seed: int, device: str = "cpu") -> Context:
    folder.mkdir(parents=True, exist_ok=True)
    precision, _ = best_precision(torch.device(device), task.card.input_shape[1])
    return Context(folder, device=device, seed=seed, precision=precision, observer=Reporter())


def tiny_settings(config: type[BaseModel]) -> dict[str, int]:
    """A few updates of narrow networks, by the names that the settings of methods have."""
    small = {"_steps": 4, "_every": 2, "_batch_size": 8, "_width": 8, "latent_dim": 4, "pool_size": 16}
    return {name: value for name in config.model_fields for ending, value in small.items() if name.endswith(ending)}


@torch.no_grad()
def logits(network: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """(N, C, H, W) uint8 to (N, K)."""
    return torch.cat([network(batch.float() / 255.0) for batch in images.split(500)])
