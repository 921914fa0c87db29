"""Where the time of one inference goes: a row for every layer, from the profile that a runtime wrote.

A runtime merges layers and names the result as it likes. `LayerNames` finds the part of the network that a name stands
for, from the ONNX file: the owner of the weights (`backbone.layers.1.0.conv1`), or the path in the node's own name.
Profiling costs time itself, so the rows say where the time goes, and the latency says how much it is.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import onnx
from pydantic import BaseModel, ConfigDict

# What ONNX Runtime and TensorRT merge into the convolution or matrix product before it.
MERGED = frozenset(
    ("Relu", "Clip", "LeakyRelu", "PRelu", "Sigmoid", "HardSigmoid", "HardSwish", "Mul", "Add", "BatchNormalization")
).union(("QuantizeLinear", "DequantizeLinear", "Cast", "Identity"))
CHANNELS_ANYWHERE = frozenset(("NhwcFusedConv", "ConvInteger", "QLinearConv"))
CONVOLUTIONS = CHANNELS_ANYWHERE.union(("Conv", "FusedConv"))
PRODUCTS = frozenset(("Gemm", "FusedGemm", "QGemm", "MatMul", "FusedMatMul", "QLinearMatMul", "MatMulIntegerToFloat"))


class LayerTime(BaseModel):
    """One row.

    Attributes:
        name: what the runtime calls it.
        module: the part of the network, dotted; empty where it is none, such as a change of layout.
        operator: what is computed, by the runtime's name, a convolution with the size of its filters; empty where
            the runtime does not tell.
        time_ms: of one call, mean of the middle half of the calls.
        share: of the sum of all layers.
        macs: multiply-accumulates of one call; None for what is no convolution and no matrix product.
        peak_share: its operations a second, as a share of the device's peak; None where either is unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    module: str
    operator: str
    time_ms: float
    share: float
    macs: int | None = None
    peak_share: float | None = None


class LayerTimes(BaseModel):
    """All rows of one file at one batch size, in the order of execution.

    Attributes:
        sum_ms: of all layers; with the cost of profiling, so it may be above the latency.
        threads: of the runtime.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["ONNX Runtime's profile", "TensorRT's profiler"]
    batch_size: int
    threads: int | None
    calls: int
    sum_ms: float
    layers: tuple[LayerTime, ...]

    def by_operator(self) -> list[tuple[str, int, float]]:
        """(operator, number of layers, time in ms), the most expensive first."""
        found: dict[str, list[float]] = defaultdict(list)
        for layer in self.layers:
            found[layer.operator or "other"].append(layer.time_ms)
        rows = [(operator, len(times), sum(times)) for operator, times in found.items()]
        return sorted(rows, key=lambda row: -row[2])

    def against_peak(self, peak_tflops: float | None) -> LayerTimes:
        """With `peak_share` of every row that has MACs; a multiply-add is two operations."""
        if peak_tflops is None:
            return self
        layers = [
            layer.model_copy(update={"peak_share": 2 * layer.macs / (layer.time_ms * 1e-3) / (peak_tflops * 1e12)})
            if layer.macs and layer.time_ms
            else layer
            for layer in self.layers
        ]
        return self.model_copy(update={"layers": tuple(layers)})


class LayerNames:
    """From the names in a profile to the network in its ONNX file; without a file there is nothing to find.

    Attributes:
        operators: operator by node name.
    """

    def __init__(self, model: onnx.ModelProto | None) -> None:
        self.operators: dict[str, str] = {}
        self._modules: dict[str, str] = {}
        self._filters: dict[str, tuple[int, ...]] = {}
        self._owners: list[str] = []  # of weights that runtimes convert and name after them
        if model is None:
            return
        producers = {output: node for node in model.graph.node for output in node.output}
        shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        for node in model.graph.node:
            weights = _weights(node, producers, shapes)
            owner, named, _ = weights.partition(".weight")
            module = owner if named and not weights.startswith("onnx::") else ""
            shape = shapes.get(weights)
            if node.op_type in MERGED:
                module = module or next((self._modules[name] for name in node.input if self._modules.get(name)), "")
                shape = shape or next((self._filters[name] for name in node.input if name in self._filters), None)
            for name in (node.name, *node.output):
                self._modules[name] = module or _path(node.name)
                if shape is not None:
                    self._filters[name] = shape
            self.operators[node.name] = node.op_type
        self._owners = sorted({module for module in self._modules.values() if module}, key=len, reverse=True)

    def module(self, name: str) -> str:
        """The part behind a name of a profile; empty where there is none."""
        known = next((self._modules[found] for found in _spellings(name) if self._modules.get(found)), "")
        return known or next((owner for owner in self._owners if f"{owner}.weight" in name), "")

    def filter_shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of the weights behind a name of a profile, as they are in the file."""
        return next((self._filters[found] for found in _spellings(name) if found in self._filters), None)


def onnxruntime_layers(
    events: Sequence[Mapping[str, Any]], names: LayerNames, *, batch_size: int, threads: int | None, warmup_calls: int
) -> LayerTimes:
    """From the events of ONNX Runtime's profile, of which the first `warmup_calls` calls do not count."""
    times: dict[str, list[float]] = defaultdict(list)
    details: dict[str, Mapping[str, Any]] = {}
    for event in sorted((event for event in events if event.get("cat") == "Node"), key=lambda event: event["ts"]):
        if not event["name"].endswith("_kernel_time"):
            continue  # older releases also time the fences around a kernel
        key = f"{event['args'].get('node_index', '')}/{event['name']}"
        times[key].append(event["dur"] / 1e3)
        details.setdefault(key, event)
    calls = max((len(found) - warmup_calls for found in times.values()), default=0)
    rows = []
    for key, found in times.items():
        args, name = details[key]["args"], details[key]["name"].removesuffix("_kernel_time")
        time_ms = middle_mean(found[warmup_calls:] or found)
        rows.append((name, names.module(name), *_computed(name, args, names), time_ms))
    return _table("ONNX Runtime's profile", rows, batch_size, threads, calls)


def tensorrt_layers(calls: Sequence[Sequence[tuple[str, float]]], names: LayerNames, *, batch_size: int) -> LayerTimes:
    """From what TensorRT's profiler reported: for each call the name and the milliseconds of every layer."""
    times: dict[str, list[float]] = defaultdict(list)
    for call in calls:
        for name, time_ms in call:
            times[name].append(time_ms)
    rows = []
    for name, found in times.items():
        operators = [names.operators[part] for part in _parts(name) if part in names.operators]
        rows.append((name, names.module(name), "+".join(dict.fromkeys(operators)), None, middle_mean(found)))
    return _table("TensorRT's profiler", rows, batch_size, None, len(calls))


def middle_mean(values: Iterable[float]) -> float:
    """Mean of the middle half. Profiles count whole microseconds, of which a median would show only the nearest."""
    ordered = sorted(values)
    cut = len(ordered) // 4
    middle = ordered[cut : len(ordered) - cut]
    return sum(middle) / len(middle)


def _table(
    source: Literal["ONNX Runtime's profile", "TensorRT's profiler"],
    rows: Sequence[tuple[str, str, str, int | None, float]],
    batch_size: int,
    threads: int | None,
    calls: int,
) -> LayerTimes:
    sum_ms = sum(row[4] for row in rows)
    layers = tuple(
        LayerTime(
            name=name, module=module, operator=operator, time_ms=time_ms, share=time_ms / (sum_ms or 1.0), macs=macs
        )
        for name, module, operator, macs, time_ms in rows
    )
    return LayerTimes(source=source, batch_size=batch_size, threads=threads, calls=calls, sum_ms=sum_ms, layers=layers)


def _computed(name: str, args: Mapping[str, Any], names: LayerNames) -> tuple[str, int | None]:
    """The operator and its MACs: each output value sums one product per weight of its filter, or per column."""
    operator, inputs = args["op_name"], _shapes(args.get("input_type_shape", ()))
    output = next(iter(_shapes(args.get("output_type_shape", ()))), None)
    if not output or not inputs:
        return operator, None
    if operator in PRODUCTS:
        return operator, math.prod(inputs[0]) * output[-1]
    if operator not in CONVOLUTIONS:
        return operator, None
    # The weights come after the images with as many dimensions; packed ones are not listed.
    listed = next(iter([tuple(shape) for shape in inputs if len(shape) == len(output)][1:2]), None)
    known = names.filter_shape(name)
    weights = known if known and (listed is None or known[2:] == listed[2:]) else listed
    if not weights:
        return operator, None
    size = "x".join(str(side) for side in weights[2:])
    # Layouts differ in where the channels stand; a grey image has one, and its filters too.
    depthwise = weights[1] == 1 and weights[0] in inputs[0][1:] and 1 not in inputs[0][1:]
    # Blocked layouts, of floats alone, fill the channels up to whole vectors: those are not the network's.
    places = math.prod(output) // (weights[0] if operator in CHANNELS_ANYWHERE else output[1])
    return f"{operator} {size}{' depthwise' if depthwise else ''}", places * math.prod(weights)


def _shapes(described: Iterable[Mapping[str, Sequence[int]]]) -> list[list[int]]:
    """`[{"float": [1, 3, 8, 8]}, ...]` to `[[1, 3, 8, 8], ...]`."""
    return [[int(size) for size in shape] for found in described for shape in found.values()]


def _weights(node: onnx.NodeProto, producers: Mapping[str, onnx.NodeProto], shapes: Mapping[str, object]) -> str:
    """The name of a node's weights, also behind their dequantisation; empty where it has none."""
    if node.op_type in MERGED:
        return ""
    for name in node.input[1:2]:
        for _ in range(3):
            if name in shapes or name not in producers or not producers[name].input:
                break
            name = producers[name].input[0]
        if name in shapes:
            return str(name)
    return ""


def _path(node_name: str) -> str:
    """`/layer1/layer1.0/conv1/Conv`, as PyTorch's older exporter names nodes, to `layer1.0.conv1`."""
    *path, _ = node_name.split("/") if node_name.startswith("/") else [""]
    parts: list[str] = []
    for step in filter(None, path):
        if parts and step.startswith(f"{parts[-1]}."):
            parts.pop()  # a Sequential repeats itself: layer1/layer1.0 is layer1.0
        parts.append(step)
    return ".".join(parts)


def _spellings(name: str) -> Iterable[str]:
    """What a profile's name may be in the file. ONNX Runtime appends to it, TensorRT joins several."""
    for part in (name, *_parts(name)):
        yield part
        bare = re.sub(r"_token_\d+$", "", part.removeprefix("fused "))
        yield bare
        yield bare.removesuffix("_nchwc")
        yield bare.removesuffix("_quant")


def _parts(name: str) -> list[str]:
    """The ONNX nodes in a name of TensorRT, such as `/conv1/Conv + PWN(/relu/Relu)`."""
    return re.findall(r"[^\s+(),]+", name)
