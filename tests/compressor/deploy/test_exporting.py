"""`compress export` on ONNX files of ours and of others, through the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from tiny_run import Compress, refused

from compressor.deploy.exporting import _fed
from exporters.onnx_files import load_onnx
from exporters.torch_to_onnx import onnx_from_torch

SIDE, CLASSES = 12, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx and images/, forty smooth pictures in one folder for each class that the model sees."""
    folder = tmp_path_factory.mktemp("export")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        *(torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3), torch.nn.ReLU()),
        *(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, CLASSES)),
    ).eval()
    onnx_from_torch(network, (3, SIDE, SIDE), folder / "model.onnx", opset_ceiling=20, metadata={})
    draw = torch.rand(40, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    pixels = (torch.nn.functional.interpolate(draw, (SIDE, SIDE), mode="bilinear") * 255).round().to(torch.uint8)
    with torch.no_grad():
        classes = network(pixels.float() / 255).argmax(dim=1).tolist()
    for index, (image, label) in enumerate(zip(pixels, classes, strict=True)):
        path = folder / "images" / str(label) / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    return folder


def exported(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "export.json").read_text())
    return content


def words(folder: Path, out: Path, *more: str, source: Path | None = None) -> tuple[str, ...]:
    source = source or folder / "model.onnx"
    return ("export", "--from", f"{source}", "--samples", f"{folder}/images", "--out", f"{out}", *more)


def test_an_export_for_a_jetson_has_every_precision_and_a_kit(folder: Path, tmp_path: Path, compress: Compress) -> None:
    out = tmp_path / "out"
    outcome = compress(*words(folder, out, "--target", "jetson", "--eval", f"{folder}/images", "--json"))
    assert outcome.code == 0, outcome.err
    (line,) = outcome.out.splitlines()
    assert json.loads(line) == exported(out)
    found = exported(out)
    assert [(v["precision"], v["path"]) for v in found["variants"]] == [
        ("fp32", "onnx/student.onnx"),
        ("fp16", "precision/student.fp16.onnx"),
        ("int8", "precision/student.int8.onnx"),
    ]
    assert all((out / v["path"]).is_file() for v in found["variants"])
    assert found["variants"][1]["agreement_with_fp32"]["eval"]["n"] == 40
    assert (found["num_calibration"], found["num_evidence"]) == (28, 12)
    assert (found["source"]["input_name"], found["source"]["image_shape"]) == ("image", [3, SIDE, SIDE])
    assert found["int8"][0]["generator_note"].startswith("An export alone has no generator")
    assert (out / found["kit"]["path"]).is_file()
    assert found["recommendation"]["precision"] in ("fp16", "fp32")

    again = compress(*words(folder, out, "--precisions", "fp32,fp16", "--target", "cpu"))
    assert again.code == 0, again.err
    assert [v["precision"] for v in exported(out)["variants"]] == ["fp32", "fp16"]
    assert exported(out)["kit"] is None
    assert "recommended" in again.out
    left = {path.relative_to(out).as_posix() for path in out.rglob("*.onnx")}
    assert left == {"onnx/student.onnx", "precision/student.fp16.onnx"}


def test_a_foreign_file_with_other_names_and_a_fixed_batch(folder: Path, tmp_path: Path, compress: Compress) -> None:
    proto = load_onnx(folder / "model.onnx")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    text = {"image": "data_0", "logits": "prob_1"}
    for node in proto.graph.node:
        node.input[:] = [text.get(name, name) for name in node.input]
        node.output[:] = [text.get(name, name) for name in node.output]
    proto.graph.input[0].name, proto.graph.output[0].name = "data_0", "prob_1"
    del proto.graph.value_info[:]
    onnx.save(proto, tmp_path / "foreign.onnx")
    flags = ("--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25", "--quiet")
    outcome = compress(*words(folder, tmp_path / "out", *flags, source=tmp_path / "foreign.onnx"))
    assert outcome.code == 0, outcome.err
    found = exported(tmp_path / "out")
    assert (found["source"]["input_name"], found["source"]["fixed_batch"]) == ("data_0", 2)
    assert {v["precision"]: v["latency_host"]["batch_size"] for v in found["variants"]} == {
        "fp32": 2,
        "fp16": 2,
        "int8": 2,
    }


def test_normalisation_outside_the_file() -> None:
    images = np.array([[[[0]], [[51]], [[255]]]], np.uint8)
    np.testing.assert_allclose(_fed(images, mean=None, std=None).ravel(), [0, 0.2, 1], rtol=1e-6)
    fed = _fed(images, mean=(0.5, 0.2, 0.0), std=(0.5, 1.0, 2.0))
    np.testing.assert_allclose(fed.ravel(), [-1.0, 0.0, 0.5], atol=1e-6)


def two_inputs(path: Path) -> Path:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3, 8, 8]) for name in "ab"]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3, 8, 8])
    graph = helper.make_graph([helper.make_node("Add", ["a", "b"], ["y"])], "two", values, [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--target", "jetsn"), 2, "jetsn"),
        (("--target", "jetson-nano"), 2, "is written in opset 20"),
        (("--target", "jetson-nano", "--precisions", "int8"), 2, "--precisions has int8"),
        (("--mean", "0.5"), 2, "Only one of --mean and --std"),
        (("--mean", "0.5", "--std", "0"), 2, "--std 0 is not a list of numbers"),
        (("--mean", "0.5", "--std", "1"), 2, "takes images of 3 channels"),
        (("--eval", "/nowhere"), 4, "--eval"),
    ],
)
def test_refusals(
    more: tuple[str, ...], code: int, said: str, folder: Path, tmp_path: Path, compress: Compress
) -> None:
    refused(compress(*words(folder, tmp_path / "out", *more)), code, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["missing", "truncated", "no model", "two inputs"])
def test_a_file_that_is_no_classifier(kind: str, folder: Path, tmp_path: Path, compress: Compress) -> None:
    source = tmp_path / "model.onnx"
    if kind == "truncated":
        source.write_bytes((folder / "model.onnx").read_bytes()[:-50])
    elif kind == "no model":
        source.write_text("hello")
    elif kind == "two inputs":
        two_inputs(source)
    outcome = compress(*words(folder, tmp_path / "out", source=source))
    refused(outcome, 4, "model.onnx")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_ours_is_left_alone(folder: Path, tmp_path: Path, compress: Compress) -> None:
    (tmp_path / "precision").mkdir()
    (tmp_path / "precision" / "thesis.txt").write_text("mine")
    assert compress(*words(folder, tmp_path)).code == 2
    assert (tmp_path / "precision" / "thesis.txt").read_text() == "mine"
