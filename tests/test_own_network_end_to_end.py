"""A whole run of a network of the user's own code, for images of four bands: made, verified, moved and resumed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import tiny
import tiny_run
import torch
from PIL import Image
from tiny_run import STAGES, Compress, failing, refused

from compressor import pipeline
from compressor.errors import StageFailed
from compressor.report.schema import read_report

NET = """
from torch import nn

from blocks_of_a_user import block

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(block(4, 16), block(16, 16))
        self.fc = nn.Linear(16, 1)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))
"""
BLOCKS = """
from torch import nn

def block(before, after):
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """t.pt, the code of its network beside it, and few/ of four bands."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "net_of_a_user.py").write_text(NET)
    (folder / "blocks_of_a_user.py").write_text(BLOCKS)
    space: dict[str, type[torch.nn.Module]] = {}
    exec(BLOCKS + NET.replace("from blocks_of_a_user import block", ""), space)
    torch.manual_seed(0)
    torch.save(space["Net"]().state_dict(), folder / "t.pt")
    (folder / "few").mkdir()
    for index, image in enumerate(tiny.images(12, (4, 8, 8))):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"few/{index:02d}.png")
    return folder


def line(folder: Path, run: Path, *more: str) -> list[str]:
    own = ("--arch", "net_of_a_user:Net", "--code", f"{folder}/net_of_a_user.py", "--input-size", "8x8")
    return tiny_run.line(folder, run, *own, "--mean", "0,0,0,0", "--std", "1,1,1,1", "--student", "prune:0.5", *more)


def test_a_run_its_copy_of_the_code_and_what_becomes_of_it(
    folder: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    done = compress(*line(folder, run))
    assert done.code == 0, done.err
    report = read_report(run / "report.json")
    assert report.teacher_source.input_shape == (4, 8, 8)
    assert report.teacher_source.class_names == ("0", "1")
    said = " ".join(report.warnings)
    assert "Code was run: Net of net_of_a_user.py" in said
    assert "became two classes with the logits 0 and z" in said
    assert "the four bands of a file" in (run / "model-card.md").read_text()
    assert json.loads((run / "distill/student.json").read_text())["architecture"] == "net_of_a_user:Net"

    again = compress(*line(folder, run))
    assert again.states() == dict.fromkeys(STAGES, "cached")

    # Another machine, without the user's code: nothing of the folder runs unless that is said.
    moved = tmp_path / "moved" / "run"
    moved.parent.mkdir()
    shutil.move(run, moved)
    looked = compress("verify", str(moved))
    assert looked.code == 0, looked.out
    assert "skipped  parity: the teacher is made by code in the run folder" in looked.out
    looked = compress("verify", str(moved), "--run-code")
    assert looked.code == 0, looked.out
    assert "ok       parity: student.onnx and teacher.onnx within" in looked.out

    # The copy of the code is what later stages use, and a changed import runs the first one again.
    resumed = compress(*line(folder, moved, "--option", "student_steps=7"))
    assert (resumed.states()["teacher"], resumed.states()["distill"]) == ("cached", "runs")
    (folder / "blocks_of_a_user.py").write_text(f"# changed{BLOCKS}")
    planned = compress("plan", *line(folder, moved)[1:])
    assert "input changed: blocks_of_a_user.py" in planned.out

    # Another activation has the same weights and the same card, and gives other answers.
    (folder / "blocks_of_a_user.py").write_text(BLOCKS.replace("ReLU", "SiLU"))
    monkeypatch.setattr(pipeline, "make_the_student", failing(StageFailed("Enough.", "Enough.", "Enough.")))
    changed = compress(*line(folder, moved, "--option", "student_steps=7"))
    assert changed.code == 5, changed.err
    assert changed.states() == {"teacher": "runs", "samples": "runs", "student": "runs"}
    assert "input changed: teacher/code.zip" in changed.err
    (folder / "blocks_of_a_user.py").write_text(BLOCKS)


def test_only_the_command_line_lets_code_run(folder: Path, tmp_path: Path, compress: Compress) -> None:
    """A configuration that somebody sent, and a run's own, may name code, and nothing of it runs."""
    given = tmp_path / "job"
    given.mkdir()
    (given / "evil_net.py").write_text(f"import pathlib\npathlib.Path({f'{tmp_path}/it_ran'!r}).touch()\n{NET}")
    (given / "blocks_of_a_user.py").write_text(BLOCKS)
    teacher = {"file": f"{folder}/t.pt", "architecture": "evil_net:Net", "input_size": [8, 8]}
    settings = {"teacher": teacher, "samples": {"folder": f"{folder}/few"}, "out": "run"}
    for command, changes, *words in (
        ("run", {}, "teacher.architecture", "add --arch evil_net:Net --code", f"{given}/evil_net.py"),
        ("plan", {}, "add --arch evil_net:Net --code"),
        ("run", {"code": "evil_net.py"}, "teacher.architecture, teacher.code", "add --arch evil_net:Net --code"),
        ("run", {"architecture": None, "trust_pickle": True}, "teacher.trust_pickle", "add --trust-pickle."),
    ):
        (given / "run.yaml").write_text(json.dumps({**settings, "teacher": {**teacher, **changes}}))
        refused(compress(command, "--config", f"{given}/run.yaml"), 2, "The configuration file says", *words)
    # The flag names a network, and the configuration may not choose which file that is.
    (given / "run.yaml").write_text(json.dumps({**settings, "teacher": {**teacher, "code": "evil_net.py"}}))
    outcome = compress("run", "--config", f"{given}/run.yaml", "--arch", "evil_net:Net")
    refused(outcome, 2, "teacher.code", f"add --code {given}/evil_net.py.")
    assert not (tmp_path / "it_ran").exists()
    assert not (given / "run").exists()
    # What it says to add is enough.
    flags = ("--arch", "evil_net:Net", "--code", f"{given}/evil_net.py")
    assert compress("plan", "--config", f"{given}/run.yaml", *flags).code == 0


def test_a_copy_that_does_not_run_alone_is_refused_before_anything_trains(
    folder: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "blocks_of_a_user", raising=False)  # a user's command starts without it
    for name, text in (("lib/blocks_of_a_user.py", BLOCKS), ("net/far_net.py", NET), ("net/hidden_net.py", NET)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    far = "import os, sys\nsys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'lib'))\n"
    (tmp_path / "net/far_net.py").write_text(far + NET)
    hidden = "import importlib\nblock = importlib.import_module('blocks_' + 'of_a_user').block"
    (tmp_path / "net/hidden_net.py").write_text(NET.replace("from blocks_of_a_user import block", hidden))
    for name, *words in (
        ("far_net", "imports blocks_of_a_user from a folder that it adds to sys.path", "or install it."),
        ("hidden_net", "does not run by itself", "No module named 'blocks_of_a_user'", "Put what is missing beside"),
    ):
        own = ("--arch", f"{name}:Net", "--code", f"{tmp_path}/net/{name}.py")
        outcome = compress(*line(folder, tmp_path / "run", *own))
        refused(outcome, 4, *words)
        (tmp_path / "net/blocks_of_a_user.py").write_text(BLOCKS)  # for the second


def test_samples_of_three_bands_are_refused(folder: Path, tmp_path: Path, compress: Compress) -> None:
    for index, image in enumerate(tiny.images(4)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / f"{index}.png")
    outcome = compress(*line(folder, tmp_path / "run" / "r", "--samples", f"{tmp_path}"))
    refused(outcome, 2, "lies inside --samples")
    outcome = compress(*line(folder, folder / "run", "--samples", f"{tmp_path}"))
    refused(outcome, 4, "it has 3 bands, and the teacher takes images of 4")


def test_what_is_refused_before_a_run_folder_is_made(folder: Path, tmp_path: Path, compress: Compress) -> None:
    run = tmp_path / "run"
    refused(compress(*line(folder, run, "--arch", "net_of_a_usr:Net")), 2, "--arch net_of_a_user:Net")
    refused(compress(*line(folder, run, "--task", "multilabel")), 2, "compare softmaxes", "--task regression")
    assert not run.exists()
