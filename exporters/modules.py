"""What every exporter asks of a torch module before it runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[nn.Module]:
    """`model` in evaluation mode; afterwards every submodule is in the mode that it had before.

    `model.train(was_training)` would not do: it gives one mode to all submodules, and thaws the frozen ones.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield model
    finally:
        for module, was_training in modes:
            module.training = was_training


def device_of(model: nn.Module) -> torch.device:
    """Where the first parameter lives; the CPU for a module without parameters."""
    parameter = next(model.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device
