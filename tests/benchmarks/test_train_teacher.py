"""The benchmarks' teacher, from random pictures to the files that `compress run` takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from benchmarks import train_teacher
from benchmarks.tiny_packs import NUM_TEST, write_tiny_packs
from compressor.inputs.intake import read_teacher


@pytest.mark.parametrize(("pack", "side"), [("cifar10", 32), ("clothing", 128)])
def test_a_teacher_and_its_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pack: str, side: int) -> None:
    data, out = write_tiny_packs(tmp_path / "packs"), tmp_path / "out"
    words = ["--data", f"{data}", "--pack", pack, "--out", f"{out}", "--device", "cpu", "--few", "12", "--val"]
    monkeypatch.setattr(sys, "argv", ["train_teacher", *words, "--steps", "2", "--width", "0.125"])
    train_teacher.main()
    found = read_teacher(out / "t.pt")
    assert found.card is not None
    assert found.card.input_shape == (3, side, side)
    assert len(list((out / "few").glob("*/*.png"))) == 12
    assert len(list((out / "val").glob("*/*.png"))) == NUM_TEST
    assert json.loads((out / "result.json").read_text())["device"] == "cpu"
