"""Which architecture a state dict belongs to: its keys and shapes against every network that a teacher may be.

Digests of names and shapes (`known_forms`) propose, and the network itself decides. It is built without memory for its
weights, so that nothing is allocated and nothing is run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice

from torch import Tensor, nn

from compressor.inputs.known_forms import KnownForm, Shapes, form_of, known_forms, nearest_names, proposals
from compressor.inputs.own_code import is_own_name
from compressor.students.architectures import ARCHITECTURES, build_network, is_architecture, teacher_architectures
from compressor.students.timm_networks import RECOGNISED
from compressor.students.unallocated import Unallocated

SHOWN = 3  # keys of each sort that a message names

# PyTorch before 0.4.1 had no such counters; a network in evaluation mode does not read them.
OPTIONAL_SUFFIX = ".num_batches_tracked"
AUXILIARY = ("aux_classifier.", "aux1.", "aux2.", "AuxLogits.")
# A network below a prefix has at least this share of a file's tensors: two networks and their averages, and some more.
LEAST_SHARE = 0.1
DEEPEST_PREFIX = 4


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
    """Drop torchvision's auxiliary classifiers, further heads that help a network only while it trains.

    Returns:
        the other tensors, and how many were dropped.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(AUXILIARY)}
    return kept, len(tensors) - len(kept)


def class_count(tensors: Mapping[str, Tensor], architecture: str) -> int | None:
    """Outputs of the final layer of `architecture`; None where its weight is not there or is of another kind."""
    entry = ARCHITECTURES[architecture]
    weight = tensors.get(f"{entry.classifier_layer}.weight")
    dimensions = 4 if "segmentation" in entry.tasks or entry.pools_scores else 2
    return weight.shape[0] if weight is not None and weight.ndim == dimensions else None


def channel_count(tensors: Mapping[str, Tensor], architecture: str) -> int | None:
    """Image channels that the first convolution of `architecture` takes; None where its weight is not there."""
    forms = expected_forms(architecture, 2, 3, 1.0)
    stem = next((name for name, form in forms.items() if len(form.shape) == 4), None)
    if stem is None:
        return ARCHITECTURES[architecture].only_channels
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
    """Teacher architectures, at their full width, that these tensors fit key by key and shape by shape.

    Those of timm come last, and only where it is installed; several of them may have the same tensors.
    """
    proposed = proposals(_shapes(tensors)) | (ARCHITECTURES.keys() - known_forms().keys())
    names = (*teacher_architectures(), *RECOGNISED)
    return tuple(name for name in names if name in proposed and is_architecture(name) and not compare(name, tensors))


def absent_architectures(tensors: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Architectures of these names and shapes whose package is not installed."""
    return tuple(name for name in RECOGNISED if name in proposals(_shapes(tensors)) and not is_architecture(name))


def nearest_architectures(tensors: Mapping[str, Tensor], count: int = 2) -> tuple[tuple[str, Differences], ...]:
    """Architectures that look most like these tensors and share a name with them, and how they differ."""
    shapes = _shapes(tensors)
    names = islice((name for name in nearest_names(shapes) if is_architecture(name)), count)
    compared = [(name, compare(name, tensors)) for name in names]
    return tuple((name, found) for name, found in compared if not shapes.keys() <= set(found.unexpected))


def networks_within(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Known networks among the tensors of a larger module, such as one that holds its loss: architecture by prefix.

    The prefix '' stands for all of the tensors; where they fit, nothing below is looked at.
    """
    found: dict[str, str] = {}
    for prefix in _prefixes(tensors):
        if any(prefix.startswith(outer) for outer in found):
            continue
        if fits := matching_architectures(without_auxiliary(below(tensors, prefix))[0]):
            found[prefix] = fits[0]
    return found


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _prefixes(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """'' and every prefix of many names, short ones first."""
    yield ""
    for depth in range(1, DEEPEST_PREFIX + 1):
        starts = Counter(".".join(parts[:depth]) for name in tensors if len(parts := name.split(".")) > depth)
        yield from (f"{start}." for start, count in starts.items() if count >= LEAST_SHARE * len(tensors))


def _shapes(tensors: Mapping[str, Tensor]) -> Shapes:
    return {
        name: (tuple(tensor.shape), tensor.is_floating_point())
        for name, tensor in tensors.items()
        if not name.endswith(OPTIONAL_SUFFIX)
    }


def computed_form(architecture: str) -> KnownForm:
    """What `known_forms.json` must hold of an architecture."""
    small, large = (
        {
            name: (form.shape, form.is_floating)
            for name, form in expected_forms(architecture, classes, channels, 1.0).items()
            if not name.endswith(OPTIONAL_SUFFIX)
        }
        for classes, channels in ((2, 3), (3, 1))
    )
    return form_of(small, large)


def expected_forms(architecture: str, num_classes: int, in_channels: int, width: float) -> Mapping[str, Form]:
    """The form of every tensor of an architecture, in its order."""
    # The user's own code may have changed since this name was last asked for.
    look = remembered_forms.__wrapped__ if is_own_name(architecture) else remembered_forms
    return look(architecture, num_classes, in_channels, width)


@lru_cache(maxsize=64)
def remembered_forms(architecture: str, num_classes: int, in_channels: int, width: float) -> Mapping[str, Form]:
    """`expected_forms` of a network of ours or of a package's, which is the same each time."""
    with _sketching(architecture):
        network = build_network(architecture, num_classes, in_channels, width)
    return {name: Form.of(tensor) for name, tensor in network.state_dict().items()}


def _sketching(architecture: str) -> AbstractContextManager[object]:
    """Networks without memory for their weights, but for the user's own: their code may read what it has drawn."""
    return nullcontext() if is_own_name(architecture) else Unallocated()


def layer_types(architecture: str) -> Mapping[str, type[nn.Module]]:
    """Class of every named layer of an architecture."""
    with _sketching(architecture):
        network = build_network(architecture, 2)
    return {name: type(module) for name, module in network.named_modules() if name}
