"""An ONNX graph with its batch size set and every shape known, without the weights.

In: a model of any exporter. Out: a copy whose large tensors are inputs of the same shape (names start with `WEIGHT`),
so that inferring shapes costs milliseconds whatever the size of the network.

`onnx.shape_inference` follows most arithmetic on shapes, but not all: torch's older exporter divides a channel count,
casts it and reshapes with it. What it leaves open is computed here with ONNX's reference evaluator, from shapes that
are known by then, until nothing is open.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from onnx import inliner, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from profiles.errors import ProfileError

WEIGHT = "weight:"
LARGEST_KEPT_CONSTANT = 1024  # elements; shapes, axes and pads are far smaller


def with_static_shapes(model: onnx.ModelProto, batch_size: int) -> onnx.ModelProto:
    """A copy of `model` for this batch size.

    Raises:
        ProfileError: the graph is fixed to another batch size, or contradicts itself.
    """
    copy = _without_weights(inliner.inline_local_functions(model) if model.functions else model)
    _set_batch(copy.graph, batch_size)
    inferred = _inferred(copy, batch_size)
    while _open_shapes(inferred) and _fold(inferred):
        inferred = _inferred(inferred, batch_size)
    return inferred


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every large initialiser is an input of its shape; a copy of the weights is never made."""
    weights = {tensor.name for tensor in model.graph.initializer}
    large = {tensor.name for tensor in model.graph.initializer if math.prod(tensor.dims) > LARGEST_KEPT_CONSTANT}
    graph = onnx.GraphProto(name=model.graph.name)
    graph.node.extend(model.graph.node)
    graph.value_info.extend(model.graph.value_info)
    graph.output.extend(model.graph.output)
    graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name not in large)
    # Before IR 4 weights were inputs as well.
    graph.input.extend(value for value in model.graph.input if value.name not in weights)
    graph.input.extend(
        onnx.helper.make_tensor_value_info(WEIGHT + tensor.name, tensor.data_type, tensor.dims)
        for tensor in model.graph.initializer
        if tensor.name in large
    )
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in large:
                node.input[position] = WEIGHT + name
    return onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import, graph=graph)


def _set_batch(graph: onnx.GraphProto, batch_size: int) -> None:
    """Give the first dimension of the input, and every dimension of its name, the batch size."""
    symbols = set()
    for value in graph.input:
        dimensions = value.type.tensor_type.shape.dim
        if value.name.startswith(WEIGHT) or not dimensions:
            continue
        if dimensions[0].dim_value not in (0, batch_size):
            raise ProfileError(
                f"The graph's input '{value.name}' is fixed to batches of {dimensions[0].dim_value}.",
                f"A dynamic batch, or batches of {batch_size}, were expected.",
                f"Ask for batches of {dimensions[0].dim_value}, or export the model with a dynamic batch.",
            )
        symbols.add(dimensions[0].dim_param)
        dimensions[0].dim_value = batch_size
    for value in (*graph.output, *graph.value_info):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param and dimension.dim_param in symbols:
                dimension.dim_value = batch_size


def _replace(repeated: Any, items: list[Any]) -> None:
    copies = [type(item).FromString(item.SerializeToString()) for item in items]  # before their container goes
    del repeated[:]
    repeated.extend(copies)


def _inferred(model: onnx.ModelProto, batch_size: int) -> onnx.ModelProto:
    _forget_open_shapes(model.graph)
    try:
        return shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except shape_inference.InferenceError as error:
        raise ProfileError(
            f"The shapes of the ONNX graph cannot be inferred: {' '.join(str(error).split())}.",
            f"A graph of standard ONNX operators that takes a batch of {batch_size} was expected.",
            "Export the model again with a fixed image size and a dynamic batch.",
        ) from error


def _forget_open_shapes(graph: onnx.GraphProto) -> None:
    """Remove shapes with a symbol in them: the inference would keep the symbol where it could say a number."""

    def is_open(value: onnx.ValueInfoProto) -> bool:
        return any(dimension.dim_value == 0 for dimension in value.type.tensor_type.shape.dim)

    _replace(graph.value_info, [value for value in graph.value_info if not is_open(value)])
    for value in graph.output:
        if is_open(value):
            value.type.tensor_type.ClearField("shape")


def shapes_of(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor whose rank is known; an unknown dimension is 0."""
    shapes = {
        value.name: tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)
        for value in (*graph.input, *graph.output, *graph.value_info)
        if value.type.tensor_type.HasField("shape")
    }
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _open_shapes(model: onnx.ModelProto) -> bool:
    shapes = shapes_of(model.graph)
    return any(0 in shapes.get(name, (0,)) for node in model.graph.node for name in node.output if name)


def _fold(model: onnx.ModelProto) -> bool:
    """Replace what small constants and known shapes decide by constants; whether anything was."""
    graph = model.graph
    shapes = shapes_of(graph)
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    left, before = [], len(known)
    for node in graph.node:
        shape = shapes.get(node.input[0], (0,)) if node.op_type == "Shape" else (0,)
        if node.op_type == "Shape" and 0 not in shape and not node.attribute:
            known[node.output[0]] = np.array(shape, dtype=np.int64)
        elif (values := _evaluated(node, known, shapes, model)) is not None:
            known |= zip(node.output, values, strict=True)
        else:
            left.append(node)
    _replace(graph.node, left)
    _replace(graph.initializer, [numpy_helper.from_array(np.asarray(array), name) for name, array in known.items()])
    return len(known) > before


def _evaluated(
    node: onnx.NodeProto, known: dict[str, np.ndarray], shapes: dict[str, tuple[int, ...]], model: onnx.ModelProto
) -> list[np.ndarray] | None:
    """What a node of shape arithmetic gives; None if it waits for activations, or builds a large table."""
    sizes = (math.prod(shapes.get(name, ())) for name in (*node.input, *node.output))
    if any(name and name not in known for name in node.input) or any(size > LARGEST_KEPT_CONSTANT for size in sizes):
        return None
    feeds = {name: known[name] for name in node.input if name}
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = onnx.helper.make_graph([node], "fold", inputs, outputs)
    try:
        single = onnx.helper.make_model(graph, opset_imports=model.opset_import)
        return list(ReferenceEvaluator(single).run(None, feeds))
    except Exception:  # every operator raises its own kinds; a shape that stays open is refused by name
        return None
