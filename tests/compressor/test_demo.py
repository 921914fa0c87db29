"""The demo's files are what a user would have, its held-out digits are held out, and it touches no other folder."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import Compress, failing, refused

from compressor import demo, pipeline
from compressor.config import resolve
from compressor.demo import FEW_PER_CLASS, NUM_TRAIN, demo_settings, digits, first_of_each_class, prepare_demo
from compressor.errors import EnvironmentFault, Interrupted
from compressor.inputs.intake import read_teacher
from compressor.progress import Reporter
from compressor.stages import NotARunFolder, clean

QUIET = Reporter(quiet=True)
NUM_DIGITS = 1_797


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "TEACHER_STEPS", 5)


def pictures(folder: Path) -> dict[bytes, str]:
    """The pixels of every image below a folder, and the class folder that it is in."""
    return {np.asarray(Image.open(path)).tobytes(): path.parent.name for path in sorted(folder.rglob("*.png"))}


def test_what_a_user_would_have(tmp_path: Path) -> None:
    prepare_demo(tmp_path / "demo", seed=0, reporter=QUIET)
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {"CACHEDIR.TAG", ".lock", "t.pt", "few", "val"}
    few, val = tmp_path / "demo/few", tmp_path / "demo/val"
    assert Counter(pictures(few).values()) == Counter({str(digit): FEW_PER_CLASS for digit in range(10)})
    assert len(list(val.rglob("*.png"))) == NUM_DIGITS - NUM_TRAIN
    assert not pictures(few).keys() & pictures(val).keys()
    source = read_teacher(tmp_path / "demo/t.pt")
    assert source.card == demo.CARD
    config = resolve(demo_settings(tmp_path / "demo"), None).config
    assert (config.teacher.file, config.samples.folder) == (tmp_path / "demo/t.pt", few)
    assert (config.target, config.distill.effort, config.out) == ("jetson", "quick", tmp_path / "demo/run")
    assert config.distill.options == demo.HIDFD_STEPS
    assert resolve(demo_settings(tmp_path / "demo", "vanilla"), None).config.distill.options == {}


def test_no_held_out_digit_is_among_those_that_the_teacher_learns() -> None:
    images, labels = digits(seed=3)
    assert (images.shape, images.dtype, images.max()) == ((NUM_DIGITS, 1, 8, 8), torch.uint8, 255)
    train = {image.numpy().tobytes() for image in images[:NUM_TRAIN]}
    assert not train & {image.numpy().tobytes() for image in images[NUM_TRAIN:]}
    assert not torch.equal(labels, digits(seed=4)[1])
    rows = first_of_each_class(labels[:NUM_TRAIN], 2)
    assert labels[rows].tolist() == [digit for digit in range(10) for _ in range(2)]


def test_equal_seeds_make_equal_files(tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        prepare_demo(tmp_path / name, seed=seed, reporter=QUIET)
    one, two, three = ((tmp_path / name / "t.pt").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three
    assert pictures(tmp_path / "one/few") == pictures(tmp_path / "two/few") != pictures(tmp_path / "three/few")


def test_a_second_demo_uses_the_first_ones_teacher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare_demo(tmp_path / "demo", seed=0, reporter=QUIET)
    monkeypatch.setattr(demo, "digits", failing(AssertionError("nothing is made again")))
    prepare_demo(tmp_path / "demo", seed=5, reporter=QUIET)


def test_a_stopped_demo_mixes_no_images_of_two_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A digit that one seed holds out is one that another seed's teacher has learned."""
    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "forecast", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(Interrupted):
            prepare_demo(tmp_path / "demo", seed=0, reporter=QUIET)
    assert not (tmp_path / "demo/t.pt").exists()
    prepare_demo(tmp_path / "demo", seed=1, reporter=QUIET)
    prepare_demo(tmp_path / "fresh", seed=1, reporter=QUIET)
    for part in ("few", "val"):
        assert pictures(tmp_path / "demo" / part) == pictures(tmp_path / "fresh" / part)
    assert (tmp_path / "demo/t.pt").read_bytes() == (tmp_path / "fresh/t.pt").read_bytes()


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "few/mine.png").write_bytes(b"mine")
    with pytest.raises(NotARunFolder, match="was not made by compress"):
        prepare_demo(tmp_path, seed=0, reporter=QUIET)
    assert [path.name for path in tmp_path.rglob("*")] == ["few", "mine.png"]


def test_without_scikit_learn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(EnvironmentFault) as refusal:
        digits(0)
    assert refusal.value.action == "Run: pip install 'compress-edge[demo]'."


def test_the_command_prints_the_line_that_it_then_runs(
    tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "make_the_student", failing(RuntimeError("enough")))
    refused(compress("demo", "--method", "hidf"), 2, "Unknown method 'hidf'.")
    assert not list(tmp_path.iterdir())
    outcome = compress("demo")
    refused(outcome, 5, "Stage student failed")
    assert outcome.err.startswith(
        "    training a teacher (cifar_resnet14) on 1,200 of scikit-learn's handwritten digits"
    )
    (line,) = [line for line in outcome.err.splitlines() if line.startswith("$ ")]
    again = compress(*shlex.split(line)[2:])
    refused(again, 5, "Stage student failed")
    assert again.states() == {"teacher": "cached", "samples": "cached", "student": "resumes"}
    clean(tmp_path / "demo")
    assert not list(tmp_path.iterdir())
