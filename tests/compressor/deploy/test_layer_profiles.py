"""Layers of a file that really runs in ONNX Runtime, and of an engine of the stand-in for TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import fake_tensorrt
import numpy as np
import pytest
import tiny_onnx

from compressor.deploy.layer_profiles import (
    FEWEST_CALLS,
    MOST_CALLS,
    MOST_LAYERS,
    engine_layers,
    longest_layers,
    onnx_layers,
    profiles_of_networks,
)
from compressor.deploy.variants import Variant
from exporters.engine_card import BatchProfile
from exporters.errors import ExportError
from exporters.onnx_to_tensorrt import engine_from_onnx
from exporters.tensorrt_backend import load_backend
from profiles.layer_times import LayerTime, LayerTimes
from profiles.schema import Precision


def images(count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.full((count, *tiny_onnx.IMAGE_SHAPE), 0.5, np.float32)


@pytest.mark.parametrize("optimise", [True, False])
def test_onnx_runtime_says_what_it_ran(tmp_path: Path, optimise: bool) -> None:
    times = onnx_layers(tiny_onnx.write(tmp_path / "m.onnx"), images(2), threads=1, optimise=optimise)
    assert FEWEST_CALLS <= times.calls <= MOST_CALLS
    assert (times.batch_size, times.threads) == (2, 1)
    assert sum(layer.share for layer in times.layers) == pytest.approx(1)
    conv, linear = (next(layer for layer in times.layers if kind in layer.operator) for kind in ("Conv", "Gemm"))
    assert (conv.module, conv.macs) == ("body.conv", 2 * 8 * 64 * 27)
    assert (linear.module, linear.macs) == ("head", 2 * 4 * 8)
    assert all(layer.time_ms >= 0 for layer in times.layers)
    assert any(layer.operator == "Relu" for layer in times.layers) != optimise  # else it is part of the convolution
    assert [*tmp_path.iterdir()] == [tmp_path / "m.onnx"]  # the profile itself is gone


def layer(index: int, time_ms: float) -> LayerTime:
    return LayerTime(name=f"layer {index}", module="", operator="Conv", time_ms=time_ms, share=0.01)


def test_the_longest_layers_stay_in_order() -> None:
    layers = tuple(layer(index, 1.0 if index % 3 == 0 else 2.0 + index) for index in range(70))
    times = LayerTimes(source="ONNX Runtime's profile", batch_size=1, threads=1, calls=8, sum_ms=100.0, layers=layers)
    kept = longest_layers(times)
    assert len(kept) == MOST_LAYERS
    assert list(kept) == [one for one in layers if one.time_ms > 1.0][-MOST_LAYERS:]
    few = times.model_copy(update={"layers": layers[:5]})
    assert longest_layers(few) == layers[:5]


def test_both_networks_are_profiled_as_they_were_timed(tmp_path: Path) -> None:
    for name in ("student", "teacher"):
        tiny_onnx.write(tmp_path / f"{name}.onnx")
    rows: list[tuple[Literal["student", "teacher"], Precision, str | None]] = [
        ("student", "fp32", "student.onnx"),
        ("student", "int8", "student.onnx"),
        ("teacher", "fp32", "teacher.onnx"),
    ]
    variants = [Variant(model, precision, file, "ONNX Runtime") for model, precision, file in rows]
    timed = {"batch_size": 2, "threads": 1}
    latencies = {variant.key: timed for variant in variants}
    said: list[str] = []
    found = profiles_of_networks(variants, latencies, tmp_path, tiny_onnx.IMAGE_SHAPE, said.append)
    assert [(one.artefact, one.batch_size) for one in found] == [("student fp32", 2), ("teacher fp32", 2)]
    assert all(one.num_layers == len(one.layers) > 0 and one.sum_ms > 0 and one.device for one in found)
    assert said == []

    skipped = {**latencies, "student.fp32": {"skipped": "made for something else"}}
    (only,) = profiles_of_networks(variants, skipped, tmp_path, tiny_onnx.IMAGE_SHAPE, said.append)
    assert only.artefact == "teacher fp32"
    tiny_onnx.write(tmp_path / "teacher.onnx", batch=1)  # it takes no batch of two
    assert profiles_of_networks(variants, skipped, tmp_path, tiny_onnx.IMAGE_SHAPE, said.append) == []
    assert "gave no profile of teacher.onnx" in said[0]


def test_a_file_that_does_not_run_is_told(tmp_path: Path) -> None:
    path = tiny_onnx.write(tmp_path / "m.onnx", batch=1)
    with pytest.raises(ExportError) as error:
        onnx_layers(path, images(2), threads=1, optimise=True)
    assert "gave no profile of m.onnx" in error.value.received
    assert error.value.action.endswith(".")


class Profiler:
    """TensorRT's base class of profilers."""

    def __init__(self) -> None:
        self.made = True


def test_an_engine_reports_its_layers_at_every_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trt = fake_tensorrt.install(monkeypatch)
    trt.IProfiler = Profiler
    execute = fake_tensorrt.Context.execute_async_v3

    def reporting(context: Any, stream: int) -> bool:
        if context.enqueue_emits_profile:
            context.profiler.report_layer_time("node_conv + node_relu", 0.75)
            context.profiler.report_layer_time("node_linear", 0.25)
        return execute(context, stream)

    monkeypatch.setattr(fake_tensorrt.Context, "execute_async_v3", reporting)
    source, engine = tiny_onnx.write(tmp_path / "m.onnx"), tmp_path / "m.engine"
    monkeypatch.setattr(
        fake_tensorrt.Engine,
        "get_tensor_shape",
        lambda _engine, name: (-1, 3, 8, 8) if name == "image" else (-1, 5),
    )
    engine_from_onnx(
        source,
        engine,
        backend=load_backend("tensorrt"),
        precision="fp32",
        rebuild="make engine",
        preprocessing={},
        batch=BatchProfile(min=1, opt=1, max=4),
    )
    times = engine_layers(engine, images(2), source)
    assert times.source == "TensorRT's profiler"
    assert [(layer.module, layer.operator) for layer in times.layers] == [("body.conv", "Conv+Relu"), ("head", "Gemm")]
    assert [layer.time_ms for layer in times.layers] == [0.75, 0.25]
    assert FEWEST_CALLS <= times.calls <= MOST_CALLS
    nameless = engine_layers(engine, images(1), None)
    assert [layer.operator for layer in nameless.layers] == ["", ""]
