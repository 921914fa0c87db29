"""Kits are written the same way each time, and run: in ONNX Runtime for real, with TensorRT against a stand-in."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from fake_board import LOGS, fake_root, run_kit, simulate_kit
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from exporters.device_kit import Kit, KitModel, write_kit
from exporters.errors import ExportError
from exporters.golden import golden_patterns
from exporters.onnx_files import OnnxFile, load_onnx, save_onnx
from exporters.routes import route_for
from exporters.runners import OnnxRunner
from exporters.torch_to_onnx import onnx_from_torch
from profiles.board_result import BoardModel, BoardResult, content_digest, read_board_result
from profiles.catalogue import load_target
from profiles.schema import DeviceProfile, VersionRange

KIT_FILES = Path(__file__).parents[2] / "exporters" / "kit"
ORIN = load_target("jetson")
TARGETS = {
    "8.2": load_target("jetson-nano"),
    "8.5": ORIN.model_copy(
        update={
            "jetpack": VersionRange(min="5.1.1", max="5.1"),
            "tensorrt": VersionRange(min="8.5", max="8.5"),
            "opset_ceiling": 17,
        }
    ),
    "10.3": ORIN,
    "11": load_target("t4").model_copy(update={"tensorrt": VersionRange(min="11", max="11")}),
}


def make_kit(exported: OnnxFile, target: DeviceProfile, folder: Path, **changes: Any) -> Kit:
    """A kit whose every precision is the same small file; what is in it is not the kit's matter."""
    route = route_for(target, exported.opset)
    models = [KitModel("student", precision, exported.path, exported.sha256) for precision in route.files]
    wanted = {"models": models, "golden_images": golden_patterns(2, (3, 8, 8)), "metadata": {"tool": "test"}}
    return write_kit(folder / "kit", target=target, route=route, **{**wanted, **changes})


def run(kit: Kit, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_kit(kit.folder, *arguments, **environment)


def simulate(
    kit: Kit, folder: Path, version: str, *arguments: str, root: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    return simulate_kit(kit.folder, folder, version, *arguments, root=root, **environment)


def result_of(kit: Kit) -> BoardResult:
    return read_board_result(kit.folder / "result.json")


def compute_times(version: str) -> NDArray[np.float64]:
    """What the fixture's times.json says after the warm-up of 500 ms."""
    queries = json.loads((LOGS / version / "times.json").read_text())
    return np.array([query["computeMs"] for query in queries if query["startComputeMs"] >= 500])


# ---- what is written ------------------------------------------------------------------------------------------------


def test_the_manifest_names_every_file_and_the_archive_holds_them(exported: OnnxFile, tmp_path: Path) -> None:
    kit = make_kit(exported, ORIN, tmp_path)
    manifest = json.loads((kit.folder / "manifest.json").read_text())
    assert kit.manifest_sha256 == hashlib.sha256((kit.folder / "manifest.json").read_bytes()).hexdigest()
    assert set(manifest["files"]) == set(kit.files) - {"manifest.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((kit.folder / name).read_bytes()).hexdigest() == digest
    with tarfile.open(kit.archive) as tar:
        assert {entry.name: entry.size for entry in tar} == {
            f"kit/{name}": (kit.folder / name).stat().st_size for name in kit.files
        }
        assert tar.getmember("kit/run_on_board.sh").mode == 0o755
    assert [row["precision"] for row in manifest["models"]] == ["fp32", "fp16", "int8"]
    assert manifest["golden"]["origin"] == "images of the user"
    assert manifest["jetpack"] == {"min": "6.1", "max": "7.2"}
    assert manifest["metadata"] == {"tool": "test"}
    assert any("unproven" in note for note in kit.notes)
    readme = (kit.folder / "README.md").read_text()
    assert "TensorRT 10.3 to 10.16" in readme
    assert "$" not in readme


def test_the_same_content_gives_the_same_bytes(exported: OnnxFile, tmp_path: Path) -> None:
    kits = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        kits.append(make_kit(exported, ORIN, tmp_path / name))
    os.utime(kits[0].folder / "plan.tsv", (0, 0))
    again = make_kit(exported, ORIN, tmp_path / "first")
    assert kits[0].archive.read_bytes() == kits[1].archive.read_bytes()
    assert again.archive_sha256 == kits[1].archive_sha256 == hashlib.sha256(again.archive.read_bytes()).hexdigest()
    assert sorted(path.name for path in (tmp_path / "first").iterdir()) == ["kit", "kit.tar.gz"]


def test_golden_outputs_are_the_files_own(exported: OnnxFile, tmp_path: Path) -> None:
    images = golden_patterns(3, (3, 8, 8))
    kit = make_kit(exported, ORIN, tmp_path, golden_images=images)
    stored = [np.fromfile(kit.folder / f"golden/image-{index}.bin", "<f4") for index in range(3)]
    assert np.array_equal(np.concatenate(stored).reshape(images.shape), images)
    reference = np.fromfile(kit.folder / "golden/student.int8.bin", "<f4").reshape(3, 5)
    with OnnxRunner(exported.path) as runner:
        np.testing.assert_allclose(runner.infer({"image": images})["logits"], reference, rtol=1e-5, atol=1e-6)


def test_patterns_are_seeded_smooth_and_within_the_unit_range(exported: OnnxFile, tmp_path: Path) -> None:
    patterns = golden_patterns(4, (3, 32, 16))
    assert patterns.shape == (4, 3, 32, 16)
    assert (patterns.min(), patterns.max()) == (0, 1)
    assert np.abs(np.diff(patterns, axis=-1)).mean() < 0.3
    assert np.array_equal(patterns, golden_patterns(4, (3, 32, 16)))
    kit = make_kit(exported, ORIN, tmp_path, golden_images=None)
    assert len([name for name in kit.files if name.startswith("golden/image-")]) == 8
    assert json.loads((kit.folder / "manifest.json").read_text())["golden"]["origin"] == "seeded patterns"


def test_a_graph_of_fixed_batch_is_fed_whole_batches_and_given_no_shapes(exported: OnnxFile, tmp_path: Path) -> None:
    proto = load_onnx(exported.path)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    proto.graph.ClearField("value_info")
    fixed = save_onnx(proto, tmp_path / "fixed.onnx")
    kit = make_kit(fixed, load_target("cpu"), tmp_path, golden_images=golden_patterns(3, (3, 8, 8)))
    plan = dict(line.split("\t", 1) for line in (kit.folder / "plan.tsv").read_text().splitlines())
    assert (plan["batch"], plan["calls"], plan["shape"]) == ("2", "2", "-")
    images = np.fromfile(kit.folder / "golden/image-1.bin", "<f4").reshape(2, 3, 8, 8)
    assert np.array_equal(images, golden_patterns(3, (3, 8, 8))[[2, 0]])


def test_precisions_without_a_file_are_left_out_and_named(exported: OnnxFile, tmp_path: Path) -> None:
    kit = make_kit(exported, ORIN, tmp_path, models=[KitModel("student", "fp16", exported.path, exported.sha256)])
    assert "The kit holds no fp32 or int8 of the student." in kit.notes
    assert [name for name in kit.files if name.startswith("models/")] == ["models/student.fp16.onnx"]


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((2, 3, 8, 8)), "float64"),
        (np.zeros((2, 3, 9, 8), np.float32), "(2, 3, 9, 8)"),
        (np.zeros((0, 3, 8, 8), np.float32), "(0, 3, 8, 8)"),
        (np.full((2, 3, 8, 8), 255, np.float32), "(2, 3, 8, 8)"),
        (np.full((2, 3, 8, 8), np.nan, np.float32), "(2, 3, 8, 8)"),
    ],
)
def test_unusable_golden_images_are_refused(
    exported: OnnxFile, tmp_path: Path, images: NDArray[Any], said: str
) -> None:
    with pytest.raises(ExportError) as caught:
        make_kit(exported, ORIN, tmp_path, golden_images=images)
    assert said in caught.value.received
    assert "seeded patterns" in caught.value.action
    assert not list(tmp_path.iterdir())


def test_what_cannot_become_a_kit_is_refused(exported: OnnxFile, tmp_path: Path) -> None:
    student = KitModel("student", "fp32", exported.path, exported.sha256)
    with pytest.raises(ExportError, match="none of them in a precision that the target takes"):
        make_kit(exported, ORIN, tmp_path, models=[])
    with pytest.raises(ExportError, match=r"has changed: its SHA-256 is .* Run the stage"):
        make_kit(exported, ORIN, tmp_path, models=[replace(student, sha256="0" * 64)])

    proto = load_onnx(exported.path)
    proto.graph.input[0].name = proto.graph.node[0].input[0] = "it's"
    for node in proto.graph.node:
        node.input[:] = ["it's" if name == "image" else name for name in node.input]
    renamed = save_onnx(proto, tmp_path / "renamed.onnx")
    quoted = KitModel("teacher", "fp32", renamed.path, renamed.sha256)
    with pytest.raises(ExportError, match=r"renamed\.onnx are fed differently"):
        make_kit(exported, ORIN, tmp_path, models=[student, quoted])
    with pytest.raises(ExportError, match="Rename the input"):
        make_kit(exported, ORIN, tmp_path, models=[quoted])

    for tensor in proto.graph.initializer:
        if onnx.numpy_helper.to_array(tensor).dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(tuple(tensor.dims), np.inf, np.float32), tensor.name))
    proto.graph.input[0].name = "image"
    for node in proto.graph.node:
        node.input[:] = ["image" if name == "it's" else name for name in node.input]
    infinite = save_onnx(proto, tmp_path / "infinite.onnx")
    with pytest.raises(ExportError, match="values that are not finite"):
        make_kit(exported, ORIN, tmp_path, models=[KitModel("student", "fp32", infinite.path, infinite.sha256)])

    beside = tmp_path / "beside.onnx"
    onnx.save(load_onnx(exported.path), beside, save_as_external_data=True, size_threshold=0, location="beside.data")
    outside = KitModel("student", "fp32", beside, hashlib.sha256(beside.read_bytes()).hexdigest())
    with pytest.raises(ExportError, match=r"could not load .*student\.fp32\.onnx"):
        make_kit(exported, ORIN, tmp_path, models=[outside])
    assert not list(tmp_path.glob("*kit*"))

    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "mine.txt").write_text("keep")
    with pytest.raises(ExportError, match="holds files that are no device kit"):
        make_kit(exported, ORIN, tmp_path)
    assert (tmp_path / "kit" / "mine.txt").read_text() == "keep"


# ---- TensorRT, with a stand-in --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "full"), [("8.2", "8.2.1"), ("8.5", "8.5.2"), ("10.3", "10.3.0"), ("11", "11.1.0")]
)
def test_numbers_are_those_of_trtexec(exported: OnnxFile, tmp_path: Path, version: str, full: str) -> None:
    kit = make_kit(exported, TARGETS[version], tmp_path)
    done = simulate(kit, tmp_path, version)
    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(kit)
    assert (result.runtime.name, result.runtime.version) == ("tensorrt", full)
    assert result.simulated
    assert result.kit_sha256 == kit.manifest_sha256
    assert [model.precision for model in result.models] == list(TARGETS[version].precisions)

    times = compute_times(version)
    qps = float(re.findall(r"Throughput: (\S+) qps", (LOGS / version / "timing.log").read_text())[0])
    for model in result.models:
        assert model.status == "ok"
        assert model.sha256 == exported.sha256
        assert model.latency is not None
        shown = (model.latency.p50_ms, model.latency.p90_ms, model.latency.p99_ms, model.latency.mean_ms)
        assert shown == pytest.approx((*np.quantile(times, (0.5, 0.9, 0.99)), times.mean()), rel=1e-5)
        assert (model.latency.count, model.latency.batch_size) == (len(times), 1)
        assert model.latency.throughput_ips == pytest.approx(qps)
        assert model.latency.what == "gpu compute"
        assert model.parity is not None
        assert (model.parity.count, model.parity.top1_agreement) == (2, 1)
        assert model.parity.max_rel < 1e-5  # trtexec writes six digits
        assert model.engine_bytes is not None
        assert model.engine_bytes > 0


FLAGS = {  # of the build, for each precision; what is measured with follows
    "8.2": ({"fp32": "", "fp16": "--fp16"}, "--workspace=1024 --buildOnly"),
    "8.5": ({"fp32": "", "fp16": "--fp16", "int8": "--int8 --fp16"}, "--memPoolSize=workspace:2048 --buildOnly"),
    "10.3": (
        dict.fromkeys(("fp32", "fp16", "int8"), "--stronglyTyped"),
        "--memPoolSize=workspace:2048 --skipInference",
    ),
    "11": (dict.fromkeys(("fp32", "fp16", "int8"), ""), "--memPoolSize=workspace:4096 --skipInference"),
}


@pytest.mark.parametrize("version", FLAGS)
def test_flags_are_those_of_the_boards_own_version(exported: OnnxFile, tmp_path: Path, version: str) -> None:
    kit = make_kit(exported, TARGETS[version], tmp_path)
    simulate(kit, tmp_path, version)
    calls = (tmp_path / "calls.txt").read_text().splitlines()
    precision_flags, build_flags = FLAGS[version]
    builds = [call for call in calls if "--saveEngine" in call]
    assert len(builds) == len(precision_flags)
    workspace = f"workspace:{TARGETS[version].workspace_mib}"
    for (precision, flags), call in zip(precision_flags.items(), builds, strict=True):
        words = call.split()
        of_precision = {"--fp16", "--int8", "--best", "--stronglyTyped"}.intersection(words)
        assert of_precision == set(flags.split())
        assert set(re.sub(r"workspace:\d+", workspace, build_flags).split()) <= set(words)
        file = "fp32" if version == "8.2" else precision if version in ("10.3", "11") or precision == "int8" else "fp32"
        assert f"--onnx=models/student.{file}.onnx" in words
        assert {f"--{end}Shapes=image:1x3x8x8" for end in ("min", "opt", "max")} <= set(words)
    timings = [call.split() for call in calls if "--exportTimes" in call]
    quiet = {"--useCudaGraph", "--noDataTransfers", "--useSpinWait"}
    for words in timings:
        assert quiet.intersection(words) == (set() if version == "11" else quiet)
        assert {"--warmUp=500", "--duration=10", "--iterations=200", "--shapes=image:1x3x8x8"} <= set(words)


def test_the_board_is_recorded(exported: OnnxFile, tmp_path: Path) -> None:
    kit = make_kit(exported, ORIN, tmp_path)
    done = simulate(kit, tmp_path, "10.3", "--only", "student.fp16")
    board, models = result_of(kit).board, result_of(kit).models
    assert board.model == "NVIDIA Jetson Orin Nano Developer Kit"
    assert (board.jetpack, board.l4t, board.power_mode) == ("6.2", "36.4.3", "MAXN_SUPER")
    assert (board.os, board.cpu) == ("Ubuntu 22.04.5 LTS", "ARMv8 Processor rev 1 (v8l)")
    assert board.clocks == {"gpu": 1020, "gpu_min": 306, "gpu_max": 1020}
    assert board.clocks_locked is False
    assert [model.status for model in models] == ["skipped", "ok", "skipped"]
    assert models[0].reason == "It was not among those asked for with --only."
    assert any("coefficient of variance = 3.1%" in warning for warning in models[1].warnings)
    assert "student.fp16: done" in done.stdout


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="needs dpkg-query, as Jetsons have it")
def test_jetpacks_own_package_names_a_release_that_the_kit_does_not_know(exported: OnnxFile, tmp_path: Path) -> None:
    package = "Package: nvidia-jetpack\nStatus: install ok installed\nVersion: 6.2.9+b12\nArchitecture: arm64\n"
    files = {"etc/nv_tegra_release": "# R36 (release), REVISION: 9.9, GCID: 1\n", "var/lib/dpkg/status": package}
    kit = make_kit(exported, ORIN, tmp_path)
    root = fake_root(tmp_path, "10.3", **files)
    done = simulate(kit, tmp_path, "10.3", "--only", "student.fp16", root=root)
    assert done.returncode == 0, done.stderr
    assert (result_of(kit).board.jetpack, result_of(kit).board.l4t) == ("6.2.9", "36.9.9")


def test_a_board_without_its_files_still_gives_a_result_with_anyway(exported: OnnxFile, tmp_path: Path) -> None:
    kit = make_kit(exported, ORIN, tmp_path)
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    shutil.copy(LOGS / "trtexec", root / "usr/bin/trtexec")
    done = simulate(kit, tmp_path, "10.3", "--anyway", "--only", "student.fp16", root=root)
    assert done.returncode == 0, done.stderr
    result = result_of(kit)
    assert (result.board.jetpack, result.board.os, result.board.clocks_locked) == (None, "unknown", None)
    assert result.board.model == "Orin"  # as trtexec names the GPU
    assert result.mismatches[0].startswith("This machine has no /etc/nv_tegra_release")


REFUSALS = {
    "jetpack": (
        {"etc/nv_tegra_release": "# R35 (release), REVISION: 3.1, GCID: 1\n"},
        "The board runs JetPack 5.1.1 (L4T 35.3.1). The kit is for JetPack 6.1 to 7.2.",
    ),
    "unknown jetpack": (
        {"etc/nv_tegra_release": "# R99 (release), REVISION: 1.0, GCID: 1\n"},
        "The board runs L4T 99.1.0, whose JetPack this kit does not know.",
    ),
    "module": (
        {"proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0"},
        "The board is a NVIDIA Jetson AGX Orin Developer Kit. The kit is for NVIDIA Jetson Orin Nano Super 8 GB.",
    ),
    "tensorrt": (
        {"usr/src/tensorrt/bin/trtexec": "#!/bin/sh\necho '&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # --help'\n"},
        "The board has TensorRT 8.5.2. The kit is for TensorRT 10.3 to 10.16.",
    ),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_another_board_is_refused(exported: OnnxFile, tmp_path: Path, what: str) -> None:
    files, said = REFUSALS[what]
    kit = make_kit(exported, ORIN, tmp_path)
    done = simulate(kit, tmp_path, "10.3", root=fake_root(tmp_path, "10.3", **files))
    assert done.returncode == 6
    assert said in done.stderr
    assert done.stderr.rstrip().endswith("add --anyway to measure regardless.")
    assert not (kit.folder / "result.json").exists()
    assert not (kit.folder / "work").exists()


def test_another_gpu_is_refused_once_trtexec_names_it(exported: OnnxFile, tmp_path: Path) -> None:
    target = TARGETS["11"].model_copy(update={"compute_capability": "8.9"})
    kit = make_kit(exported, target, tmp_path)
    done = simulate(kit, tmp_path, "11")
    assert done.returncode == 6
    assert "The GPU has compute capability 7.5." in done.stderr
    assert "which has 8.9" in done.stderr
    assert simulate(kit, tmp_path, "11", "--anyway").returncode == 0
    assert result_of(kit).mismatches == (
        f"The GPU has compute capability 7.5. The kit is for {target.title}, which has 8.9.",
    )
    assert result_of(kit).board.model == "Tesla T4"


def test_a_jetson_kit_refuses_this_host(exported: OnnxFile, tmp_path: Path) -> None:
    kit = make_kit(exported, ORIN, tmp_path)
    done = run(kit)
    assert done.returncode == 6
    assert "has no /etc/nv_tegra_release, so it is no Jetson" in done.stderr
    assert f"{ORIN.title} with JetPack 6.1 to 7.2" in done.stderr


def test_wrong_outputs_fail_and_the_reason_has_the_number(exported: OnnxFile, tmp_path: Path) -> None:
    kit = make_kit(exported, ORIN, tmp_path)
    done = simulate(kit, tmp_path, "10.3", "--only", "student.fp16", TRTEXEC_GAIN="1.25")
    model = result_of(kit).models[1]
    assert done.returncode == 1
    assert (model.status, model.latency, model.parity) == ("failed", None, None)
    assert model.reason == "Its outputs differ from the golden ones by 0.25 of the largest logit, more than 0.03."
    done = simulate(kit, tmp_path, "10.3", "--only", "student.fp16", TRTEXEC_GAIN="nan")
    assert result_of(kit).models[1].status == "failed"


@pytest.mark.parametrize(
    ("call", "step"),
    [
        ("models/student.fp16.onnx", "build"),
        ("student.fp16.plan --loadInputs", "check of the outputs"),
        ("student.fp16.plan --exportTimes", "timing"),
    ],
)
def test_one_failing_model_leaves_the_others_their_turn(
    exported: OnnxFile, tmp_path: Path, call: str, step: str
) -> None:
    kit = make_kit(exported, ORIN, tmp_path)
    done = simulate(kit, tmp_path, "10.3", TRTEXEC_FAILS=call)
    assert done.returncode == 1
    assert [model.status for model in result_of(kit).models] == ["ok", "failed", "ok"]
    wanted = f'trtexec failed in the {step} (exit code 1): Error[2]: No "kernel" for this layer'
    assert result_of(kit).models[1].reason == wanted
    assert f"student.fp16: failed. {wanted}" in done.stdout


def test_a_log_and_times_that_disagree_are_not_believed(exported: OnnxFile, tmp_path: Path) -> None:
    logs = tmp_path / "10.3"
    shutil.copytree(LOGS / "10.3", logs)
    text = (logs / "timing.log").read_text()
    (logs / "timing.log").write_text(re.sub(r"(GPU Compute Time: .*median = )\S+", r"\g<1>9.9", text))
    kit = make_kit(exported, ORIN, tmp_path)
    simulate(kit, tmp_path, "10.3", "--only", "student.fp32", TRTEXEC_LOGS=str(logs))
    assert "logs a median of 9.9 ms, but its list of times has" in (result_of(kit).models[0].reason or "")


def test_a_damaged_model_is_not_built(exported: OnnxFile, tmp_path: Path) -> None:
    kit = make_kit(exported, ORIN, tmp_path)
    (kit.folder / "models/student.fp16.onnx").write_bytes(b"cut off")
    simulate(kit, tmp_path, "10.3", "--only", "student.fp16")
    model = result_of(kit).models[1]
    assert model.status == "failed"
    assert "missing or damaged" in (model.reason or "")
    assert model.sha256 == hashlib.sha256(b"cut off").hexdigest()


def test_nothing_is_left_but_logs_and_the_result(exported: OnnxFile, tmp_path: Path) -> None:
    kit = make_kit(exported, ORIN, tmp_path)
    simulate(kit, tmp_path, "10.3", "--only", "student.fp16")
    now = {path.relative_to(kit.folder).as_posix() for path in kit.folder.rglob("*") if path.is_file()}
    assert now - set(kit.files) == {"result.json", "logs/student.fp16.log"}
    assert content_digest((kit.folder / "result.json").read_bytes()) == result_of(kit).digest
    simulate(kit, tmp_path, "10.3", "--only", "student.fp16", "--keep-engines")
    assert (kit.folder / "engines/student.fp16.plan").stat().st_size == result_of(kit).models[1].engine_bytes


def test_a_signal_ends_trtexec_and_leaves_nothing(exported: OnnxFile, tmp_path: Path) -> None:
    hanging = "#!/bin/sh\n[ $1 = --help ] && echo '[TensorRT v100300]' && exit\necho $$ >started\nexec sleep 60\n"
    root = fake_root(tmp_path, "10.3", **{"usr/src/tensorrt/bin/trtexec": hanging})
    kit = make_kit(exported, ORIN, tmp_path)
    started = kit.folder / "started"
    with subprocess.Popen(["sh", "./run_on_board.sh", "--root", str(root)], cwd=kit.folder) as process:
        while not (started.exists() and started.read_text()):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 130
    status = Path(f"/proc/{started.read_text().strip()}/status")
    deadline = time.monotonic() + 5
    while status.exists() and "State:\tZ" not in status.read_text():  # an orphan's remains are not the kit's matter
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not (kit.folder / "work").exists()
    assert not (kit.folder / "result.json").exists()


def test_a_full_disk_is_named_as_the_reason(exported: OnnxFile, tmp_path: Path) -> None:
    df = tmp_path / "bin" / "df"
    df.parent.mkdir()
    df.write_text(
        "#!/bin/sh\necho Filesystem 1024-blocks Used Available Capacity Mounted\necho tmpfs 220 128 92 59% /\n"
    )
    df.chmod(0o755)
    kit = make_kit(exported, ORIN, tmp_path)
    path = f"{df.parent}:{os.environ['PATH']}"
    simulate(kit, tmp_path, "10.3", "--only", "student.fp32", TRTEXEC_FAILS="--saveEngine", PATH=path)
    reason = result_of(kit).models[0].reason
    assert reason == "trtexec failed in the build (exit code 1): the disk is full"


def test_a_full_disk_leaves_no_half_result(exported: OnnxFile, tmp_path: Path) -> None:
    """/dev/full takes the place of the file that the result is written to first."""
    kit = make_kit(exported, ORIN, tmp_path)
    script = kit.folder / "run_on_board.sh"
    script.write_text(script.read_text().replace("cat >.tmp-result.json", "cat >/dev/full"))
    done = simulate(kit, tmp_path, "10.3", "--only", "student.fp16")
    assert done.returncode == 1
    assert "result.json could not be written" in done.stderr
    assert "Free some space" in done.stderr
    assert not list(kit.folder.glob("*result*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fast",), "Unknown option '--fast'. The options are --only"),
        (("--only",), "--only was given no value."),
        (("--only", "student.fp64"), "The kit holds student.fp32 student.fp16 student.int8."),
        (("--root", "/nowhere/at/all"), "--root names no folder."),
    ],
)
def test_wrong_options_are_refused(exported: OnnxFile, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    done = run(make_kit(exported, ORIN, tmp_path), *arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_help_and_missing_tools_say_what_to_do(exported: OnnxFile, tmp_path: Path) -> None:
    kit = make_kit(exported, ORIN, tmp_path)
    assert "--keep-engines" in run(kit, "--help").stdout
    root = fake_root(tmp_path, "10.3")
    (root / "usr/src/tensorrt/bin/trtexec").unlink()
    done = simulate(kit, tmp_path, "10.3", root=root)
    assert done.returncode == 3
    assert "sudo apt-get install libnvinfer-bin" in done.stderr


# ---- ONNX Runtime, for real -----------------------------------------------------------------------------------------


def onnxruntime_kit(exported: OnnxFile, folder: Path) -> Kit:
    kit = make_kit(
        exported, load_target("cpu"), folder, models=[KitModel("student", "fp32", exported.path, exported.sha256)]
    )
    script = kit.folder / "run_on_board.sh"
    script.write_text(script.read_text().replace("DURATION_S=10\n", "DURATION_S=1\n"))
    return kit


def measured(exported: OnnxFile, folder: Path) -> BoardModel:
    kit = onnxruntime_kit(exported, folder)
    done = run(kit)
    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(kit)
    assert not result.simulated
    assert (result.target, result.runtime.name, result.mismatches) == ("cpu", "onnxruntime", ())
    return result.models[0]


def test_the_kit_really_runs_on_this_machine(exported: OnnxFile, tmp_path: Path) -> None:
    model = measured(exported, tmp_path)
    assert model.parity is not None
    assert model.parity.max_rel < 1e-5
    assert (model.parity.count, model.parity.top1_agreement) == (2, 1)
    assert model.latency is not None
    assert 0 < model.latency.p50_ms <= model.latency.p99_ms
    assert model.latency.what == "wall clock"
    assert model.latency.throughput_ips == pytest.approx(1e3 / model.latency.mean_ms)
    assert model.build_s is None


def test_an_emulated_processor_makes_a_simulation(exported: OnnxFile, tmp_path: Path) -> None:
    kit = onnxruntime_kit(exported, tmp_path)
    emulator = tmp_path / "python"
    emulator.write_text(f"""#!/bin/sh
case $1 in -c) echo 1.31.1 riscv64 ;; *) exec {sys.executable} "$@" ;; esac
""")
    emulator.chmod(0o755)
    assert run(kit, PYTHON=str(emulator)).returncode == 0
    assert (result_of(kit).simulated, result_of(kit).board.architecture) == (True, "riscv64")


CPU_INFO = {
    "x86": "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vme sse2\n",
    "Arm": "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n",
}


@pytest.mark.parametrize(
    ("architecture", "shown", "is_emulated"),
    [
        ("aarch64", "x86", True),
        ("armv7l", "x86", True),
        ("x86_64", "Arm", True),
        ("aarch64", "Arm", False),
        ("x86_64", "x86", False),
        ("riscv64", "x86", False),  # not known what it would show
    ],
)
def test_a_processor_that_its_own_files_belie_is_emulated(
    tmp_path: Path, architecture: str, shown: str, is_emulated: bool
) -> None:
    """The script's own question, asked alone: with --root every result is simulated anyway."""
    script = (KIT_FILES / "run_on_board.sh").read_text().replace('main "$@"\n', "is_emulated\n")
    root = fake_root(tmp_path, "10.3", **{"proc/cpuinfo": CPU_INFO[shown]})
    question = ["sh", "-c", script, "sh"]
    environment = {**os.environ, "root": str(root), "architecture": architecture}
    assert subprocess.run(question, env=environment, check=False).returncode == (0 if is_emulated else 1)


@pytest.mark.skipif(not Path("/proc/self/exe").exists(), reason="needs /proc")
def test_a_user_space_in_qemu_makes_a_simulation(exported: OnnxFile, tmp_path: Path) -> None:
    """uname and python agree there; that the shell's program is qemu remains."""
    kit = onnxruntime_kit(exported, tmp_path)
    shell = shutil.which("sh")
    assert shell is not None
    emulator = Path(shutil.copy(Path(shell).resolve(), tmp_path / "qemu-aarch64-static"))
    command = [str(emulator), "./run_on_board.sh"]
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(command, cwd=kit.folder, env=environment, capture_output=True, text=True, check=True)
    assert result_of(kit).simulated
    assert "marked as simulated" in done.stdout


def test_wrong_outputs_and_a_missing_package_are_noticed(exported: OnnxFile, tmp_path: Path) -> None:
    kit = onnxruntime_kit(exported, tmp_path)
    golden = kit.folder / "golden/student.fp32.bin"
    golden.write_bytes((np.fromfile(golden, "<f4") * 2).tobytes())
    assert run(kit).returncode == 1
    assert "Its outputs differ from the golden ones by 0.5 of the largest logit" in (
        result_of(kit).models[0].reason or ""
    )
    golden.write_bytes(b"")
    assert run(kit).returncode == 1
    assert result_of(kit).models[0].status == "failed"
    done = run(kit, PYTHON="/bin/false")
    assert done.returncode == 3
    assert "pip install onnxruntime numpy" in done.stderr


# ---- examples -------------------------------------------------------------------------------------------------------


def test_the_python_example_names_the_class_that_the_runner_finds(exported: OnnxFile, tmp_path: Path) -> None:
    pixels = (golden_patterns(1, (3, 8, 8))[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    kit = make_kit(exported, load_target("cpu"), tmp_path)
    command = [sys.executable, "infer.py", "models/student.fp32.onnx", str(tmp_path / "photo.png")]
    done = subprocess.run(command, cwd=kit.folder, capture_output=True, text=True, check=True)
    with OnnxRunner(exported.path) as runner:
        image = np.ascontiguousarray(pixels.astype(np.float32).transpose(2, 0, 1)[np.newaxis] / 255)
        logits = runner.infer({"image": image})["logits"][0]
    probability = 1 / np.exp(logits - logits.max()).sum()
    assert done.stdout == f"class {logits.argmax()}, probability {probability:.3f}\n"


def test_four_bands_are_taken_as_they_are(tmp_path: Path) -> None:
    """Bands of an RGBA file resized by hand: no band is an alpha that weighs the others. Three bands are refused."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(4, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    network = nn.Sequential(*layers).eval()
    exported = onnx_from_torch(network, (4, 8, 8), tmp_path / "four.onnx", opset_ceiling=20, metadata={})
    pixels = (golden_patterns(1, (4, 16, 16))[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    pixels[:8, :, 3] = 0
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    Image.fromarray(pixels[..., :3]).save(tmp_path / "three.png")
    kit = make_kit(exported, load_target("cpu"), tmp_path, golden_images=golden_patterns(2, (4, 8, 8)))
    command = [sys.executable, "infer.py", "models/student.fp32.onnx"]
    done = subprocess.run(
        [*command, str(tmp_path / "photo.png")], cwd=kit.folder, capture_output=True, text=True, check=True
    )
    bands = [Image.fromarray(pixels[..., band]).resize((8, 8), Image.Resampling.BILINEAR) for band in range(4)]
    image = np.stack([np.asarray(band, np.float32) for band in bands])[np.newaxis] / 255
    with OnnxRunner(exported.path) as runner:
        logits = runner.infer({"image": image})["logits"][0]
    probability = 1 / np.exp(logits - logits.max()).sum()
    assert done.stdout == f"class {logits.argmax()}, probability {probability:.3f}\n"
    done = subprocess.run(
        [*command, str(tmp_path / "three.png")], cwd=kit.folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "takes images of four bands" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_example_for_tensorrt_takes_the_same_bands() -> None:
    """It runs on boards alone; what it does to a file is the other example's, word for word."""
    texts = [(KIT_FILES / f"infer_{runtime}.py").read_text() for runtime in ("onnxruntime", "tensorrt")]
    functions = [text[text.index("def in_bands") :].split("\n\n\n")[0] for text in texts]
    assert functions[0] == functions[1]
    assert all("pixels = in_bands(Image.open(photo), channels)\n" in text for text in texts)


READ = """
#define main example_main
#include "EXAMPLE"
#undef main
int main(int, char** argv) try {
    for (float value : readImage(argv[1], std::stoi(argv[2]), 1, 2)) std::cout << value * 255 << " ";
} catch (std::exception const& error) {
    std::cout << error.what();
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize("example", ["infer_onnxruntime.cpp", "infer_tensorrt.cpp"])
def test_the_cpp_examples_read_images_of_one_three_and_four_bands(example: str, tmp_path: Path) -> None:
    """Of an image of 2 x 1 pixels, by channel; the vendors' libraries are not there and not called."""
    (tmp_path / "read.cpp").write_text(READ.replace("EXAMPLE", str(KIT_FILES / example)))
    stubs = Path(__file__).parent / "stub_headers"
    command = ["g++", "-std=c++17", f"-I{stubs}", "-DNV_TENSORRT_MAJOR=10", "-DNV_TENSORRT_MINOR=3", "read.cpp"]
    without_the_rest = ("-O1", "-ffunction-sections", "-Wl,--gc-sections")  # and with it what only libraries have
    subprocess.run([*command, *without_the_rest, "-o", "read"], cwd=tmp_path, check=True)
    pam = b"P7\n# by hand\nWIDTH 2\nHEIGHT 1\nDEPTH %d\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
    for channels, content, expected in (
        (1, b"P5\n2 1\n255\n" + bytes([1, 2]), "1 2 "),
        (3, b"P6\n2 1\n255\n" + bytes([1, 2, 3, 4, 5, 6]), "1 4 2 5 3 6 "),
        (4, pam % 4 + bytes([1, 2, 3, 0, 5, 6, 7, 8]), "1 5 2 6 3 7 0 8 "),
        (4, pam % 3 + bytes([1, 2, 3, 4, 5, 6]), "photo is no binary PAM of 2 x 1 pixels of 8 bits"),
        (4, b"P6\n2 1\n255\n" + bytes([1, 2, 3, 4, 5, 6]), "photo is no binary PAM of 2 x 1 pixels of 8 bits"),
        (4, pam % 4 + b"12", "photo is cut off"),
    ):
        (tmp_path / "photo").write_bytes(content)
        done = subprocess.run(
            ["./read", "photo", str(channels)], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        assert done.stdout == expected


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.parametrize(
    ("example", "standard", "defines"),
    [
        ("infer_tensorrt.cpp", "c++14", ["-DNV_TENSORRT_MAJOR=8", "-DNV_TENSORRT_MINOR=2"]),
        ("infer_tensorrt.cpp", "c++14", ["-DNV_TENSORRT_MAJOR=10", "-DNV_TENSORRT_MINOR=3"]),
        ("infer_onnxruntime.cpp", "c++17", []),
    ],
)
def test_the_cpp_examples_compile_against_the_interfaces(example: str, standard: str, defines: list[str]) -> None:
    """Headers written for this test declare what the examples use; only a board has the vendors' own."""
    command = ["g++", "-fsyntax-only", "-Wall", "-Wextra", "-Werror", f"-std={standard}", *defines]
    stubs = Path(__file__).parent / "stub_headers"
    done = subprocess.run(
        [*command, f"-I{stubs}", str(KIT_FILES / example)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
