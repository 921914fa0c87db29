"""ONNX files: what is read, what is refused, and what a foreign classifier's interface is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from exporters.errors import ExportError
from exporters.onnx_files import (
    ClassifierInterface,
    OnnxFile,
    classifier_interface,
    load_onnx,
    opset_of,
    read_onnx_metadata,
    save_onnx,
)

WEIGHT = np.arange(12, dtype=np.float32).reshape(4, 3)


def linear(
    batch: int | str = "batch", kind: int = TensorProto.FLOAT, weights_are_inputs: bool = False
) -> onnx.ModelProto:
    """Mean over the pixels, then 4 classes, from images (batch, 3, 8, 6)."""
    image = helper.make_tensor_value_info("x", kind, [batch, 3, 8, 6])
    logits = helper.make_tensor_value_info("y", kind, [batch, 4])
    pooled = helper.make_node("GlobalAveragePool", ["x"], ["pooled"])
    flat = helper.make_node("Flatten", ["pooled"], ["flat"])
    head = helper.make_node("Gemm", ["flat", "w"], ["y"], transB=1)
    dtype = np.float32 if kind == TensorProto.FLOAT else np.float16
    inputs = [image]
    if weights_are_inputs:
        inputs.append(helper.make_tensor_value_info("w", kind, WEIGHT.shape))
    graph = helper.make_graph(
        [pooled, flat, head], "linear", inputs, [logits], [numpy_helper.from_array(WEIGHT.astype(dtype), "w")]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_saved_file_is_what_was_given(tmp_path: Path) -> None:
    file = save_onnx(linear(), tmp_path / "m.onnx", metadata={"b": "2", "a": "é"})
    assert file == OnnxFile(tmp_path / "m.onnx", 17, file.path.stat().st_size / 2**20, file.sha256)
    assert read_onnx_metadata(file.path) == {"a": "é", "b": "2"}
    proto = load_onnx(file.path)
    assert opset_of(proto) == 17
    np.testing.assert_array_equal(numpy_helper.to_array(proto.graph.initializer[0]), WEIGHT)


def test_metadata_stays_where_none_is_given(tmp_path: Path) -> None:
    proto = linear()
    helper.set_model_props(proto, {"kept": "yes"})
    assert read_onnx_metadata(save_onnx(proto, tmp_path / "m.onnx").path) == {"kept": "yes"}


def test_an_invalid_graph_leaves_nothing(tmp_path: Path) -> None:
    proto = linear()
    proto.graph.node[2].input[0] = "nowhere"
    with pytest.raises(ExportError, match=r"m\.onnx is not valid ONNX: .*nowhere") as refusal:
        save_onnx(proto, tmp_path / "m.onnx")
    assert "Export the model again" in refusal.value.action
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("batch", "fixed"), [("batch", None), (3, 3)])
def test_the_interface(batch: int | str, fixed: int | None) -> None:
    assert classifier_interface(linear(batch)) == ClassifierInterface("x", fixed, (3, 8, 6), "y", 4)


def test_weights_that_are_inputs_as_well_are_no_inputs() -> None:
    assert classifier_interface(linear(weights_are_inputs=True)).input_name == "x"


def test_another_interface_is_refused() -> None:
    with pytest.raises(ExportError, match="takes x float16") as refusal:
        classifier_interface(linear(kind=TensorProto.FLOAT16), "foreign.onnx")
    assert refusal.value.received == "foreign.onnx takes x float16 (batch, 3, 8, 6) and gives y float16 (batch, 4)."


def external(tmp_path: Path, location: str) -> Path:
    """A model whose weights are said to lie in `location`."""
    proto = linear()
    onnx.external_data_helper.set_external_data(proto.graph.initializer[0], location)
    proto.graph.initializer[0].ClearField("raw_data")
    proto.graph.initializer[0].data_location = TensorProto.EXTERNAL
    path = tmp_path / "model" / "m.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(proto.SerializeToString())
    return path


def test_external_weights_beside_the_model_are_read(tmp_path: Path) -> None:
    path = external(tmp_path, "w.bin")
    (path.parent / "w.bin").write_bytes(WEIGHT.tobytes())
    np.testing.assert_array_equal(numpy_helper.to_array(load_onnx(path).graph.initializer[0]), WEIGHT)


@pytest.mark.parametrize("location", ["../secret", "a/../../secret", "..\\secret", "", "link"])
def test_external_weights_elsewhere_are_refused(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    path = external(tmp_path, location)
    if location == "link":
        (path.parent / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ExportError) as refusal:
        load_onnx(path)
    assert repr(location) in refusal.value.received
    assert "Do not use this file" in refusal.value.action


def test_an_absolute_location_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    with pytest.raises(ExportError, match="must lie in the model's own folder"):
        load_onnx(external(tmp_path, str(tmp_path / "secret")))


def test_missing_external_weights(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="external weights are missing or damaged"):
        load_onnx(external(tmp_path, "w.bin"))


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07", None])
def test_what_is_no_model(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ExportError, match=r"m\.onnx cannot be read as ONNX") as refusal:
        load_onnx(path)
    assert "Check the path" in refusal.value.action


def test_a_truncated_model(tmp_path: Path) -> None:
    path = save_onnx(linear(), tmp_path / "m.onnx").path
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ExportError, match="cannot be read as ONNX"):
        load_onnx(path)
