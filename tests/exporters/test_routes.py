"""Which file a target takes: the two kinds of TensorRT, and ONNX Runtime."""

from __future__ import annotations

from typing import Any

import pytest

from exporters.errors import ExportError
from exporters.routes import Build, route_for
from profiles.catalogue import load_target, target_names
from profiles.schema import DeviceProfile


def device(**changes: Any) -> DeviceProfile:
    return DeviceProfile.model_validate(load_target("jetson-orin-nano-super").model_dump() | changes)


def test_tensorrt_8_takes_the_fp32_graph_and_flags() -> None:
    route = route_for(load_target("jetson-nano"), 13)
    assert not route.typed
    assert route.builds == (Build("fp32", "fp32"), Build("fp16", "fp32", ("--fp16",)))
    assert route.files == ("fp32",)


def test_int8_on_tensorrt_8_is_a_graph_of_its_own() -> None:
    route = route_for(device(tensorrt={"min": "8.5", "max": "8.6"}, opset_ceiling=17), 17)
    assert route.builds[2] == Build("int8", "int8", ("--int8", "--fp16"))
    assert route.files == ("fp32", "int8")
    assert route.int8_float == "fp32"


def test_tensorrt_10_takes_typed_graphs() -> None:
    route = route_for(load_target("jetson"), 20)
    assert route.typed
    assert route.files == ("fp32", "fp16", "int8")
    assert (route.int8_form, route.int8_float) == ("tensorrt", "fp16")
    assert all(build.flags == () for build in route.builds)


@pytest.mark.parametrize(("oldest", "unproven"), [("10.3", True), ("10.12", False), ("11", False)])
def test_strong_typing_before_it_was_the_rule_is_called_unproven(oldest: str, unproven: bool) -> None:
    route = route_for(device(tensorrt={"min": oldest, "max": "11"}), 20)
    assert any("unproven" in note for note in route.notes) == unproven


@pytest.mark.parametrize(("changes", "opset"), [({}, 18), ({"precisions": ["fp32", "int8"]}, 20)])
def test_the_float_part_of_int8_stays_fp32(changes: dict[str, Any], opset: int) -> None:
    assert route_for(device(**changes), opset).int8_float == "fp32"


def test_a_range_over_both_kinds_is_refused() -> None:
    with pytest.raises(ExportError) as refusal:
        route_for(device(tensorrt={"min": "8.5", "max": "10.3"}), 17)
    assert "TensorRT 8.5 to 10.3" in refusal.value.received
    assert "Narrow the range" in refusal.value.action


def test_onnx_runtime_takes_unsigned_activations() -> None:
    route = route_for(load_target("cpu"), 20)
    assert (route.runtime, route.int8_form, route.int8_float) == ("onnxruntime", "onnxruntime", "fp32")
    assert route.files == ("fp32", "fp16", "int8")


@pytest.mark.parametrize("name", target_names())
def test_every_device_has_a_route(name: str) -> None:
    target = load_target(name)
    route = route_for(target, target.opset_ceiling)
    assert tuple(build.precision for build in route.builds) == target.precisions
