"""The statistics that a teacher's batch norms keep of its training images, beside those of images that it is shown."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class LayerStatistics:
    """Means and variances (C,) of one batch norm's input: over a batch, and as stored over the training images."""

    mean: Tensor
    var: Tensor
    stored_mean: Tensor
    stored_var: Tensor


def has_batch_norm(network: nn.Module) -> bool:
    """Whether any layer keeps statistics of its input."""
    return bool(_batch_norms(network))


@contextmanager
def recorded_statistics(network: nn.Module) -> Iterator[list[LayerStatistics]]:
    """Collect, layer by layer and with a graph, the statistics of every batch norm's input in the forwards inside.

    Open it around one forward: the loss wants the statistics of one batch, not of whatever else passes meanwhile.
    """
    found: list[LayerStatistics] = []

    def record(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _BatchNorm)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        x = inputs[0].float().transpose(0, 1).flatten(1)  # (C, everything else)
        var, mean = torch.var_mean(x, dim=1, correction=0)
        found.append(LayerStatistics(mean, var, layer.running_mean, layer.running_var))

    handles = [layer.register_forward_pre_hook(record) for layer in _batch_norms(network)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _batch_norms(network: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in network.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None]
