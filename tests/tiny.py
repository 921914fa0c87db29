"""Tiny teachers, cards, images and students that many tests share: 8x8 pixels, random weights, nothing trained."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from compressor.inputs.card import TeacherCard
from compressor.inputs.teacher import Teacher
from compressor.methods import TrainingImages
from compressor.students.architectures import ARCHITECTURES, build_network
from compressor.students.student import Backbone, named_backbone

ARCHITECTURE = "cifar_resnet8"
DENSE = "unet8"  # a segmentation of every pixel
IMAGE_SHAPE = (3, 8, 8)
NUM_CLASSES = 4


def card(
    architecture: str = ARCHITECTURE,
    *,
    image_shape: tuple[int, int, int] = IMAGE_SHAPE,
    num_classes: int = NUM_CLASSES,
    **changes: Any,
) -> TeacherCard:
    """A card with classes `class 0`, `class 1` and so on; `changes` are fields of the card."""
    channels = image_shape[0]
    fields: dict[str, Any] = {
        "architecture": architecture,
        "task": ARCHITECTURES[architecture].tasks[0],
        "num_classes": num_classes,
        "class_names": tuple(f"class {k}" for k in range(num_classes)),
        "input_shape": image_shape,
        "channel_order": {1: "L", 3: "RGB", 4: "RGBA"}[channels],
        "mean": (0.45, 0.5, 0.55, 0.6)[:channels],
        "std": (0.2, 0.25, 0.3, 0.35)[:channels],
    }
    return TeacherCard(**{**fields, **changes})


def images(count: int = 16, image_shape: tuple[int, int, int] = IMAGE_SHAPE, *, seed: int = 0) -> Tensor:
    """Blobs of colour, uint8 (count, C, H, W)."""
    channels, height, width = image_shape
    coarse = torch.rand(count, channels, 3, 3, generator=torch.Generator().manual_seed(seed))
    smooth = nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (smooth * 255.0).round().to(torch.uint8)


def training_images(
    count: int = 16, image_shape: tuple[int, int, int] = IMAGE_SHAPE, *, num_pool: int = 24, seed: int = 0
) -> TrainingImages:
    """`images` as the few, and others as the pool."""
    few, pool = images(count, image_shape, seed=seed), images(num_pool, image_shape, seed=seed + 100)
    return TrainingImages(few, pool)


def teacher(architecture: str = ARCHITECTURE, *, seed: int = 0, **changes: Any) -> Teacher:
    """Random weights whose batch norms have seen `images`, so that the teacher's opinion differs between images."""
    its_card = card(architecture, **changes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(architecture, its_card.num_classes, its_card.input_shape[0], its_card.width)
    made = Teacher(network, its_card)
    for norm in (layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)):
        norm.train()
        norm.momentum = None  # a plain mean
    with torch.no_grad():
        made(images(32, its_card.input_shape, seed=seed + 1).float() / 255.0)
    made.train()  # that is, back to evaluation mode
    return made


def dense_teacher(**changes: Any) -> Teacher:
    """A `teacher` of every pixel; the logits of its first 8x8 image are (1, 4, 8, 8)."""
    return teacher(DENSE, **changes)


def dense_backbone(**changes: Any) -> Backbone:
    """A `backbone` for it; at its smallest width already, whatever is asked."""
    return backbone(DENSE, **changes)


def backbone(architecture: str = ARCHITECTURE, *, in_channels: int = 3, width: float = 0.5, seed: int = 0) -> Backbone:
    """An untrained student's body, half as wide as the teacher's; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return named_backbone(architecture, in_channels, width)


def backbone_with_dropout(*, seed: int = 0) -> Backbone:
    """A body that draws from torch's global random state in every training step."""
    body = OrderedDict(backbone(seed=seed).named_children())
    body["dropout"] = nn.Dropout(0.5)
    return Backbone(nn.Sequential(body), architecture=ARCHITECTURE, width=0.5, pruned=False)


def settings(config: type[BaseModel], **changes: Any) -> Any:
    """A method's settings made small by their names, as `compressor.methods` promises; every loss term switched on."""
    small = {"_steps": 4, "_every": 2, "_batch_size": 6, "_width": 8, "latent_dim": 4, "_weight": 0.5}
    fields = {name: value for name in config.model_fields for ending, value in small.items() if name.endswith(ending)}
    return config(**{**fields, **changes})


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Same names, same bits."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
