"""Results of a board: what counts for a run, what is refused, and what becomes of the numbers."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import MISSING, start_loopback

from compressor.deploy.board_results import StaleResult, accept_result, latencies_of, merged_result
from compressor.errors import exit_code_of
from compressor.stage_files import save_facts
from profiles.board_result import BoardResultError, content_digest
from profiles.catalogue import load_target
from profiles.errors import ToolError
from profiles.schema import DeviceProfile

TARGET = "jetson-orin-nano-super"
FP16, INT8 = hashlib.sha256(b"fp16").hexdigest(), hashlib.sha256(b"int8").hexdigest()
MANIFEST = json.dumps({"target": TARGET, "models": []}).encode()

LATENCY = {
    "p50_ms": 1.5,
    "p90_ms": 1.625,
    "p99_ms": 2.0,
    "mean_ms": 1.53,
    "count": 6500,
    "batch_size": 1,
    "throughput_ips": 650.0,
    "what": "gpu compute",
}


def model(precision: str, sha256: str, **changes: Any) -> dict[str, Any]:
    return {
        "name": "student",
        "precision": precision,
        "file": f"models/student.{precision}.onnx",
        "sha256": sha256,
        "status": "ok",
        "reason": None,
        "parity": {"count": 8, "max_abs": 0.01, "max_rel": 0.002, "top1_agreement": 1.0},
        "build_s": 42.0,
        "engine_bytes": 1_000_000,
        "latency": LATENCY,
        "warnings": [],
    } | changes


RESULT: dict[str, Any] = {
    "schema_version": "1.0",
    "kit_sha256": hashlib.sha256(MANIFEST).hexdigest(),
    "target": TARGET,
    "simulated": False,
    "mismatches": [],
    "started": "2026-11-20T12:00:00Z",
    "board": {
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "jetpack": "6.2",
        "l4t": "36.4.3",
        "os": "Ubuntu 22.04.5 LTS",
        "architecture": "aarch64",
        "cpu": None,
        "power_mode": "MAXN_SUPER",
        "clocks": {"gpu": 918, "gpu_min": 918, "gpu_max": 918, "cpu": 1344},
        "clocks_locked": True,
    },
    "runtime": {"name": "tensorrt", "version": "10.3.0"},
    "models": [model("fp16", FP16), model("int8", INT8, warnings=["GPU compute time is unstable, with 4 %."])],
}


def write_result(path: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> Path:
    """A result with a right digest."""
    result = copy.deepcopy(RESULT)
    change(result)
    content = json.dumps({**result, "digest": "0" * 64}, indent=2).encode()
    path.write_bytes(content.replace(b"0" * 64, content_digest(content).encode()))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with what a result is checked against."""
    folder = tmp_path / "run"
    (folder / "precision").mkdir(parents=True)
    (folder / "kit").mkdir()
    hold(folder, fp16=FP16, int8=INT8)
    with tarfile.open(folder / "kit" / "kit.tar.gz", "w:gz") as content:
        for name, data in (("kit/models/manifest.json", b"another"), ("kit/manifest.json", MANIFEST)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            content.addfile(member, io.BytesIO(data))
    return folder


def hold(folder: Path, **files: str | None) -> None:
    """Let the run hold these files of its student."""
    variants = [{"model": "student", "precision": name, "sha256": sha256} for name, sha256 in files.items()]
    save_facts(folder / "precision", variants=variants)


def refused(error: ToolError, *words: str) -> None:
    assert exit_code_of(error) == 6
    for sentence in (error.received, error.expected, error.action):
        assert sentence.endswith("."), sentence
    for word in words:
        assert word in str(error)


# ---- what counts ------------------------------------------------------------------------------------------------


def test_a_result_of_the_run_is_kept_whole(run: Path, tmp_path: Path) -> None:
    path = write_result(tmp_path / "result.json")
    assert merged_result(run, TARGET) is None
    result = accept_result(run, path)
    assert (run / "merged" / f"{TARGET}.json").read_bytes() == path.read_bytes()
    assert [file.name for file in (run / "merged").iterdir()] == [f"{TARGET}.json"]
    assert merged_result(run, TARGET) == result
    assert merged_result(run, "t4") is None


def test_a_later_result_replaces_an_earlier_one(run: Path, tmp_path: Path) -> None:
    accept_result(run, write_result(tmp_path / "one.json"))
    later = accept_result(run, write_result(tmp_path / "two.json", lambda r: r["models"].pop()))
    assert merged_result(run, TARGET) == later


def test_a_model_that_was_damaged_on_the_way_does_not_spoil_the_others(run: Path, tmp_path: Path) -> None:
    nothing = {"status": "failed", "reason": "The file is damaged.", "parity": None, "latency": None}
    path = write_result(tmp_path / "r.json", lambda r: r["models"][1].update(nothing, sha256="f" * 64))
    result = accept_result(run, path)
    assert set(latencies_of(result, load_target(TARGET))) == {"student.fp16"}


def test_the_numbers_keep_their_origin(run: Path, tmp_path: Path) -> None:
    latencies = latencies_of(accept_result(run, write_result(tmp_path / "r.json")), load_target(TARGET))
    assert set(latencies) == {"student.fp16", "student.int8"}
    half = latencies["student.fp16"]
    assert (half.origin, half.is_target, half.what) == ("merged", True, "gpu compute")
    assert (half.device, half.runtime) == ("NVIDIA Jetson Orin Nano Developer Kit", "TensorRT")
    assert half.versions == {
        "jetpack": "6.2",
        "l4t": "36.4.3",
        "os": "Ubuntu 22.04.5 LTS",
        "architecture": "aarch64",
        "tensorrt": "10.3.0",
    }
    assert (half.latency_p50_ms, half.latency_p90_ms, half.latency_p99_ms) == (1.5, 1.625, 2.0)
    assert (half.throughput_ips, half.count, half.batch_size, half.cpu_mhz) == (650.0, 6500, 1, 1344)
    assert half.conditions == (
        "power mode MAXN_SUPER",
        "clocks in MHz: gpu 918, gpu min 918, gpu max 918, cpu 1344, locked",
    )
    assert half.warnings == ()
    assert half.stable
    # Nothing is made up for what the board did not say.
    assert half.latency_p50_interval_ms is None
    assert half.interval_confidence is None
    assert half.warmup_count is None
    assert half.num_windows is None

    assert not latencies["student.int8"].stable
    assert latencies["student.int8"].warnings == ("GPU compute time is unstable, with 4 %.",)


def test_a_jetson_at_large_is_doubted(run: Path, tmp_path: Path) -> None:
    path = write_result(tmp_path / "r.json", lambda r: r["board"].update(power_mode=None, clocks_locked=False))
    result = accept_result(run, path)
    assert latencies_of(result, load_target(TARGET))["student.fp16"].warnings == (
        "The board did not say its power mode.",
        "The board's clocks were not locked with jetson_clocks, so they may have changed meanwhile.",
    )
    assert latencies_of(result, load_target("t4"))["student.fp16"].warnings == ()


def test_a_jetson_in_another_power_mode_is_doubted(run: Path, tmp_path: Path) -> None:
    result = accept_result(run, write_result(tmp_path / "r.json", lambda r: r["board"].update(power_mode="25W")))
    assert latencies_of(result, load_target(TARGET))["student.fp16"].warnings == (
        "The board ran in power mode 25W, not in the profile's MAXN_SUPER.",
    )
    assert latencies_of(result, load_target(f"{TARGET}@25W"))["student.fp16"].warnings == ()


@pytest.mark.parametrize(
    ("said", "asked", "other"),
    [("25W", "MAXN_SUPER", "25W"), ("25W", "25W", None), ("MODE_25w", "25W", None), (None, "25W", None)],
)
def test_another_power_mode_goes_with_the_number(
    said: str | None, asked: str, other: str | None, run: Path, tmp_path: Path
) -> None:
    result = accept_result(run, write_result(tmp_path / "r.json", lambda r: r["board"].update(power_mode=said)))
    assert latencies_of(result, load_target(f"{TARGET}@{asked}"))["student.fp16"].other_power_mode == other
    # No other device says its mode in the words of its profile.
    assert latencies_of(result, load_target("t4"))["student.fp16"].other_power_mode is None


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.update(simulated=True), ("simulation", "--root")),
        (lambda r: r.update(target="t4"), ("it is for t4, the run for " + TARGET,)),
        (
            lambda r: r.update(kit_sha256="a" * 64),
            ("it is of the kit aaaaaaaaaaaa…", hashlib.sha256(MANIFEST).hexdigest()[:12]),
        ),
        (lambda r: r["models"][0].update(sha256="b" * 64), ("its student fp16 is the file bbbbbbbbbbbb…", FP16[:12])),
        (lambda r: r["models"][0].update(name="teacher"), ("its teacher fp16", "the run has none")),
        (lambda r: r.update(mismatches=["The board runs JetPack 5.1.1."]), ("JetPack 5.1.1", "--anyway")),
        (
            lambda r: [m.update(status="failed", reason="No memory", parity=None, latency=None) for m in r["models"]],
            ("no measurement: student fp16 failed: No memory.", "logs/"),
        ),
    ],
)
def test_what_is_not_of_this_run_is_refused_and_nothing_changes(
    change: Callable[[dict[str, Any]], object], words: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    accept_result(run, write_result(tmp_path / "good.json"))
    path = write_result(tmp_path / "bad.json", change)
    with pytest.raises(StaleResult) as refusal:
        accept_result(run, path)
    refused(refusal.value, str(path), *words)
    assert (run / "merged" / f"{TARGET}.json").read_bytes() == (tmp_path / "good.json").read_bytes()


def test_every_difference_is_told(run: Path, tmp_path: Path) -> None:
    path = write_result(tmp_path / "r.json", lambda r: r.update(target="t4", kit_sha256="a" * 64))
    with pytest.raises(StaleResult, match=r"it is for t4, .*; it is of the kit"):
        accept_result(run, path)


def test_a_hand_edit_is_refused(run: Path, tmp_path: Path) -> None:
    path = write_result(tmp_path / "r.json")
    path.write_text(path.read_text().replace("1.5", "0.5"))
    with pytest.raises(BoardResultError, match="changed after the board wrote it"):
        accept_result(run, path)
    assert not (run / "merged").exists()


def test_a_run_that_went_on_no_longer_holds_the_result(run: Path, tmp_path: Path) -> None:
    accept_result(run, write_result(tmp_path / "r.json"))
    hold(run, fp16=FP16, int8="c" * 64)
    with pytest.raises(StaleResult) as refusal:
        merged_result(run, TARGET)
    refused(refusal.value, "its student int8", "cccccccccccc…")
    hold(run, fp16=FP16, int8=None)
    with pytest.raises(StaleResult, match="the run has none"):
        merged_result(run, TARGET)


@pytest.mark.parametrize(("content", "problem"), [(None, "is not there"), (b"not gzip", "is damaged")])
def test_a_run_without_a_kit_is_refused(content: bytes | None, problem: str, run: Path, tmp_path: Path) -> None:
    archive = run / "kit" / "kit.tar.gz"
    archive.unlink()
    if content is not None:
        archive.write_bytes(content)
    with pytest.raises(StaleResult) as refusal:
        accept_result(run, write_result(tmp_path / "r.json"))
    refused(refusal.value, str(archive), problem)


# ---- the whole way ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (package openssh-server)")
def test_a_kit_goes_to_a_board_over_ssh_and_its_result_into_the_run(tmp_path: Path) -> None:
    import torch

    from exporters.device_kit import KitModel, write_kit
    from exporters.routes import route_for
    from exporters.torch_to_onnx import onnx_from_torch
    from profiles.remote import run_on_board

    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5)).eval()
    target = DeviceProfile(
        name="loopback", title="Loopback host", kind="cpu", runtime="onnxruntime", precisions=("fp32",),
        opset_ceiling=20, channel_multiple=1,
    )  # fmt: skip
    folder = tmp_path / "run"
    for stage in ("onnx", "precision", "kit", "sshd"):
        (folder / stage).mkdir(parents=True)
    onnx = onnx_from_torch(network, (3, 8, 8), folder / "onnx" / "student.onnx", opset_ceiling=20, metadata={})
    save_facts(folder / "precision", variants=[{"model": "student", "precision": "fp32", "sha256": onnx.sha256}])
    kit = write_kit(
        folder / "kit" / "kit", target=target, route=route_for(target, 20),
        models=[KitModel("student", "fp32", onnx.path, onnx.sha256)], metadata={},
    )  # fmt: skip

    board = start_loopback(folder / "sshd", python=sys.executable)
    lines: list[str] = []
    try:
        fetched = run_on_board(
            "board",
            kit.archive,
            result=tmp_path / "result.json",
            timeout_s=90,
            ssh_config=board.config,
            observer=lines.append,
        )
        assert [*board.tmp.iterdir()] == []
    finally:
        board.stop()
    result = accept_result(folder, fetched)
    latency = latencies_of(result, target)["student.fp32"]
    assert (latency.origin, latency.what, latency.runtime) == ("merged", "wall clock", "ONNX Runtime")
    assert 0 < latency.latency_p50_ms < 100
    assert latency.count > 100
    assert result.models[0].parity is not None
    assert result.models[0].parity.max_rel < 1e-5
    assert "student.fp32: done" in lines
    assert np.isfinite(latency.throughput_ips)
