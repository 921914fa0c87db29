"""An ONNX graph without what no device executes: constants, what follows from them alone, and views.

What is left are nodes that read and write activations. A value that is only a view of another one (a reshape of it, or
a cast) counts as that other value wherever somebody asks who reads it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from profiles.errors import ProfileError
from profiles.static_shapes import WEIGHT, shapes_of

CONVOLUTIONS = {"Conv", "ConvTranspose"}
PRODUCTS = {"Gemm", "MatMul"}
POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
# Precision belongs to the kernels on both sides, so casts and Q/DQ pairs are views too. Converting the network's own
# input and output happens at every precision; it belongs to the fixed cost of an inference.
VIEWS = {
    "Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "QuantizeLinear", "DequantizeLinear",
}  # fmt: skip
FEED_PRODUCTS = {"Transpose", "Slice", "Split", "Gather"}  # strides and offsets of a matrix product do these for free


@dataclass(frozen=True)
class Node:
    """A node that reads activations.

    Attributes:
        index: place in the order of the graph.
        op: ONNX operator.
        name: of the node, or made from its output.
        inputs: all names as spelled, constants included.
        reads: the activations among them, as (name, value that it is a view of).
        writes: names of the outputs.
        attributes: by name, as Python values.
    """

    index: int
    op: str
    name: str
    inputs: tuple[str, ...]
    reads: tuple[tuple[str, str], ...]
    writes: tuple[str, ...]
    attributes: dict[str, Any]


class ReducedGraph:
    """The nodes that are left, who reads what, and every shape.

    Args:
        model: with static shapes (`static_shapes.with_static_shapes`).

    Attributes:
        nodes: in the order of the graph.
        readers: indices of the nodes that read a value or a view of it.
        writer: index of the node that writes a value.
        ancestors: for every node a bit mask of the nodes that it waits for: a question of order is one operation.
        inputs: names of the network's inputs.
        ends: values that the network gives.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        weights = {value.name for value in graph.input if value.name.startswith(WEIGHT)}
        self.inputs = {value.name for value in graph.input} - weights
        self.nodes: list[Node] = []
        self.readers: dict[str, list[int]] = defaultdict(list)
        self.writer: dict[str, int] = {}
        self.ancestors: list[int] = []
        self._shapes = shapes_of(graph)
        self._small = {tensor.name: tensor for tensor in graph.initializer}
        self._constant = {"", *self._small, *weights}
        self._view_of: dict[str, str] = {}
        self._find_constants(graph)
        vanishing = self._vanishing(graph)
        for node in graph.node:
            if node.output[0] in vanishing:
                source = next(name for name in node.input if name not in self._constant)
                self._view_of.update(dict.fromkeys(node.output, self._whole(source)))
            elif node.output[0] not in self._constant:
                self._add(node)
        self.ends = {self._whole(value.name) for value in graph.output}

    def is_constant(self, value: str) -> bool:
        """Whether a value is known before the network runs."""
        return value in self._constant

    def shape(self, value: str, node: Node) -> tuple[int, ...]:
        """The shape of a value that `node` reads or writes.

        Raises:
            ProfileError: nobody could tell.
        """
        shape = self._shapes.get(value)
        if shape is None or 0 in shape:
            raise ProfileError(
                f"The shape of '{value}' at the node {node.name} ({node.op}) cannot be told from the ONNX graph.",
                "Every tensor must have a fixed shape once the batch size is set.",
                "Export the model with a fixed image size and without branches on values.",
            )
        return shape

    def elements(self, value: str, node: Node) -> int:
        """Number of values in a tensor; raises as `shape` does."""
        return math.prod(self.shape(value, node))

    def integers(self, value: str) -> tuple[int, ...] | None:
        """Content of a small constant such as axes; None if it is not one."""
        tensor = self._small.get(value)
        return None if tensor is None else tuple(int(item) for item in np.ravel(numpy_helper.to_array(tensor)))

    def _whole(self, value: str) -> str:
        return self._view_of.get(value, value)

    def _find_constants(self, graph: onnx.GraphProto) -> None:
        for node in graph.node:
            if node.op_type == "Constant" and (tensor := _constant_tensor(node)) is not None:
                self._small[node.output[0]] = tensor
            if node.op_type in ("Shape", "Size") or all(name in self._constant for name in node.input):
                self._constant.update(node.output)

    def _vanishing(self, graph: onnx.GraphProto) -> set[str]:
        """Nodes that no kernel runs for, by first output.

        Views, what only feeds matrix products, what changes nothing, and padding that a convolution does itself.
        """
        readers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            if node.output[0] not in self._constant:
                for name in node.input:
                    readers[name].append(node)
        ends = {value.name for value in graph.output}
        vanishing: set[str] = set()
        only_products: set[str] = set()  # nodes whose values reach nothing but matrix products
        for node in reversed(graph.node):
            if node.output[0] in self._constant:
                continue
            nexts = [reader for name in node.output for reader in readers[name]]
            feeds = bool(nexts) and ends.isdisjoint(node.output)
            view = node.op_type in VIEWS or _changes_nothing(node)
            movable = view or node.op_type in FEED_PRODUCTS or self._scales(node)
            if movable and feeds and all(n.op_type in PRODUCTS or n.output[0] in only_products for n in nexts):
                only_products.add(node.output[0])
                view = True
            if node.op_type == "Pad" and feeds and all(n.op_type in CONVOLUTIONS | POOLS for n in nexts):
                view = True
            if view:
                vanishing.add(node.output[0])
        return vanishing

    def _scales(self, node: onnx.NodeProto) -> bool:
        """Whether a node multiplies by one constant number."""
        constants = [name for name in node.input if name in self._constant]
        scalar = len(constants) == 1 and math.prod(self._shapes.get(constants[0], (0,))) == 1
        return node.op_type in ("Mul", "Div") and scalar

    def _add(self, node: onnx.NodeProto) -> None:
        reads = tuple((name, self._whole(name)) for name in node.input if name not in self._constant)
        attributes = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
        name = node.name or f"{node.op_type} of {node.output[0]}"
        writes = tuple(name for name in node.output if name)
        index = len(self.nodes)
        self.nodes.append(Node(index, node.op_type, name, tuple(node.input), reads, writes, attributes))
        ancestors = 0
        for value in {whole for _, whole in reads}:
            self.readers[value].append(index)
            if (writer := self.writer.get(value)) is not None:
                ancestors |= self.ancestors[writer] | 1 << writer
        self.ancestors.append(ancestors)
        self.writer.update(dict.fromkeys(writes, index))


def _constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """What a Constant node holds, if those are numbers."""
    value = onnx.helper.get_attribute_value(node.attribute[0])
    if isinstance(value, onnx.TensorProto):
        return value
    return None if node.attribute[0].name.startswith("value_string") else numpy_helper.from_array(np.asarray(value))


def _changes_nothing(node: onnx.NodeProto) -> bool:
    """A concatenation of one tensor, or a pool over one value (an adaptive pool of a map that has the size already)."""
    if node.op_type == "Concat":
        return len(node.input) == 1
    attributes = {item.name: list(item.ints) for item in node.attribute}
    ones = all(value == 1 for name in ("kernel_shape", "strides") for value in attributes.get(name, ()))
    return node.op_type in ("AveragePool", "MaxPool") and ones and not any(attributes.get("pads", ()))
