"""`compress run` with a teacher of which only its file is known: an ONNX file, and TorchScript that is trusted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny_networks
import torch
from tiny_run import Compress, refused

from compressor.cli import invoke
from compressor.report.schema import read_report
from exporters.runners import OnnxRunner

QUICK = (
    *("--latency-warmup-s", "0.01", "--latency-window-s", "0.01", "--latency-max-s", "0.3"),
    *("--effort", "quick", "--precisions", "fp32,int8", "--calibration-images", "32"),
    *("--option", "student_steps=6", "--option", "student_batch_size=8"),
)


def line(teacher: Path, inputs: Path, out: Path, *more: str) -> list[str]:
    """The command of the documentation, made short."""
    words = ["run", "--teacher", f"{teacher}", "--samples", f"{inputs}/few", "--target", "cpu", "--out", f"{out}"]
    return [*words, *QUICK, *more]


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of t.onnx, which lies beside it; not to be written to."""
    folder = tmp_path_factory.mktemp("onnx")
    teacher = tiny_networks.write(folder / "t.onnx", "onnx")
    assert invoke(line(teacher, inputs, folder / "run")) == 0
    return folder / "run"


def test_an_onnx_teacher_goes_all_the_way_without_a_flag(finished: Path) -> None:
    report = read_report(finished / "report.json")
    assert report.teacher_source.architecture == "onnx"
    assert report.teacher_source.identity_error is None
    assert report.distillation.method == "vanilla"
    assert "logits and no gradient" in str(report.distillation.reason)
    assert report.student_search is not None
    assert report.student_search.chosen == "cifar_resnet8"
    assert report.student_search.candidates[0].spec.startswith("cifar_")
    assert report.teacher.macs_g == pytest.approx((3 * 48 * 9 + 48 * 64 * 9 + 64 * 4) * 64 / 1e9)
    said = " ".join(report.warnings)
    assert "which is run as it is, only logits are to be had: that leaves the methods noise, pool, vanilla." in said
    assert "Answers alone tell a normalisation less surely" in said
    assert "with doubt" in said
    assert {row.label for row in report.variants} >= {"student fp32", "teacher fp32", "teacher int8"}


def test_the_teachers_artefact_takes_images_and_answers_as_the_teacher_does(finished: Path) -> None:
    report = read_report(finished / "report.json")
    images = torch.rand(4, 3, 8, 8)
    mean, std = (
        torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (report.teacher_source.mean, report.teacher_source.std)
    )
    with OnnxRunner(finished / "onnx/teacher.onnx") as runner:
        found = torch.from_numpy(runner.infer({"image": images.numpy()})["logits"])
    with torch.no_grad():
        low, high = json.loads((finished / "teacher/card.json").read_text())["value_range"]
        expected = tiny_networks.network()((images * (high - low) + low - mean) / std)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_run_folder_is_whole_without_the_file(
    finished: Path, inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    moved = tmp_path / finished.name
    shutil.copytree(finished, moved)
    verified = compress("verify", f"{moved}")
    assert verified.code == 0
    assert "parity: student.onnx and teacher.onnx within" in verified.out
    again = compress(*line(finished.parent / "t.onnx", inputs, moved))
    assert set(again.states().values()) == {"cached"}, again.err


def test_a_changed_file_is_another_teacher(finished: Path, inputs: Path, tmp_path: Path, compress: Compress) -> None:
    other = tiny_networks.write(tmp_path / "t.onnx", "onnx", tiny_networks.network(seed=1))
    shutil.copytree(finished, tmp_path / "run")
    states = compress("plan", *line(other, inputs, tmp_path / "run")[1:]).out
    assert "input changed: t.onnx" in states


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--method", "hidfd"), ("only its logits are to be had", "noise, pool, vanilla")),
        (("--method", "dfad"), ("gradients to the image as well", "noise, pool, vanilla")),
        (("--student", "width:0.5"), ("with fewer channels", "cifar_resnet8", "leave --student out")),
        (("--student", "prune:0.4"), ("a pruned copy", "cifar_resnet8", "leave --student out")),
        (("--opset", "13"), ("opset 20", "opset 13 at most", "opset_version=13")),
    ],
)
def test_what_needs_more_is_refused_before_anything_trains(
    finished: Path, inputs: Path, tmp_path: Path, compress: Compress, more: tuple[str, ...], words: tuple[str, ...]
) -> None:
    command = ["run", *line(finished.parent / "t.onnx", inputs, tmp_path / "run")[1:9], *more, "--quiet"]
    refused(compress(*command), 4, *words)
    assert not (tmp_path / "run/samples").exists()


def test_unknown_torchscript_that_is_trusted_is_distilled_without_images(
    inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    teacher = tiny_networks.write(tmp_path / "t.pt", "torchscript")
    command = line(
        teacher, inputs, tmp_path / "run", "--input-size", "8", "--student", "cifar_resnet8", "--method", "dfad"
    )
    command += ["--option", "generator_width=8", "--option", "latent_dim=4"]
    refused(compress(*command, "--quiet"), 4, "add --trust-pickle")
    outcome = compress(*command, "--trust-pickle")
    assert outcome.code == 0, outcome.err
    report = read_report(tmp_path / "run/report.json")
    assert report.teacher_source.architecture == "torchscript"
    assert report.distillation.method == "dfad"
    assert any("Code was run while t.pt was read (TorchScript)" in warning for warning in report.warnings)
    assert any("logits and gradients to the image are to be had" in warning for warning in report.warnings)
    verified = compress("verify", f"{tmp_path}/run")
    assert "parity: student.onnx within" in verified.out
    assert "teacher.onnx was not compared, since the teacher's own file would run code" in verified.out
    assert verified.code == 0
