"""Why this machine builds no engine for a target: each reason, and none where it can."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compressor.deploy import engines
from compressor.deploy.engines import build_engines_here, engine_environment, why_no_engine
from compressor.deploy.variants import Variant
from exporters.engine_card import BatchProfile
from exporters.errors import ExportError
from exporters.runners import OnnxRunner
from exporters.tensorrt_backend import Backend, Gpu, TensorRTMissing
from exporters.torch_to_onnx import onnx_from_torch
from profiles.catalogue import load_target

T4 = Gpu("Tesla T4", "7.5", "13.0")


def machine(monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None, version: str | None) -> None:
    """A machine with that GPU and that TensorRT."""

    def load(name: Any) -> Backend:
        if version is None:
            raise TensorRTMissing("TensorRT is not installed.", "It was expected.", "Run `pip install`.")
        return Backend(name, object(), version)

    monkeypatch.setattr(engines, "usable_gpu", lambda: gpu)
    monkeypatch.setattr(engines, "load_backend", load)


@pytest.mark.parametrize(
    ("target", "gpu", "version", "reason"),
    [
        ("cpu", T4, "10.13.3", "runs ONNX Runtime"),
        ("jetson", T4, "10.13.3", "can only be built on it, which the kit does"),
        ("t4", None, "10.13.3", "this machine has no GPU; the kit builds it there"),
        ("t4", Gpu("NVIDIA L4", "8.9", "13.0"), "10.13.3", "this machine has NVIDIA L4 (compute capability 8.9)"),
        ("t4", T4, None, "TensorRT is not installed. Run `pip install`."),
        ("t4", T4, "12.0.1", "TensorRT 12.0.1 is installed, and NVIDIA T4 16 GB is said to run 10.0 to 11"),
        ("t4", T4, "10.13.3", None),
        ("t4", T4, "11.4.0.106", None),
    ],
)
def test_the_reason(
    target: str, gpu: Gpu | None, version: str | None, reason: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, gpu, version)
    found = why_no_engine(load_target(target))
    assert found is None if reason is None else found is not None and reason in found


def test_nothing_is_built_where_nothing_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, None, None)
    rows, reason = build_engines_here([], tmp_path, tmp_path, load_target("jetson"), max_batch=1, note=pytest.fail)
    assert rows == []
    assert str(reason).startswith("skipped: an engine for NVIDIA Jetson Orin Nano Super 8 GB")
    assert engine_environment() == {"tensorrt": "none", "gpu": "none"}


def test_the_fingerprint_knows_gpu_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, T4, "10.13.3")
    assert engine_environment() == {"tensorrt": "TensorRT 10.13.3", "gpu": "Tesla T4, CUDA 13.0"}


def test_engines_are_rows_and_one_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The builder and the runner are stand-ins: what is tested is what becomes of their answers."""
    machine(monkeypatch, T4, "10.13.3")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5)).eval()
    (tmp_path / "onnx").mkdir()
    (tmp_path / "engine").mkdir()
    file = onnx_from_torch(network, (3, 8, 8), tmp_path / "onnx/student.onnx", opset_ceiling=20, metadata={})
    asked: list[dict[str, Any]] = []

    def build(source: Path, path: Path, **options: Any) -> Any:
        asked.append(options)
        if options["precision"] == "int8":
            raise ExportError("TensorRT refused the graph.", "It was expected to build.", "Look at the node.")
        path.write_bytes(b"engine")
        return SimpleNamespace(path=path, size_mib=1.5, build_s=2.0, card=SimpleNamespace(engine_sha256="0" * 64))

    monkeypatch.setattr(engines, "engine_from_onnx", build)
    monkeypatch.setattr(engines, "TensorRTRunner", lambda _path: OnnxRunner(file.path))
    variants = [
        Variant("student", precision, "onnx/student.onnx", "TensorRT", 1.0, file.sha256)
        for precision in ("fp32", "int8")
    ] + [Variant("student", "fp16", None, "TensorRT", note="not made: a reason")]
    lines: list[str] = []
    rows, reason = build_engines_here(
        variants, tmp_path, tmp_path / "engine", load_target("t4"), max_batch=4, note=lines.append
    )
    assert reason is None
    assert [(row["precision"], row["format"], row["file"]) for row in rows] == [
        ("fp32", "engine", "engine/student.fp32.engine"),
        ("int8", "engine", None),
    ]
    assert rows[0]["parity"]["max_abs"] == 0.0
    assert rows[0]["made_for"] == "TensorRT 10.13.3 on NVIDIA T4 16 GB"
    assert rows[1]["note"] == "not built: TensorRT refused the graph."
    assert asked[0]["batch"] == BatchProfile(min=1, opt=1, max=4)
    assert asked[0]["workspace_mib"] == 4096
    assert len(lines) == 1
