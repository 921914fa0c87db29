"""A float32 ONNX classifier as an int8 one: QuantizeLinear and DequantizeLinear nodes around what stays a float graph.

In: the file, and for every activation of `quantised_tensors` the range that its integers should span. Out: a file with
the same interface and opset, in the form that the runtime's fast kernels read:

    tensorrt     activations and weights int8 in [-127, 127], every zero point 0, weights as float behind their own Q/DQ
                 pair, bias in float. Q/DQ have three inputs: TensorRT 8.2 demands the zero point.
    onnxruntime  activations uint8 with a zero point, weights stored as int8, bias as int32 (ONNX Runtime's "U8S8")

    q = clip(round(x / scale) + zero_point)        x ≈ (q - zero_point) · scale

Weights have one scale for each output channel, activations one for the tensor. Where the nodes go: int8_placement.py.
"""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from exporters.errors import ExportError
from exporters.int8_layers import Layer, captured_names, constants_of, node_key
from exporters.int8_placement import Placement, place
from exporters.onnx_files import OnnxFile, load_onnx, opset_of, save_onnx
from exporters.routes import Int8Form

PER_CHANNEL_OPSET = 13
# The least positive fp16, so that every scale stays positive, as TensorRT demands, where the float part becomes fp16.
SMALLEST_SCALE = np.float32(2.0**-24)
# Two products of uint8 and int8 are summed in 16 bits on x86 without VNNI: 2 · 255 · 64 fits, 2 · 255 · 127 saturates.
# Seen with ONNX Runtime 1.31.1 on an emulated Haswell: a net of large weights errs by 2.6 %, reduced by 1.1 %.
REDUCED_PEAK = 64
PEAK = 127
LARGEST_BIAS = 2.0**30  # int32, with room for the sum of products

Range = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Scale, and zero point whose dtype is the integer's: both scalars, or both (channels,)."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.integer[Any]]


def int8_from_onnx(
    source: Path,
    path: Path,
    *,
    ranges: Mapping[str, Range],
    form: Int8Form,
    float_nodes: Collection[str] = (),
    reduce_range: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> OnnxFile:
    """Write the int8 form of a float32 classifier; the same arguments give the same bytes.

    Args:
        source: float32, opset 13 at least.
        path: where the file goes; its folder exists.
        ranges: (lowest, highest) by tensor name; what lies outside is clipped. Zero is always inside.
        form: which runtime it is for.
        float_nodes: keys (`node_key`) of nodes that stay float.
        reduce_range: weights in [-64, 64], for "onnxruntime" on x86 without VNNI (`needs_reduced_range`). It costs one
            bit of every weight; without it such a processor saturates, and is wrong.
        metadata: replaces the file's metadata_props; None keeps the source's.

    Raises:
        ExportError: the source cannot be read, is older than opset 13, is quantised already or has nothing to
            quantise, or a range is missing or not finite.
        OSError: the file could not be written.
    """
    proto = load_onnx(source)
    check_quantisable(proto, source.name)
    placement = place(proto.graph, form, float_nodes)
    if not placement.layers:
        raise ExportError(
            f"Nothing of {source.name} is left to quantise for {form}"
            + (f" with {len(float_nodes)} nodes kept in float." if float_nodes else "."),
            "At least one convolution or matrix product with constant float32 weights, wide enough for int8 kernels, "
            "was expected.",
            "Ship this model in fp32 or fp16.",
        )
    scales = {tensor: _activation_scale(name, ranges, form) for tensor, name in placement.range_of.items()}
    _Writer(proto.graph, placement, scales, form, REDUCED_PEAK if reduce_range else PEAK).write()
    return save_onnx(proto, path, metadata=metadata)


def check_quantisable(proto: onnx.ModelProto, name: str) -> None:
    """Refuse a graph that cannot hold per-channel Q/DQ, or already holds some.

    Raises:
        ExportError: see above.
    """
    kinds = {node.op_type for node in proto.graph.node}
    present = sorted(kind for kind in kinds if "quantize" in kind.lower() or "QLinear" in kind)
    if present:
        raise ExportError(
            f"{name} is quantised already: it holds {', '.join(present)}.",
            "A float32 graph was expected, since rounding twice loses accuracy that no calibration brings back.",
            "Start from the float32 file that it was made from.",
        )
    if opset_of(proto) < PER_CHANNEL_OPSET:
        raise ExportError(
            f"{name} is written in opset {opset_of(proto)}.",
            f"Opset {PER_CHANNEL_OPSET} or later was expected: before it, weights cannot have a scale per channel.",
            f"Export the model again with opset {PER_CHANNEL_OPSET} or later.",
        )


def needs_reduced_range(cpuinfo: Path = Path("/proc/cpuinfo"), machine: str | None = None) -> bool:
    """Whether U8S8 saturates on this processor: x86 whose flags list no VNNI, or that lists no flags at all.

    Arm adds the products in 32 bits and is never concerned.
    """
    if (machine or platform.machine()).lower() not in ("x86_64", "amd64", "i686"):
        return False
    try:
        flags = set(cpuinfo.read_text().split())
    except OSError:
        return True  # slower by nothing and never wrong
    return not flags & {"avx512_vnni", "avx_vnni"}


class _Writer:
    """Rewrites a graph's nodes in their order, with each new node just where its input is known."""

    def __init__(
        self, graph: onnx.GraphProto, placement: Placement, scales: Mapping[str, Scale], form: Int8Form, peak: int
    ) -> None:
        self.graph, self.placement, self.scales, self.form, self.peak = graph, placement, scales, form, peak
        self.constants = constants_of(graph)
        self.nodes: list[onnx.NodeProto] = []

    def write(self) -> None:
        layers = {layer.key: layer for layer in self.placement.layers}
        for value in self.graph.input:
            self._activation(value.name)
        for node in list(self.graph.node):
            key, outputs = node_key(node), list(node.output)
            for index, name in enumerate(node.input):
                if (key, index) in self.placement.pairs.get(name, ()):
                    node.input[index] = _dequantised(name)
            if key in layers:
                self._weights(node, layers[key])
            self.nodes.append(node)
            for name in outputs:
                self._activation(name)
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        self._drop_unread_weights()

    def _activation(self, name: str) -> None:
        if name in self.scales:
            self._parameters(name, self.scales[name])
            self._quantise(name, name)
            self._dequantise(name)

    def _weights(self, node: onnx.NodeProto, layer: Layer) -> None:
        weight = numpy_helper.to_array(self.constants[layer.weight])
        scale = self._weight_scale(weight, layer)
        name = f"{layer.weight}_of_{layer.key}"  # two layers may share it, with a scale for each
        self._parameters(name, Scale(scale, np.zeros(len(scale), np.int8)))
        if self.form == "tensorrt":
            # TensorRT 8 reads weights only as float constants behind a pair.
            self._quantise(layer.weight, name, layer.axis)
        else:
            steps = np.expand_dims(scale, [axis for axis in range(weight.ndim) if axis != layer.axis])
            self._constant(f"{name}_quantised", np.rint(weight / steps).clip(-self.peak, self.peak).astype(np.int8))
        self._dequantise(name, layer.axis)
        node.input[1] = _dequantised(name)
        if self.form == "onnxruntime" and layer.bias is not None:
            bias = numpy_helper.to_array(self.constants[layer.bias])
            steps = scale * self.scales[layer.data].scale  # of the sum of products
            name = f"{layer.bias}_of_{layer.key}"
            self._parameters(name, Scale(steps, np.zeros(len(steps), np.int32)))
            self._constant(f"{name}_quantised", np.rint(bias / steps.astype(np.float64)).astype(np.int32))
            self._dequantise(name, axis=0)
            node.input[2] = _dequantised(name)

    def _weight_scale(self, weight: NDArray[np.float32], layer: Layer) -> NDArray[np.float32]:
        others = tuple(axis for axis in range(weight.ndim) if axis != layer.axis)
        scale = np.abs(weight).max(axis=others) / np.float32(self.peak)
        if self.form == "onnxruntime" and layer.bias is not None:
            bias = numpy_helper.to_array(self.constants[layer.bias])
            # A channel of tiny weights has tiny steps, of which its bias would be more than int32 counts.
            scale = np.maximum(scale, np.abs(bias) / (self.scales[layer.data].scale * LARGEST_BIAS))
        return np.asarray(np.maximum(scale, SMALLEST_SCALE), np.float32)

    def _quantise(self, source: str, name: str, axis: int | None = None) -> None:
        self._linear("QuantizeLinear", source, f"{name}_quantised", name, axis)

    def _dequantise(self, name: str, axis: int | None = None) -> None:
        self._linear("DequantizeLinear", f"{name}_quantised", _dequantised(name), name, axis)

    def _linear(self, kind: str, source: str, result: str, name: str, axis: int | None) -> None:
        inputs = [source, f"{name}_scale", f"{name}_zero_point"]
        node = onnx.helper.make_node(kind, inputs, [result], name=f"{name}_{kind}")
        if axis is not None:
            node.attribute.append(onnx.helper.make_attribute("axis", axis))
        self.nodes.append(node)

    def _parameters(self, name: str, scale: Scale) -> None:
        self._constant(f"{name}_scale", scale.scale)
        self._constant(f"{name}_zero_point", scale.zero_point)

    def _constant(self, name: str, value: NDArray[Any]) -> None:
        self.graph.initializer.append(numpy_helper.from_array(value, name))

    def _drop_unread_weights(self) -> None:
        read = {name for node in self.graph.node for name in (*node.input, *captured_names(node))}
        read |= {value.name for value in self.graph.output}
        unread = {tensor.name for tensor in self.graph.initializer} - read
        for entries in (self.graph.initializer, self.graph.input):  # before IR 4, initialisers were inputs as well
            kept = [entry for entry in entries if entry.name not in unread]
            del entries[:]
            entries.extend(kept)


def _dequantised(name: str) -> str:
    return f"{name}_dequantised"


def _activation_scale(name: str, ranges: Mapping[str, Range], form: Int8Form) -> Scale:
    if name not in ranges:
        raise ExportError(
            f"No range was given for the activation {name!r}; there are {len(ranges)} others.",
            "A range for every tensor that quantised_tensors lists was expected.",
            "Collect the ranges from the same file that is quantised.",
        )
    lowest, highest = ranges[name]
    if not (np.isfinite([lowest, highest]).all() and lowest <= highest):
        raise ExportError(
            f"The range of the activation {name!r} is {lowest:g} to {highest:g}.",
            "Two finite numbers in ascending order were expected.",
            "Check the model on these images in float32 first: a layer of it overflows, or the images hold NaN.",
        )
    if form == "tensorrt":
        peak = np.float32(max(-lowest, highest)) / np.float32(PEAK)
        return Scale(_positive(peak), np.array(0, np.int8))
    lowest, highest = min(lowest, 0.0), max(highest, 0.0)  # zero padding must be exact
    scale = _positive(np.float32(highest - lowest) / np.float32(255))
    return Scale(scale, np.array(np.rint(-lowest / scale).clip(0, 255), np.uint8))


def _positive(scale: np.float32) -> NDArray[np.float32]:
    """Any scale holds a tensor that was always zero."""
    return np.array(max(scale, SMALLEST_SCALE) if scale else 1.0, np.float32)
