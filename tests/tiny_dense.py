"""A segmenter in plain ONNX with seeded weights, without torch: two convolutions, and one to classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE_SHAPE = (3, 12, 16)
CHANNELS = 16
CLASSES = 5


def segmenter(path: Path, *, batch: int | None = None, opset: int = 17) -> Path:
    """Write image (B, 3, 12, 16) -> logits (B, 5, 12, 16); a fixed batch, or any."""
    draw = np.random.default_rng(3)
    shapes = {"conv1": (CHANNELS, 3, 3, 3), "conv2": (CHANNELS, CHANNELS, 3, 3), "classes": (CLASSES, CHANNELS, 1, 1)}
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = (draw.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32)
        weights[f"{name}.bias"] = (draw.standard_normal(shape[0]) * 0.1).astype(np.float32)

    def conv(name: str, source: str, to: str, side: int) -> onnx.NodeProto:
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        pads = [side // 2] * 4
        return helper.make_node("Conv", inputs, [to], name=f"node_{name}", pads=pads, kernel_shape=[side, side])

    nodes = [
        conv("conv1", "image", "conv1", 3),
        helper.make_node("Relu", ["conv1"], ["relu1"], name="node_relu1"),
        conv("conv2", "relu1", "conv2", 3),
        helper.make_node("Relu", ["conv2"], ["relu2"], name="node_relu2"),
        conv("classes", "relu2", "logits", 1),
    ]
    rows = "batch" if batch is None else batch
    graph = helper.make_graph(
        nodes,
        "segmenter",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [rows, *IMAGE_SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, CLASSES, *IMAGE_SHAPE[1:]])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())
    return path
