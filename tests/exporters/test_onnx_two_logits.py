"""One logit z becomes (0, z) in the file, whatever the format and the names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from exporters.logits import onnx_logits
from exporters.onnx_files import classifier_interface, save_onnx
from exporters.onnx_two_logits import answer_both


@pytest.mark.parametrize(("opset", "ir_version"), [(17, 8), (7, 3)])
@pytest.mark.parametrize("name", ["z", "z_both"])
def test_zero_stands_before_it(opset: int, ir_version: int, name: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["z_of_both"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["z_of_both"], ["mean"], axes=[1])
        if opset < 13
        else helper.make_node("Reshape", ["z_of_both", "column"], ["mean"]),
        helper.make_node("Identity", ["mean"], [name]),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 2, 2])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1])],
        [] if opset < 13 else [helper.make_tensor("column", TensorProto.INT64, [2], [-1, 1])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    images = np.random.default_rng(0).standard_normal((5, 3, 2, 2)).astype(np.float32)
    z = onnx_logits(save_onnx(proto, tmp_path / "one.onnx").path, images)
    answer_both(proto)
    assert classifier_interface(proto).num_classes == 2
    both = onnx_logits(save_onnx(proto, tmp_path / "two.onnx").path, images)
    np.testing.assert_array_equal(both, np.concatenate([np.zeros_like(z), z], axis=1))
