"""The doctor tries things instead of believing lists, and survives every broken installation."""

from __future__ import annotations

import builtins
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from compressor import doctor
from compressor.doctor import Check, diagnose
from exporters import runners

NAMES = [
    "Python",
    "PyTorch",
    "torchvision",
    "GPU",
    "CPU",
    "memory",
    "disk",
    "ONNX Runtime",
    "ONNX Runtime on CUDA",
    "ONNX Runtime on TensorRT",
    "TensorRT",
    "TensorRT-RTX",
    "ssh",
    "scikit-learn",
]


@pytest.fixture
def no_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Child processes answer at once that nothing works."""
    monkeypatch.setattr(doctor, "_child", lambda _code, *_arguments: (False, "not tried"))


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    """Make imports of the named packages fail."""
    real = builtins.__import__

    def guarded(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", guarded)


def one(name: str, checks: list[Check]) -> Check:
    return next(check for check in checks if check.name == name)


def test_every_finding_that_is_not_good_comes_with_advice(no_children: None, tmp_path: Path) -> None:
    checks = diagnose(tmp_path)
    assert [check.name for check in checks] == NAMES
    assert one("PyTorch", checks).found.startswith(torch.__version__)
    for check in checks:
        assert check.found
        assert check.state in ("ok", "missing", "warning")
        assert (check.state == "ok") == (check.advice == "")
        assert check.to_dict()["name"] == check.name


def test_importing_the_doctor_imports_nothing_heavy() -> None:
    code = "import sys, compressor.doctor; print({'torch', 'numpy', 'onnx', 'onnxruntime'} & set(sys.modules))"
    root = Path(doctor.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_nothing_stops_the_doctor(no_children: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without(monkeypatch, "torch", "torchvision", "onnxruntime", "exporters")
    monkeypatch.setattr(doctor, "MEMORY_INFO", tmp_path / "absent")
    monkeypatch.setattr(doctor, "find_spec", lambda _name: 1 / 0)
    checks = diagnose(tmp_path)
    assert [check.name for check in checks] == NAMES
    assert one("PyTorch", checks).state == "missing"
    assert "No module named 'torch'" in one("PyTorch", checks).found
    assert "pip install torch torchvision" in one("PyTorch", checks).advice
    assert "cannot be examined: ModuleNotFoundError" in one("GPU", checks).found
    assert "cannot be examined: FileNotFoundError" in one("memory", checks).found
    assert "cannot be examined: ZeroDivisionError" in one("TensorRT", checks).found


# --- torch and the GPU -------------------------------------------------------------------------------------


def test_a_torchvision_of_another_release_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision

    def mismatch(*_arguments: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(torchvision.ops, "nms", mismatch)
    state, found, advice = doctor._torchvision()
    assert state == "missing"
    assert "operator torchvision::nms does not exist" in found
    assert "pip install --force-reinstall torch torchvision" in advice


def test_a_machine_without_a_gpu_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", "13.2")
    assert doctor._gpu()[:2] == ("missing", "no usable NVIDIA driver or device")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert doctor._gpu()[:2] == ("missing", "PyTorch is built for CPU")


def test_a_gpu_that_torch_was_not_built_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _index: (5, 3))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _index: "Old GPU")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: properties)

    def no_kernel(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available\nmore")

    monkeypatch.setattr(torch, "ones", no_kernel)
    state, found, advice = doctor._gpu()
    assert state == "warning"
    assert found.startswith("Old GPU, 8 GiB, compute capability 5.3, does not compute:")
    assert found.endswith("no kernel image is available")
    assert "--device cpu" in advice


@pytest.mark.gpu
def test_a_gpu_that_computes_is_good() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    assert doctor._gpu()[0] == "ok"


# --- the machine -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "state", "found"),
    [
        ("flags\t\t: fpu avx512f amx_bf16 amx_tile avx512_bf16\n", "ok", "fast bf16 (amx_bf16, avx512_bf16)"),
        ("Features\t: fp asimd bf16 i8mm\n", "ok", "fast bf16 (bf16)"),
        ("flags\t\t: fpu avx2 avx512f\n", "warning", "no bf16 units"),
        (None, "warning", "bf16 unknown"),
    ],
)
def test_bf16_is_read_from_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, state: str, found: str
) -> None:
    info = tmp_path / "cpuinfo"
    if text is not None:
        info.write_text(text)
    monkeypatch.setattr(doctor, "CPU_INFO", info)
    answer = doctor._cpu()
    assert answer[0] == state
    assert answer[1].endswith(found)


@pytest.mark.parametrize(
    ("limit", "state", "found"),
    [
        ("max\n", "ok", "12.0 of 16.0 GiB available"),
        (f"{8 * 2**30}\n", "ok", "8.0 of 8.0 GiB available"),
        (f"{2 * 2**30}\n", "warning", "2.0 of 2.0 GiB available"),
        (None, "ok", "12.0 of 16.0 GiB available"),
    ],
)
def test_memory_is_the_share_of_the_container(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, limit: str | None, state: str, found: str
) -> None:
    info, share = tmp_path / "meminfo", tmp_path / "memory.max"
    info.write_text(f"MemTotal: {16 * 2**20} kB\nMemAvailable: {12 * 2**20} kB\nHugePages_Total: 0\n")
    if limit is not None:
        share.write_text(limit)
    monkeypatch.setattr(doctor, "MEMORY_INFO", info)
    monkeypatch.setattr(doctor, "MEMORY_LIMIT", share)
    assert doctor._memory()[:2] == (state, found)


def test_disk_is_asked_where_the_run_will_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[Path] = []

    def disk_usage(path: Path) -> Any:
        asked.append(path)
        return SimpleNamespace(free=2**30)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    state, found, advice = doctor._disk(tmp_path / "runs" / "new")
    assert asked == [tmp_path]
    assert (state, found) == ("warning", f"1.0 GiB free at {tmp_path}")
    assert "--out" in advice


# --- ONNX Runtime and TensorRT -----------------------------------------------------------------------------


def test_both_onnxruntime_packages_at_once_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "version", lambda _package: "1.31.1")
    state, found, advice = doctor._onnxruntime()
    assert state == "warning"
    assert "onnxruntime 1.31.1 and onnxruntime-gpu 1.31.1 are both installed" in found
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in advice


def test_a_session_on_the_cpu_really_runs() -> None:
    assert doctor._provider("CPUExecutionProvider", "nothing") == ("ok", "a session runs", "")


@pytest.mark.skipif(torch.cuda.is_available(), reason="the fallback happens without a GPU")
def test_a_silent_fallback_is_not_called_cuda() -> None:
    """ONNX Runtime's GPU build lists CUDA on every machine; the answer must come from the session."""
    state, found, advice = doctor._provider("CUDAExecutionProvider", "a GPU")
    assert state == "missing"
    assert "CUDAExecutionProvider" in found
    assert "a GPU" in advice


def test_native_packages_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    state, found, advice = doctor._native_package("no_such_module", "tensorrt", "build engines")
    assert (state, found) == ("missing", "not installed")
    assert "pip install 'compress-edge[tensorrt]'" in advice
    monkeypatch.setattr(doctor, "find_spec", lambda _name: object())
    monkeypatch.setattr(doctor, "_child", lambda _code: (False, "ImportError: libnvinfer.so.11: no such file"))
    state, found, _ = doctor._native_package("tensorrt", "tensorrt", "build engines")
    assert (state, found) == ("missing", "does not load: ImportError: libnvinfer.so.11: no such file")
    monkeypatch.setattr(doctor, "_child", lambda _code: (True, "10.13.3"))
    assert doctor._native_package("tensorrt", "tensorrt", "build engines") == ("ok", "10.13.3", "")


def test_the_demo_needs_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(doctor, "version", absent)
    state, _, advice = doctor._sklearn()
    assert state == "missing"
    assert "compress-edge[demo]" in advice


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("print('noise'); print('1.2.3')", (True, "1.2.3")),
        ("raise ImportError('libnvinfer.so.11')", (False, "ImportError: libnvinfer.so.11")),
        ("import os; os.abort()", (False, "ended by signal 6")),
        ("import sys; sys.exit(3)", (False, "exit code 3")),
    ],
)
def test_a_child_answers_in_one_line_even_when_it_dies(code: str, answer: tuple[bool, str]) -> None:
    assert doctor._child(code) == answer


def test_a_child_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "CHILD_TIMEOUT_S", 0.2)
    assert doctor._child("import time; time.sleep(60)") == (False, "no answer in 0.2 s")


@pytest.mark.parametrize(("there", "found"), [((), "no ssh and no scp"), (("ssh",), "no scp")])
def test_without_a_client_a_kit_is_copied_by_hand(
    there: tuple[str, ...], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda name: f"/usr/bin/{name}" if name in there else None)
    state, said, advice = doctor._ssh()
    assert (state, said) == ("missing", found)
    assert "copied by hand" in advice
