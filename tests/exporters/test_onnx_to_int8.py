"""The Q/DQ graphs: where the nodes are, what the numbers are, and which kernels ONNX Runtime makes of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from tiny_int8 import CHANNELS, CLASSES, images, residual_net

from exporters.calibration import collect_ranges
from exporters.errors import ExportError
from exporters.int8_layers import constants_of
from exporters.int8_placement import FORMS, place, quantisable_groups, quantised_tensors
from exporters.onnx_files import OnnxFile, load_onnx
from exporters.onnx_to_int8 import SMALLEST_SCALE, Range, int8_from_onnx, needs_reduced_range
from exporters.routes import Int8Form
from exporters.runners import OnnxRunner


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return residual_net(tmp_path_factory.mktemp("net") / "net.onnx")


@pytest.fixture(scope="module")
def ranges(source: Path) -> dict[str, Range]:
    return collect_ranges(source, images(64)).min_max()


def logits(path: Path, batch: NDArray[np.float32], *, optimise: bool = False) -> NDArray[np.float32]:
    with OnnxRunner(path, optimise=optimise) as runner:
        return runner.infer({"image": batch})["logits"]


def node_reading(proto: onnx.ModelProto, tensor: str) -> list[str]:
    return [node.op_type for node in proto.graph.node if tensor in node.input]


def optimised_kinds(path: Path, tmp_path: Path) -> Counter[str]:
    """The operators that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it warns that the saved file is for this machine only
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


def constant(proto: onnx.ModelProto, name: str) -> NDArray[Any]:
    return numpy_helper.to_array(constants_of(proto.graph)[name])


@pytest.mark.parametrize("form", FORMS)
def test_int8_computes_what_float_computes(
    form: Int8Form, source: Path, ranges: dict[str, Range], tmp_path: Path
) -> None:
    reduce_range = form == "onnxruntime" and needs_reduced_range()
    file = int8_from_onnx(source, tmp_path / "int8.onnx", ranges=ranges, form=form, reduce_range=reduce_range)
    batch = images(64, seed=5)
    reference = logits(source, batch)
    error = logits(file.path, batch) - reference
    assert np.linalg.norm(error) < 0.03 * np.linalg.norm(reference)
    optimised = logits(file.path, batch, optimise=True) - reference
    assert np.linalg.norm(optimised) < 0.03 * np.linalg.norm(reference)


@pytest.mark.parametrize("form", FORMS)
def test_what_torch_exports_is_quantised(
    form: Int8Form, exported: OnnxFile, batches: list[NDArray[np.float32]], tmp_path: Path
) -> None:
    """Normalisation before the first convolution stays float, and so does the mean behind it."""
    ranges = collect_ranges(exported.path, batches).min_max()
    file = int8_from_onnx(exported.path, tmp_path / "int8.onnx", ranges=ranges, form=form)
    assert file.opset == exported.opset
    assert len(place(load_onnx(exported.path).graph, form).layers) == (1 if form == "tensorrt" else 2)
    reference = logits(exported.path, batches[2])
    assert np.linalg.norm(logits(file.path, batches[2]) - reference) < 0.05 * np.linalg.norm(reference)


def test_tensorrt_form_is_symmetric_with_explicit_zero_points(
    source: Path, ranges: dict[str, Range], tmp_path: Path
) -> None:
    file = int8_from_onnx(source, tmp_path / "int8.onnx", ranges=ranges, form="tensorrt")
    proto = load_onnx(file.path)
    linear = [node for node in proto.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert Counter(node.op_type for node in linear) == {"QuantizeLinear": 8, "DequantizeLinear": 8}
    for node in linear:
        assert len(node.input) == 3
        scale, zero_point = constant(proto, node.input[1]), constant(proto, node.input[2])
        assert zero_point.dtype == np.int8
        assert not zero_point.any()
        assert zero_point.shape == scale.shape
        assert (scale > 0).all()
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 17)]
    assert file.opset == 17
    # Bias stays the float tensor that it was, and so do the weights, behind a pair.
    convolution = next(node for node in proto.graph.node if node.name == "node_conv2")
    assert convolution.input[2] == "conv2.bias"
    assert node_reading(proto, "conv2.weight") == ["QuantizeLinear"]


def test_scales_are_the_peak_over_127_for_each_output_channel(
    source: Path, ranges: dict[str, Range], tmp_path: Path
) -> None:
    proto = load_onnx(int8_from_onnx(source, tmp_path / "int8.onnx", ranges=ranges, form="tensorrt").path)
    weight = constant(load_onnx(source), "conv2.weight")
    reader = next(n for n in proto.graph.node if "conv2.weight" in n.input)
    np.testing.assert_allclose(constant(proto, reader.input[1]), np.abs(weight).max(axis=(1, 2, 3)) / 127, rtol=1e-6)
    assert helper.get_node_attr_value(reader, "axis") == 0
    reader = next(n for n in proto.graph.node if "fc.weight" in n.input)
    assert constant(proto, reader.input[1]).shape == (CLASSES,)
    assert helper.get_node_attr_value(reader, "axis") == 0
    np.testing.assert_allclose(constant(proto, "image_scale"), max(-ranges["image"][0], ranges["image"][1]) / 127)


@pytest.mark.parametrize("identity_first", [False, True])
def test_tensorrt_form_quantises_the_identity_branch_alone(
    identity_first: bool, ranges: dict[str, Range], tmp_path: Path
) -> None:
    net = residual_net(tmp_path / "net.onnx", identity_first=identity_first)
    proto = load_onnx(int8_from_onnx(net, tmp_path / "int8.onnx", ranges=ranges, form="tensorrt").path)
    add = next(node for node in proto.graph.node if node.op_type == "Add")
    assert sorted(add.input) == ["conv3", "pool_dequantised"]
    assert node_reading(proto, "pool_dequantised") == ["Conv", "Add"]  # one pair serves both


def test_with_its_first_branch_in_float_an_add_is_fused_into_the_other(tmp_path: Path) -> None:
    """Downsampling blocks add two convolutions; every tensor that this needs has a range."""
    net = load_onnx(residual_net(tmp_path / "net.onnx"))
    nodes = {node.name: node for node in net.graph.node}
    shortcut = onnx.NodeProto()
    shortcut.CopyFrom(nodes["node_conv3"])
    shortcut.name, shortcut.input[0], shortcut.output[0] = "node_shortcut", "pool", "shortcut"
    nodes["node_sum"].input[1] = "shortcut"
    net.graph.node.insert(5, shortcut)
    path = tmp_path / "two.onnx"
    path.write_bytes(net.SerializeToString())
    ranges = collect_ranges(path, images(4)).min_max()
    for float_nodes, expected in (
        ([], ["conv3", "shortcut_dequantised"]),
        (["conv3"], ["conv3_dequantised", "shortcut"]),
    ):
        file = int8_from_onnx(path, tmp_path / "q.onnx", ranges=ranges, form="tensorrt", float_nodes=float_nodes)
        add = next(node for node in load_onnx(file.path).graph.node if node.op_type == "Add")
        assert list(add.input) == expected


def test_onnxruntime_form_runs_on_integer_kernels(source: Path, ranges: dict[str, Range], tmp_path: Path) -> None:
    file = int8_from_onnx(source, tmp_path / "int8.onnx", ranges=ranges, form="onnxruntime")
    kinds = optimised_kinds(file.path, tmp_path)
    assert kinds["QLinearConv"] == 3
    assert kinds["QLinearAdd"] == 1
    assert kinds["QGemm"] == 1
    assert kinds["Conv"] == kinds["FusedConv"] == kinds["Relu"] == kinds["Add"] == 0
    assert kinds["QuantizeLinear"] == 2  # the image, and the averages before the classifier


def test_onnxruntime_form_stores_weights_and_bias_as_integers(
    source: Path, ranges: dict[str, Range], tmp_path: Path
) -> None:
    file = int8_from_onnx(source, tmp_path / "int8.onnx", ranges=ranges, form="onnxruntime")
    proto = load_onnx(file.path)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    assert "conv2.weight" not in stored
    quantised = stored["conv2.weight_of_conv2_quantised"]
    assert quantised.dtype == np.int8
    assert quantised.min() >= -127
    weight = constant(load_onnx(source), "conv2.weight")
    step = stored["conv2.weight_of_conv2_scale"][:, None, None, None]
    assert np.abs(quantised * step - weight).max() <= step.max() / 2 * 1.001
    assert (np.abs(quantised).max(axis=(1, 2, 3)) == 127).all()
    assert stored["conv2.bias_of_conv2_quantised"].dtype == np.int32
    np.testing.assert_allclose(
        stored["conv2.bias_of_conv2_scale"], stored["conv2.weight_of_conv2_scale"] * stored["pool_scale"]
    )
    assert stored["image_zero_point"].dtype == np.uint8
    assert stored["relu3_zero_point"] == 0
    assert 0 < stored["conv3_zero_point"] < 255
    # Max pooling only moves values: with one scale on both sides it runs on integers.
    assert stored["pool_scale"] == stored["relu1_scale"]
    assert file.size_mib < 0.6 * (source.stat().st_size / 2**20)


def test_reduced_range_keeps_a_bit_of_the_weights_free(source: Path, ranges: dict[str, Range], tmp_path: Path) -> None:
    file = int8_from_onnx(source, tmp_path / "q.onnx", ranges=ranges, form="onnxruntime", reduce_range=True)
    for tensor in load_onnx(file.path).graph.initializer:
        if tensor.name.endswith("quantised") and tensor.data_type == onnx.TensorProto.INT8:
            assert np.abs(numpy_helper.to_array(tensor)).max() == 64
    assert 2 * 255 * 64 < 2**15 <= 2 * 255 * 127  # why


@pytest.mark.parametrize(
    ("machine", "flags", "expected"),
    [
        ("x86_64", "flags : sse avx2 fma", True),
        ("x86_64", "flags : avx2 avx_vnni", False),
        ("AMD64", "flags : avx512f avx512_vnni", False),
        ("aarch64", "Features : asimd asimddp", False),
        ("x86_64", None, True),
    ],
)
def test_reduced_range_is_for_x86_without_vnni(machine: str, flags: str | None, expected: bool, tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    if flags is not None:
        cpuinfo.write_text(flags)
    assert needs_reduced_range(cpuinfo, machine) is expected


def test_a_float_layer_reads_floats_and_the_rest_stays(source: Path, ranges: dict[str, Range], tmp_path: Path) -> None:
    file = int8_from_onnx(source, tmp_path / "q.onnx", ranges=ranges, form="tensorrt", float_nodes=["conv3"])
    proto = load_onnx(file.path)
    convolution = next(node for node in proto.graph.node if node.name == "node_conv3")
    assert list(convolution.input) == ["relu2", "conv3.weight", "conv3.bias"]
    add = next(node for node in proto.graph.node if node.op_type == "Add")
    assert list(add.input) == ["conv3", "pool"]
    file = int8_from_onnx(source, tmp_path / "q.onnx", ranges=ranges, form="onnxruntime", float_nodes=["conv3"])
    proto = load_onnx(file.path)
    names = {tensor.name for tensor in proto.graph.initializer}
    assert "relu2_scale" not in names
    assert {"conv2.weight", "conv3.weight"} <= names  # conv2 cannot be an integer kernel with a float output
    kinds = optimised_kinds(file.path, tmp_path)
    assert kinds["QLinearConv"] == 1
    assert kinds["QGemm"] == 1


def test_a_dead_channel_and_a_dead_tensor_keep_finite_numbers(tmp_path: Path) -> None:
    net = load_onnx(residual_net(tmp_path / "net.onnx"))
    for tensor in net.graph.initializer:
        if tensor.name == "conv2.weight":
            value = numpy_helper.to_array(tensor).copy()
            value[3] = 0
            value[4] *= 1e-12
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    source = tmp_path / "dead.onnx"
    source.write_bytes(net.SerializeToString())
    ranges = {**collect_ranges(source, images(16)).min_max(), "flat": (0.0, 0.0)}
    for form in FORMS:
        file = int8_from_onnx(source, tmp_path / "q.onnx", ranges=ranges, form=form)
        proto = load_onnx(file.path)
        assert constant(proto, "flat_scale") == 1.0
        assert constant(proto, "conv2.weight_of_conv2_scale").min() >= SMALLEST_SCALE
        batch = images(8, seed=3)
        assert np.isfinite(logits(file.path, batch)).all()
        if form == "onnxruntime":
            bias = constant(proto, "conv2.bias_of_conv2_quantised") * constant(proto, "conv2.bias_of_conv2_scale")
            np.testing.assert_allclose(bias, constant(net, "conv2.bias"), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_same_arguments_same_bytes(form: Int8Form, source: Path, ranges: dict[str, Range], tmp_path: Path) -> None:
    first = int8_from_onnx(source, tmp_path / "a.onnx", ranges=ranges, form=form)
    second = int8_from_onnx(source, tmp_path / "b.onnx", ranges=dict(reversed(ranges.items())), form=form)
    assert first.path.read_bytes() == second.path.read_bytes()
    assert first.sha256 == second.sha256


def test_metadata_is_kept_or_replaced(source: Path, ranges: dict[str, Range], tmp_path: Path) -> None:
    kept = load_onnx(int8_from_onnx(source, tmp_path / "a.onnx", ranges=ranges, form="tensorrt").path)
    assert {entry.key: entry.value for entry in kept.metadata_props} == {"tool": "test"}
    file = int8_from_onnx(source, tmp_path / "b.onnx", ranges=ranges, form="tensorrt", metadata={"a": "b"})
    assert {entry.key: entry.value for entry in load_onnx(file.path).metadata_props} == {"a": "b"}


def layer_net(kind: str, weight: tuple[int, ...], channels: int, **attributes: Any) -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node(kind, ["x", "w"], ["y"], **attributes), helper.make_node("Sigmoid", ["y"], ["z"])],
        "layer",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, channels, 8, 8])],
        [helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(weight, np.float32), "w")],
    )


@pytest.mark.parametrize(
    ("kind", "weight", "channels", "attributes", "axes"),
    [
        ("Conv", (64, 3, 3, 3), 3, {}, (0, 0)),  # a first layer: its outputs are what counts
        ("Conv", (10, 3, 3, 3), 3, {}, (None, 0)),
        ("Conv", (24, 1, 3, 3), 24, {"group": 24}, (0, 0)),  # depthwise
        ("Conv", (24, 1, 1, 1), 24, {"group": 24}, (None, 0)),
        ("Conv", (18, 1, 3, 3), 18, {"group": 18}, (None, 0)),
        ("ConvTranspose", (32, 16, 2, 2), 32, {}, (1, None)),
        ("MatMul", (64, 32), 3, {}, (1, 1)),
        ("Gemm", (64, 32), 3, {}, (1, 1)),
        ("Gemm", (32, 64), 3, {"transB": 1}, (0, 0)),
        ("Gemm", (10, 64), 3, {"transB": 1}, (None, 0)),  # ten classes
        ("Gemm", (32, 64), 3, {"transB": 1, "alpha": 0.5}, (None, None)),
    ],
)
def test_which_layers_are_quantised_along_which_axis(
    kind: str,
    weight: tuple[int, ...],
    channels: int,
    attributes: dict[str, Any],
    axes: tuple[int | None, int | None],
) -> None:
    graph = layer_net(kind, weight, channels, **attributes)
    for form, axis in zip(FORMS, axes, strict=True):
        assert [layer.axis for layer in place(graph, form).layers] == ([] if axis is None else [axis])


def test_groups_are_layers_with_their_sum_and_at_most_sixteen(source: Path) -> None:
    groups = quantisable_groups(load_onnx(source), "tensorrt")
    assert [(group.name, group.nodes) for group in groups] == [
        ("conv1", ("conv1",)),
        ("conv2", ("conv2",)),
        ("conv3", ("conv3", "sum")),
        ("fc", ("logits",)),
    ]
    chain = [helper.make_node("Conv", [f"x{i}", "w.weight"], [f"x{i + 1}"], name=f"n{i}") for i in range(40)]
    weight = numpy_helper.from_array(np.ones((CHANNELS, CHANNELS, 1, 1), np.float32), "w.weight")
    value = helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, [1, CHANNELS, 4, 4])
    graph = helper.make_graph(chain, "chain", [value], [], [weight])
    groups = quantisable_groups(helper.make_model(graph), "tensorrt")
    assert len(groups) == 16
    assert [node for group in groups for node in group.nodes] == [f"x{i + 1}" for i in range(40)]
    assert {len(group.nodes) for group in groups} == {2, 3}


def test_shared_weights_have_a_scale_for_each_reader() -> None:
    """MatMul (K, N) of a weight that another layer reads transposed: two axes, one tensor."""
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["y"], transB=1),
        helper.make_node("Gemm", ["y", "w"], ["z"]),
    ]
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 16])
    weight = numpy_helper.from_array(np.ones((32, 16), np.float32), "w")
    placement = place(helper.make_graph(nodes, "shared", [value], [], [weight]), "tensorrt")
    assert [(layer.weight, layer.axis) for layer in placement.layers] == [("w", 0), ("w", 1)]


def test_missing_and_infinite_ranges_are_refused(source: Path, ranges: dict[str, Range], tmp_path: Path) -> None:
    path = tmp_path / "q.onnx"
    some = {name: value for name, value in ranges.items() if name != "relu2"}
    with pytest.raises(ExportError) as caught:
        int8_from_onnx(source, path, ranges=some, form="tensorrt")
    assert "'relu2'" in caught.value.received
    assert "same file" in caught.value.action
    with pytest.raises(ExportError) as caught:
        int8_from_onnx(source, path, ranges={**ranges, "relu2": (0.0, float("inf"))}, form="onnxruntime")
    assert "'relu2' is 0 to inf" in caught.value.received
    assert "overflows" in caught.value.action
    assert not path.exists()


def test_an_int8_graph_is_not_quantised_again(source: Path, ranges: dict[str, Range], tmp_path: Path) -> None:
    file = int8_from_onnx(source, tmp_path / "q.onnx", ranges=ranges, form="tensorrt")
    with pytest.raises(ExportError) as caught:
        int8_from_onnx(file.path, tmp_path / "qq.onnx", ranges=ranges, form="tensorrt")
    assert "DequantizeLinear, QuantizeLinear" in caught.value.received
    assert "float32 file" in caught.value.action


def test_an_old_opset_is_refused(ranges: dict[str, Range], tmp_path: Path) -> None:
    net = residual_net(tmp_path / "net.onnx", opset=11)
    with pytest.raises(ExportError) as caught:
        int8_from_onnx(net, tmp_path / "q.onnx", ranges=ranges, form="tensorrt")
    assert "opset 11" in caught.value.received
    assert "opset 13" in caught.value.action


def test_nothing_to_quantise_is_said(source: Path, ranges: dict[str, Range], tmp_path: Path) -> None:
    everything = ["conv1", "conv2", "conv3", "logits"]
    with pytest.raises(ExportError) as caught:
        int8_from_onnx(source, tmp_path / "q.onnx", ranges=ranges, form="tensorrt", float_nodes=everything)
    assert "net.onnx" in caught.value.received
    assert "4 nodes kept in float" in caught.value.received
    assert "fp16" in caught.value.action


def test_tensors_to_calibrate_are_known_before_any_choice(source: Path) -> None:
    proto = load_onnx(source)
    names = quantised_tensors(proto)
    assert names == ("image", "relu1", "pool", "relu2", "conv3", "relu3", "flat")
    for form in FORMS:
        for group in quantisable_groups(proto, form):
            assert set(place(proto.graph, form, group.nodes).range_of.values()) <= set(names)
