"""What a network takes before anybody runs it on its target: parameters, multiply-accumulates and memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from exporters.macs import count_macs, count_params, look_at_layers


@dataclass(frozen=True)
class Footprint:
    """Of one image.

    Attributes:
        params, macs: as `exporters.macs` counts them.
        largest_step: most values that one layer reads and writes, which have to be in memory at the same time.
    """

    params: int
    macs: int
    largest_step: int

    def weights_mib(self, bytes_per_value: int) -> float:
        """Of the parameters alone, in MiB."""
        return self.params * bytes_per_value / 2**20

    def memory_gib(self, bytes_per_value: int) -> float:
        """Weights and the activations of the largest layer in GiB: the least that any runtime needs."""
        return (self.params + self.largest_step) * bytes_per_value / 2**30


def footprint(model: nn.Module, image_shape: tuple[int, int, int]) -> Footprint:
    """Measured on one image of shape (C, H, W); the model stays as it is."""
    return Footprint(count_params(model), count_macs(model, image_shape), _largest_step(model, image_shape))


def _largest_step(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    largest = 0

    def look(_layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal largest
        tensors = [value for value in (*inputs, output) if isinstance(value, Tensor)]
        largest = max(largest, sum(tensor.numel() for tensor in tensors))

    leaves = (module for module in model.modules() if not any(True for _ in module.children()))
    look_at_layers(model, image_shape, leaves, look)
    return largest
