"""The table of layers from made-up profiles, and the names of its rows from graphs of both of PyTorch's exporters."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from profiles.layer_times import LayerNames, middle_mean, onnxruntime_layers, tensorrt_layers


def event(name: str, operator: str, dur_us: int, ts: int, inputs: list[list[int]], output: list[int]) -> dict[str, Any]:
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "dur": dur_us,
        "ts": ts,
        "args": {
            "op_name": operator,
            "node_index": name,
            "input_type_shape": [{"float": shape} for shape in inputs],
            "output_type_shape": [{"float": output}],
        },
    }


def network(*, quantised: bool = False) -> onnx.ModelProto:
    """image -> conv (features.0) -> relu -> depthwise conv (features.1) + image's skip -> gemm (head)."""
    weights = {
        "features.0.weight": (8, 3, 3, 3),
        "features.1.weight": (8, 1, 3, 3),
        "head.weight": (4, 8),
    }
    nodes = [
        helper.make_node("Conv", ["image", "features.0.weight"], ["getitem"], name="node_Conv_1"),
        helper.make_node("Relu", ["getitem"], ["relu"], name="node_relu"),
        helper.make_node("Conv", ["relu", "features.1.weight"], ["getitem_2"], name="node_Conv_2", group=8),
        helper.make_node("Add", ["getitem_2", "relu"], ["add"], name="node_add"),
        helper.make_node("ReduceMean", ["add"], ["mean"], name="node_mean"),
        helper.make_node("Gemm", ["mean", "head.weight"], ["logits"], name="node_linear"),
    ]
    if quantised:
        nodes.insert(0, helper.make_node("DequantizeLinear", ["features.0.weight", "s"], ["w_dq"], name="dq"))
        nodes[1].input[1] = "w_dq"
    images = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 8, 8])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 4])
    values = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()]
    values.append(numpy_helper.from_array(np.float32(1), "s"))
    return helper.make_model(helper.make_graph(nodes, "network", [images], [logits], values))


def test_rows_are_in_order_with_their_part_of_the_network_and_macs() -> None:
    calls = [
        [
            event("relu_nchwc", "Conv", 40, start, [[1, 3, 8, 8], [8, 3, 3, 3], [8]], [1, 8, 8, 8]),
            event("add_nchwc", "Conv", 20, start + 40, [[1, 8, 8, 8], [8, 1, 3, 3], [8], [1, 8, 8, 8]], [1, 8, 8, 8]),
            event("ReorderOutput_token_3", "ReorderOutput", 4, start + 60, [[1, 8, 8, 8]], [1, 8, 8, 8]),
            event("node_linear", "Gemm", 16, start + 70, [[1, 8], [4, 8]], [1, 4]),
        ]
        for start in (0, 1000, 2000)
    ]
    calls[0][0]["dur"] = 900  # the first call makes its buffers
    others = [{"cat": "Session", "name": "model_run", "dur": 99, "ts": 0, "args": {}}]
    events = [*others, *reversed([found for call in calls for found in call])]
    times = onnxruntime_layers(events, LayerNames(network()), batch_size=1, threads=2, warmup_calls=1)
    assert (times.calls, times.threads, times.source) == (2, 2, "ONNX Runtime's profile")
    assert times.sum_ms == pytest.approx(0.080)
    assert [layer.module for layer in times.layers] == ["features.0", "features.1", "", "head"]
    assert [layer.operator for layer in times.layers] == ["Conv 3x3", "Conv 3x3 depthwise", "ReorderOutput", "Gemm"]
    assert [layer.macs for layer in times.layers] == [8 * 64 * 27, 8 * 64 * 9, None, 32]
    assert [layer.share for layer in times.layers] == pytest.approx([0.5, 0.25, 0.05, 0.2])
    assert times.by_operator()[0] == ("Conv 3x3", 1, pytest.approx(0.040))


def test_the_share_of_the_peak_counts_two_operations_a_mac() -> None:
    events = [event("node_linear", "Gemm", 10, 0, [[1, 8], [4, 8]], [1, 4])]
    times = onnxruntime_layers(events, LayerNames(None), batch_size=1, threads=1, warmup_calls=0)
    assert times.against_peak(None) == times
    (layer,) = times.against_peak(64e-6).layers  # 64 MFLOP/s, and 64 operations in 10 us are 6.4
    assert layer.peak_share == pytest.approx(0.1)


def test_packed_int8_weights_are_found_in_the_file() -> None:
    names = LayerNames(network(quantised=True))
    events = [event("node_Conv_1_token_7", "QLinearConv", 10, 0, [[1, 8, 8, 3], [], []], [1, 8, 8, 8])]
    (layer,) = onnxruntime_layers(events, names, batch_size=1, threads=1, warmup_calls=0).layers
    assert (layer.module, layer.operator, layer.macs) == ("features.0", "QLinearConv 3x3", 8 * 64 * 27)
    assert names.module("InsertedPrecisionFreeCast_features.0.weight_fp16") == "features.0"


def test_names_of_the_older_exporter_are_paths() -> None:
    graph = network()
    for tensor, name in (("features.0.weight", "onnx::Conv_7"), ("features.1.weight", "onnx::Conv_9")):
        next(value for value in graph.graph.initializer if value.name == tensor).name = name
    graph.graph.node[0].name, graph.graph.node[0].input[1] = "/layer1/layer1.0/conv1/Conv", "onnx::Conv_7"
    graph.graph.node[1].name = "/layer1/layer1.0/relu/Relu"
    names = LayerNames(graph)
    assert names.module("/layer1/layer1.0/conv1/Conv") == "layer1.0.conv1"
    assert names.module("relu_nchwc") == "layer1.0.conv1"  # merged into the convolution before it
    assert names.module("something else") == ""


def test_tensorrt_reports_joined_names() -> None:
    graph = network()
    graph.graph.node[0].name, graph.graph.node[1].name = "/stem/conv/Conv", "/stem/act/Relu"
    calls = [[("/stem/conv/Conv + PWN(/stem/act/Relu)", 0.25), ("Reformatting CopyNode for Output", 0.75)]] * 4
    times = tensorrt_layers(calls, LayerNames(graph), batch_size=8)
    assert [(layer.module, layer.operator) for layer in times.layers] == [("features.0", "Conv+Relu"), ("", "")]
    assert (times.calls, times.batch_size, times.sum_ms, times.threads) == (4, 8, 1.0, None)
    assert times.by_operator() == [("other", 1, 0.75), ("Conv+Relu", 1, 0.25)]


def test_the_middle_mean_leaves_the_tails_out_and_resolves_whole_microseconds() -> None:
    assert middle_mean([3.0, 3.0, 4.0, 4.0, 1.0, 900.0, 2.0, 3.0]) == 3.25
    assert middle_mean([2.0, 3.0]) == 2.5
    assert middle_mean([7.0]) == 7.0


def test_an_empty_profile_is_an_empty_table() -> None:
    times = onnxruntime_layers([], LayerNames(None), batch_size=1, threads=1, warmup_calls=3)
    assert (times.layers, times.calls, times.sum_ms, times.by_operator()) == ((), 0, 0, [])
