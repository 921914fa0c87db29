"""Mean and standard deviation as nodes: the same numbers as outside, the same interface, on old and new files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import ExportError
from exporters.logits import onnx_logits
from exporters.onnx_files import classifier_interface, opset_of, save_onnx
from exporters.onnx_normalisation import give_our_interface, normalise_inside

MEAN, STD = (0.5, 0.2, 0.0), (0.5, 1.0, 2.0)


def classifier(*, opset: int = 17, ir_version: int = 8, branches: bool = False) -> onnx.ModelProto:
    """Sums (B, 3, 2, 2) over all but channels, and adds nothing; with branches an If reads the images itself."""
    takes = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 2, 2])
    gives = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["x_mean"]),
        helper.make_node("Flatten", ["x_mean"], ["y"]),
    ]
    if branches:
        bodies = [
            helper.make_graph(
                [helper.make_node(kind, ["x"], [f"{kind}_out"])],
                kind,
                [],
                [helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, None)],
            )
            for kind in ("Identity", "Neg")
        ]
        nodes[0].input[0] = "chosen"
        nodes.insert(0, helper.make_node("If", ["yes"], ["chosen"], then_branch=bodies[0], else_branch=bodies[1]))
    weights = [numpy_helper.from_array(np.array(True), "yes")] if branches else []
    graph = helper.make_graph(nodes, "mean", [takes], [gives], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


@pytest.mark.parametrize(
    ("opset", "ir_version", "branches"), [(17, 8, False), (9, 3, False), (7, 3, False), (17, 8, True)]
)
def test_the_numbers_of_outside(opset: int, ir_version: int, branches: bool, tmp_path: Path) -> None:
    proto = classifier(opset=opset, ir_version=ir_version, branches=branches)
    before = classifier_interface(proto)
    outside = save_onnx(proto, tmp_path / "outside.onnx")
    normalise_inside(proto, "x", mean=MEAN, std=STD)
    assert classifier_interface(proto) == before
    assert (opset_of(proto), proto.ir_version) == (opset, ir_version)
    inside = save_onnx(proto, tmp_path / "inside.onnx")
    images = np.random.default_rng(0).random((5, 3, 2, 2), np.float32)
    fed = (images - np.float32(MEAN).reshape(1, 3, 1, 1)) / np.float32(STD).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(onnx_logits(inside.path, images), onnx_logits(outside.path, fed), rtol=1e-6, atol=1e-7)
    known = np.full((1, 3, 2, 2), 0.2, np.float32)
    np.testing.assert_allclose(onnx_logits(inside.path, known), [[-0.6, 0.0, 0.1]], atol=1e-6)


def test_an_opset_without_broadcasting_is_refused() -> None:
    with pytest.raises(ExportError, match=r"opset 6\. .*opset 7 or later"):
        normalise_inside(classifier(opset=6, ir_version=3), "x", mean=MEAN, std=STD)


@pytest.mark.parametrize("branches", [False, True])
@pytest.mark.parametrize(("takes", "gives"), [("x", "y"), ("logits", "image"), ("image", "y"), ("x_mean_", "logits")])
def test_our_names_whatever_the_files_own_were(takes: str, gives: str, branches: bool, tmp_path: Path) -> None:
    names = {"x": takes, "y": gives, "x_mean": "image" if takes == "x" else "x_mean"}
    proto = classifier(branches=branches)
    for node in proto.graph.node:
        for body in (attribute.g for attribute in node.attribute if attribute.HasField("g")):
            body.node[0].input[:] = [names.get(name, name) for name in body.node[0].input]
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    proto.graph.input[0].name, proto.graph.output[0].name = takes, gives
    images = np.random.default_rng(0).random((5, 3, 2, 2), np.float32)
    before = onnx_logits(save_onnx(proto, tmp_path / "before.onnx").path, images)
    give_our_interface(proto, classifier_interface(proto))
    interface = classifier_interface(proto)
    assert (interface.input_name, interface.output_name, interface.batch) == ("image", "logits", None)
    np.testing.assert_array_equal(onnx_logits(save_onnx(proto, tmp_path / "after.onnx").path, images), before)


@pytest.mark.parametrize("name", ["image", "logits"])
def test_a_body_may_call_what_it_is_given_as_we_call_ours(name: str, tmp_path: Path) -> None:
    """A loop that doubles its images three times."""
    given = [("count", TensorProto.INT64, []), ("on", TensorProto.BOOL, []), (name, TensorProto.FLOAT, None)]
    gives = [("go", TensorProto.BOOL, []), ("twice", TensorProto.FLOAT, None)]
    body = helper.make_graph(
        [helper.make_node("Add", [name, name], ["twice"]), helper.make_node("Identity", ["on"], ["go"])],
        "body",
        [helper.make_tensor_value_info(*value) for value in given],
        [helper.make_tensor_value_info(*value) for value in gives],
    )
    proto = classifier()
    proto.graph.node[0].input[0] = "looped"
    proto.graph.node.insert(0, helper.make_node("Loop", ["times", "", "x"], ["looped"], body=body))
    proto.graph.initializer.append(numpy_helper.from_array(np.array(3), "times"))
    images = np.random.default_rng(0).random((5, 3, 2, 2), np.float32)
    before = onnx_logits(save_onnx(proto, tmp_path / "before.onnx").path, images)
    give_our_interface(proto, classifier_interface(proto))
    np.testing.assert_array_equal(onnx_logits(save_onnx(proto, tmp_path / "after.onnx").path, images), before)
    np.testing.assert_allclose(before, 8 * images.mean(axis=(2, 3)), rtol=1e-6)


@pytest.mark.parametrize("name", ["image", "logits"])
def test_a_sparse_initialiser_may_be_called_as_we_call_ours(name: str) -> None:
    """Only the names: onnx's own check takes no operator that reads one, and ONNX Runtime does."""
    parts = (numpy_helper.from_array(np.ones(1, np.float32), name), numpy_helper.from_array(np.array([1]), "places"))
    proto = classifier()
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(*parts, [3]))
    proto.graph.node[1].output[0] = "flat"
    proto.graph.node.append(helper.make_node("Add", ["flat", name], ["y"]))
    give_our_interface(proto, classifier_interface(proto))
    renamed = proto.graph.sparse_initializer[0].values.name
    assert renamed not in ("image", "logits")
    assert proto.graph.node[-1].input[1] == renamed
