"""Mean and standard deviation as the first two nodes of an ONNX classifier, so that it takes images in [0, 1].

    input ──> Sub mean ──> Div std ──> what read the input before

Everything that comes after then speaks of the same images: calibration, golden outputs, and whoever feeds the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from exporters.errors import ExportError
from exporters.onnx_files import opset_of

BROADCAST_OPSET = 7  # before it, Sub and Div say in an attribute how a number per channel is spread
INITIALISERS_STAND_ALONE = 4  # before this version of the format, they are inputs of the graph as well


def normalise_inside(proto: onnx.ModelProto, input_name: str, *, mean: Sequence[float], std: Sequence[float]) -> None:
    """Let a classifier compute (x - mean) / std itself; its interface, opset and format stay as they are.

    Args:
        input_name: of the images (B, C, H, W).
        mean, std: C numbers each; std above 0.

    Raises:
        ExportError: the opset is older than broadcasting.
    """
    if opset_of(proto) < BROADCAST_OPSET:
        raise ExportError(
            f"The model is written in opset {opset_of(proto)}.",
            f"A normalisation can be put before a model of opset {BROADCAST_OPSET} or later.",
            "Export the model again with a later opset, or with its normalisation inside.",
        )
    graph = proto.graph
    taken = set(_names(graph))
    names = [_fresh(f"{input_name}_{word}", taken) for word in ("mean", "std", "centred", "normalised")]
    _rename(graph, input_name, names[3])
    for name, numbers in zip(names, (mean, std), strict=False):
        tensor = numpy_helper.from_array(np.asarray(numbers, np.float32).reshape(1, -1, 1, 1), name)
        graph.initializer.append(tensor)
        if proto.ir_version < INITIALISERS_STAND_ALONE:
            graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    graph.node.insert(0, helper.make_node("Sub", [input_name, names[0]], [names[2]], name=names[2]))
    graph.node.insert(1, helper.make_node("Div", [names[2], names[1]], [names[3]], name=names[3]))


def _names(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (value.name for value in (*graph.input, *graph.output, *graph.initializer))
    for node in graph.node:
        yield node.name
        yield from node.input
        yield from node.output
        for body in _bodies(node):
            yield from _names(body)


def _fresh(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Let every reader of a tensor read another, also inside If and Loop."""
    for node in graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        for body in _bodies(node):
            for value in body.output:
                value.name = new if value.name == old else value.name
            _rename(body, old, new)


def _bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs
