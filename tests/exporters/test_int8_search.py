"""Which calibration, and which layers go back to float: a net that needs none, one that needs one, and no way out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from tiny_int8 import images, residual_net

from exporters import int8_search
from exporters.calibration import collect_ranges
from exporters.errors import ExportError
from exporters.int8_placement import FORMS
from exporters.int8_search import Int8Choice, Trial, drop_points, search_int8
from exporters.onnx_files import load_onnx
from exporters.routes import Int8Form
from exporters.runners import OnnxRunner

REAL, GENERATED, JUDGE = images(20, 0), images(60, 1), images(200, 2)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return residual_net(tmp_path_factory.mktemp("net") / "net.onnx")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return residual_net(tmp_path_factory.mktemp("net") / "hostile.onnx", hostile=True)


def agreement(first: Path, second: Path, batch: NDArray[np.float32]) -> float:
    with OnnxRunner(first) as one, OnnxRunner(second, optimise=False) as two:
        classes = [runner.infer({"image": batch})["logits"].argmax(axis=1) for runner in (one, two)]
    return float((classes[0] == classes[1]).mean())


@pytest.mark.parametrize("form", FORMS)
def test_an_easy_net_stays_in_int8(form: Int8Form, net: Path, tmp_path: Path) -> None:
    seen: list[Trial] = []
    choice = search_int8(
        net,
        tmp_path / "int8.onnx",
        form=form,
        calibration_sets=[REAL, [GENERATED[:30], GENERATED[30:]]],
        judge=JUDGE,
        max_drop=2.0,
        optimise=False,
        observer=seen.append,
    )
    assert choice.limit_held
    assert choice.float_groups == choice.float_nodes == ()
    assert choice.num_groups == 4
    assert choice.trials == tuple(seen)
    assert [trial.method for trial in choice.trials] == ["min-max", "entropy", "percentile"]
    assert {trial.num_images for trial in choice.trials} == {200}
    # The method with the smallest error of those that hold the limit.
    held = [trial for trial in seen if drop_points(trial.agreement) <= 2.0]
    assert choice.method == min(held, key=lambda trial: trial.logit_error).method
    assert choice.drop_points == drop_points(choice.agreement) <= 2.0
    assert choice.file.path == tmp_path / "int8.onnx"
    assert choice.agreement == agreement(net, choice.file.path, JUDGE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["int8.onnx"]  # no candidate is left


def test_the_hostile_net_computes_the_same_in_float(net: Path, hostile: Path) -> None:
    assert agreement(net, hostile, JUDGE) == 1.0


@pytest.mark.parametrize("form", FORMS)
def test_a_hostile_layer_goes_back_to_float(form: Int8Form, hostile: Path, tmp_path: Path) -> None:
    choice = search_int8(
        hostile, tmp_path / "int8.onnx", form=form, calibration_sets=[REAL, GENERATED], judge=JUDGE, max_drop=2.0
    )
    assert all(drop_points(trial.agreement) > 2.0 for trial in choice.trials[:3])
    assert choice.limit_held
    assert choice.float_groups == ("conv3",)  # relu2 is what one scale cannot hold
    assert choice.float_nodes == ("conv3", "sum")
    alone = {trial.float_groups[0]: trial.logit_error for trial in choice.trials[3:7]}
    assert min(alone, key=lambda name: alone[name]) == "conv3"
    assert {trial.num_images for trial in choice.trials[3:7]} == {int8_search.SENSITIVITY_IMAGES}
    proto = load_onnx(choice.file.path)
    convolution = next(node for node in proto.graph.node if node.name == "node_conv3")
    assert list(convolution.input) == ["relu2", "conv3.weight", "conv3.bias"]
    assert any(node.op_type == "QuantizeLinear" for node in proto.graph.node)


def test_a_limit_that_nothing_holds_is_said(hostile: Path, tmp_path: Path) -> None:
    """`finish` breaks every candidate, so that no choice of layers helps."""

    def finish(path: Path) -> None:
        proto = load_onnx(path)
        for tensor in proto.graph.initializer:
            if tensor.name == "fc.bias":
                bias = onnx.numpy_helper.to_array(tensor).copy()
                bias[0] += 100.0
                tensor.CopyFrom(onnx.numpy_helper.from_array(bias, tensor.name))
        path.write_bytes(proto.SerializeToString())

    choice = search_int8(
        hostile,
        tmp_path / "int8.onnx",
        form="tensorrt",
        calibration_sets=[REAL],
        judge=JUDGE,
        finish=finish,
    )
    assert not choice.limit_held
    assert choice.drop_points > 1.0
    assert len(choice.trials) == 3 + 4 + 3  # the methods, each group alone, all but the last group
    assert choice.agreement == max(trial.agreement for trial in choice.trials if trial.num_images == 200)
    assert len(choice.float_groups) < choice.num_groups
    # The file on disk went through `finish` as well, and is described as it lies there.
    assert choice.agreement == agreement(hostile, choice.file.path, JUDGE)
    assert choice.file.size_mib == choice.file.path.stat().st_size / 2**20


def test_same_arguments_same_choice_and_bytes(hostile: Path, tmp_path: Path) -> None:
    def search(name: str) -> Int8Choice:
        ranges = [collect_ranges(hostile, REAL), collect_ranges(hostile, GENERATED)]
        return search_int8(
            hostile, tmp_path / name, form="tensorrt", calibration_sets=ranges, judge=JUDGE[:100], max_drop=2.0
        )

    first, second = search("a.onnx"), search("b.onnx")
    assert first.file.path.read_bytes() == second.file.path.read_bytes()
    assert first.file.sha256 == second.file.sha256
    assert first.trials == second.trials


def test_a_fixed_batch_is_respected(net: Path, tmp_path: Path) -> None:
    fixed = residual_net(tmp_path / "fixed.onnx", batch=3)
    options = {"form": "tensorrt", "calibration_sets": [REAL[:7]], "judge": JUDGE[:50], "max_drop": 10.0}
    choice = search_int8(fixed, tmp_path / "a.onnx", **options)  # type: ignore[arg-type]
    free = search_int8(net, tmp_path / "b.onnx", **options)  # type: ignore[arg-type]
    assert choice.agreement == free.agreement
    assert choice.trials[0].logit_error == pytest.approx(free.trials[0].logit_error, rel=0.05)


def test_points_are_hundredths() -> None:
    assert drop_points(1.0) == 0.0
    assert drop_points(0.99) == 1.0  # and not 1.0000000000000009, which a limit of 1 would refuse
    assert drop_points(0.985) == 1.5


def test_a_logit_that_is_not_finite_never_agrees() -> None:
    reference = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    broken = np.array([[np.nan, 0.0], [0.0, 2.0]], np.float32)
    trial = int8_search._judged("min-max", [], [(reference, broken)], "classes")
    assert trial.logit_error == float("inf")
    assert trial.agreement == 0.5
    trial = int8_search._judged("min-max", [], [(reference, reference * np.float32(1.5))], "classes")
    assert trial.logit_error == pytest.approx(0.5)


def test_a_graph_without_layers_is_refused(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])
    logits = onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 3])
    axes = onnx.numpy_helper.from_array(np.array([2, 3]), "axes")
    node = onnx.helper.make_node("ReduceSum", ["image", "axes"], ["logits"], keepdims=0)
    graph = onnx.helper.make_graph([node], "sums", [value], [logits], [axes])
    source = tmp_path / "sums.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), source)
    with pytest.raises(ExportError) as caught:
        search_int8(source, tmp_path / "q.onnx", form="tensorrt", calibration_sets=[REAL], judge=JUDGE)
    assert "sums.onnx has nothing to quantise for tensorrt" in caught.value.received
    assert "fp16" in caught.value.action
    assert not (tmp_path / "q.onnx").exists()


@pytest.mark.parametrize(
    ("changes", "received", "action"),
    [
        ({"calibration_sets": []}, "0 sets", "real images"),
        ({"judge": JUDGE[:0]}, "(0, 3, 8, 8)", "for judging"),
        ({"judge": JUDGE[0]}, "(3, 8, 8)", "for judging"),
        ({"max_drop": -1.0}, "-1 points", "1"),
        ({"max_drop": float("nan")}, "nan points", "1"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(
    changes: dict[str, object], received: str, action: str, net: Path, tmp_path: Path
) -> None:
    arguments = {"form": "tensorrt", "calibration_sets": [REAL], "judge": JUDGE} | changes
    with pytest.raises(ExportError) as caught:
        search_int8(net, tmp_path / "q.onnx", **arguments)  # type: ignore[arg-type]
    assert received in caught.value.received
    assert action in caught.value.action
    assert list(tmp_path.iterdir()) == []
