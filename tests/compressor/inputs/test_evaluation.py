"""The images of --eval: none of them may be one that a stage has trained or chosen on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import tiny
import tiny_run
import torch
from PIL import Image

from compressor.inputs.evaluation import evaluation_set
from compressor.inputs.near_copies import thumbnails
from compressor.inputs.samples import read_samples


def test_images_that_are_in_both_sets_are_left_out(tmp_path: Path) -> None:
    tiny_run.write_inputs(tmp_path)
    few = tmp_path / "few"
    known = {"samples": thumbnails(read_samples(few, tiny.card()).images)}

    def evaluated(folder: Path) -> tuple[int, list[str]]:
        found = evaluation_set(folder, tiny.card(), known)
        assert len(found.images) == len(found.labels) == len(found.files)
        assert list(found.sha256) == [hashlib.sha256((folder / file).read_bytes()).hexdigest() for file in found.files]
        return len(found.images), found.warnings

    count, warnings = evaluated(few)
    assert count == 0
    assert warnings[-2].startswith(f"{tiny_run.NUM_FEW} images of --eval are also among the samples")
    assert warnings[-1].startswith("No image of --eval is left to judge the student")

    for file in few.rglob("*.png"):  # the same pictures in other bytes
        copy = tmp_path / "again" / file.relative_to(few).with_suffix(".bmp")
        copy.parent.mkdir(parents=True, exist_ok=True)
        Image.open(file).save(copy)
    assert evaluated(tmp_path / "again")[0] == 0

    count, warnings = evaluated(tmp_path / "val")
    assert count == tiny_run.NUM_VAL
    assert not any("also among the samples" in warning for warning in warnings)


@pytest.mark.parametrize("task", ["classification", "segmentation"])
def test_near_copies_in_the_pool_are_left_out_and_counted(tmp_path: Path, task: str) -> None:
    shape = (3, 32, 32)
    card = tiny.card(image_shape=shape) if task == "classification" else tiny.card(tiny.DENSE, image_shape=shape)
    pictures = tiny.images(12, shape)
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for index, image in enumerate(pictures):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / f"{index:02d}.jpg", quality=75)
        Image.new("L", (32, 32), index % 4).save(tmp_path / "masks" / f"{index:02d}.png")
    if task == "classification":
        for mask in (tmp_path / "masks").iterdir():
            mask.unlink()
    known = {"samples": thumbnails(pictures[:1]), "pool": thumbnails(pictures[:5])}
    found = evaluation_set(tmp_path, card, known)
    assert len(found.images) == len(found.labels) == 7
    assert found.warnings[-2:] == [
        "1 image of --eval is also among the samples, as such or as a near copy; left out of the evaluation.",
        "5 images of --eval are also in the pool, as such or as a near copy; left out of the evaluation.",
    ]
    if task == "segmentation":
        assert torch.equal(found.labels[:, 0, 0], torch.tensor([5 % 4, 2, 3, 0, 1, 2, 3], dtype=torch.uint8))
