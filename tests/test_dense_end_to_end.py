"""A segmentation teacher and a regression teacher go through the same command, with the same options, to the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tiny
import torch
from PIL import Image
from tiny_run import STAGES, Compress, refused

from compressor.inputs.intake import save_checkpoint

SHAPE = (3, 16, 24)
CLASSES = 4
SHORT = (
    *("--effort", "quick", "--option", "student_steps=4", "--option", "student_batch_size=4"),
    *("--latency-warmup-s", "0.01", "--latency-window-s", "0.01", "--latency-max-s", "0.3"),
    *("--calibration-images", "16"),
)


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`t.pt`, `few/` of images, and `val/` with `images/` and `masks/`, in which 255 is void."""
    root = tmp_path_factory.mktemp("streets")
    teacher = tiny.dense_teacher(image_shape=SHAPE)
    save_checkpoint(root / "t.pt", teacher.network.state_dict(), teacher.card)
    for folder, count, seed in ((root / "few", 8, 2), (root / "val" / "images", 12, 3)):
        folder.mkdir(parents=True)
        for index, image in enumerate(tiny.images(count, SHAPE, seed=seed)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:02d}.png")
    (root / "val" / "masks").mkdir()
    with torch.no_grad():
        maps = teacher(tiny.images(12, SHAPE, seed=3).float() / 255.0).logits.argmax(dim=1).to(torch.uint8)
    maps[:, :2] = 255
    for index, mask in enumerate(maps):
        Image.fromarray(mask.numpy()).save(root / "val" / "masks" / f"{index:02d}.png")
    return root


def line(root: Path, out: Path, *more: str) -> tuple[str, ...]:
    return ("run", "--teacher", f"{root}/t.pt", "--out", f"{out}", "--eval", f"{root}/val", *SHORT, *more)


@pytest.mark.parametrize(
    ("given", "student"),
    [
        (("--samples", "few", "--method", "vanilla", "--task", "segmentation"), "auto"),
        (("--method", "dfad", "--option", "generator_width=8", "--option", "latent_dim=4"), "prune:0.5"),
        ((), "unet8"),  # the method is chosen too
    ],
)
def test_a_segmentation_from_teacher_to_report(
    given: tuple[str, ...], student: str, streets: Path, tmp_path: Path, compress: Compress
) -> None:
    words = [f"{streets}/few" if word == "few" else word for word in given]
    outcome = compress(*line(streets, tmp_path / "run", *words, "--student", student, "--target", "jetson", "--json"))
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report["task"] == "segmentation"
    named = given[given.index("--method") + 1] if "--method" in given else None
    assert report["distillation"]["method"] == (named or "ddad")
    assert report["distillation"]["chosen"] == ("asked" if "--method" in given else "auto")

    judged = report["student"]
    assert judged["agreement"]["eval"]["of"] == "pixels"
    assert judged["agreement"]["eval"]["n"] == 12
    assert 0 <= judged["mean_iou"]["eval"]["value"] <= 1
    # The masks are the teacher's own maps, so that the student is as right as it agrees, but for the void rows.
    assert report["teacher"]["accuracy"]["eval"]["value"] == 1
    assert judged["accuracy"]["eval"]["value"] == pytest.approx(judged["agreement"]["eval"]["value"], abs=0.15)
    assert {row["precision"] for row in report["variants"] if row["model"] == "student"} == {"fp32", "fp16", "int8"}

    session = onnxruntime.InferenceSession(tmp_path / "run/onnx/student.onnx", providers=["CPUExecutionProvider"])
    images = np.zeros((2, *SHAPE), np.float32)
    (logits,) = session.run(None, {session.get_inputs()[0].name: images})
    assert logits.shape == (2, CLASSES, *SHAPE[1:])
    with Image.open(tmp_path / "run/report/overlays.png") as picture:
        assert min(picture.size) > 200
    assert "overlays.png" in (tmp_path / "run/report.md").read_text()

    assert compress(*line(streets, tmp_path / "run", *words, "--student", student, "--target", "jetson")).states() == (
        dict.fromkeys(STAGES, "cached")
    )


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--task", "classification"), 2, "unet8"),
        (("--method", "hidfd"), 4, "The method hidfd does classification."),
        (("--method", "vanilla"), 4, "There is no image of the task"),
        (("--student", "cifar_resnet8"), 2, "cifar_resnet8"),
    ],
)
def test_what_does_not_fit_a_segmentation(
    more: tuple[str, ...], code: int, said: str, streets: Path, tmp_path: Path, compress: Compress
) -> None:
    refused(compress(*line(streets, tmp_path / "run", "--quiet", *more)), code, said)


@pytest.mark.parametrize("stated", [("--task", "segmentation"), ()])
def test_masks_in_colour_are_refused_before_anything_trains(
    stated: tuple[str, ...], streets: Path, tmp_path: Path, compress: Compress
) -> None:
    shutil.copytree(streets / "val", tmp_path / "val")
    for path in (tmp_path / "val" / "masks").iterdir():
        Image.open(path).convert("RGB").save(path)
    words = line(streets, tmp_path / "run", "--quiet", "--eval", f"{tmp_path}/val", *stated)
    refused(compress(*words), 4, "None of the 12 masks", "One class index a pixel was expected", "remove masks/")
    assert not (tmp_path / "run" / "samples").exists()


@pytest.mark.parametrize("given", [("--samples", "few", "--method", "vanilla"), ("--method", "dfad")])
def test_a_regression_from_teacher_to_report(
    given: tuple[str, ...], streets: Path, tmp_path: Path, compress: Compress
) -> None:
    teacher = tiny.teacher(task="regression", num_classes=2, class_names=("angle", "speed"), image_shape=SHAPE)
    save_checkpoint(tmp_path / "t.pt", teacher.network.state_dict(), teacher.card)
    words = [f"{streets}/few" if word == "few" else word for word in given]
    options = () if "vanilla" in given else ("--option", "generator_width=8", "--option", "latent_dim=4")
    outcome = compress(
        *("run", "--teacher", f"{tmp_path}/t.pt", "--out", f"{tmp_path}/run", "--eval", f"{streets}/val/images"),
        *(*SHORT, *words, *options, "--student", "width:0.5", "--json"),
    )
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report["task"] == "regression"
    explained = report["student"]["agreement"]["eval"]
    assert explained["n"] == 12
    assert explained["low"] <= explained["value"] <= explained["high"] <= 1
    assert report["student"]["accuracy"]["eval"] is None
