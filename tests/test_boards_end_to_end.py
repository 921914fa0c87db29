"""From a run to its device and back: the kit over real ssh, a merged row, and results that must not be merged."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny_run
from fake_board import simulate_kit
from loopback import MISSING, Loopback, start_loopback
from tiny_run import Compress, refused

from compressor.report.schema import Report, read_report
from exporters.onnx_to_int8 import needs_reduced_range
from profiles.board_result import read_board_result

pytestmark = pytest.mark.slow

PROFILE = """
title: Loopback host
kind: cpu
runtime: onnxruntime
precisions: [fp32, fp16, int8]
opset_ceiling: 20
channel_multiple: 8
"""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    if MISSING:
        pytest.skip(f"not installed: {', '.join(MISSING)} (package openssh-server)")
    started = start_loopback(tmp_path_factory.mktemp("sshd"), python=sys.executable)
    yield started
    started.stop()


def right(report: Report, networks: list[str]) -> list[str]:
    """Those whose outputs the board has right; a processor that adds int8 products in 16 bits says that it has not."""
    wrong = {variant.label for variant in report.variants if variant.failed_on_target is not None}
    assert not wrong or (needs_reduced_range() and wrong <= {"student int8", "teacher int8"})
    return [name for name in networks if name not in wrong]


def latencies(report: Report) -> dict[str, str]:
    """The origin of what stands in the target's column, by artefact."""
    return {v.label: v.latency_target.origin for v in report.variants if v.latency_target is not None}


def test_a_run_measures_on_its_board_over_ssh(
    board: Loopback, inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    (tmp_path / "loopback.yaml").write_text(PROFILE)
    where = ("--target", f"{tmp_path}/loopback.yaml", "--board", "board", "--ssh-config", f"{board.config}")
    line = tiny_run.line(inputs, tmp_path / "run", "--kit-teacher", *where)
    outcome = compress(*line)
    assert outcome.code == 0, outcome.err
    assert "the result of board is merged" in outcome.err
    report = read_report(tmp_path / "run/report.json")
    networks = [f"{model} {precision}" for model in ("student", "teacher") for precision in ("fp32", "fp16", "int8")]
    assert latencies(report) == dict.fromkeys(right(report, networks), "merged")
    assert report.recommendation is not None
    assert report.recommendation.path is not None
    assert [*board.tmp.iterdir()] == []
    assert "merged" in (tmp_path / "run/report.md").read_text()

    again = compress(*line)  # nothing to do: neither a stage nor the board
    assert again.code == 0
    assert set(again.states().values()) == {"cached"}
    assert "sending the kit" not in again.err

    # A kit that ran elsewhere comes back by hand.
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved/merged")
    subprocess.run(
        ["sh", "./run_on_board.sh", "--only", "student.fp32"], cwd=tmp_path / "moved/kit/kit", check=True, timeout=120,
        env={"PATH": "/usr/bin:/bin", "PYTHON": sys.executable}, capture_output=True,
    )  # fmt: skip
    merged = compress("merge", f"{tmp_path}/moved", f"{tmp_path}/moved/kit/kit/result.json")
    assert merged.code == 0, merged.err
    assert latencies(read_report(tmp_path / "moved/report.json")) == {"student fp32": "merged"}

    # A run whose stages are no longer those of its report takes no result.
    manifest = tmp_path / "moved/distill/manifest.json"
    manifest.write_text(manifest.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    stale = compress("merge", f"{tmp_path}/moved", f"{tmp_path}/moved/kit/kit/result.json")
    refused(stale, 6, "has other stages than its report: distill")

    # A result that was damaged leaves the target's column, and the board is asked again; so it is for other files.
    kept = tmp_path / "run/merged/loopback.json"
    kept.write_text(kept.read_text().replace('"simulated": false', '"simulated": false '))
    without = compress(*(word for word in line if word not in ("--board", "board")))
    assert without.code == 0, without.err
    assert "The result that was merged earlier is left out" in without.err
    assert latencies(read_report(tmp_path / "run/report.json")) == {}
    other = compress(*line, "--calibration-images", "33")
    assert other.code == 0, other.err
    assert "the result of board is merged" in other.err
    again = read_report(tmp_path / "run/report.json")
    assert latencies(again) == dict.fromkeys(right(again, networks), "merged")


def test_a_board_that_is_not_there_costs_nothing(
    board: Loopback, inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    (tmp_path / "loopback.yaml").write_text(PROFILE)
    (tmp_path / "ssh").write_text(board.config.read_text().replace(f"Port {board.port}", "Port 9"))
    where = ("--target", f"{tmp_path}/loopback.yaml", "--board", "board", "--ssh-config", f"{tmp_path}/ssh")
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run", *where, "--quiet"))
    refused(outcome, 6, "board")
    assert latencies(read_report(tmp_path / "run/report.json")) == {}


def test_a_board_for_this_very_machine(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run", "--target", "cpu", "--board", "board", "--quiet"))
    refused(outcome, 2, "--board board was given for", "there is no kit", "--target")
    assert (tmp_path / "run/report.json").exists()


@pytest.mark.parametrize("name", ["-oProxyCommand=id", "user@host; id", "a b"])
def test_a_hostile_board_is_refused_before_anything_runs(
    name: str, inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run", "--target", "jetson", f"--board={name}"))
    refused(outcome, 2)
    assert not (tmp_path / "run").exists()


def test_the_jetsons_kit_refuses_this_host_and_a_simulation_is_not_merged(
    inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    folder = tmp_path / "run"
    assert compress(*tiny_run.line(inputs, folder, "--target", "jetson")).code == 0
    kit = folder / "kit/kit"
    here = subprocess.run(["sh", "./run_on_board.sh"], cwd=kit, capture_output=True, text=True, timeout=60)
    assert here.returncode == 6, here.stderr
    assert not (kit / "result.json").exists()

    done = simulate_kit(kit, tmp_path, "10.3")
    assert done.returncode == 0, done.stderr
    result = read_board_result(kit / "result.json")
    assert result.simulated
    assert {(model.name, model.precision) for model in result.models} == {
        ("student", precision) for precision in ("fp32", "fp16", "int8")
    }
    before = (folder / "report.json").read_bytes()
    refused(compress("merge", f"{folder}", f"{kit}/result.json"), 6, "simulation")
    assert (folder / "report.json").read_bytes() == before


def test_only_a_finished_run_takes_a_result(tmp_path: Path, compress: Compress) -> None:
    refused(compress("merge", f"{tmp_path}", f"{tmp_path}/result.json"), 2, "holds no finished run")
