"""Which nodes of an ONNX graph are layers with weights that int8 kernels exist for, form by form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from exporters.routes import Int8Form

# Below this many channels, TensorRT's int8 kernels gain nothing (NVIDIA Model Optimizer leaves them in float).
MIN_CHANNELS = 16
CHANNEL_MULTIPLE = 8


@dataclass(frozen=True)
class Layer:
    """A node with constant weights.

    Attributes:
        key: what `node_key` calls it, which is the tensor that it computes.
        name: what a reader would call it: its module, where the exporter kept that name.
        data, weight, bias: names of its inputs; no bias where it has none.
        axis: the weight's dimension with one scale for each index.
        convolves: whether it is a convolution, into which a residual addition and a ReLU may be fused.
    """

    key: str
    name: str
    data: str
    weight: str
    bias: str | None
    axis: int
    convolves: bool


def node_key(node: onnx.NodeProto) -> str:
    """What we call a node: its first output, since names of nodes may be missing or the same."""
    return str(node.output[0])


def layer_of(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto], form: Int8Form) -> Layer | None:
    """A node as a layer, where this form has a fast kernel for it."""
    weight = constants.get(node.input[1]) if len(node.input) > 1 else None
    if weight is None or weight.data_type != onnx.TensorProto.FLOAT or node.input[0] in constants:
        return None
    shape = tuple(weight.dims)
    attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    groups = attributes.get("group", 1)
    match node.op_type:  # channels: (in, out)
        case "Conv":
            axis, channels = 0, (shape[1] * groups, shape[0])
        case "ConvTranspose" if form == "tensorrt":  # ONNX Runtime has no kernel for it
            axis, channels = 1, (shape[0], shape[1] * groups)
        case "Gemm" if attributes.get("transA", 0) == 0 and attributes.get("alpha", 1.0) == 1.0:
            axis = 0 if attributes.get("transB", 0) else 1
            channels = (shape[1 - axis], shape[axis])
        case "MatMul" if len(shape) == 2:
            axis, channels = 1, (shape[0], shape[1])
        case _:
            return None
    convolves = node.op_type in ("Conv", "ConvTranspose")
    if form == "tensorrt" and not _suits_tensorrt(channels, shape[2:] if convolves else None, groups):
        return None
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    per_channel = bias is None or (bias in constants and tuple(constants[bias].dims) == (channels[1],))
    if not per_channel or attributes.get("beta", 1.0) != 1.0:
        return None
    return Layer(node_key(node), _module_name(node), node.input[0], node.input[1], bias, axis, convolves)


def constants_of(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    """Every tensor that is the same for all images: initialisers, Constant nodes, and Identity nodes of these."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
        elif node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    return constants


def captured_names(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the bodies of If and Loop read; some are their own, which does no harm."""
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            yield from (value.name for value in body.output)
            for inner in body.node:
                yield from inner.input
                yield from captured_names(inner)


def _suits_tensorrt(channels: tuple[int, int], kernel: tuple[int, ...] | None, groups: int) -> bool:
    """Wide on both sides, or a convolution whose outputs fill int8's vectors; of grouped ones, those from 3x3 on."""
    if groups == 1 and min(channels) >= MIN_CHANNELS:
        return True
    fills = kernel is not None and channels[1] % CHANNEL_MULTIPLE == 0
    return fills and (groups == 1 or min(kernel or (1,)) >= 3)


def _module_name(node: onnx.NodeProto) -> str:
    """The module is in the weight's name (dynamo) or in the node's (torchscript), else nowhere."""
    weight: str = node.input[1]
    return weight.removesuffix(".weight") if weight.endswith(".weight") else node.name or node_key(node)
