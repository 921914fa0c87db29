"""`compress profile` and `compress targets show cpu` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_onnx
from tiny_run import Compress, refused

from compressor.deploy import profiling
from compressor.deploy.latencies import Timing
from profiles import host_speed


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Short timings, and a cache of the test's own."""
    short = Timing(warmup_s=0.002, window_s=0.002, max_s=0.2)
    monkeypatch.setattr(profiling.profile_source, "__defaults__", (short,))
    measure = host_speed.measure_host_speed
    monkeypatch.setattr(host_speed, "measure_host_speed", lambda: measure(seconds=0.01))
    monkeypatch.setattr(host_speed, "MOST_COPY_BYTES", 1 << 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_it_explains_itself(compress: Compress) -> None:
    outcome = compress("profile", "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(
        ("Usage: compress profile [OPTIONS] {SOURCE}", "Usage: compress profile [OPTIONS] SOURCE")
    )
    assert all(flag in outcome.out for flag in ("--target", "--batch", "--threads", "--out", "--json"))


def test_a_table_on_stdout_and_a_line_of_json(compress: Compress, tmp_path: Path) -> None:
    source = tiny_onnx.write(tmp_path / "m.onnx")
    outcome = compress("profile", str(source), "--batch", "1,2", "--threads", "1", "--out", str(tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    assert outcome.out.startswith(f"{source} on This computer's CPU\n")
    assert outcome.out.endswith(f"profile: {tmp_path / 'out' / 'profile.json'}\n")
    assert "m, batch 2: p50 " in outcome.err

    outcome = compress("profile", str(source), "--out", str(tmp_path / "out"), "--json")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.count("\n") == 1
    assert json.loads(outcome.out) == json.loads((tmp_path / "out" / "profile.json").read_text())


def test_refusals(compress: Compress, tmp_path: Path) -> None:
    source = str(tiny_onnx.write(tmp_path / "m.onnx"))
    refused(compress("profile", f"{tmp_path}/n.onnx"), 4, "n.onnx does not exist", "Did you mean m.onnx?")
    refused(compress("profile", source, "--target", "cpus"), 2, "Unknown target 'cpus'", "'cpu'")
    refused(compress("profile", source, "--batch", "one"), 2, "--batch got 'one'", "--batch 1,8")
    refused(compress("profile", source, "--out", str(tmp_path)), 2, "no profile.json of ours", "--out")
    (tmp_path / "m.engine").write_bytes(b"an engine")
    refused(compress("profile", f"{tmp_path}/m.engine"), 4, "m.engine is refused", "Build the engine again")


def test_the_peaks_of_this_machine_are_shown_as_measured(compress: Compress) -> None:
    outcome = compress("targets", "show", "cpu", "--json")
    assert outcome.code == 0, outcome.err
    figures = json.loads(outcome.out)
    assert figures["peaks"]["fp32_tflops"]["source"].startswith("measured on ")
    assert figures["memory_bandwidth_gb_s"]["value"] > 0
    assert compress("targets", "show", "cpu", "--remeasure").code == 0
    refused(compress("targets", "show", "t4", "--remeasure"), 2, "--remeasure was given for NVIDIA T4", "Leave it out")
