"""Which operators a TensorRT version is known not to read, and what is said of them."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from exporters.errors import ExportError
from exporters.tensorrt_operators import READ_BY_NONE, READ_SINCE, check_operators, unread_operators
from profiles.catalogue import load_target

NANO, XAVIER, ORIN = (load_target(name) for name in ("jetson-nano", "jetson-xavier-nx", "jetson"))


def node(operator: str, name: str = "n", outputs: int = 1, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(operator, ["x"], [f"y{i}" for i in range(outputs)], name=name, **attributes)


def model(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    return helper.make_model(helper.make_graph([*nodes], "g", [value], [value]))


def refused(proto: onnx.ModelProto, profile: Any) -> ExportError:
    with pytest.raises(ExportError) as caught:
        check_operators(proto, profile)
    for sentence in (caught.value.received, caught.value.expected, caught.value.action):
        assert sentence.endswith(".")
        assert "\n" not in sentence
    return caught.value


@pytest.mark.parametrize(
    ("operator", "unread", "read"),
    [
        ("HardSwish", "8.2.1", "8.5.2"),
        ("GridSample", "8.4", "8.5"),
        ("LayerNormalization", "8.5.2", "8.6.1"),
        ("Gelu", "8.6.2", "10.0"),
        ("Gelu", "9.2", "10.3.0"),
        ("Attention", "10.13.3", "10.14"),
        ("RMSNormalization", "10.14", "10.15"),
        ("Swish", "10.16.2", "11.0"),
    ],
)
def test_the_version_that_first_reads_an_operator(operator: str, unread: str, read: str) -> None:
    assert unread_operators(model(node(operator)), unread) == (operator,)
    assert unread_operators(model(node(operator)), read) == ()


@pytest.mark.parametrize("version", ["8.2", "8.6", "10.16", "11.4"])
def test_what_no_version_reads(version: str) -> None:
    assert unread_operators(model(node("QLinearConv"), node("Unique")), version) == ("QLinearConv", "Unique")


def test_what_is_not_known_is_not_called_unread() -> None:
    strangers = [node("MadeUp"), node("Gelu", domain="com.microsoft"), node("EfficientNMS_TRT", domain="TRT")]
    assert unread_operators(model(*strangers, node("Conv"), node("Reciprocal"), node("QuantizeLinear")), "8.2.1") == ()


def test_modes_that_image_networks_meet() -> None:
    graph = model(
        node("Resize", mode="cubic"),
        node("Resize", mode="linear", antialias=1),
        node("Resize", mode="linear"),
        node("MaxPool", outputs=2),
        node("MaxPool"),
    )
    expected = ("MaxPool (output Indices)", "Resize (antialias)", "Resize (mode cubic)")
    assert unread_operators(graph, "11.4") == expected


def test_subgraphs_and_local_functions_are_looked_into() -> None:
    branch = helper.make_graph(
        [node("Unique")], "then", [], [helper.make_tensor_value_info("y0", TensorProto.FLOAT, None)]
    )
    graph = model(node("If", then_branch=branch, else_branch=branch))
    graph.functions.append(
        helper.make_function("ours", "F", ["x"], ["y0"], [node("Det")], [helper.make_opsetid("", 17)])
    )
    assert unread_operators(graph, "10.3") == ("Det", "Unique")


def test_an_operator_that_older_ones_can_write_is_refused_with_that_opset() -> None:
    error = refused(model(node("Conv"), node("HardSwish", "act"), node("LayerNormalization")), NANO)
    assert error.received == (
        "The ONNX parser of TensorRT 8.2.1 does not read HardSwish (nor LayerNormalization), which node 'act' is."
    )
    assert error.expected == "NVIDIA Jetson Nano 4 GB takes graphs that every TensorRT from 8.2.1 to 8.2 reads."
    assert error.action == "Export at opset 13 or lower, which writes HardSwish with older operators."


def test_a_profile_whose_newer_versions_read_it_may_be_narrowed() -> None:
    error = refused(model(node("Attention", "")), ORIN)
    assert "which node 'y0' is" in error.received
    assert error.action == (
        "Export at opset 22 or lower, which writes Attention with older operators, "
        "or narrow the range `tensorrt` of the profile to 10.14 and later."
    )


def test_an_operator_or_a_mode_without_a_substitute_must_be_replaced() -> None:
    assert refused(model(node("GridSample")), NANO).action == "Replace GridSample in the network."
    error = refused(model(node("Resize", "up", mode="cubic")), XAVIER)
    assert "does not read Resize (mode cubic), which node 'up' is." in error.received
    assert error.action == "Change that setting of Resize in the network, or replace it there."


@pytest.mark.parametrize("name", ["cpu", "raspberry-pi-5"])
def test_other_runtimes_are_not_judged(name: str) -> None:
    check_operators(model(node("QLinearConv")), load_target(name))


def test_the_table_names_operators_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas_with_history() if not schema.domain}
    assert {*READ_SINCE, *READ_BY_NONE} <= known
    assert not READ_BY_NONE & READ_SINCE.keys()


@pytest.mark.tensorrt
def test_the_table_agrees_with_a_parser_of_tensorrt_11() -> None:
    """TensorRT-RTX has the same parser; it lacks the plugin that reads DeformConv elsewhere."""
    trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    assert {operator for operator in READ_SINCE if not parser.supports_operator(operator)} <= {"DeformConv"}
    assert not [operator for operator in READ_BY_NONE if parser.supports_operator(operator)]
