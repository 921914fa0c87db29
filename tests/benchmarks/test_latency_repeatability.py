"""How the benchmark of repeatability counts, on made-up tries, and that it goes on where it stopped."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_onnx

from benchmarks import latency_repeatability as benchmark


def tried(p50: float, low: float, high: float, *warnings: str) -> dict[str, Any]:
    rows = [{"model": "m.onnx", "p50_ms": p50, "interval_ms": [low, high], "warnings": list(warnings)}]
    return {"at": "2026-11-02T09:30:00", "rows": rows}


def test_pairs_are_counted_strictly_by_difference_and_on_a_quiet_machine_alone() -> None:
    tries = [
        tried(1.00, 0.96, 1.04),  # the next lies inside
        tried(1.03, 0.99, 1.07),  # the next lies outside, nearer than the width
        tried(1.10, 1.06, 1.14, "Other programs used 1.0 of 2 cores during the measurement."),  # the next is far
        tried(1.30, 1.25, 1.35),
    ]
    record = {"tool": "compress", "host": "a test", "models": {"m.onnx": "0"}, "tries": tries}
    row = benchmark.table(record)[-1]
    assert row == "| all |  | 3 | 1 | 2 | 1 | 1 | 1 | 7.8% | 8.0% |"


def test_a_try_without_an_interval_holds_for_nothing() -> None:
    lone = tried(1.0, 0.9, 1.1)
    lone["rows"][0]["interval_ms"] = None
    record = {"tool": "compress", "host": "a test", "models": {"m.onnx": "0"}, "tries": [lone, tried(1.0, 0.9, 1.1)]}
    assert benchmark.table(record)[-1] == "| all |  | 1 | 0 | 0 | 1 | 0 | 0 |  |  |"


def test_it_measures_writes_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, results = tiny_onnx.write(tmp_path / "m.onnx"), tmp_path / "results.json"
    monkeypatch.setattr(benchmark, "_in_a_process", lambda _models: tried(1.0, 0.9, 1.1)["rows"])
    words = ["benchmark", str(model), "--every", "0", "--results", str(results)]
    for tries, count in (("1", 1), ("3", 3), ("2", 3)):
        monkeypatch.setattr(sys, "argv", [*words, "--tries", tries])
        benchmark.main()
        assert len(json.loads(results.read_text())["tries"]) == count
    assert capsys.readouterr().out.splitlines()[-1] == "| all |  | 2 | 2 | 2 | 2 | 2 | 2 | 20.0% | 20.0% |"

    other = tiny_onnx.write(tmp_path / "other.onnx")
    monkeypatch.setattr(sys, "argv", ["benchmark", str(other), "--results", str(results)])
    with pytest.raises(SystemExit, match=r"The results are of m\.onnx"):
        benchmark.main()


def test_a_row_is_a_measurement_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.deploy import profiling
    from compressor.deploy.latencies import Timing

    monkeypatch.setattr(profiling, "TIMING", Timing(warmup_s=0.002, window_s=0.002, max_s=5.0))
    row = benchmark._measured(tiny_onnx.write(tmp_path / "m.onnx"))
    assert json.loads(json.dumps(row))["model"] == "m.onnx"
    assert row["interval_ms"][0] < row["p50_ms"] < row["interval_ms"][1]
    assert row["sessions"] >= 2
