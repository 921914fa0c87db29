"""Why this machine builds no engine for a target: each reason, and none where it can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compressor.deploy import engines
from compressor.deploy.engines import build_engines_here, engine_environment, why_no_engine
from exporters.tensorrt_backend import Backend, Gpu, TensorRTMissing
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
