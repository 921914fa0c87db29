"""Which range of each activation int8 should span, from images, in one pass and in bounded memory.

In: a float32 ONNX classifier and images (B, C, H, W). Every tensor that is to be quantised keeps its least and its
greatest value and a histogram; the image is forgotten. From these come three choices of range:

    min-max      nothing is clipped; one outlier widens every step
    percentile   the tails beyond a share of the values are clipped
    entropy      what lies beyond a threshold is clipped: the one whose 128 levels lose least information
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.histograms import Histogram, entropy_threshold, percentile_range
from exporters.int8_placement import quantised_tensors
from exporters.logits import filled_up
from exporters.onnx_files import classifier_interface, load_onnx
from exporters.onnx_to_int8 import Range, check_quantisable
from exporters.runners import OnnxRunner

PERCENTILE = 99.99

Images = NDArray[np.float32] | Iterable[NDArray[np.float32]]


@dataclass(frozen=True)
class ActivationRanges:
    """What the activations of a graph were on some images.

    Attributes:
        num_images: how many images.
        histograms: by tensor name, in graph order.
    """

    num_images: int
    histograms: Mapping[str, Histogram]

    def min_max(self) -> dict[str, Range]:
        """Everything that was seen."""
        return {name: (seen.lowest, seen.highest) for name, seen in self.histograms.items()}

    def percentile(self, share: float = PERCENTILE) -> dict[str, Range]:
        """What holds `share` percent of the values, with half of the rest clipped on either side."""
        return {name: percentile_range(seen, share) for name, seen in self.histograms.items()}

    def entropy(self) -> dict[str, Range]:
        """What loses least information in 128 levels of magnitude."""
        return {name: _within(seen, entropy_threshold(seen)) for name, seen in self.histograms.items()}


@dataclass(frozen=True)
class RangeAgreement:
    """How far two sets of images agree on the ranges: intersection / union of [lowest, highest], for each tensor.

    Ranges of a few images are narrower than those of many of the same kind, so a value below 1 is no alarm by itself.

    Attributes:
        median_ratio: over the tensors, in [0, 1].
        lowest_ratio, lowest_tensor: the tensor that agrees least.
        num_tensors: how many were compared.
    """

    median_ratio: float
    lowest_ratio: float
    lowest_tensor: str
    num_tensors: int


def collect_ranges(path: Path, batches: Images) -> ActivationRanges:
    """Run a float32 classifier once over the images and note every activation that int8 would quantise.

    Args:
        path: the ONNX file.
        batches: images (B, C, H, W) in [0, 1], or all of them as one array; the sizes of the batches do not change
            the result.

    Raises:
        ExportError: the file cannot be read or has nothing to quantise, there are no images, they do not fit, or an
            activation is not finite.
    """
    proto = load_onnx(path)
    check_quantisable(proto, path.name)
    interface = classifier_interface(proto, path.name)
    names = quantised_tensors(proto)
    found: dict[str, Histogram] = {}
    num_images = 0
    with TemporaryDirectory() as folder, OnnxRunner(_with_outputs(proto, names, Path(folder))) as runner:
        for images in _calls(batches, interface.batch or 1):
            feed = {interface.input_name: filled_up(images, interface.batch)}
            outputs = feed | runner.infer(feed)
            num_images += len(images)
            for name in names:
                values = outputs[name]
                if interface.batch is not None:  # rows of one image lie together, also where dimensions are merged
                    values = values[: len(values) * len(images) // interface.batch]
                seen = _histogram(values, name, path)
                found[name] = found[name] + seen if name in found else seen
    if not num_images:
        raise ExportError(
            f"No images were given to calibrate {path.name}.",
            "Images of shape (batch, channels, height, width) like those that the model will see were expected.",
            "Pass the real images, generated ones, or both; noise gives ranges that are wrong.",
        )
    return ActivationRanges(num_images, found)


def merge(first: ActivationRanges, second: ActivationRanges) -> ActivationRanges:
    """The ranges over both sets of images, exactly as one pass over both gives them.

    Raises:
        ExportError: they were collected from different graphs.
    """
    _check_same_tensors(first, second)
    sums = {name: seen + second.histograms[name] for name, seen in first.histograms.items()}
    return ActivationRanges(first.num_images + second.num_images, sums)


def range_agreement(real: ActivationRanges, generated: ActivationRanges) -> RangeAgreement:
    """How far generated images drive the activations over the same ranges as real ones.

    Raises:
        ExportError: they were collected from different graphs.
    """
    _check_same_tensors(real, generated)
    ratios = {name: _overlap(seen, generated.histograms[name]) for name, seen in real.histograms.items()}
    lowest = min(ratios, key=lambda name: ratios[name])
    return RangeAgreement(statistics.median(ratios.values()), ratios[lowest], lowest, len(ratios))


def _within(seen: Histogram, threshold: float) -> Range:
    return max(seen.lowest, -threshold), min(seen.highest, threshold)


def _overlap(first: Histogram, second: Histogram) -> float:
    union = max(first.highest, second.highest) - min(first.lowest, second.lowest)
    both = min(first.highest, second.highest) - max(first.lowest, second.lowest)
    return max(both, 0.0) / union if union > 0 else 1.0


def _histogram(values: NDArray[np.float32], name: str, path: Path) -> Histogram:
    flat = values.ravel()
    if not np.isfinite([flat.min(), flat.max()]).all():
        raise ExportError(
            f"The activation {name!r} of {path.name} is not finite on one of the images.",
            "Finite values in float32 were expected; int8 has no way to hold anything else.",
            "Check the images for NaN, and the model for a layer that overflows.",
        )
    return Histogram.of(flat)


def _calls(batches: Images, size: int) -> Iterator[NDArray[np.float32]]:
    """The images in pieces of `size`, which is 1 where it may: one image fills 100 MiB in a deep network already."""
    for images in [batches] if isinstance(batches, np.ndarray) else batches:
        for first in range(0, len(images), size):
            yield images[first : first + size]


def _with_outputs(proto: onnx.ModelProto, names: Iterable[str], folder: Path) -> Path:
    """A copy of the graph that gives these tensors too."""
    given = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    extra = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names]
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.graph.output.extend(value for value in extra if value.name not in given)
    path = folder / "exposed.onnx"
    path.write_bytes(copy.SerializeToString())
    return path


def _check_same_tensors(first: ActivationRanges, second: ActivationRanges) -> None:
    differing = first.histograms.keys() ^ second.histograms.keys()
    if differing:
        raise ExportError(
            f"Ranges of {len(first.histograms)} and of {len(second.histograms)} activations were given; "
            f"{min(differing)!r} is in one only.",
            "Both must come from the same ONNX file.",
            "Collect both again from the file that is to be quantised.",
        )
