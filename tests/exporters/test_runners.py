from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, save
from torch import nn

from exporters import runners
from exporters.errors import ExportError
from exporters.onnx_files import OnnxFile
from exporters.runners import OnnxRunner, TorchRunner, onnxruntime_conflict


def assert_three_sentences(error: ExportError, received: str) -> None:
    for sentence in (error.received, error.expected, error.action):
        assert sentence.endswith(".")
    assert received in error.received


def images(*shape: int) -> NDArray[np.float32]:
    return np.full(shape, 0.5, dtype=np.float32)


@pytest.mark.parametrize("optimise", [True, False])
@pytest.mark.parametrize("threads", [1, None])
def test_onnx_runner_gives_named_logits(exported: OnnxFile, threads: int | None, optimise: bool) -> None:
    with OnnxRunner(exported.path, threads=threads, optimise=optimise) as runner:
        outputs = runner.infer({"image": images(4, 3, 8, 8)})
    assert list(outputs) == ["logits"]
    assert outputs["logits"].shape == (4, 5)
    assert outputs["logits"].dtype == np.float32
    assert str(runner) == "student.onnx on CPUExecutionProvider"


@pytest.mark.parametrize(
    ("feed", "received"),
    [
        ({"images": images(1, 3, 8, 8)}, "inputs 'images'"),
        ({}, "inputs none"),
        ({"image": images(1, 3, 8, 8), "mask": images(1)}, "inputs 'image', 'mask'"),
        ({"image": images(1, 3, 8, 9)}, "image float32 (1, 3, 8, 9)"),
        ({"image": images(3, 8, 8)}, "image float32 (3, 8, 8)"),
        ({"image": images(1, 3, 8, 8).astype(np.float64)}, "image float64 (1, 3, 8, 8)"),
    ],
)
def test_a_feed_that_does_not_fit(exported: OnnxFile, feed: dict[str, NDArray[Any]], received: str) -> None:
    with OnnxRunner(exported.path) as runner, pytest.raises(ExportError) as caught:
        runner.infer(feed)
    assert_three_sentences(caught.value, f"student.onnx was given {received}.")
    assert caught.value.expected == "It takes image float32 (batch, 3, 8, 8)."
    assert "Pass arrays" in caught.value.action


def test_a_graph_that_fails_at_some_batch_size(tmp_path: Path) -> None:
    # Its input says any batch, its Reshape says two images.
    tensor, shape = helper.make_tensor_value_info, helper.make_tensor("shape", TensorProto.INT64, [2], [2, 4])
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["image", "shape"], ["logits"])],
        "baked",
        [tensor("image", TensorProto.FLOAT, ["batch", 4])],
        [tensor("logits", TensorProto.FLOAT, ["batch", 4])],
        [shape],
    )
    path = tmp_path / "baked.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    with OnnxRunner(path) as runner:
        assert runner.infer({"image": images(2, 4)})["logits"].shape == (2, 4)
        with pytest.raises(ExportError) as caught:
            runner.infer({"image": images(3, 4)})
    assert_three_sentences(caught.value, "failed in baked.onnx on image (3, 4)")
    assert "Reshape" in caught.value.received
    assert "Export the model again" in caught.value.action


def test_a_damaged_file(tmp_path: Path, exported: OnnxFile) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(exported.path.read_bytes()[:200])
    with pytest.raises(ExportError) as caught:
        OnnxRunner(path)
    assert_three_sentences(caught.value, "cut.onnx on CPUExecutionProvider")
    assert "Export the file again" in caught.value.action


def test_an_unknown_provider(exported: OnnxFile) -> None:
    with pytest.raises(ExportError) as caught:
        OnnxRunner(exported.path, provider="CPU")
    assert_three_sentences(caught.value, "'CPU'")
    assert "CPUExecutionProvider" in caught.value.expected


def test_a_silent_fallback_is_refused(exported: OnnxFile, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["FastExecutionProvider"])
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, *_args, **_kwargs: real(path, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(ExportError) as caught:
        OnnxRunner(exported.path, provider="FastExecutionProvider")
    assert_three_sentences(
        caught.value,
        "fell back to CPUExecutionProvider for student.onnx although FastExecutionProvider was asked for",
    )
    assert "report its numbers under that name" in caught.value.action


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for CUDA where there is none")
def test_cuda_is_never_answered_by_the_cpu(exported: OnnxFile) -> None:
    # Fallback with onnxruntime-gpu, an unknown provider with onnxruntime: refused either way.
    with pytest.raises(ExportError, match="CUDAExecutionProvider"):
        OnnxRunner(exported.path, provider="CUDAExecutionProvider")


def test_a_missing_onnxruntime(exported: OnnxFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(onnxruntime, "InferenceSession")
    with pytest.raises(ExportError) as caught:
        OnnxRunner(exported.path)
    assert_three_sentences(caught.value, "InferenceSession")
    assert "pip" in caught.value.action


def test_torch_runner_evaluates_and_gives_the_model_back(classifier: nn.Module) -> None:
    modes = [module.training for module in classifier.modules()]
    with TorchRunner(classifier) as runner:
        assert not any(module.training for module in classifier.modules())
        first, second = (runner.infer({"image": images(3, 3, 8, 8)})["logits"] for _ in range(2))
        assert str(runner) == "Classifier in torch on cpu"
    np.testing.assert_array_equal(first, second)  # with dropout on they would differ
    assert first.shape == (3, 5)
    assert [module.training for module in classifier.modules()] == modes


def test_torch_runner_takes_image_only(classifier: nn.Module) -> None:
    with TorchRunner(classifier) as runner, pytest.raises(ExportError) as caught:
        runner.infer({"x": images(1, 3, 8, 8)})
    assert_three_sentences(caught.value, "'x'")
    assert "'image'" in caught.value.action


def test_conflicting_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"onnxruntime-gpu": "1.31.1"}

    def version(package: str) -> str:
        if package not in installed:
            raise PackageNotFoundError(package)
        return installed[package]

    monkeypatch.setattr(runners, "version", version)
    assert onnxruntime_conflict() is None
    installed["onnxruntime"] = "1.30.0"
    message = onnxruntime_conflict()
    assert message is not None
    assert message.startswith("onnxruntime 1.30.0 and onnxruntime-gpu 1.31.1 are both installed.")
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in message


def test_importing_runners_needs_neither_torch_nor_onnxruntime_nor_compressor() -> None:
    code = (
        "import sys, exporters.runners, exporters.parity; "
        "print(sorted({'torch', 'onnx', 'onnxruntime', 'compressor'} & set(sys.modules)))"
    )
    root = Path(runners.__file__).parents[1]
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
