"""The teacher: a frozen network that takes images in [0, 1] and owns its normalisation.

Everything that needs the teacher gets this module, so there is one path from an image to the teacher's opinion of it.
The parameters are frozen here, once. Gradients still flow through the network to the image, which the generator needs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compressor.inputs.card import Task, TeacherCard
from compressor.inputs.folding import folded_batch_norms
from compressor.students.architectures import ARCHITECTURES, build_network

__all__ = [
    "Classifier",
    "Normalise",
    "Task",
    "Teacher",
    "TeacherOutput",
    "classifier_identity_error",
    "layer_names",
    "load_teacher",
    "pixel_statistics",
]


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
    """Build the card's architecture, load its weights strictly and freeze it.

    The weights have been checked by intake; a mismatch here is a bug of ours.
    """
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
