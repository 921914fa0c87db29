"""Which architecture a state dict belongs to: its keys and shapes against every network that a teacher may be.

The networks are built on torch's meta device, so that nothing is allocated and nothing is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from compressor.students.architectures import ARCHITECTURES, build_network, teacher_architectures

SHOWN = 3  # keys of each sort that a message names

# PyTorch before 0.4.1 had no such counters; a network in evaluation mode does not read them.
OPTIONAL_SUFFIX = ".num_batches_tracked"
AUXILIARY = "aux_classifier."


@dataclass(frozen=True)
class Form:
    """What two tensors must share to stand for each other: their shape, and whole numbers or fractions."""

    shape: tuple[int, ...]
    is_floating: bool

    @classmethod
    def of(cls, tensor: Tensor) -> Form:
        return cls(tuple(tensor.shape), tensor.is_floating_point())

    def __str__(self) -> str:
        return f"{self.shape}" if self.is_floating else f"integer {self.shape}"


@dataclass(frozen=True)
class Differences:
    """How a state dict departs from an architecture; true when it does."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    reshaped: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def __str__(self) -> str:
        parts = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.reshaped}
        return "; ".join(
            f"{len(keys)} {what} ({', '.join(keys[:SHOWN])}{', ...' if len(keys) > SHOWN else ''})"
            for what, keys in parts.items()
            if keys
        )


def without_wrapper(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Drop what DataParallel (`module.`), torch.compile (`_orig_mod.`) or an owner (`model.`) puts before all keys.

    Returns:
        the tensors by their plain names, and the prefix that was dropped ('' for none). None of our architectures
        has all its keys below one name, so nothing of a network is lost.
    """
    prefix = ""
    names = list(tensors)
    while names and all("." in name for name in names) and len({name.partition(".")[0] for name in names}) == 1:
        prefix += names[0].partition(".")[0] + "."
        names = [name.partition(".")[2] for name in names]
    return dict(zip(names, tensors.values(), strict=True)), prefix


def without_auxiliary(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Drop torchvision's auxiliary classifier, a second head that helps a segmentation network only while it trains.

    Returns:
        the other tensors, and how many were dropped.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(AUXILIARY)}
    return kept, len(tensors) - len(kept)


def class_count(tensors: Mapping[str, Tensor], architecture: str) -> int | None:
    """Outputs of the final layer of `architecture`; None where its weight is not there or is of another kind."""
    entry = ARCHITECTURES[architecture]
    weight = tensors.get(f"{entry.classifier_layer}.weight")
    dimensions = 4 if "segmentation" in entry.tasks else 2
    return weight.shape[0] if weight is not None and weight.ndim == dimensions else None


def channel_count(tensors: Mapping[str, Tensor], architecture: str) -> int | None:
    """Image channels that the first convolution of `architecture` takes; None where its weight is not there."""
    stem = next(name for name, form in expected_forms(architecture, 2, 3, 1.0).items() if len(form.shape) == 4)
    weight = tensors.get(stem)
    return weight.shape[1] if weight is not None and weight.ndim == 4 else None


def compare(architecture: str, tensors: Mapping[str, Tensor], width: float = 1.0) -> Differences:
    """Keys and shapes of `tensors` against `architecture`, with the classes and channels that the tensors have."""
    classes, channels = class_count(tensors, architecture), channel_count(tensors, architecture)
    expected = expected_forms(architecture, classes or 2, channels or 3, width)
    found = {name: Form.of(tensor) for name, tensor in tensors.items()}
    return Differences(
        missing=tuple(name for name in expected if name not in found and not name.endswith(OPTIONAL_SUFFIX)),
        unexpected=tuple(name for name in found if name not in expected),
        reshaped=tuple(
            f"{name} {form} instead of {expected[name]}"
            for name, form in found.items()
            if name in expected and form != expected[name]
        ),
    )


def matching_architectures(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Teacher architectures, at their full width, that these tensors fit key by key and shape by shape."""
    return tuple(name for name in teacher_architectures() if not compare(name, tensors))


@lru_cache(maxsize=64)
def expected_forms(architecture: str, num_classes: int, in_channels: int, width: float) -> Mapping[str, Form]:
    """The form of every tensor of an architecture, in its order."""
    with torch.device("meta"):
        network = build_network(architecture, num_classes, in_channels, width)
    return {name: Form.of(tensor) for name, tensor in network.state_dict().items()}


def layer_types(architecture: str) -> Mapping[str, type[nn.Module]]:
    """Class of every named layer of an architecture."""
    with torch.device("meta"):
        network = build_network(architecture, 2)
    return {name: type(module) for name, module in network.named_modules() if name}
