from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_tensorrt import FakeTensorRT, install
from numpy.typing import NDArray

from exporters.engine_card import BatchProfile, EngineRefused
from exporters.errors import ExportError
from exporters.onnx_files import OnnxFile
from exporters.onnx_to_tensorrt import engine_from_onnx
from exporters.runners import TensorRTRunner
from exporters.tensorrt_backend import load_backend


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> FakeTensorRT:
    return install(monkeypatch)


@pytest.fixture
def engine(trt: FakeTensorRT, exported: OnnxFile, tmp_path: Path) -> Path:
    path = tmp_path / "student.engine"
    engine_from_onnx(
        exported.path,
        path,
        backend=load_backend("tensorrt"),
        precision="fp32",
        rebuild="make engine",
        preprocessing={},
        batch=BatchProfile(min=1, opt=1, max=4),
    )
    trt.calls.clear()
    return path


def images(count: int, value: float = 0.5) -> NDArray[np.float32]:
    return np.full((count, 3, 8, 8), value, dtype=np.float32)


def test_arrays_go_through_the_addresses_that_tensorrt_was_told(trt: FakeTensorRT, engine: Path) -> None:
    with TensorRTRunner(engine) as runner:
        assert [str(spec) for spec in runner.inputs] == ["image float32 (batch, 3, 8, 8)"]
        assert str(runner) == "student.engine in TensorRT 10.13.3.9"
        for count, value in ((2, 0.5), (2, 0.25), (1, 0.75), (2, 0.0)):
            logits = runner.infer({"image": images(count, value)})["logits"]
            np.testing.assert_array_equal(logits, np.full((count, 5), value + 1, np.float32))
    addresses = [("set_tensor_address", "image"), ("set_tensor_address", "logits")]
    run = [("execute_async_v3", 77), ("synchronize",)]
    one, two = (("set_input_shape", "image", (count, 3, 8, 8)) for count in (1, 2))
    assert trt.calls == [two, *addresses, *run, *run, one, *addresses, *run, two, *addresses, *run]


def test_a_cuda_graph_is_captured_once_for_a_batch_size_after_a_warm_up(
    trt: FakeTensorRT, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[str] = []

    class Graph:
        def replay(self) -> None:
            runs.append("replay")
            runner._context.execute_async_v3(77)

    @contextmanager
    def capture(graph: Graph, stream: Any) -> Iterator[None]:
        runs.append("capture")
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    with TensorRTRunner(engine, cuda_graph=True) as runner:
        for value in (0.5, 0.25):
            assert runner.infer({"image": images(2, value)})["logits"][0, 0] == 1 + value
        assert runs == ["capture", "replay", "replay"]
        executed = [call[0] for call in trt.calls if call[0] in ("execute_async_v3", "synchronize")]
        assert executed[:3] == ["execute_async_v3", "synchronize", "execute_async_v3"]  # warm-up, capture
        runner.infer({"image": images(1)})
        runner.infer({"image": images(2)})
        assert runs.count("capture") == 2


def test_a_feed_that_does_not_fit(engine: Path) -> None:
    with TensorRTRunner(engine) as runner:
        with pytest.raises(ExportError, match=r"student.engine was given image float32 \(1, 3, 8, 9\)"):
            runner.infer({"image": np.zeros((1, 3, 8, 9), np.float32)})
        with pytest.raises(ExportError) as caught:
            runner.infer({"image": images(5)})
        assert caught.value.received == "student.engine was given image (5, 3, 8, 8)."
        assert caught.value.expected == "It was built for a batch of 1 to 4, best at 1."
        assert "build the engine for another one" in caught.value.action
        assert runner.infer({"image": images(1)})["logits"][0, 0] == 1.5  # and goes on


@pytest.mark.parametrize("failure", ["open_fails", "execute_fails"])
def test_what_tensorrt_said_is_told(trt: FakeTensorRT, engine: Path, failure: str) -> None:
    setattr(trt, failure, True)
    with pytest.raises(ExportError) as caught, TensorRTRunner(engine) as runner:
        runner.infer({"image": images(1)})
    said = {"open_fails": "could not be opened: out of memory", "execute_fails": "failed while it ran: no reason given"}
    assert caught.value.received == f"The engine student.engine {said[failure]}."
    assert caught.value.action.endswith("build it again: make engine.")


def test_an_engine_of_another_version_is_never_opened(trt: FakeTensorRT, engine: Path) -> None:
    trt.__version__ = "10.14.1"
    with pytest.raises(EngineRefused, match=r"was built for TensorRT 10\.13\.3\.9\. Here is TensorRT 10\.14\.1\."):
        TensorRTRunner(engine)
    assert trt.calls == []
