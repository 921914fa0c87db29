"""What is known of a network architecture: how to build it, and where its parts are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from compressor.inputs.card import Task


@dataclass(frozen=True)
class Architecture:
    """How to build a network and where its parts are.

    Attributes:
        build: (num_classes, in_channels, width) -> network with untrained weights.
        feature_layer: name of the module whose output is the last feature map; of LR-ASPP's two the deeper one. Where
            it is the classifier itself, what the classifier reads is taken as a map of one position: of networks with
            more than a global average pool between their last map and their last linear layer.
        classifier_layer: name of the final layer, linear or a 1x1 convolution.
        body: names of the modules that make the feature map, in the order in which they run.
        family: the shared prefix of names that differ in depth or width only.
        tasks: what the output can mean; the first where nobody says.
        split: makes the body of a network, where naming its modules does not.
        scales: whether `width` changes anything.
        full_size: the map has the image's sides, so that its logits need no upsampling.
        pools_scores: the feature map already is one of class scores, made by `classifier_layer` and averaged with
            nothing after it, so that the classifier of the average is the identity.
        only_size: side in pixels of the one square that it takes; None where it takes any.
        only_channels: image channels that it takes, where no convolution's weight says so.
        is_candidate: whether `--student` takes its name and `--student auto` looks at it; of others a student can be a
            pruned copy alone.
    """

    build: Callable[[int, int, float], nn.Module]
    feature_layer: str
    classifier_layer: str
    body: tuple[str, ...]
    family: str
    tasks: tuple[Task, ...] = ("classification", "regression")
    split: Callable[[nn.Module], nn.Sequential] | None = None
    scales: bool = True
    full_size: bool = False
    pools_scores: bool = False
    only_size: int | None = None
    only_channels: int | None = None
    is_candidate: bool = True
