"""Where the latency of an untrained candidate comes from: measured here, or predicted for a device elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny

from compressor.deploy.board_results import merged_result
from compressor.deploy.expected_latency import expected_precision, latency_source, other_mode, run_anchors
from compressor.deploy.latencies import Timing
from compressor.stage_files import save_facts
from compressor.students.search import StudentLimits, StudentSearch, search_student
from exporters.errors import ExportError
from exporters.onnx_files import load_onnx
from exporters.torch_to_onnx import onnx_from_torch
from profiles.board_result import content_digest
from profiles.catalogue import load_target
from profiles.kernels import fused_kernels
from profiles.latency import LatencyStats
from profiles.predict import Prediction, PredictionRefused
from profiles.schema import DeviceProfile, Precision

JETSON = load_target("jetson")
SHORT = Timing(warmup_s=0.0, window_s=0.001, max_s=0.1)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fp32 file of a small network."""
    path = tmp_path_factory.mktemp("network") / "teacher.onnx"
    teacher = tiny.teacher(image_shape=(3, 32, 32))
    onnx_from_torch(teacher.network, teacher.card.input_shape, path, opset_ceiling=17, metadata={})
    return path


@pytest.mark.parametrize(
    ("target", "wanted", "expected"),
    [
        ("jetson", None, "fp16"),
        ("jetson-nano", None, "fp16"),
        ("jetson", ("fp32", "fp16", "int8"), "fp16"),
        ("jetson", ("fp32", "int8"), "fp32"),
        ("raspberry-pi-5", None, "fp32"),
        ("cpu", ("fp32", "fp16"), "fp32"),
    ],
)
def test_what_would_ship(target: str, wanted: tuple[Precision, ...] | None, expected: Precision) -> None:
    assert expected_precision(load_target(target), wanted) == expected


def test_a_device_elsewhere_is_predicted(network: Path) -> None:
    latency_of = latency_source(JETSON, "fp16")
    found = latency_of(network)
    assert isinstance(found, Prediction)
    assert (found.device, found.precision, found.batch_size) == (JETSON.title, "fp16", 1)
    assert latency_of(network) == found
    assert latency_source(JETSON, "fp32")(network) != found


def test_this_host_is_measured_with_the_better_of_its_thread_settings(network: Path) -> None:
    found = latency_source(load_target("cpu"), "fp32", timing=SHORT)(network)
    assert isinstance(found, LatencyStats)
    assert (found.origin, found.is_target, found.batch_size) == ("measured", True, 1)
    assert found.latency_p50_ms == min(trial.latency_p50_ms for trial in found.thread_trials)


def test_an_operator_that_the_target_does_not_read_is_refused(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("HardSwish", ["image"], ["logits"], name="odd")],
        "graph",
        [value("image", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])],
        [value("logits", onnx.TensorProto.FLOAT, ["batch", 3, 8, 8])],
    )
    path = tmp_path / "odd.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 14)]), path)
    with pytest.raises(ExportError, match="HardSwish"):
        latency_source(load_target("jetson-nano"), "fp16")(path)


def test_a_precision_that_the_target_has_not_is_refused(network: Path) -> None:
    with pytest.raises(PredictionRefused):
        latency_source(load_target("jetson-nano"), "int8")(network)


# --- a search with it -------------------------------------------------------------------------------------------------


def searched() -> StudentSearch:
    precision = expected_precision(JETSON)
    return search_student(
        tiny.teacher("cifar_resnet14", image_shape=(3, 16, 16)),
        limits=StudentLimits(),
        channel_multiple=8,
        precision=precision,
        latency_of=latency_source(JETSON, precision),
        opset_ceiling=JETSON.opset_ceiling,
        seed=0,
        note=lambda _line: None,
    )


def test_without_an_image_the_same_student_is_found_every_time() -> None:
    # `compress plan` searches before there are images, `compress run` after: the choice has to be the same.
    first = searched()
    assert searched() == first
    assert first.choice().kind == "pruned"
    assert all(isinstance(row.latency, Prediction) for row in (first.teacher, *first.candidates))


# --- a board's own measurements ---------------------------------------------------------------------------------------


def write_run(
    folder: Path, network: Path, p50_ms: float, mode: str | None = "MAXN_SUPER", target: DeviceProfile = JETSON
) -> None:
    """A run whose student was measured on the board, as `compress merge` leaves it."""
    for name in ("precision", "kit", "merged"):
        (folder / name).mkdir(parents=True)
    content = network.read_bytes()
    (folder / "precision" / "student.fp16.onnx").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    row = {
        "model": "student",
        "precision": "fp16",
        "file": "precision/student.fp16.onnx",
        "made_for": "TensorRT 10 and 11, typed",
        "size_mib": 1.0,
        "sha256": sha256,
        "optimise": True,
        "judged": True,
        "note": None,
        "format": "onnx",
    }
    save_facts(folder / "precision", variants=[row])
    manifest = json.dumps({"target": target.name, "models": []}).encode()
    with tarfile.open(folder / "kit" / "kit.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("kit/manifest.json")
        member.size = len(manifest)
        archive.addfile(member, io.BytesIO(manifest))
    times = {"p50_ms": p50_ms, "p90_ms": p50_ms, "p99_ms": p50_ms, "mean_ms": p50_ms}
    model: dict[str, Any] = {
        "name": "student",
        "precision": "fp16",
        "file": "models/student.fp16.onnx",
        "sha256": sha256,
        "status": "ok",
        "reason": None,
        "parity": {"count": 8, "max_abs": 0.01, "max_rel": 0.002, "top1_agreement": 1.0},
        "build_s": 42.0,
        "engine_bytes": 1_000_000,
        "latency": times | {"count": 6500, "batch_size": 1, "throughput_ips": 1e3 / p50_ms, "what": "gpu compute"},
        "warnings": [],
    }
    result = {
        "schema_version": "1.0",
        "kit_sha256": hashlib.sha256(manifest).hexdigest(),
        "target": target.name,
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
            "power_mode": mode,
            "clocks": {"cpu_max": 1800},
            "clocks_locked": True,
        },
        "runtime": {"name": "tensorrt", "version": "10.3.0"},
        "models": [model],
    }
    data = json.dumps({**result, "digest": "0" * 64}, indent=2).encode()
    merged = data.replace(b"0" * 64, content_digest(data).encode())
    (folder / "merged" / f"{target.name}.json").write_bytes(merged)


def test_what_a_board_measured_of_a_run_carries_predictions_for_it(tmp_path: Path, network: Path) -> None:
    folder = tmp_path / "run-1"
    plain = latency_source(JETSON, "fp16")(network)
    write_run(folder, network, p50_ms=3 * plain.latency_p50_ms)
    (anchor,) = run_anchors(folder, JETSON)
    assert anchor.kernels == fused_kernels(load_onnx(network))
    assert (anchor.precision, anchor.batch_size) == ("fp16", 1)
    assert anchor.latency_p50_ms == 3 * plain.latency_p50_ms
    assert anchor.source == "the student of the run run-1 on NVIDIA Jetson Orin Nano Developer Kit"
    found = latency_source(JETSON, "fp16", anchors=[anchor])(network)
    assert isinstance(found, Prediction)
    assert found.latency_p50_ms == pytest.approx(anchor.latency_p50_ms, rel=0.1)
    assert "run-1" in found.anchors[0]


@pytest.mark.parametrize(
    ("ran", "asked", "counts"),
    [
        ("MAXN_SUPER", "jetson", True),
        ("MAXN_SUPER", "jetson@15W", False),
        ("15W", "jetson", False),
        ("MODE_15W", "jetson@15W", True),
        (None, "jetson", False),
        (None, "jetson@15W", False),
        # Others do not tell a mode: the Pi's highest clock is 1,800 MHz, and a T4 has but one mode.
        (None, "raspberry-pi-4", True),
        (None, "raspberry-pi-4@1.5GHz", False),
        (None, "t4", True),
        (None, "cpu", True),
    ],
)
def test_a_measurement_in_one_power_mode_carries_nothing_in_another(
    tmp_path: Path, network: Path, ran: str | None, asked: str, counts: bool
) -> None:
    profile = load_target(asked)
    write_run(tmp_path / "run-1", network, 2.0, ran, profile)
    assert len(run_anchors(tmp_path / "run-1", profile)) == counts


def test_why_a_result_of_another_power_mode_is_left_out(tmp_path: Path, network: Path) -> None:
    slow = load_target("jetson@15W")
    write_run(tmp_path, network, 2.0)
    result = merged_result(tmp_path, JETSON.name)
    assert result is not None
    assert other_mode(result, JETSON) is None
    left_out = "What the board sent back is left out: it {}, and this is about 15W."
    assert other_mode(result, slow) == left_out.format("ran in power mode MAXN_SUPER")
    silent = result.model_copy(update={"board": result.board.model_copy(update={"power_mode": None})})
    assert other_mode(silent, slow) == left_out.format("did not say its power mode")


def test_results_that_no_longer_fit_the_run_carry_nothing(tmp_path: Path, network: Path) -> None:
    folder = tmp_path / "run-1"
    assert run_anchors(folder, JETSON) == ()
    write_run(folder, network, p50_ms=2.0)
    assert run_anchors(folder, load_target("t4")) == ()
    (folder / "precision" / "student.fp16.onnx").unlink()
    assert run_anchors(folder, JETSON) == ()
    save_facts(folder / "precision", variants=[{"model": "student", "precision": "fp16", "sha256": "1" * 64}])
    assert run_anchors(folder, JETSON) == ()
