"""`exporters` works where `compressor` cannot be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHOUT_COMPRESSOR = """
import runpy, sys
sys.modules["compressor"] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.slow
def test_the_example_runs_without_compressor(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_COMPRESSOR, "docs/export_alone.py", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "unpack it on NVIDIA Jetson Orin Nano Super 8 GB" in done.stdout
    made = {path.name for path in (tmp_path / "out").iterdir()}
    assert made == {"model.onnx", "model.fp16.onnx", "model.int8.onnx", "kit", "kit.tar.gz"}
