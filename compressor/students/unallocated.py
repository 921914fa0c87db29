"""Networks without memory for their weights, for questions about names and shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
_FILLS = {
    Tensor.normal_,
    Tensor.uniform_,
    Tensor.fill_,
    Tensor.zero_,
    Tensor.erfinv_,
    Tensor.mul_,
    Tensor.add_,
    Tensor.clamp_,
}


class Unallocated(TorchFunctionMode):
    """Inside, parameters and buffers of new networks lie on the meta device, and drawing their first values is skipped.

    Unlike `torch.device("meta")` it leaves tables of numbers (`arange`, `tensor`) where they are, which RegNet computes
    its widths from and Swin its positions; and it is several times as fast.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        options = dict(kwargs or {})
        if func in _FACTORIES and options.get("device") is None:
            options["device"] = "meta"
        elif func in _FILLS and isinstance(args[0], Tensor) and args[0].is_meta:
            return args[0]
        return func(*args, **options)
