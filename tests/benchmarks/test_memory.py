"""What the images of a run cost in memory, by the benchmark's own code on a few of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import memory


@pytest.mark.skipif(sys.platform != "linux", reason="the accounts are Linux's")
def test_images_that_stay_in_files_cost_no_memory_of_their_own(tmp_path: Path) -> None:
    (row,) = memory.measure(tmp_path, 2_500, 32, "distill", ("file",))
    assert row["image_bytes"] == 2_500 * 3 * 32 * 32
    assert list(row["ratios"]) == ["teacher", "samples", "student", "distill"]
    assert row["peak_anonymous_bytes"] > row["image_bytes"]
    assert row["ratio"] < 1.0, row["ratios"]


def test_inputs_are_made_once_and_differ(tmp_path: Path) -> None:
    memory.write_inputs(tmp_path, 4, 8)
    files = sorted((tmp_path / "images").iterdir())
    before = [(file.stat().st_mtime_ns, file.read_bytes()) for file in files]
    memory.write_inputs(tmp_path, 5, 8)
    assert [(file.stat().st_mtime_ns, file.read_bytes()) for file in files] == before
    assert len({file.read_bytes() for file in (tmp_path / "images").iterdir()}) == 5


def test_a_run_that_fails_is_no_row(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="The run on 3 images ended with exit code 1"):
        memory.watched_run(tmp_path, 3, "file", "distill")
