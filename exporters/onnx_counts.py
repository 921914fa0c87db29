"""The size of a network that there is only an ONNX file of, counted as `macs` counts that of a module.

    Conv     (number of output values) · (values of the weight that one output sums)
    Gemm, MatMul with a constant weight    (number of output values) · (rows of the weight)

The sizes of outputs are looked at while one black image goes through, since a file need not state them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx.inliner import inline_local_functions

from exporters.int8_layers import constants_of
from exporters.onnx_files import classifier_interface, load_onnx
from exporters.runners import OnnxRunner

FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
STATISTICS = slice(3, 5)  # of BatchNormalization's inputs: running mean and variance, which are no parameters


@dataclass(frozen=True)
class OnnxCounts:
    """Of one image.

    Attributes:
        params: numbers in the constants of floats; where an exporter has folded batch norms, fewer than the module had.
        macs: of layers outside of If and Loop.
        largest_step: most values that one of these layers reads and writes, without its weights.
    """

    params: int
    macs: int
    largest_step: int


def count_onnx(path: Path) -> OnnxCounts:
    """What is in an ONNX classifier of a fixed image size, whose normalisation is inside.

    Raises:
        ExportError: the file cannot be read or run.
    """
    proto = load_onnx(path)
    if proto.functions:  # whose layers are counted where they are called
        proto = inline_local_functions(proto)
    interface = classifier_interface(proto, path.name)
    constants = constants_of(proto.graph)
    layers = list(_layers(proto.graph, constants))
    known = {value.name for value in proto.graph.output}
    for name in dict.fromkeys(name for layer in layers for name in (layer.data, layer.output)):
        if name not in known and name != interface.input_name:
            proto.graph.output.append(onnx.ValueInfoProto(name=name))
    image = np.zeros((interface.batch or 1, *interface.image_shape), np.float32)
    # Optimised, tensors that are asked for would still be there; but what it fuses it would have to make twice.
    with OnnxRunner(path, optimise=False, content=proto.SerializeToString()) as runner:
        seen = {interface.input_name: image, **runner.infer({interface.input_name: image})}
    sizes = {name: value.size // len(image) for name, value in seen.items()}
    return OnnxCounts(
        params=sum(math.prod(constants[name].dims) for name in _parameters(proto.graph, constants)),
        macs=sum(sizes[layer.output] * layer.summed for layer in layers),
        largest_step=max((sizes[layer.data] + sizes[layer.output] for layer in layers), default=0),
    )


@dataclass(frozen=True)
class _Layer:
    data: str
    output: str
    summed: int


def _layers(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> Iterator[_Layer]:
    for node in graph.node:
        weight = constants.get(node.input[1]) if len(node.input) > 1 else None
        if weight is None or node.input[0] in constants:
            continue
        shape = tuple(weight.dims)
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        match node.op_type:
            case "Conv":
                summed = math.prod(shape[1:])
            case "Gemm":
                summed = shape[1] if attributes.get("transB", 0) else shape[0]
            case "MatMul" if len(shape) == 2:
                summed = shape[0]
            case _:
                continue
        yield _Layer(node.input[0], node.output[0], summed)


def _parameters(graph: onnx.GraphProto, constants: dict[str, onnx.TensorProto]) -> set[str]:
    """Names of the constants of floats that are read: no single number, such as a scale, and no running statistic."""
    norms = (node for node in graph.node if node.op_type == "BatchNormalization")
    statistics = {name for node in norms for name in node.input[STATISTICS]}
    read = {name for node in graph.node if node.op_type != "Identity" for name in node.input}
    return {
        name
        for name, tensor in constants.items()
        if name in read and name not in statistics and tensor.data_type in FLOATS and math.prod(tensor.dims) > 1
    }
