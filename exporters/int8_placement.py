"""Where an int8 graph quantises, as a plan: no numbers yet, and the graph stays as it is.

In: a float32 graph whose batch norms are folded, as both of torch.onnx's exporters leave them. Both forms quantise
both inputs of every convolution and matrix product with constant weights, where the runtime gains from it. Then

    tensorrt     a residual Add reads a quantised identity branch, and its other branch straight from the convolution:
                 so the addition fuses into that convolution. Nothing else: TensorRT moves Q over ReLU and max pooling.
                 (NVIDIA, Working with quantized types: recommendations for Q/DQ placement.)
    onnxruntime  a convolution becomes QLinearConv only if its output is quantised too, and an Add QLinearAdd only if
                 all three tensors are. A ReLU or Clip between vanishes into the quantisation of its output.

A pair of QuantizeLinear and DequantizeLinear belongs to a tensor, and all of its quantised readers share it. A layer
that is left in float reads floats: in the form for ONNX Runtime the convolution before it then stays float as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise

import onnx

from exporters.int8_layers import Layer, captured_names, constants_of, layer_of, node_key
from exporters.routes import Int8Form

FORMS: tuple[Int8Form, ...] = ("tensorrt", "onnxruntime")
MAX_GROUPS = 16

CLAMPS = ("Relu", "Clip")
# They move values and make none: the pair behind them takes the scale before them, and they run on integers.
MOVES = ("MaxPool", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Identity")

Reader = tuple[str, int]  # node key, index of the input


@dataclass(frozen=True)
class Placement:
    """What is quantised.

    Attributes:
        layers: in graph order.
        adds: residual Add nodes (their keys), and the key of the convolution whose branch each of them ends.
        pairs: tensors with a pair, in graph order, and who reads the pair; other readers keep the float tensor.
        range_of: for each of these tensors, the tensor whose range gives its scale.
    """

    layers: tuple[Layer, ...]
    adds: dict[str, str]
    pairs: dict[str, frozenset[Reader]]
    range_of: dict[str, str]


@dataclass(frozen=True)
class Group:
    """Neighbouring nodes that go back to float together.

    Attributes:
        name: the module of its layer, or of its first and last one.
        nodes: keys for `float_nodes`.
    """

    name: str
    nodes: tuple[str, ...]


def place(graph: onnx.GraphProto, form: Int8Form, float_nodes: Collection[str] = ()) -> Placement:
    """Plan the int8 form of a graph; the nodes with the keys `float_nodes` stay float."""
    index = _Index(graph, form)
    layers = {key: layer for key, layer in index.layers.items() if key not in float_nodes}
    left = {key: index.layers[key].data for key in float_nodes if key in index.layers}
    as_floats = index.given | index.unmoved(left.values())
    if form == "onnxruntime":
        # Without an integer output its kernel is the float one, behind a needless rounding of the weights.
        layers = {
            key: layer
            for key, layer in layers.items()
            if not (layer.convolves and index.behind_clamp(key) in as_floats)
        }
    adds = index.residual_adds(layers, float_nodes)

    wanted: dict[str, set[Reader]] = defaultdict(set)
    for layer in layers.values():
        wanted[layer.data].add((layer.key, 0))
    for add, branch in adds.items():
        for position, tensor in enumerate(index.nodes[add].input):
            if tensor != branch:
                wanted[tensor].add((add, position))
    if form == "onnxruntime":
        computing = [*(layer.key for layer in layers.values() if layer.convolves), *adds]
        computed = {index.behind_clamp(key) for key in computing} - as_floats
        float_readers = {(key, 0) for key in left}
        wanted |= {tensor: set(index.readers[tensor]) - float_readers for tensor in {*wanted, *computed}}

    pairs = {tensor: frozenset(wanted[tensor]) for tensor in _in_order(graph, wanted)}
    range_of: dict[str, str] = {}
    for tensor in pairs:  # in graph order, so the tensor before a move is already there
        source = next((before for before in index.before(tensor) if before in pairs), tensor)
        range_of[tensor] = range_of.get(source, source)
    return Placement(tuple(layers.values()), adds, pairs, range_of)


def quantised_tensors(proto: onnx.ModelProto) -> tuple[str, ...]:
    """Activations whose range one of the forms may ask for, whichever nodes stay float; in graph order."""
    names = {name for form in FORMS for name in place(proto.graph, form).pairs}
    # With its first branch in float, an Add is fused into the second one and reads the first from a pair.
    constants = constants_of(proto.graph)
    names.update(name for node in proto.graph.node if _is_residual(node, constants) for name in node.input)
    return tuple(_in_order(proto.graph, names))


def quantisable_groups(proto: onnx.ModelProto, form: Int8Form) -> tuple[Group, ...]:
    """Each layer with the residual Add that it ends in, in graph order; at most 16 groups, neighbours being merged."""
    placement = place(proto.graph, form)
    single = [
        Group(layer.name, (layer.key, *(add for add, key in placement.adds.items() if key == layer.key)))
        for layer in placement.layers
    ]
    count = min(len(single), MAX_GROUPS)
    bounds = [len(single) * i // count for i in range(count + 1)] if count else []
    return tuple(_merged(single[first:last]) for first, last in pairwise(bounds))


class _Index:
    """A graph by its names: nodes by key, the readers of tensors, and the layers of one form."""

    def __init__(self, graph: onnx.GraphProto, form: Int8Form) -> None:
        self.constants = constants_of(graph)
        self.nodes = {node_key(node): node for node in graph.node}
        self.given = {value.name for value in graph.output}
        self.layers = {
            key: layer for key, node in self.nodes.items() if (layer := layer_of(node, self.constants, form))
        }
        self.readers: dict[str, list[Reader]] = defaultdict(list)
        for key, node in self.nodes.items():
            for position, name in enumerate(node.input):
                self.readers[name].append((key, position))
            for name in captured_names(node):
                self.readers[name].append((key, -1))

    def alone(self, tensor: str) -> bool:
        """Whether it has one reader, and the caller of the graph is not another."""
        return len(self.readers[tensor]) == 1 and tensor not in self.given

    def behind_clamp(self, tensor: str) -> str:
        """The tensor to quantise for this one: behind its clamp, if that is its only reader."""
        if self.alone(tensor):
            reader = self.nodes[self.readers[tensor][0][0]]
            if reader.op_type in CLAMPS and reader.input[0] == tensor:
                return node_key(reader)
        return tensor

    def before(self, tensor: str) -> Iterable[str]:
        """The tensors from which this one was only moved, nearest first."""
        while tensor in self.nodes and self.nodes[tensor].op_type in MOVES:
            tensor = self.nodes[tensor].input[0]
            yield tensor

    def unmoved(self, tensors: Iterable[str]) -> set[str]:
        """These tensors and those from which they were only moved."""
        return {found for tensor in tensors for found in (tensor, *self.before(tensor))}

    def residual_adds(self, layers: Collection[str], float_nodes: Collection[str]) -> dict[str, str]:
        """Adds of which a convolution computes one input for nothing else; of two such inputs, the first."""
        found: dict[str, str] = {}
        for key, node in self.nodes.items():
            if key not in float_nodes and _is_residual(node, self.constants):
                for name in node.input:
                    if name in layers and self.layers[name].convolves and self.alone(name):
                        found.setdefault(key, name)
        return found


def _is_residual(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    return node.op_type == "Add" and not any(name in constants for name in node.input)


def _in_order(graph: onnx.GraphProto, names: Collection[str]) -> list[str]:
    known = [value.name for value in graph.input] + [name for node in graph.node for name in node.output]
    return [name for name in known if name in names]


def _merged(groups: list[Group]) -> Group:
    names = dict.fromkeys((groups[0].name, groups[-1].name))
    return Group(" to ".join(names), tuple(node for group in groups for node in group.nodes))
