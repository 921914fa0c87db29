"""A classifier as an ONNX file, made without torch: conv, relu, mean, gemm; 8x8 pixels, random weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE_SHAPE = (3, 8, 8)
NUM_CLASSES = 4


def write(path: Path, *, batch: int | str = "batch", size: int | str = 8, precision: str = "fp32") -> Path:
    """`precision` fp16 computes in halves between casts; int8 only has the nodes, around the image."""
    random = np.random.default_rng(0)
    half = precision == "fp16"
    kind = np.float16 if half else np.float32
    values = {
        "body.conv.weight": random.standard_normal((8, 3, 3, 3)).astype(kind),
        "head.weight": random.standard_normal((NUM_CLASSES, 8)).astype(kind),
        "scale": np.float32(1 / 127),
        "zero": np.int8(0),
    }
    nodes = [
        helper.make_node("Conv", ["x", "body.conv.weight"], ["conv"], name="node_conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["conv"], ["relu"], name="node_relu"),
        helper.make_node("GlobalAveragePool", ["relu"], ["mean"], name="node_mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], name="node_flat"),
        helper.make_node("Gemm", ["flat", "head.weight"], ["y"], name="node_linear", transB=1),
    ]
    first = {
        "fp32": [helper.make_node("Identity", ["image"], ["x"], name="node_x")],
        "fp16": [helper.make_node("Cast", ["image"], ["x"], name="node_x", to=TensorProto.FLOAT16)],
        "int8": [
            helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["q"], name="node_q"),
            helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["x"], name="node_dq"),
        ],
    }[precision]
    last = helper.make_node("Cast", ["y"], ["logits"], name="node_y", to=TensorProto.FLOAT)
    graph = helper.make_graph(
        [*first, *nodes, last],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, size, size])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, NUM_CLASSES])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path
