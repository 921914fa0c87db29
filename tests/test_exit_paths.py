"""Exit paths that no other test meets: a wrong word, a wrong file, a wrong machine, by the real command.

`docs/test_errors.py` holds that every path of the code has an example; this is where one goes that has none.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_run
from tiny_networks import small_onnx
from tiny_run import Compress, refused

from exporters.errors import ExportError
from exporters.runners import OnnxRunner

REPORT = str(Path(__file__).parent / "earlier" / "report-1.4")


def export(folder: Path, **shapes: tuple[object, ...]) -> list[str]:
    """The words that export a small network of other shapes."""
    return [
        "export",
        "--from",
        f"{small_onnx(folder / 'm.onnx', **shapes)}",
        "--samples",
        f"{folder}",
        "--target",
        "cpu",
    ]


def run_with(flag: str, file: Path) -> list[str]:
    """A run with a file for one flag."""
    return ["run", "--teacher", f"{file.parent}/t.pt", flag, f"{file}", "--out", f"{file.parent}/run"]


def pipe(folder: Path) -> Path:
    """What a program would wait for."""
    os.mkfifo(folder / "card.yaml")
    return folder / "card.yaml"


def noise(folder: Path) -> Path:
    """Bytes that are no text."""
    (folder / "names.txt").write_bytes(b"\xff\xfe\xff")
    return folder / "names.txt"


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (lambda _: ["inspect", "a" * 5000], 2, "cannot be used: File name too long."),
        (lambda _: ["compare", REPORT], 2, "`compress compare` got one report."),
        (lambda folder: ["gate", f"{folder}/none"], 2, "There is no report in"),
        (lambda folder: ["gate", REPORT, "--junit", f"{folder}/none/x.xml"], 2, "--junit"),
        (lambda folder: ["gate", REPORT, "--baseline", f"{folder}/none.json"], 2, "The baseline"),
        (lambda folder: run_with("--card", pipe(folder)), 4, "given to --card, is no file."),
        (lambda folder: run_with("--class-names", noise(folder)), 4, "The class names in"),
        (lambda folder: export(folder, takes=("batch", 5, 8, 8)), 4, "takes images of 5 channels."),
    ],
)
def test_a_command_that_cannot_go_on(
    line: Callable[[Path], list[str]], code: int, words: str, inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    for name in ("t.pt", "few"):
        (tmp_path / name).symlink_to(inputs / name)
    refused(compress(*line(tmp_path)), code, words)


def test_a_runtime_without_the_provider_and_a_file_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="has no execution provider 'NoExecutionProvider'"):
        OnnxRunner(tmp_path / "m.onnx", provider="NoExecutionProvider")
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"could not load .*m\.onnx on CPUExecutionProvider"):
        OnnxRunner(tmp_path / "m.onnx")


def test_precisions_that_the_target_does_not_take(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    words = ("--target", "jetson-nano", "--precisions", "fp32,int8")
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run", *words))
    refused(outcome, 2, "--precisions has int8.", "Jetson Nano")
