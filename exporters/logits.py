"""What a classifier says of many images, whatever runs it, its tensors' names, and however many it takes at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from exporters.onnx_files import classifier_interface, load_onnx
from exporters.runners import OnnxRunner, Runner, TensorSpec

BATCH = 32
PIXELS = 2**20  # of a batch of class maps: 88 MB of logits with 21 classes

Images = NDArray[np.float32] | NDArray[np.uint8]


class Sliced(Protocol):
    """Images (N, C, H, W), float32 in [0, 1] or uint8, of which slices are arrays: an array, or what reads files."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> ArrayLike: ...


class SpecifiedRunner(Runner, Protocol):
    """A runner that says what it asks for, and how many images a call may hold at most."""

    max_batch: int | None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...


def logits_in_batches(runner: SpecifiedRunner, images: Sliced, batch: int = BATCH) -> Iterator[NDArray[np.float32]]:
    """(N, C, H, W) to logits (B, K) or (B, K, H, W), at most `batch` images at once, so that nothing has to keep all.

    uint8 images are brought to [0, 1] batch by batch, without a copy.

    Raises:
        ExportError: the model takes other images, or failed.
    """
    (spec,) = runner.inputs
    fixed = spec.shape[0] if isinstance(spec.shape[0], int) else None
    size = fixed or min(batch, runner.max_batch or batch)
    for first in range(0, len(images), size):
        some = np.asarray(images[first : first + size])
        scale = np.float32(255.0 if some.dtype == np.uint8 else 1.0)
        (outputs,) = runner.infer({spec.name: filled_up(some.astype(np.float32) / scale, fixed)}).values()
        yield outputs[: len(some)]


def fitting_batch(size: Sequence[int], most: int) -> int:
    """So many images at once that the logits of all their H x W pixels are no burden; `most` where `size` is empty."""
    return max(1, min(most, PIXELS // math.prod(size)))


def logits_of(runner: SpecifiedRunner, images: Images) -> NDArray[np.float32]:
    """All of them, (N, K) or (N, K, H, W), N >= 1; for class maps of many images use the batches.

    Raises:
        ExportError: the model takes other images, or failed.
    """
    return np.concatenate(list(logits_in_batches(runner, images)))


def onnx_logits(
    path: Path, images: Images, *, optimise: bool = True, within_s: float | None = None
) -> NDArray[np.float32]:
    """The same for an ONNX file; `optimise` and `within_s` as for `OnnxRunner`."""
    size = fitting_batch(classifier_interface(load_onnx(path), path.name).output_size, BATCH)
    with OnnxRunner(path, optimise=optimise, within_s=within_s) as runner:
        return np.concatenate(list(logits_in_batches(runner, images, size)))


def batches(path: Path, images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Images (N, C, H, W) in batches that the ONNX file takes."""
    interface = classifier_interface(load_onnx(path), path.name)
    size = interface.batch or fitting_batch(interface.output_size, BATCH)
    for first in range(0, len(images), size):
        yield filled_up(images[first : first + size], interface.batch)


def filled_up(images: NDArray[np.float32], batch: int | None) -> NDArray[np.float32]:
    """At most `batch` images, filled up with copies of the last one for a model that takes no other number."""
    missing = 0 if batch is None else batch - len(images)
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing > 0 else images
