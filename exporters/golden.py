"""Golden inputs and outputs: what a board's outputs are compared with, and how closely they must agree.

The outputs come from ONNX Runtime on the very file that the board gets, with its optimisations off (on CPUs these
compute graphs that mix fp16 with int8 wrongly). The bounds catch an engine that computes something else; how good a
precision is for the task is not measured here. Shape letters: N images, B batch, K classes, H and W pixels of a class
map. Of a map only every so many pixels are golden, since the board's awk holds them all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.onnx_files import ClassifierInterface
from exporters.runners import OnnxRunner
from profiles.schema import Precision

# Each call costs the board one start of trtexec, a few seconds.
NUM_PATTERNS = 8
MAX_GOLDEN = 16
MAX_PIXELS = 4096  # of a class map

# Share of the largest logit. TensorRT's fp32 is TF32 from Ampere on, with the mantissa of fp16; int8 rounds to one of
# 256 steps, so that a value at the border of two of them moves on a runtime that sums in another order.
TOLERANCE: Mapping[tuple[str, Precision], float] = {
    ("onnxruntime", "fp32"): 1e-3,
    ("onnxruntime", "fp16"): 0.02,
    ("onnxruntime", "int8"): 0.1,
    ("tensorrt", "fp32"): 0.01,
    ("tensorrt", "fp16"): 0.03,
    ("tensorrt", "int8"): 0.15,
}


def golden_patterns(count: int, image_shape: tuple[int, int, int]) -> NDArray[np.float32]:
    """Smooth coloured patterns (count, C, H, W) in [0, 1], always the same: sums of waves of random direction.

    Smooth, because white noise gives all images of a trained network much the same logits.
    """
    draw = np.random.default_rng(0)
    channels, height, width = image_shape
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    patterns = np.zeros((count, *image_shape))
    for _ in range(6):
        down, across = draw.uniform(-4, 4, (2, count, channels, 1, 1))
        phase, strength = draw.uniform(0, 1, (2, count, channels, 1, 1))
        patterns += strength * np.sin(2 * math.pi * (down * y + across * x + phase))
    low, high = patterns.min(axis=(2, 3), keepdims=True), patterns.max(axis=(2, 3), keepdims=True)
    scaled: NDArray[np.float32] = ((patterns - low) / np.maximum(high - low, 1e-12)).astype(np.float32)
    return scaled


def golden_calls(images: NDArray[np.float32] | None, interface: ClassifierInterface) -> list[NDArray[np.float32]]:
    """The inputs of one call each, (B, C, H, W) with the model's own batch, or 1 where any number goes.

    Args:
        images: (N, C, H, W) float32 in [0, 1], of which the first MAX_GOLDEN are taken; None for seeded patterns.
            Where they do not fill the last call, the first ones come again.

    Raises:
        ExportError: the images do not fit the model.
    """
    if images is None:
        images = golden_patterns(NUM_PATTERNS, interface.image_shape)
    fits = images.dtype == np.float32 and images.shape[1:] == interface.image_shape and len(images) > 0
    if not (fits and images.min() >= 0 and images.max() <= 1):  # NaN is neither
        raise ExportError(
            f"The kit was given golden images {images.shape} of {images.dtype}.",
            f"Images (N, {', '.join(map(str, interface.image_shape))}) of float32 in [0, 1] were expected.",
            "Prepare them as the model's other images, or leave them out: then seeded patterns are taken.",
        )
    images = images[:MAX_GOLDEN]
    batch = interface.batch or 1
    return list(np.resize(images, (math.ceil(len(images) / batch), batch, *interface.image_shape)))


def golden_stride(interface: ClassifierInterface) -> int:
    """Every so many pixels of a class map, in reading order, are golden; 1 where an image has one answer.

    It shares no divisor with the width, so that the pixels do not all lie in a few columns.
    """
    pixels = math.prod(interface.output_size)
    stride = math.ceil(pixels / MAX_PIXELS)
    while stride > 1 and math.gcd(stride, interface.output_size[-1]) > 1:
        stride += 1
    return stride


def reference_logits(
    path: Path, calls: Sequence[NDArray[np.float32]], interface: ClassifierInterface
) -> NDArray[np.float32]:
    """The logits of a file for all calls one after the other: (N, K), or (N, K, P) of the golden pixels.

    Raises:
        ExportError: ONNX Runtime cannot run the file, or some logit is not finite.
    """
    with OnnxRunner(path, optimise=False) as runner:
        logits = [
            _golden_part(runner.infer({interface.input_name: images})[interface.output_name], interface)
            for images in calls
        ]
    reference = np.concatenate(logits).astype(np.float32)
    if not np.isfinite(reference).all():
        raise ExportError(
            f"{path.name} gives values that are not finite on the kit's images.",
            "Finite logits were expected, to compare the board's with.",
            "Keep the layers that overflow in fp32, or leave this precision out.",
        )
    return reference


def _golden_part(logits: NDArray[np.float32], interface: ClassifierInterface) -> NDArray[np.float32]:
    """(B, K) as it is; (B, K, H, W) to (B, K, P)."""
    if not interface.output_size:
        return logits
    return logits.reshape(*logits.shape[:2], -1)[:, :, :: golden_stride(interface)].copy()
