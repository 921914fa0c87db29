from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from exporters.errors import ExportError
from exporters.fp16_rules import fits_fp16
from exporters.onnx_files import OnnxFile, opset_of, read_onnx_metadata
from exporters.onnx_to_fp16 import fp16_from_onnx, overflowing_nodes
from exporters.parity import compare
from exporters.runners import OnnxRunner

node = helper.make_node
RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((4, 3, 8, 8), dtype=np.float32)


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal(shape, dtype=np.float32)


def array(dtype: str, values: Any) -> NDArray[Any]:
    return np.array(values, dtype=dtype)


def classifier_file(
    path: Path,
    nodes: Sequence[NodeProto],
    constants: dict[str, NDArray[Any]],
    *,
    opset: int = 20,
    sizes: Sequence[int | str] = ("batch", 3, 8, 8),
    classes: int = 5,
) -> Path:
    """A file that takes `image` and gives `logits` (batch, classes)."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    return path


def run(path: Path, images: NDArray[np.float32] = IMAGES) -> NDArray[np.float32]:
    with OnnxRunner(path, optimise=False) as runner:
        return runner.infer({"image": images})["logits"]


def run_in_true_fp16(path: Path) -> NDArray[np.float32]:
    """By onnx's reference: ONNX Runtime on CPUs drops Cast pairs and so hides overflow, optimised or not."""
    with np.errstate(all="ignore"):
        (logits,) = ReferenceEvaluator(str(path)).run(None, {"image": IMAGES})
    return np.asarray(logits, dtype=np.float32)


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def constants(path: Path) -> dict[str, NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def assert_three_sentences(error: ExportError, received: str, action: str) -> None:
    assert all(sentence.endswith(".") for sentence in (error.received, error.expected, error.action))
    assert received in error.received
    assert action in error.action


HEAD = [node("GlobalAveragePool", ["map"], ["pooled"]), node("Flatten", ["pooled"], ["features"])]


def small_net(path: Path, scale: float = 1.0, **options: Any) -> Path:
    """Convolution, ReLU, pooling, linear; the convolution's output grows with `scale`."""
    return classifier_file(
        path,
        [
            node("Conv", ["image", "conv.weight", "conv.bias"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
            node("Relu", ["conv"], ["map"], name="relu"),
            *HEAD,
            node("Gemm", ["features", "fc.weight"], ["logits"], name="fc", transB=1),
        ],
        {
            "conv.weight": random(4, 3, 3, 3) * np.float32(scale),
            "conv.bias": random(4),
            "fc.weight": random(5, 4) / np.float32(scale),
        },
        **options,
    )


def test_an_exported_classifier_computes_the_same_in_half_the_size(
    exported: OnnxFile, tmp_path: Path, batches: list[NDArray[np.float32]]
) -> None:
    result = fp16_from_onnx(exported.path, tmp_path / "student.fp16.onnx")
    assert result.fp32_nodes == {}
    graph = onnx.load(result.file.path).graph
    assert [(value.name, value.type.tensor_type.elem_type) for value in (*graph.input, *graph.output)] == [
        ("image", TensorProto.FLOAT),
        ("logits", TensorProto.FLOAT),
    ]
    assert {tensor.data_type for tensor in graph.initializer} <= {TensorProto.FLOAT16, TensorProto.INT64}
    assert operators(result.file.path)["Cast"] == 2
    assert result.file.opset == 20
    for images in batches:
        parity = compare(run(exported.path, images), run(result.file.path, images))
        assert 0 < parity.max_rel < 2e-3
        assert parity.top1_agreement == 1.0


def test_metadata_stays_or_is_replaced(exported: OnnxFile, tmp_path: Path) -> None:
    kept = fp16_from_onnx(exported.path, tmp_path / "kept.onnx").file
    assert read_onnx_metadata(kept.path) == {"tool": "test"}
    replaced = fp16_from_onnx(exported.path, tmp_path / "replaced.onnx", metadata={"precision": "fp16"}).file
    assert read_onnx_metadata(replaced.path) == {"precision": "fp16"}


def test_the_same_file_gives_the_same_bytes_and_may_be_replaced(exported: OnnxFile, tmp_path: Path) -> None:
    first = fp16_from_onnx(exported.path, tmp_path / "first.onnx").file
    in_place = tmp_path / "in-place.onnx"
    in_place.write_bytes(exported.path.read_bytes())
    assert fp16_from_onnx(in_place, in_place).file.sha256 == first.sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.onnx", "in-place.onnx"]


@pytest.mark.parametrize("opset", [13, 17, 20, 21])
def test_the_opset_stays(tmp_path: Path, opset: int) -> None:
    source = small_net(tmp_path / "net.onnx", opset=opset)
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    assert result.file.opset == opset_of(onnx.load(result.file.path)) == opset
    assert compare(run(source), run(result.file.path)).max_rel < 2e-3


def test_a_node_that_is_named_stays_fp32(tmp_path: Path) -> None:
    source = small_net(tmp_path / "net.onnx")
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx", keep_fp32=["conv", "quantised away"])
    assert result.fp32_nodes == {"conv": "as asked"}
    held = constants(result.file.path)
    assert held["conv.weight"].dtype == np.float32
    assert held["fc.weight_fp16"].dtype == np.float16
    conv = next(node for node in onnx.load(result.file.path).graph.node if node.op_type == "Conv")
    assert list(conv.input) == ["image", "conv.weight", "conv.bias"]


def test_constants_that_do_not_fit(tmp_path: Path) -> None:
    source = small_net(tmp_path / "net.onnx", scale=1e5)
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    assert result.fp32_nodes == {"conv": "its constant 'conv.weight' does not fit"}
    assert constants(result.file.path)["fc.weight_fp16"].dtype == np.float16

    underflow = small_net(tmp_path / "tiny.onnx", scale=1e-9)
    assert "does not fit" in fp16_from_onnx(underflow, tmp_path / "fp16.onnx").fp32_nodes["conv"]


@pytest.mark.parametrize(
    ("values", "fits"),
    [
        ([0.0, 0.0], True),
        ([65504.0, -1.0], True),
        ([65520.0, 1.0], False),
        ([np.inf, -np.inf], True),  # infinity is a number of fp16
        ([1e-9, 2e-9], False),  # both become 0
        ([1e-9, 1.0], True),  # the small one does not matter
        ([1e-5], True),  # an epsilon
        ([1e-12], False),
        ([], True),
    ],
)
def test_what_fits(values: list[float], fits: bool) -> None:
    assert fits_fp16(np.array(values, dtype=np.float32)) is fits


def test_a_bias_that_is_too_small_to_matter_keeps_nothing(tmp_path: Path) -> None:
    source = small_net(tmp_path / "net.onnx")
    proto = onnx.load(source)
    bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "conv.bias")
    bias.CopyFrom(numpy_helper.from_array(np.full(4, 1e-9, np.float32), "conv.bias"))
    onnx.save(proto, source)
    assert fp16_from_onnx(source, tmp_path / "fp16.onnx").fp32_nodes == {}


def test_overflow_is_found_on_images_and_avoided(tmp_path: Path) -> None:
    source = small_net(tmp_path / "net.onnx", scale=1e4)  # weights fit, activations do not
    assert not np.isfinite(run_in_true_fp16(fp16_from_onnx(source, tmp_path / "fp16.onnx").file.path)).all()
    hot = overflowing_nodes(source, [IMAGES[:1], IMAGES], bound=60000)
    assert hot == ("conv", "relu", "pooled")  # the pooling has no name; it reads what overflows
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx", keep_fp32=hot)
    assert result.fp32_nodes == dict.fromkeys(hot, "as asked")
    assert compare(run(source), run_in_true_fp16(result.file.path)).max_rel < 5e-3
    assert overflowing_nodes(source, [IMAGES], bound=1e9) == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fp16.onnx", "net.onnx"]


def test_overflow_needs_images(exported: OnnxFile) -> None:
    with pytest.raises(ExportError) as caught:
        overflowing_nodes(exported.path, [])
    assert_three_sentences(caught.value, "No images were given to look for overflow in student.onnx", "Pass a few")


@pytest.mark.parametrize(("size", "reason"), [(16, None), (17, "it adds 289 values")])
def test_long_sums_stay_fp32(tmp_path: Path, size: int, reason: str | None) -> None:
    source = small_net(tmp_path / "net.onnx", sizes=("batch", 3, size, size))
    found = fp16_from_onnx(source, tmp_path / "fp16.onnx").fp32_nodes
    assert found == ({"pooled": reason} if reason else {})


def test_squares_and_their_sum_stay_fp32(tmp_path: Path) -> None:
    """A layer normalisation written out: x = 1000 is an fp16 number, its square is none."""
    source = classifier_file(
        tmp_path / "net.onnx",
        [
            node("Mul", ["image", "thousand"], ["x"], name="scale"),
            node("Mul", ["x", "x"], ["squares"], name="square"),
            node("ReduceMean", ["squares", "axes"], ["variance"], name="variance", keepdims=1),
            node("Sqrt", ["variance"], ["deviation"], name="sqrt"),
            node("Div", ["x", "deviation"], ["map"], name="normalise"),
            *HEAD,
            node("Gemm", ["features", "fc.weight"], ["logits"], name="fc", transB=1),
        ],
        {"thousand": array("float32", [1000.0]), "axes": array("int64", [2, 3]), "fc.weight": random(5, 3)},
    )
    hot = overflowing_nodes(source, [IMAGES])
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx", keep_fp32=hot)
    assert result.fp32_nodes == {
        "square": "Mul stretches the range",
        "variance": "it adds what Mul gives",
        "sqrt": "as asked",
    }
    assert compare(run(source), run(result.file.path)).max_rel < 5e-3


def test_sizes_are_computed_in_fp32_and_resize_reads_its_scales_in_fp32(tmp_path: Path) -> None:
    source = classifier_file(
        tmp_path / "net.onnx",
        [
            node("Shape", ["image"], ["shape"]),
            node("Gather", ["shape", "two"], ["height"], name="gather"),
            node("Cast", ["height"], ["height_float"], name="height_float", to=TensorProto.FLOAT),
            node("Div", ["height_float", "three"], ["ratio"], name="ratio"),  # 8 / 3
            node("Concat", ["ones", "ratio", "ratio"], ["scales"], name="scales", axis=0),
            node("Resize", ["image", "roi", "scales"], ["map"], name="resize", mode="nearest"),
            *HEAD,
            node("Gemm", ["features", "fc.weight"], ["logits"], name="fc", transB=1),
        ],
        {
            "two": array("int64", [2]),
            "three": array("float32", [3.0]),
            "ones": array("float32", [1.0, 1.0]),
            "roi": array("float32", []),
            "fc.weight": random(5, 3),
        },
    )
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    sizes = "it computes sizes or constants"
    assert {name: result.fp32_nodes.get(name) for name in ("height_float", "ratio", "scales", "resize")} == {
        "height_float": sizes,
        "ratio": sizes,
        "scales": sizes,
        "resize": None,
    }
    resize = next(node for node in onnx.load(result.file.path).graph.node if node.op_type == "Resize")
    assert list(resize.input) == ["image_fp16", "roi", "scales"]
    assert compare(run(source), run(result.file.path)).max_rel < 2e-3


def test_casts_to_float_become_casts_to_half(tmp_path: Path) -> None:
    source = classifier_file(
        tmp_path / "net.onnx",
        [
            node("Greater", ["image", "half"], ["mask"]),
            node("Cast", ["mask"], ["map"], name="mask_float", to=TensorProto.FLOAT),
            *HEAD,
            node("Gemm", ["features", "fc.weight"], ["logits"], name="fc", transB=1),
        ],
        {"half": array("float32", [0.5]), "fc.weight": random(5, 3)},
    )
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    cast = next(node for node in onnx.load(result.file.path).graph.node if node.name == "mask_float")
    assert cast.attribute[0].i == TensorProto.FLOAT16
    assert list(cast.output) == ["map_fp16"]
    assert compare(run(source), run(result.file.path)).max_rel < 2e-3


def test_constants_in_nodes_and_behind_identities(tmp_path: Path) -> None:
    """As the older exporter writes them; the initialiser is also listed among the inputs, as before IR 4."""
    weight = numpy_helper.from_array(random(5, 3))
    source = classifier_file(
        tmp_path / "net.onnx",
        [
            node("Constant", [], ["two"], value_float=2.0),
            node("Constant", [], ["weight"], value=weight),
            node("Identity", ["weight"], ["same weight"], name="identity"),
            node("Mul", ["image", "two"], ["doubled"], name="double"),
            node("Add", ["doubled", "one"], ["map"], name="add"),
            *HEAD,
            node("Gemm", ["features", "same weight"], ["logits"], name="fc", transB=1),
        ],
        {"one": array("float32", [1.0])},
    )
    proto = onnx.load(source)
    proto.graph.input.append(helper.make_tensor_value_info("one", TensorProto.FLOAT, [1]))
    onnx.save(proto, source)
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    assert {name: value.dtype for name, value in constants(result.file.path).items()} == dict.fromkeys(
        ["one_fp16", "two_fp16", "weight_fp16"], np.float16
    )
    assert [value.name for value in onnx.load(result.file.path).graph.input] == ["image"]
    assert operators(result.file.path)["Identity"] == 0
    assert compare(run(source), run(result.file.path)).max_rel < 2e-3


def test_a_branch_keeps_its_body_in_fp32(tmp_path: Path) -> None:
    """The bodies of If read `features` from outside, under its own name."""

    def body(scale: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info(f"by {scale}", TensorProto.FLOAT, None)
        return helper.make_graph([node("Mul", ["features", scale], [f"by {scale}"])], scale, [], [value])

    source = classifier_file(
        tmp_path / "net.onnx",
        [
            node("Relu", ["image"], ["map"]),
            *HEAD,
            node("ReduceMax", ["image"], ["peak"], keepdims=0),
            node("Greater", ["peak", "half"], ["bright"]),
            node("If", ["bright"], ["chosen"], name="if", then_branch=body("two"), else_branch=body("half")),
            node("Gemm", ["chosen", "fc.weight"], ["logits"], name="fc", transB=1),
        ],
        {"half": array("float32", 0.5), "two": array("float32", 2.0), "fc.weight": random(5, 3)},
    )
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    assert result.fp32_nodes == {"if": "it holds a subgraph"}
    assert constants(result.file.path)["fc.weight_fp16"].dtype == np.float16
    for images in (IMAGES, IMAGES * np.float32(0.25)):
        assert compare(run(source, images), run(result.file.path, images)).max_rel < 2e-3


def test_an_operator_that_nobody_knows_keeps_its_types(tmp_path: Path) -> None:
    source = small_net(tmp_path / "net.onnx")
    proto = onnx.load(source)
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "FancyActivation", "vendor"
    proto.opset_import.append(helper.make_opsetid("vendor", 1))
    onnx.save(proto, source)
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    assert result.fp32_nodes["relu"] == "its types are unknown"
    fancy = next(node for node in onnx.load(result.file.path).graph.node if node.op_type == "FancyActivation")
    assert (list(fancy.input), list(fancy.output)) == (["conv"], ["map"])


def quantised_net(path: Path, *, dead_scale: float = 0.01, opset: int = 20, stored: bool = False) -> Path:
    """image -> Q -> DQ -> Conv (weights through Q/DQ, or stored as int8) -> Relu -> Q -> DQ -> pool -> Gemm."""
    weight_scale = array("float32", [0.03, 0.02, 0.025, dead_scale])
    weight = random(4, 3, 3, 3)
    weight[3] *= np.float32(dead_scale)
    int8 = np.clip(np.round(weight / weight_scale.reshape(4, 1, 1, 1)), -127, 127).astype(np.int8)
    nodes = [
        node("QuantizeLinear", ["image", "image.scale", "zero"], ["image.q"], name="image.Q"),
        node("DequantizeLinear", ["image.q", "image.scale", "zero"], ["image.dq"], name="image.DQ"),
        node("QuantizeLinear", ["weight", "weight.scale", "zeros"], ["weight.q"], name="weight.Q", axis=0),
        node("DequantizeLinear", ["weight.q", "weight.scale", "zeros"], ["weight.dq"], name="weight.DQ", axis=0),
        node("Conv", ["image.dq", "weight.dq"], ["conv"], name="conv", pads=[1, 1, 1, 1]),
        node("Relu", ["conv"], ["relu"], name="relu"),
        node("QuantizeLinear", ["relu", "relu.scale", "zero"], ["relu.q"], name="relu.Q"),
        node("DequantizeLinear", ["relu.q", "relu.scale", "zero"], ["map"], name="relu.DQ"),
        *HEAD,
        node("Gemm", ["features", "fc.weight"], ["logits"], name="fc", transB=1),
    ]
    values: dict[str, NDArray[Any]] = {
        "image.scale": array("float32", 1 / 127),
        "relu.scale": array("float32", 0.1),
        "weight.scale": weight_scale,
        "zero": array("int8", 0),
        "zeros": np.zeros(4, np.int8),
        "weight": weight,
        "fc.weight": random(5, 4),
    }
    if stored:
        nodes = [node for node in nodes if node.name != "weight.Q"]
        values["weight.q"] = int8
        del values["weight"]
    return classifier_file(path, nodes, values, opset=opset)


@pytest.mark.parametrize("stored", [False, True])
def test_a_quantised_graph_has_fp16_scales(tmp_path: Path, stored: bool) -> None:
    source = quantised_net(tmp_path / "int8.onnx", stored=stored)
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    assert result.fp32_nodes == {}
    held = constants(result.file.path)
    # The image is quantised as it comes, in fp32; its DQ feeds the convolution in fp16.
    assert held["image.scale"].dtype == np.float32
    assert held["image.scale"] == np.float16(1 / 127) == held["image.scale_fp16"]
    assert held["weight.scale_fp16"].dtype == held["relu.scale_fp16"].dtype == np.float16
    assert operators(result.file.path)["Cast"] == 1  # at the end
    assert compare(run(source), run(result.file.path)).max_rel < 0.02


def test_a_dead_channel_costs_its_layer_nothing(tmp_path: Path) -> None:
    source = quantised_net(tmp_path / "int8.onnx", dead_scale=1e-9)
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    assert result.fp32_nodes == {}
    assert constants(result.file.path)["weight.scale_fp16"][3] == np.float16(2.0**-24)
    assert compare(run(source), run(result.file.path)).max_rel < 0.02


def test_a_dead_channel_of_stored_weights_keeps_its_scale(tmp_path: Path) -> None:
    source = quantised_net(tmp_path / "int8.onnx", dead_scale=1e-9, stored=True)
    held = constants(fp16_from_onnx(source, tmp_path / "fp16.onnx").file.path)
    assert held["weight.scale"].dtype == np.float32
    assert "weight.scale_fp16" not in held
    assert compare(run(source), run(tmp_path / "fp16.onnx")).max_rel < 0.02


def test_what_feeds_an_fp32_node_is_dequantised_to_fp32(tmp_path: Path) -> None:
    source = quantised_net(tmp_path / "int8.onnx")
    result = fp16_from_onnx(source, tmp_path / "fp16.onnx", keep_fp32=["conv"])
    conv = next(node for node in onnx.load(result.file.path).graph.node if node.op_type == "Conv")
    assert list(conv.input) == ["image.dq", "weight.dq"]
    assert constants(result.file.path)["weight"].dtype == np.float32
    assert compare(run(source), run(result.file.path)).max_rel < 0.02


def test_quantised_graphs_of_old_opsets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        fp16_from_onnx(quantised_net(tmp_path / "int8.onnx", opset=17), tmp_path / "fp16.onnx")
    assert_three_sentences(caught.value, "int8.onnx holds Q/DQ nodes at opset 17", "Leave its float part fp32")
    assert not (tmp_path / "fp16.onnx").exists()


def test_a_graph_with_nothing_to_convert(tmp_path: Path) -> None:
    source = small_net(tmp_path / "net.onnx")
    names = [node.name or node.output[0] for node in onnx.load(source).graph.node]
    with pytest.raises(ExportError) as caught:
        fp16_from_onnx(source, tmp_path / "fp16.onnx", keep_fp32=names)
    assert_three_sentences(caught.value, "Nothing in net.onnx", "Ship the file as it is")


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "cut.onnx").write_bytes(small_net(tmp_path / "net.onnx").read_bytes()[:100])
    with pytest.raises(ExportError, match=r"cut\.onnx cannot be read as ONNX"):
        fp16_from_onnx(tmp_path / "cut.onnx", tmp_path / "fp16.onnx")


def test_a_graph_whose_types_cannot_be_inferred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise ValueError("Message onnx.ModelProto exceeds maximum protobuf size of 2GB: 3000000000")

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", too_large)
    with pytest.raises(ExportError) as caught:
        fp16_from_onnx(small_net(tmp_path / "net.onnx"), tmp_path / "fp16.onnx")
    assert_three_sentences(caught.value, "the graph 'small' cannot be inferred: Message", "ship it in fp32")
