"""A checkpoint of an interrupted training that was damaged is named, and never gone on from."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from hostile.teachers import CUTS, cut, flipped, zip_places

from compressor.distill.recovery import DamagedCheckpoint, read_checkpoint
from compressor.errors import exit_code_of

STATE = {"step": 3, "weights": torch.arange(4_000.0)}


def saved() -> bytes:
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    return buffer.getvalue()


def test_a_whole_one_is_read(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-student.pt"
    path.write_bytes(saved())
    for source in (path, io.BytesIO(saved())):
        read = read_checkpoint(source, torch.device("cpu"), path)
        assert read["step"] == 3
        assert torch.equal(read["weights"], STATE["weights"])


@pytest.mark.parametrize("part", ["header", "pickle", "tensor data", "zip directory", *CUTS])
def test_a_damaged_one_is_named(tmp_path: Path, part: str) -> None:
    path, data = tmp_path / "checkpoint-student.pt", saved()
    path.write_bytes(
        cut(data, CUTS[part]) if part in CUTS and part != "header" else flipped(data, zip_places(data)[part])
    )
    with pytest.raises(DamagedCheckpoint, match="checkpoint-student") as caught:
        read_checkpoint(path, torch.device("cpu"), path)
    assert exit_code_of(caught.value) == 5
