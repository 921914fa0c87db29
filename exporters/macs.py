"""The size of a module: multiply-accumulates for one image, and parameters.

Only convolutions and linear layers count; in an image classifier they are nearly all of the arithmetic.
One MAC is one multiplication with its addition, not two operations.

    Conv2d   B · out_channels · H_out · W_out · (in_channels / groups) · kernel_height · kernel_width
    Linear   (number of output values) · in_features
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from exporters.modules import device_of, evaluation_mode


def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Multiply-accumulates of Conv2d and Linear layers for one image of shape (C, H, W).

    A layer that runs twice counts twice, and one that does not run does not count. The model stays as it is.
    """
    macs = 0

    def add(layer: nn.Module, _inputs: Any, output: Tensor) -> None:
        nonlocal macs
        # weight is (outputs, values that one output sums): (out, in / groups, kh, kw) or (out, in).
        macs += output.numel() * layer.get_parameter("weight")[0].numel()

    look_at_layers(model, image_shape, (m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)), add)
    return macs


def look_at_layers(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    layers: Iterable[nn.Module],
    look: Callable[[nn.Module, Any, Any], None],
) -> None:
    """Run one black image of shape (C, H, W), and have `look` see (layer, inputs, output) of these layers as they run.

    The model stays as it is.
    """
    handles = [layer.register_forward_hook(look) for layer in layers]
    try:
        with evaluation_mode(model), torch.no_grad():
            model(torch.zeros(1, *image_shape, device=device_of(model)))
    finally:
        for handle in handles:
            handle.remove()


def count_params(model: nn.Module) -> int:
    """Number of values in the parameters, shared ones once; buffers, such as running means, do not count."""
    return sum(parameter.numel() for parameter in model.parameters())
