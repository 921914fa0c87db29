"""Which nodes of an fp32 graph must not become fp16, and why.

fp16 holds at most 65504, resolves 1 part in 2048, and nothing below 6e-8. What a runtime adds up inside one operator
is its own affair: TensorRT 10 and 11 run what the graph says, and the standard does not promise fp32 sums. So a node
stays fp32 where

    it adds more than MAX_SUMMANDS values (global pooling of large maps, long softmaxes), or adds squares
    its operator stretches the range: the list that torch.autocast keeps in fp32, in ONNX's names
    one of its constants does not fit
    it computes sizes rather than images: from 2048 on, fp16 skips whole numbers
    fp16 is not among its operator's types, or its types are unknown

Convolutions and matrix products are not on the list: fast fp16 units accumulate them in fp32. LayerNormalization is
not either: its `stash_type` makes the fp32 inside it part of the standard.

https://docs.pytorch.org/docs/stable/amp.html#cuda-ops-that-can-autocast-to-float32
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper

from exporters.causes import one_line
from exporters.errors import ExportError

FP16_MAX = 65504.0
FP16_LEAST = 2.0**-24
MAX_SUMMANDS = 256
# Rounding to fp16 changes an array by 5e-4 of its norm at most, unless its values fall below fp16's normal range.
MAX_CONSTANT_ERROR = 0.01

QUANTISERS = ("QuantizeLinear", "DequantizeLinear")
_SUMS = {"ReduceMean", "ReduceSum", "ReduceL1", "GlobalAveragePool", "AveragePool", "Softmax"}
_STRETCHING = {
    *("Acos", "Asin", "Cosh", "CumSum", "Exp", "Log", "LogSoftmax", "Pow", "Reciprocal", "Sinh", "Softplus", "Tan"),
    *("ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare"),
    *("GroupNormalization", "InstanceNormalization", "LRN", "LpNormalization", "MeanVarianceNormalization"),
}
_BIASED = {"Conv", "ConvTranspose", "Gemm"}  # what their third input adds may be too small to matter
_STASHING = {"LayerNormalization", "RMSNormalization"}


@dataclass
class TypedGraph:
    """A graph with the element type and the shape of every tensor that shape inference could name.

    Attributes:
        nodes: of the graph, in its order; a node's index is its identity, because names may be empty or repeated.
        constants: the initialisers by name.
        types: tensor name to TensorProto element type.
        shapes: tensor name to sizes; None where a size is not fixed.
        producers: tensor name to the index of the node that makes it.
        consumers: tensor name to the indices of the nodes that read it, those inside a node's subgraph included.
    """

    nodes: list[NodeProto]
    opsets: dict[str, int]
    constants: dict[str, TensorProto]
    types: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, tuple[int | None, ...]] = field(default_factory=dict)
    producers: dict[str, int] = field(default_factory=dict)
    consumers: dict[str, list[int]] = field(default_factory=dict)

    def is_float(self, name: str) -> bool:
        return self.types.get(name) == TensorProto.FLOAT

    def schema(self, node: NodeProto) -> onnx.defs.OpSchema | None:
        """The standard's description of a node; None for an operator that the installed onnx does not know."""
        try:
            return onnx.defs.get_schema(node.op_type, self.opsets.get(node.domain, 1), node.domain)
        except onnx.defs.SchemaError:
            return None

    def array(self, name: str) -> NDArray[np.float32]:
        return numpy_helper.to_array(self.constants[name])


def typed_graph(proto: onnx.ModelProto) -> TypedGraph:
    """Infer types and shapes; `proto` stays as it is.

    Raises:
        ExportError: onnx cannot infer them.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, EncodeError, ValueError) as error:
        raise ExportError(
            f"The types and shapes of the graph {proto.graph.name!r} cannot be inferred: {one_line(error)}.",
            "A graph that passes onnx.checker, with less than 2 GiB of weights, was expected.",
            "Export the model again, or ship it in fp32.",
        ) from error
    nodes = list(proto.graph.node)
    graph = TypedGraph(
        nodes,
        {"" if entry.domain == "ai.onnx" else entry.domain: entry.version for entry in proto.opset_import},
        {tensor.name: tensor for tensor in proto.graph.initializer},
    )
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        if value.type.HasField("tensor_type"):
            tensor = value.type.tensor_type
            graph.types[value.name] = tensor.elem_type
            if tensor.HasField("shape"):
                sizes = (d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim)
                graph.shapes[value.name] = tuple(sizes)
    for constant in proto.graph.initializer:
        graph.types[constant.name] = constant.data_type
        graph.shapes[constant.name] = tuple(constant.dims)
    for index, node in enumerate(nodes):
        for name in read_by(node):
            graph.consumers.setdefault(name, []).append(index)
        graph.producers.update(dict.fromkeys(filter(None, node.output), index))
    return graph


def label(node: NodeProto) -> str:
    """A node's name, or that of its first output where it has none."""
    return node.name or node.output[0]


def read_by(node: NodeProto) -> Iterable[str]:
    """The tensors that a node reads, also from inside its subgraphs."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs):
            for inner in body.node:
                yield from read_by(inner)
            yield from (value.name for value in body.output)


def takes_fp16(schema: onnx.defs.OpSchema, op_type: str, position: int) -> bool:
    """Whether the input at `position` may be fp16. Resize reads its region and its scales in fp32."""
    return not (op_type == "Resize" and position) and _admits_fp16(schema, schema.inputs, position)


def gives_fp16(schema: onnx.defs.OpSchema, position: int) -> bool:
    return _admits_fp16(schema, schema.outputs, position)


def fp32_nodes(graph: TypedGraph, keep_fp32: Collection[str]) -> dict[int, str]:
    """The nodes that read or give floats and stay fp32, by index, each with the reason."""
    reasons: dict[int, str] = {}
    from_image = _computed_from(graph, {name for name in graph.types if _is_input(graph, name)})
    for index, node in enumerate(graph.nodes):
        if node.op_type not in (*QUANTISERS, "Shape", "Size") and any(
            map(graph.is_float, (*read_by(node), *node.output))
        ):
            reason = _reason(graph, node, index in from_image, reasons)
            if reason or label(node) in keep_fp32:
                reasons[index] = reason or "as asked"
    _follow_neighbours(graph, reasons)
    return reasons


def fits_fp16(values: NDArray[np.float32]) -> bool:
    """Whether an array survives: nothing finite turns infinite, and what is too small does not matter."""
    finite = values[np.isfinite(values)]
    peak = np.abs(finite).max(initial=0.0)
    if peak == 0.0 or peak > FP16_MAX:
        return bool(peak == 0.0)
    error = np.linalg.norm((finite - finite.astype(np.float16)) / peak)
    return bool(error <= MAX_CONSTANT_ERROR * np.linalg.norm(finite / peak))


def _reason(graph: TypedGraph, node: NodeProto, from_image: bool, reasons: Mapping[int, str]) -> str | None:
    schema = graph.schema(node)
    tensors = [name for name in (*node.input, *node.output) if name]
    if any(attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for attribute in node.attribute):
        return "it holds a subgraph"
    if schema is None or any(name not in graph.types for name in tensors):
        return "its types are unknown"
    if not from_image:
        return "it computes sizes or constants"
    floats = [position for position, name in enumerate(node.input) if graph.is_float(name)]
    if floats and not takes_fp16(schema, node.op_type, floats[0]):
        return "its operator has no fp16"
    if node.op_type in _STRETCHING or _squares(node):
        return f"{node.op_type} stretches the range"
    if node.op_type in _STASHING and _attribute(node, "stash_type", TensorProto.FLOAT) != TensorProto.FLOAT:
        return "it is told to add in another type than fp32"
    if node.op_type in _SUMS:
        if (count := _summands(graph, node)) is None or count > MAX_SUMMANDS:
            return f"it adds {count or 'an unknown number of'} values"
        if (producer := graph.producers.get(node.input[0])) in reasons and producer is not None:
            maker = graph.nodes[producer]
            if maker.op_type in _STRETCHING or _squares(maker):
                return f"it adds what {maker.op_type} gives"
    for position, name in enumerate(node.input):
        if name in graph.constants and graph.is_float(name) and takes_fp16(schema, node.op_type, position):
            values, is_bias = graph.array(name), node.op_type in _BIASED and position == 2
            if not (np.abs(values).max(initial=0.0) <= FP16_MAX if is_bias else fits_fp16(values)):
                return f"its constant {name!r} does not fit"
    return None


def _follow_neighbours(graph: TypedGraph, reasons: dict[int, str]) -> None:
    """Q and DQ only convert: a DQ has the type of those who read it, a Q the type of what it reads.

    So no Cast stands between a DQ and its reader, where it would hide the pair from TensorRT.
    """

    def readers_stay(node: NodeProto) -> bool:
        return all(reader in reasons for reader in graph.consumers.get(node.output[0], ()))

    for index, node in enumerate(graph.nodes):
        if node.op_type == "DequantizeLinear":
            if graph.types.get(node.input[0]) == TensorProto.INT32:
                reasons[index] = "the scale of a bias is too small for fp16"
            elif not _scale_fits(graph, node):
                reasons[index] = f"its scale {node.input[1]!r} does not fit"
            elif readers_stay(node):
                reasons[index] = "its readers stay fp32"
    for index, node in enumerate(graph.nodes):
        if node.op_type == "QuantizeLinear":
            value = node.input[0]
            if not _scale_fits(graph, node):
                reasons[index] = f"its scale {node.input[1]!r} does not fit"
            elif value in graph.constants and not fits_fp16(graph.array(value)):
                reasons[index] = f"its constant {value!r} does not fit"
            elif value in graph.constants and readers_stay(node):
                reasons[index] = "its readers stay fp32"
            elif value not in graph.constants and graph.producers.get(value) in (None, *reasons):  # None: the image
                reasons[index] = "what it reads is fp32"


def _scale_fits(graph: TypedGraph, node: NodeProto) -> bool:
    """Whether fp16 makes no scale 0 or infinite."""
    if node.input[1] not in graph.constants:
        return True
    with np.errstate(over="ignore"):
        scales = graph.array(node.input[1]).astype(np.float16)
    return bool(np.all((scales > 0) & np.isfinite(scales)))


def _computed_from(graph: TypedGraph, names: set[str]) -> set[int]:
    """The nodes that compute with the values of `names`, not only with their sizes."""
    found = set()
    for index, node in enumerate(graph.nodes):
        if node.op_type not in ("Shape", "Size") and any(name in names for name in read_by(node)):
            found.add(index)
            names.update(node.output)
    return found


def _is_input(graph: TypedGraph, name: str) -> bool:
    return name not in graph.producers and name not in graph.constants


def _admits_fp16(schema: onnx.defs.OpSchema, parameters: Iterable[onnx.defs.OpSchema.FormalParameter], at: int) -> bool:
    listed = list(parameters)
    kind = listed[min(at, len(listed) - 1)].type_str  # the last one may stand for many
    allowed = next((entry.allowed_type_strs for entry in schema.type_constraints if entry.type_param_str == kind), ())
    return "tensor(float16)" in allowed


def _squares(node: NodeProto) -> bool:
    return node.op_type == "Mul" and node.input[0] == node.input[1]


def _summands(graph: TypedGraph, node: NodeProto) -> int | None:
    """How many values are added for one value of the output; None where sizes are not fixed."""
    sizes = graph.shapes.get(node.input[0])
    if node.op_type == "AveragePool":
        return int(np.prod(_attribute(node, "kernel_shape", ())))
    if sizes is None:
        return None
    match node.op_type:
        case "GlobalAveragePool":
            axes: Iterable[int] = range(2, len(sizes))
        case "Softmax":  # before opset 13 every dimension from the axis on was one
            first = _attribute(node, "axis", -1 if graph.opsets[""] >= 13 else 1)
            axes = range(first % len(sizes), len(sizes))
        case _:
            axes = _axes(graph, node, len(sizes)) or ()
            if not axes:
                return None
    added = [sizes[axis] for axis in axes]
    return math.prod(size for size in added if size is not None) if None not in added else None


def _axes(graph: TypedGraph, node: NodeProto, rank: int) -> list[int] | None:
    """Of a reduction: an attribute at first, a second input since opset 13 or 18."""
    if len(node.input) > 1 and node.input[1]:
        if node.input[1] not in graph.constants:
            return None
        axes = graph.array(node.input[1]).tolist()
    else:
        axes = _attribute(node, "axes", list(range(rank)))
    return [int(axis) % rank for axis in axes]


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((onnx.helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default)
