"""The student as it is trained and deployed: normalisation, backbone, projector, classifier, in one graph.

classification, regression    image -> backbone -> projector -> global average pool -> linear layer -> (B, K)
segmentation                  image -> backbone -> 1x1 convolution -> bilinear upsampling -> (B, K, H, W)
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from compressor.errors import InputRefused
from compressor.inputs.card import Task, TeacherCard
from compressor.inputs.teacher import Normalise, Teacher
from compressor.stage_files import load_tensors, save_tensors
from compressor.stages import atomic_write_text
from compressor.students.architectures import ARCHITECTURES, build_network, feature_shape, match_shapes, split_backbone
from compressor.students.dense import upsample


class Projector(nn.Sequential):
    """Student map (B, C, h, w) to the teacher's channels (B, D, h, w): 1x1, 3x3, 1x1 over `middle` channels (SimKD)."""

    def __init__(self, in_channels: int, middle: int, feature_dim: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, middle, 1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, middle, 3, padding=1, bias=False),
            nn.BatchNorm2d(middle),
            nn.ReLU(),
            nn.Conv2d(middle, feature_dim, 1, bias=False),
            nn.BatchNorm2d(feature_dim),
            nn.ReLU(),
        )


def make_projector(backbone: nn.Module, in_channels: int, feature_dim: int) -> Projector:
    """A projector with half of the teacher's channels in its middle (SimKD), or fewer where it outweighs the backbone.

    The projector ships. With a wide feature map (1,280 channels in MobileNetV2, 2,048 in ResNet-50) the published
    factor makes it larger than the student, and the student larger than its teacher.
    """
    budget = sum(p.numel() for p in backbone.parameters())
    for factor in (2, 4, 8, 16):
        middle = max(8, feature_dim // factor)
        if in_channels * middle + 9 * middle * middle + middle * feature_dim <= budget:
            break
    return Projector(in_channels, middle, feature_dim)


class StudentCard(BaseModel):
    """Everything beside the weights that rebuilds a student; channel counts of pruned ones are in the weights' shapes.

    Attributes:
        architecture, width: the backbone.
        map_size: (h, w) to which the backbone's map is pooled before the projector; none: as it is.
        projector: whether a projector and the teacher's classifier follow (classifier sharing), or the student's own
            classifier.
        input: the teacher's card, for the input's shape, preprocessing and class names, and for the task.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    card_version: Literal[1] = 1
    architecture: str
    width: float
    pruned: bool
    map_size: tuple[int, int] | None
    projector: bool
    input: TeacherCard


class Student(nn.Module):
    """Images (B, C, H, W) in [0, 1] to logits (B, K), or (B, K, H, W) for a segmentation.

    Args:
        backbone: normalised images to a map (B, C', h', w').
        projector: the map to the teacher's channels, or None.
        classifier: the teacher's own final layer (a frozen copy), or the student's; 1x1 for a segmentation.
        card: must describe exactly these parts.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: nn.Module | None,
        classifier: nn.Linear | nn.Conv2d,
        card: StudentCard,
    ) -> None:
        super().__init__()
        self.card = card
        self.normalise = Normalise(card.input)
        self.backbone = backbone
        self.projector = projector if projector is not None else nn.Identity()
        self.classifier = classifier
        self._upsamples = not ARCHITECTURES[card.architecture].full_size

    def feature_map(self, images: Tensor) -> Tensor:
        """The map that the classifier pools, or reads as it is: (B, D, h, w)."""
        x = self.backbone(self.normalise(images))
        if self.card.map_size is not None:
            x = F.adaptive_avg_pool2d(x, self.card.map_size)
        return self.projector(x)  # type: ignore[no-any-return]

    def classify(self, feature_map: Tensor) -> Tensor:
        """Logits of a map (B, D, h, w)."""
        if self.card.input.task == "segmentation":
            logits: Tensor = self.classifier(feature_map)
            return upsample(logits, self.card.input.input_shape[1:]) if self._upsamples else logits
        return self.classifier(feature_map.mean(dim=(2, 3)))  # type: ignore[no-any-return]

    def forward(self, images: Tensor) -> Tensor:
        return self.classify(self.feature_map(images))


class Backbone(nn.Sequential):
    """A student's body together with the facts that its card needs.

    Attributes:
        inherited: share of its parameters that began as its teacher's.
    """

    inherited: float = 0.0

    def __init__(self, body: nn.Sequential, *, architecture: str, width: float, pruned: bool) -> None:
        super().__init__(OrderedDict(body.named_children()))
        self.architecture = architecture
        self.width = width
        self.pruned = pruned


def named_backbone(architecture: str, in_channels: int, width: float = 1.0) -> Backbone:
    """An untrained backbone by architecture name."""
    network = build_network(architecture, 2, in_channels, width)
    return Backbone(split_backbone(network, architecture), architecture=architecture, width=width, pruned=False)


def classifier_sharing(backbone: Backbone, teacher: Teacher, *, projector: Literal["auto", "on"] = "auto") -> Student:
    """A student that ends in a new projector and a frozen copy of its teacher's classifier (HiDFD, after SimKD).

    The student's own head never exists. Where the student's map is larger than the teacher's it is pooled down.

    Args:
        projector: auto: none where the student starts from its teacher's blocks and its map has the teacher's shape,
            since the classifier can read that as it is; the student is then smaller, and no worse.

    Raises:
        InputRefused: the teacher's classifier is not a linear layer on a pooled map.
    """
    if not isinstance(teacher.classifier, nn.Linear):
        raise InputRefused(
            f"The teacher ({teacher.card.architecture}) does {teacher.task}.",
            "A classifier can be shared where it is one linear layer on the average of a feature map.",
            "Use a method that gives the student a classifier of its own, such as --method dfad.",
        )
    image_shape = teacher.card.input_shape
    channels, height, width = feature_shape(backbone, image_shape)
    teacher_map = _teacher_map_size(teacher)
    pooled = (min(height, teacher_map[0]), min(width, teacher_map[1]))
    classifier = nn.Linear(
        teacher.classifier.in_features,
        teacher.classifier.out_features,
        bias=teacher.classifier.bias is not None,
    )
    classifier.load_state_dict(teacher.classifier.state_dict())
    classifier.requires_grad_(False)
    fits = backbone.inherited > 0 and (channels, height, width) == (classifier.in_features, *teacher_map)
    needs_projector = projector == "on" or not fits
    card = StudentCard(
        architecture=backbone.architecture,
        width=backbone.width,
        pruned=backbone.pruned,
        map_size=pooled if pooled != (height, width) else None,
        projector=needs_projector,
        input=teacher.card,
    )
    between = make_projector(backbone, channels, classifier.in_features) if needs_projector else None
    return Student(backbone, between, classifier, card)


def own_classifier(backbone: Backbone, teacher: Teacher) -> Student:
    """A plain network of its own: backbone, average pool, a new linear layer; or backbone, 1x1 convolution."""
    channels, _, _ = feature_shape(backbone, teacher.card.input_shape)
    card = StudentCard(
        architecture=backbone.architecture,
        width=backbone.width,
        pruned=backbone.pruned,
        map_size=None,
        projector=False,
        input=teacher.card,
    )
    layer = _new_classifier(teacher.task)
    return Student(backbone, None, layer(channels, teacher.card.num_classes), card)


def as_shipped(backbone: Backbone, teacher: Teacher) -> Student:
    """The student that is counted and timed before any training.

    A classifier is taken with the projector and the teacher's final layer, which not every method gives it, so that it
    is not larger than expected; for other tasks, and for a teacher without layers, no method shares one.
    """
    shares = teacher.task == "classification" and "classifier" in teacher.gives
    return (classifier_sharing if shares else own_classifier)(backbone, teacher)


def rebuild_student(card: StudentCard, state_dict: Mapping[str, Tensor]) -> Student:
    """A student from its card and weights alone, pruned or not: architecture by name, channels from the shapes.

    Raises:
        RuntimeError: the weights do not belong to the card.
    """
    backbone = named_backbone(card.architecture, card.input.input_shape[0], card.width)
    weight = state_dict["classifier.weight"]
    projector = Projector(1, 1, weight.shape[1]) if card.projector else None
    layer = _new_classifier(card.input.task)
    classifier = layer(weight.shape[1], weight.shape[0], bias="classifier.bias" in state_dict)
    student = Student(backbone, projector, classifier, card)
    match_shapes(student, state_dict)
    student.load_state_dict(dict(state_dict), strict=True)
    return student.eval()


def save_student(student: Student, weights: Path, card: Path) -> None:
    """Write the weights as safetensors and the card as JSON."""
    save_tensors(student.state_dict(), weights)
    atomic_write_text(card, student.card.model_dump_json(indent=2) + "\n")


def load_student(weights: Path, card: Path) -> Student:
    """Read what `save_student` wrote."""
    return rebuild_student(StudentCard.model_validate_json(card.read_bytes()), load_tensors(weights))


def save_backbone(backbone: Backbone, weights: Path, card: Path) -> None:
    """Write an untrained or pruned backbone, so that training can start from it again."""
    save_tensors(backbone.state_dict(), weights)
    facts = {name: getattr(backbone, name) for name in ("architecture", "width", "pruned", "inherited")}
    atomic_write_text(card, json.dumps(facts, indent=2) + "\n")


def load_backbone(weights: Path, card: Path, in_channels: int) -> Backbone:
    """Read what `save_backbone` wrote."""
    facts, state_dict = json.loads(card.read_bytes()), load_tensors(weights)
    backbone = named_backbone(facts["architecture"], in_channels, facts["width"])
    backbone.pruned, backbone.inherited = facts["pruned"], facts["inherited"]
    match_shapes(backbone, state_dict)
    backbone.load_state_dict(state_dict, strict=True)
    return backbone


def _new_classifier(task: Task) -> Callable[..., nn.Linear | nn.Conv2d]:
    """(inputs, outputs, bias=True) -> the final layer."""
    return partial(nn.Conv2d, kernel_size=1) if task == "segmentation" else nn.Linear


def _teacher_map_size(teacher: Teacher) -> tuple[int, int]:
    device = teacher.classifier.weight.device
    with torch.no_grad():
        feature_map = teacher(torch.zeros(1, *teacher.card.input_shape, device=device)).feature_map
    return int(feature_map.shape[2]), int(feature_map.shape[3])
