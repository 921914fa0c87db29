"""A residual classifier in plain ONNX with seeded weights: what int8 meets in a real one, without torch.

image (B, 3, 8, 8) -> conv1 -> relu1 -> pool -> conv2 -> relu2 -> conv3 -> sum(+ pool) -> relu3 -> mean -> fc -> logits
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

IMAGE_SHAPE = (3, 8, 8)
CHANNELS = 16
CLASSES = 16


def images(count: int, seed: int = 0) -> NDArray[np.float32]:
    """(count, 3, 8, 8) in [0, 1]: patches of 4 x 4 pixels, so that averages differ between images."""
    coarse = np.random.default_rng(seed).random((count, 3, 2, 2), dtype=np.float32)
    return coarse.repeat(4, axis=2).repeat(4, axis=3)


def residual_net(
    path: Path, *, batch: int | None = None, opset: int = 17, hostile: bool = False, identity_first: bool = False
) -> Path:
    """Write the classifier.

    Args:
        path: where the file goes.
        batch: a fixed batch size, or any.
        opset: of the file.
        hostile: one channel of relu2 is 3,000 times as large and is scaled down again in conv3. In float nothing
            changes; with one scale for the whole of relu2, int8 loses its other channels.
        identity_first: the order of the inputs of the residual sum.
    """
    draw = np.random.default_rng(1)
    weights: dict[str, NDArray[np.float32]] = {}
    for name, shape in {
        "conv1": (CHANNELS, 3, 3, 3),
        "conv2": (CHANNELS, CHANNELS, 3, 3),
        "conv3": (CHANNELS, CHANNELS, 3, 3),
        "fc": (CLASSES, CHANNELS),
    }.items():
        weights[f"{name}.weight"] = (draw.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5).astype(np.float32)
        weights[f"{name}.bias"] = (draw.standard_normal(shape[0]) * 0.1).astype(np.float32)
    if hostile:
        for name in ("conv2.weight", "conv2.bias"):
            weights[name][0] *= 3000
        weights["conv3.weight"][:, 0] /= 3000

    def conv(name: str, source: str) -> onnx.NodeProto:
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        return helper.make_node("Conv", inputs, [name], name=f"node_{name}", pads=[1, 1, 1, 1], kernel_shape=[3, 3])

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
        return helper.make_node(kind, inputs, [output], name=f"node_{output}", **attributes)

    nodes = [
        conv("conv1", "image"),
        node("Relu", ["conv1"], "relu1"),
        node("MaxPool", ["relu1"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        conv("conv2", "pool"),
        node("Relu", ["conv2"], "relu2"),
        conv("conv3", "relu2"),
        node("Add", ["pool", "conv3"] if identity_first else ["conv3", "pool"], "sum"),
        node("Relu", ["sum"], "relu3"),
        node("GlobalAveragePool", ["relu3"], "mean"),
        node("Flatten", ["mean"], "flat"),
        node("Gemm", ["flat", "fc.weight", "fc.bias"], "logits", transB=1),
    ]
    rows = "batch" if batch is None else batch
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [rows, *IMAGE_SHAPE])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [rows, CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(proto, {"tool": "test"})
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())
    return path
