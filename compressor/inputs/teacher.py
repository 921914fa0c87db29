"""The teacher: a frozen network that takes images in [0, 1] and owns its normalisation.

Everything that needs the teacher gets this module, so there is one path from an image to the teacher's opinion of it.
The parameters are frozen here, once. Gradients still flow through the network to the image, which the generator needs.

What can be had of a teacher, it says itself (`gives`): all of TEACHER_PARTS of a network whose layers are known, and of
one that is run from its own file its logits, perhaps with gradients.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NoReturn, get_args

import torch
from torch import Tensor, nn

from compressor.distill.batch_norm_match import has_batch_norm
from compressor.inputs.card import Task, TeacherCard
from compressor.inputs.folding import folded_batch_norms
from compressor.inputs.network_file import NETWORK_KINDS, open_kept
from compressor.students.architectures import ARCHITECTURES, build_network

__all__ = [
    "TEACHER_PARTS",
    "Classifier",
    "LogitsTeacher",
    "Normalise",
    "Task",
    "Teacher",
    "TeacherOutput",
    "TeacherPart",
    "classifier_identity_error",
    "layer_names",
    "load_teacher",
    "pixel_statistics",
]

TeacherPart = Literal["logits", "features", "feature_map", "classifier", "input_gradient", "batch_norm"]
TEACHER_PARTS: tuple[TeacherPart, ...] = get_args(TeacherPart)
"""What a method may need of a teacher; `batch_norm` are the statistics of its layers."""


@dataclass(frozen=True)
class TeacherOutput:
    """What a white-box teacher says of B images.

    Attributes:
        logits: (B, K); for regression K numbers that are no logits, for segmentation (B, K, H, W), as the image.
        features: (B, D), the feature map averaged over its positions; except for segmentation the classifier's input.
        feature_map: (B, D, h, w), the last map before pooling; for segmentation the one that the classifier reads; one
            position (B, D, 1, 1) where more than a pool lies between a last map and the classifier.
    """

    logits: Tensor
    features: Tensor
    feature_map: Tensor


class Normalise(nn.Module):
    """Images in [0, 1] to what a network was trained on: range, channel order, mean and standard deviation."""

    def __init__(self, card: TeacherCard) -> None:
        super().__init__()
        self.flip_channels = card.channel_order == "BGR"
        self.scale = card.value_range[1] - card.value_range[0]
        self.offset = card.value_range[0]
        self.register_buffer("mean", torch.tensor(card.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(card.std).view(1, -1, 1, 1))
        self.mean: Tensor
        self.std: Tensor

    def forward(self, images: Tensor) -> Tensor:
        if self.flip_channels:
            images = images.flip(1)
        return (images * self.scale + self.offset - self.mean) / self.std


def pixel_statistics(card: TeacherCard) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (C,) of images in [0, 1] that `Normalise` brings to mean 0 and deviation 1."""
    low, high = card.value_range
    mean = tuple((value - low) / (high - low) for value in card.mean)
    std = tuple(value / (high - low) for value in card.std)
    return (mean[::-1], std[::-1]) if card.channel_order == "BGR" else (mean, std)


class Teacher(nn.Module):
    """A frozen network of images (B, C, H, W) in [0, 1].

    Attributes:
        card: what is known of the network, its input and its output.
        classifier: the final linear layer, D -> K; for segmentation a 1x1 convolution; the identity where the network
            averages a map of class scores.
        num_queries: images that it was asked about so far, whoever asked.
    """

    def __init__(self, network: nn.Module, card: TeacherCard) -> None:
        super().__init__()
        self.card = card
        self.num_queries = 0
        self.normalise = Normalise(card)
        self.network = network
        feature_layer, classifier_layer = layer_names(card)
        self.classifier: nn.Linear | nn.Conv2d
        pools_scores = ARCHITECTURES[card.architecture].pools_scores
        if pools_scores:
            self.classifier = _identity(card.num_classes)
        else:
            object.__setattr__(self, "classifier", network.get_submodule(classifier_layer))
        self._feature_layer = feature_layer
        self._reads_input = feature_layer == classifier_layer and not pools_scores
        self.requires_grad_(False)
        super().train(False)

    @property
    def task(self) -> Task:
        """What its output means."""
        return self.card.task

    @property
    def gives(self) -> frozenset[TeacherPart]:
        """What can be had of it."""
        return frozenset(TEACHER_PARTS if has_batch_norm(self.network) else set(TEACHER_PARTS) - {"batch_norm"})

    @property
    def has_layers(self) -> bool:
        """Whether its layers are known, so that a student can be made of them."""
        return True

    @property
    def classifies_its_map(self) -> bool:
        """Whether nothing but an average lies between the body's last map and the classifier."""
        return not (self._reads_input or ARCHITECTURES[self.card.architecture].pools_scores)

    @property
    def feature_dim(self) -> int:
        """D, the channels that the classifier reads."""
        return self.classifier.weight.shape[1]

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002
        """A teacher is always in evaluation mode, whatever its owner does."""
        return super().train(False)

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Inside, it answers the same to rounding, and faster: batch norms folded, channels last.

        Whoever wants the teacher's own batch norms or weights does so outside.
        """
        self.network.to(memory_format=torch.channels_last)
        try:
            with folded_batch_norms(self.network, keep=self._feature_layer):
                yield
        finally:
            self.network.to(memory_format=torch.contiguous_format)

    def forward(self, images: Tensor) -> TeacherOutput:
        self.num_queries += len(images)
        maps: list[Tensor] = []
        layer = self.network.get_submodule(self._feature_layer)
        if self._reads_input:
            handle = layer.register_forward_pre_hook(lambda _layer, inputs: maps.append(inputs[0][:, :, None, None]))
        else:
            handle = layer.register_forward_hook(lambda _layer, _inputs, output: maps.append(output))
        try:
            logits = self.network(self.normalise(images))
        finally:
            handle.remove()
        return TeacherOutput(logits, maps[0].mean(dim=(2, 3)), maps[0])


class LogitsOnly(TeacherOutput):
    """What such a teacher says: `logits`. A method that reads more has not declared that it uses it."""

    def __init__(self, logits: Tensor) -> None:
        object.__setattr__(self, "logits", logits)

    def __getattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"this teacher gives logits and no {name}")


class LogitsTeacher(Teacher):
    """A frozen network that is run from its own file: images (B, C, H, W) in [0, 1] to logits, no layer in between.

    Attributes:
        network: an `OnnxNetwork` or a `TorchNetwork`; its parameters, where it has any, are nobody's business.
    """

    def __init__(self, network: nn.Module, card: TeacherCard) -> None:
        nn.Module.__init__(self)
        self.card = card
        self.num_queries = 0
        self.normalise = Normalise(card)
        self.network = network
        self.train(False)

    @property
    def gives(self) -> frozenset[TeacherPart]:
        return frozenset({"logits", "input_gradient"} if self._has_gradient else {"logits"})

    @property
    def has_layers(self) -> bool:
        return False

    @property
    def classifies_its_map(self) -> bool:
        return False

    @contextmanager
    def folded(self) -> Iterator[None]:
        """Nothing can be."""
        yield

    def forward(self, images: Tensor) -> LogitsOnly:
        self.num_queries += len(images)
        return LogitsOnly(self.network(self.normalise(images)))

    @cached_property
    def _has_gradient(self) -> bool:
        """Tried on two images: TorchScript may hold operators that have none, and ONNX Runtime has none at all."""
        noise = torch.rand(2, *self.card.input_shape, generator=torch.Generator().manual_seed(0))
        image = noise.to(self.normalise.mean.device).requires_grad_()
        try:
            with torch.enable_grad():
                # The last logit: of (0, z) the first has no gradient.
                (gradient,) = torch.autograd.grad(self.network(self.normalise(image))[:, -1].sum(), image)
        except RuntimeError:
            return False
        return bool(torch.isfinite(gradient).all() and gradient.any())


class Classifier(nn.Module):
    """The teacher as it would be deployed: images (B, C, H, W) in [0, 1] to logits, and nothing else."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.normalise = teacher.normalise
        self.network = teacher.network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(self.normalise(images))  # type: ignore[no-any-return]


def layer_names(card: TeacherCard) -> tuple[str, str]:
    """Names of the layer that ends in the last feature map and of the final layer; the card's own names win.

    Where both are the same layer, what it reads is the feature map, of one position.
    """
    entry = ARCHITECTURES[card.architecture]
    return card.feature_layer or entry.feature_layer, card.classifier_layer or entry.classifier_layer


def load_teacher(state_dict: Mapping[str, Tensor], card: TeacherCard) -> Teacher:
    """Build the card's architecture, load its weights strictly and freeze it; or open the file that it is run from.

    The weights have been checked by intake; a mismatch here is a bug of ours.
    """
    if card.architecture in NETWORK_KINDS:
        return LogitsTeacher(open_kept(card.architecture, state_dict), card)
    network = build_network(card.architecture, card.num_classes, card.input_shape[0], card.width)
    # Layers look up the version that wrote their tensors, of which a plain dict says nothing; MNASNet insists on one.
    weights = OrderedDict(state_dict)
    weights._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(weights, strict=True)
    return Teacher(network, card)


def _identity(num_classes: int) -> nn.Linear:
    """The classifier of scores that already are the logits."""
    layer = nn.Linear(num_classes, num_classes, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(num_classes))
    return layer


@torch.no_grad()
def classifier_identity_error(teacher: Teacher, images: Tensor) -> float:
    """Largest relative error of `logits = classifier(mean over positions of the feature map)` on images (B, C, H, W).

    Classifier sharing replaces the network below the classifier, so this identity must hold before any training.
    No method shares the classifier of a segmentation, which is not asked.
    """
    output = teacher(images)
    rebuilt = teacher.classifier(output.features)
    scale = output.logits.abs().max().clamp_min(1e-6)
    return float((rebuilt - output.logits).abs().max() / scale)
