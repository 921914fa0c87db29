"""An fp32 graph, or one with Q/DQ nodes, as a typed graph that computes in fp16.

In: any ONNX file with float32 inputs and outputs. Out: the same graph, names and opset; weights and arithmetic in
fp16, but for the nodes that fp16 would break (`fp16_rules`) and those that the caller names; inputs and outputs stay
float32, so that one caller serves every precision. TensorRT 10 (strongly typed) and 11 run the types as written.

Every float tensor `x` keeps its name for its fp32 form, and its fp16 form is called `x_fp16`. A node reads and writes
the forms that it computes with, and one Cast bridges the two wherever both are needed: subgraphs and the graph's own
inputs and outputs need no renaming.

Activations overflow where no constant shows it. `overflowing_nodes` finds them on images, for `keep_fp32`. Comparing
logits would not: ONNX Runtime on CPUs computes most of an fp16 graph in fp32 and drops the Casts between, so that
overflow shows on the device only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from exporters.errors import ExportError
from exporters.fp16_rules import (
    FP16_LEAST,
    QUANTISERS,
    TypedGraph,
    fp32_nodes,
    gives_fp16,
    label,
    read_by,
    takes_fp16,
    typed_graph,
)
from exporters.onnx_files import OnnxFile, load_onnx, opset_of, save_onnx
from exporters.routes import FP16_SCALES_OPSET
from exporters.runners import OnnxRunner

# Half of what fp16 holds: images that were not looked at reach further than those that were.
OVERFLOW_BOUND = 32768.0


@dataclass(frozen=True)
class Fp16File:
    """An fp16 ONNX file, and what in it is not fp16.

    Attributes:
        file: where it lies.
        fp32_nodes: the nodes that compute with floats and stayed fp32, by name, each with the reason. Q/DQ nodes,
            which only convert, have the type of their neighbours and are not listed.
    """

    file: OnnxFile
    fp32_nodes: dict[str, str]


def fp16_from_onnx(
    source: Path,
    path: Path,
    *,
    keep_fp32: Collection[str] = (),
    metadata: Mapping[str, str] | None = None,
) -> Fp16File:
    """Write `source` in fp16. The same file gives the same bytes.

    Args:
        source: float32, with or without Q/DQ nodes; `path` may be the same file.
        path: where the file goes; its folder exists.
        keep_fp32: names of nodes that stay fp32 (`overflowing_nodes`). A name that the graph has not is ignored:
            quantising removes nodes.
        metadata: replaces the file's metadata_props; None keeps those of `source`.

    Raises:
        ExportError: the file cannot be read, holds Q/DQ nodes of an opset whose scales are fp32, or has nothing that
            could be fp16.
        OSError: the file could not be written.
    """
    proto = load_onnx(source)
    _check_scales(proto, source)
    _name_constants(proto.graph)
    _round_scales(proto.graph)
    graph = typed_graph(proto)
    reasons = fp32_nodes(graph, keep_fp32)
    if not _retype(proto.graph, graph, set(reasons)):
        raise ExportError(
            f"Nothing in {source.name} can be computed in fp16.",
            "A graph with float32 convolutions or matrix products was expected.",
            "Ship the file as it is.",
        )
    file = save_onnx(proto, path, metadata=metadata)
    computing = [(graph.nodes[index], reason) for index, reason in sorted(reasons.items())]
    return Fp16File(file, {label(node): reason for node, reason in computing if node.op_type not in QUANTISERS})


def overflowing_nodes(
    source: Path, batches: Iterable[NDArray[np.float32]], *, bound: float = OVERFLOW_BOUND
) -> tuple[str, ...]:
    """The nodes that read or write a value beyond `bound`, or one that is not finite, on any of the images.

    Only the largest magnitude of each tensor leaves ONNX Runtime, so memory does not grow with the graph.

    Args:
        source: an fp32 classifier.
        batches: images (B, C, H, W), of the batch size that the graph asks for.

    Raises:
        ExportError: the file cannot be read or run, or no images were given.
    """
    proto = load_onnx(source)
    graph = typed_graph(proto)
    tensors = [name for name in graph.producers if graph.is_float(name)]
    magnitudes = _add_magnitudes(proto, tensors)
    peaks: NDArray[np.float32] | None = None
    with TemporaryDirectory() as folder:
        file = save_onnx(proto, Path(folder) / source.name)
        with OnnxRunner(file.path, optimise=False) as runner:
            (spec,) = runner.inputs
            for images in batches:
                outputs = runner.infer({spec.name: images})
                found = np.stack([outputs[name] for name in magnitudes])
                peaks = found if peaks is None else np.maximum(peaks, found)
    if peaks is None:
        raise ExportError(
            f"No images were given to look for overflow in {source.name}.",
            "At least one batch of shape (images, channels, height, width) was expected.",
            "Pass a few images.",
        )
    hot = {name for name, peak in zip(tensors, peaks, strict=True) if not peak <= bound}
    return tuple(label(node) for node in graph.nodes if hot.intersection((*read_by(node), *node.output)))


def _check_scales(proto: onnx.ModelProto, source: Path) -> None:
    opset = opset_of(proto)
    quantised = any(node.op_type in QUANTISERS for node in proto.graph.node)
    if quantised and opset < FP16_SCALES_OPSET:
        raise ExportError(
            f"{source.name} holds Q/DQ nodes at opset {opset}.",
            f"Their scales can be fp16 from opset {FP16_SCALES_OPSET} on.",
            "Leave its float part fp32, or export the model at a higher opset if the target reads one.",
        )


def _name_constants(graph: onnx.GraphProto) -> None:
    """Make every float Constant an initialiser, and let nodes read initialisers past Identity nodes.

    Initialisers that old files list among the inputs stop being inputs: a caller could replace them with fp32.
    """
    kept: list[NodeProto] = []
    for node in graph.node:
        tensor = _constant_value(node)
        if tensor is None:
            kept.append(node)
        else:
            graph.initializer.append(tensor)
    names = {tensor.name for tensor in graph.initializer}
    aliases: dict[str, str] = {}
    for node in kept:
        node.input[:] = [aliases.get(name, name) for name in node.input]
        if node.op_type == "Identity" and node.input[0] in names:
            aliases[node.output[0]] = node.input[0]
    read = {name for node in kept for name in read_by(node)}.union(value.name for value in graph.output)
    _replace(graph.node, [node for node in kept if node.output[0] not in aliases or node.output[0] in read])
    _replace(graph.input, [value for value in graph.input if value.name not in names])


def _constant_value(node: NodeProto) -> TensorProto | None:
    if node.op_type != "Constant":
        return None
    (attribute,) = node.attribute
    if attribute.name == "value":
        tensor = TensorProto()
        tensor.CopyFrom(attribute.t)
        tensor.name = node.output[0]
        return tensor
    if attribute.name in ("value_float", "value_floats"):
        values = np.array(helper.get_attribute_value(attribute), dtype=np.float32)
        return numpy_helper.from_array(values, node.output[0])
    return None


def _round_scales(graph: onnx.GraphProto) -> None:
    """Round the scales of Q/DQ pairs to fp16, never to 0, so that a Q and its DQ agree in whichever type they are.

    A dead channel's scale becomes fp16's smallest step, which costs nothing: what it quantises are fp16 numbers.
    """
    scales = {node.input[1] for node in graph.node if node.op_type == "QuantizeLinear"}
    for tensor in graph.initializer:
        if tensor.name in scales and tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            rounded = np.maximum(_fp16(values), np.float16(FP16_LEAST)).astype(np.float32)
            rounded = np.where(np.isfinite(rounded), rounded, values)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))


def _retype(target: onnx.GraphProto, graph: TypedGraph, fp32: Collection[int]) -> bool:
    """Rewrite `target` in fp16 but for the nodes in `fp32`. False where nothing becomes fp16."""
    forms = _Forms(graph, {value.name for value in target.input})
    for index, node in enumerate(graph.nodes):
        schema = graph.schema(node)
        if index in fp32 or schema is None:
            for name in read_by(node):
                forms.read(name, fp16=False)
            forms.nodes.append(node)
            forms.fp32.update(node.output)
            continue
        node.input[:] = [
            forms.read(name, fp16=takes_fp16(schema, node.op_type, position))
            for position, name in enumerate(node.input)
        ]
        forms.nodes.append(node)
        node.output[:] = [
            forms.write(name, fp16=gives_fp16(schema, position)) for position, name in enumerate(node.output)
        ]
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "output_dtype") and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.FLOAT16
    for value in target.output:
        forms.read(value.name, fp16=False)
    _replace(target.node, forms.nodes)
    _replace(target.initializer, forms.initialisers())
    _replace(target.value_info, [described for value in target.value_info for described in forms.described(value)])
    return bool(forms.fp16)


class _Forms:
    """The fp32 and fp16 forms of every tensor that exist so far, and the nodes that make them.

    Attributes:
        nodes: in an order in which they can run.
        fp32: tensors of which the fp32 form exists, or that are no floats.
        fp16: tensors of which the fp16 form exists, with that form's name.
    """

    def __init__(self, graph: TypedGraph, inputs: Collection[str]) -> None:
        self._graph = graph
        self._taken = {*graph.constants, *graph.types, *graph.producers}
        self._read: set[str] = set()  # initialisers of which the form in the file stays
        self.nodes: list[NodeProto] = []
        self.fp32 = {*inputs, *graph.constants}
        self.fp16: dict[str, str] = {}

    def read(self, name: str, *, fp16: bool) -> str:
        """The name under which a node finds a tensor; makes that form of it if it is not there yet."""
        if not (fp16 and self._graph.is_float(name)):
            if name in self.fp16 and name not in self.fp32:
                self._cast(self.fp16[name], name, TensorProto.FLOAT)
                self.fp32.add(name)
            self._read.add(name)
            return name
        if name not in self.fp16:
            fp16_name = self.write(name, fp16=True)
            if name not in self._graph.constants:
                self._cast(name, fp16_name, TensorProto.FLOAT16)
        return self.fp16[name]

    def write(self, name: str, *, fp16: bool) -> str:
        """The name under which a node leaves a tensor."""
        if not (fp16 and self._graph.is_float(name)):
            self.fp32.add(name)
            return name
        self.fp16[name] = f"{name}_fp16"
        while self.fp16[name] in self._taken:
            self.fp16[name] += "_"
        self._taken.add(self.fp16[name])
        return self.fp16[name]

    def initialisers(self) -> list[TensorProto]:
        """Those that are read, in the forms in which they are read."""
        found = []
        for name, tensor in self._graph.constants.items():
            if name in self._read:
                found.append(tensor)
            if name in self.fp16:
                found.append(numpy_helper.from_array(_fp16(numpy_helper.to_array(tensor)), self.fp16[name]))
        return found

    def described(self, value: onnx.ValueInfoProto) -> list[onnx.ValueInfoProto]:
        """The value_info of each form of a tensor."""
        found = [value] if value.name in self.fp32 else []
        if value.name in self.fp16:
            half = onnx.ValueInfoProto()
            half.CopyFrom(value)
            half.name, half.type.tensor_type.elem_type = self.fp16[value.name], TensorProto.FLOAT16
            found.append(half)
        return found

    def _cast(self, source: str, result: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [result], name=f"Cast_{source}", to=to))


def _fp16(values: NDArray[Any]) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):  # a scale beyond fp16 is a reason for its node to stay fp32
        return values.astype(np.float16)


def _add_magnitudes(proto: onnx.ModelProto, tensors: Iterable[str]) -> list[str]:
    """Give the graph one more output for each tensor, its largest magnitude; returns their names."""
    names = []
    for name in tensors:
        magnitude = f"{name}_magnitude"
        proto.graph.node.append(helper.make_node("Abs", [name], [f"{name}_abs"]))
        proto.graph.node.append(helper.make_node("ReduceMax", [f"{name}_abs"], [magnitude], keepdims=0))
        proto.graph.output.append(helper.make_tensor_value_info(magnitude, TensorProto.FLOAT, []))
        names.append(magnitude)
    return names


def _replace(field: Any, items: Iterable[Any]) -> None:
    """Give a repeated field of a protobuf message these items."""
    items = list(items)
    del field[:]
    field.extend(items)
