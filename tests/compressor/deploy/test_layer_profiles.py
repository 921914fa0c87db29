"""Layers of a file that really runs in ONNX Runtime, and of an engine of the stand-in for TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
import tiny_onnx

from compressor.deploy.layer_profiles import FEWEST_CALLS, MOST_CALLS, engine_layers, onnx_layers
from exporters.engine_card import BatchProfile
from exporters.errors import ExportError
from exporters.onnx_to_tensorrt import engine_from_onnx
from exporters.tensorrt_backend import load_backend


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
