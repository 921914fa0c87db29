"""What a classifier says of many images, whatever runs it, its tensors' names, and however many it takes at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exporters.onnx_files import classifier_interface, load_onnx
from exporters.runners import OnnxRunner, Runner, TensorSpec

BATCH = 32

Images = NDArray[np.float32] | NDArray[np.uint8]


class SpecifiedRunner(Runner, Protocol):
    """A runner that says what it asks for, and how many images a call may hold at most."""

    max_batch: int | None

    @property
    def inputs(self) -> tuple[TensorSpec, ...]: ...


def logits_of(runner: SpecifiedRunner, images: Images) -> NDArray[np.float32]:
    """(N, C, H, W) to (N, K) in batches, N >= 1. uint8 images are brought to [0, 1] batch by batch, without a copy.

    Raises:
        ExportError: the model takes other images, or failed.
    """
    (spec,) = runner.inputs
    batch = spec.shape[0] if isinstance(spec.shape[0], int) else None
    size = batch or min(BATCH, runner.max_batch or BATCH)
    logits = []
    for first in range(0, len(images), size):
        some = images[first : first + size]
        scale = np.float32(255.0 if some.dtype == np.uint8 else 1.0)
        (outputs,) = runner.infer({spec.name: filled_up(some.astype(np.float32) / scale, batch)}).values()
        logits.append(outputs[: len(some)])
    return np.concatenate(logits)


def onnx_logits(path: Path, images: Images, *, optimise: bool = True) -> NDArray[np.float32]:
    """The same for an ONNX file; `optimise` as for `OnnxRunner`."""
    with OnnxRunner(path, optimise=optimise) as runner:
        return logits_of(runner, images)


def batches(path: Path, images: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
    """Images (N, C, H, W) in batches that the ONNX file takes."""
    batch = classifier_interface(load_onnx(path), path.name).batch
    size = batch or BATCH
    for first in range(0, len(images), size):
        yield filled_up(images[first : first + size], batch)


def filled_up(images: NDArray[np.float32], batch: int | None) -> NDArray[np.float32]:
    """At most `batch` images, filled up with copies of the last one for a model that takes no other number."""
    missing = 0 if batch is None else batch - len(images)
    return np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing > 0 else images
