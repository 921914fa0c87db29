"""The memory of a model in a process of its own."""

import sys
from pathlib import Path

import pytest
import tiny_onnx

from compressor.deploy.peak_memory import peak_memory


@pytest.mark.skipif(sys.platform != "linux", reason="the accounts are Linux's")
def test_a_larger_batch_needs_more(tmp_path: Path) -> None:
    path = tiny_onnx.write(tmp_path / "m.onnx", size=64)
    one, many = (peak_memory(path, threads=1, batch_size=size) for size in (1, 256))
    assert one is not None
    assert many is not None
    image_mib = 3 * 64 * 64 * 4 / 2**20
    assert 0 < one.peak_mib < 100
    assert many.peak_mib - one.peak_mib > 255 * image_mib  # the images alone
    assert one.runtime_mib > 10
    assert (many.batch_size, many.threads) == (256, 1)


def test_a_child_that_fails_gives_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert peak_memory(tmp_path / "absent.onnx", threads=1, batch_size=1) is None
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    assert peak_memory(tmp_path / "absent.onnx", threads=1, batch_size=1) is None
