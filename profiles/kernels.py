"""The kernels that an engine runs for a network: what a latency is made of.

An ONNX node is not what a device executes. TensorRT, and ONNX Runtime much alike, turns a convolution, its batch
normalisation, its activation and the addition behind it into one kernel, and reshapes into none. `fused_kernels`
counts what is left (the rules stand in `profiles.fused_graph`); a predictor adds up times of such kernels.

Kernels know shapes, not bytes: one list serves every precision, and other batch sizes through `at_batch`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import onnx

KernelKind = Literal[
    "convolution",  # dense, with a window above one value; transposed ones too
    "pointwise",  # 1x1 convolution
    "grouped",  # more than one group, more than one channel in each
    "depthwise",  # one channel in each group
    "gemm",  # a matrix times weights
    "attention",  # a product of two activations
    "pool",
    "elementwise",  # arithmetic that no other kernel takes in, such as an activation behind a concatenation
    "normalisation",  # layer norm, softmax: needs the whole row before it can write a value
    "movement",  # values only change their place: slices, resizes, transposes, copies into a concatenation
    "other",  # an operator that these rules do not know
]


@dataclass(frozen=True)
class Kernel:
    """One launch on the device, for the whole batch.

    Attributes:
        name: of the ONNX node that it is built around; two kernels of different names may be equal.
        kind: which hardware limits it meets.
        macs: multiply-accumulates; 0 for all but convolutions, gemm and attention.
        input_elements: activations read, those of a fused addition included.
        weight_elements: values of the weight tensor; biases are nothing beside it.
        output_elements: activations written.
        input_channels: channels, or columns of a matrix, on the way in.
        output_channels: the same on the way out.
        positions: places of the output, batch x height x width (of a matrix: its rows), so that
            output_elements = positions x output_channels.
        window: values of one channel that one output value sees (9 for 3x3).
        stride: of the first spatial axis.
        groups: of a convolution; for attention the number of independent products.
    """

    name: str = field(compare=False)
    kind: KernelKind
    macs: int
    input_elements: int
    weight_elements: int
    output_elements: int
    input_channels: int
    output_channels: int
    positions: int
    window: int = 1
    stride: int = 1
    groups: int = 1


def fused_kernels(model: onnx.ModelProto, *, batch_size: int = 1) -> tuple[Kernel, ...]:
    """The kernels of one inference, in the order of the graph; fp32, fp16 and Q/DQ graphs of a network give the same.

    Args:
        model: with one input whose first dimension is the batch, dynamic or of this very size.
        batch_size: images of one inference.

    Raises:
        ProfileError: a shape cannot be inferred, or the graph is fixed to another batch size.
    """
    from profiles.fused_graph import kernels_of_graph

    return kernels_of_graph(model, batch_size)


def total_macs(kernels: Iterable[Kernel]) -> int:
    """Multiply-accumulates of all kernels together."""
    return sum(kernel.macs for kernel in kernels)


def at_batch(kernels: Sequence[Kernel], batch_size: int) -> tuple[Kernel, ...]:
    """The kernels of one image, for a batch: activations and arithmetic grow with it, weights do not."""
    return tuple(
        replace(
            kernel,
            macs=kernel.macs * batch_size,
            input_elements=kernel.input_elements * batch_size,
            output_elements=kernel.output_elements * batch_size,
            positions=kernel.positions * batch_size,
            groups=kernel.groups * (batch_size if kernel.kind == "attention" else 1),
        )
        for kernel in kernels
    )


KINDS: tuple[KernelKind, ...] = get_args(KernelKind)
_NUMBERS = tuple(item.name for item in fields(Kernel) if item.name not in ("name", "kind"))


def kernels_to_json(kernels: Iterable[Kernel]) -> list[list[Any]]:
    """Rows of [count, kind, numbers...] without names, equal kernels in one row, in the order of first appearance."""
    return [
        [count, kernel.kind, *(getattr(kernel, name) for name in _NUMBERS)]
        for kernel, count in Counter(kernels).items()
    ]


def kernels_from_json(rows: Iterable[Sequence[Any]]) -> tuple[Kernel, ...]:
    """What `kernels_to_json` wrote; equal kernels stand together and are called by their kind.

    Raises:
        ValueError: a row has another number of entries, or an unknown kind.
    """
    kernels: list[Kernel] = []
    for count, kind, *numbers in rows:
        if kind not in KINDS:
            raise ValueError(f"unknown kind of kernel {kind!r}")
        kernels += [Kernel(kind, kind, **dict(zip(_NUMBERS, numbers, strict=True)))] * count
    return tuple(kernels)
