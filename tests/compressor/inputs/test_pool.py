"""The pool: read like samples, without their labels, and never with one of them in it."""

from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from compressor.errors import InputRefused
from compressor.inputs.pool import read_pool
from compressor.inputs.samples import no_samples, read_samples, split_samples

CARD = tiny.card()


def write(folder: Path, count: int, *, seed: int = 0, suffix: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(tiny.images(count, seed=seed)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{seed}-{index}.{suffix}")
    return folder


def test_folders_are_no_labels(tmp_path: Path) -> None:
    write(tmp_path / "pool" / "class 1", 3)
    write(tmp_path / "pool" / "no class", 3, seed=1)
    pool = read_pool(tmp_path / "pool", CARD, no_samples(CARD), max_images=100)
    assert pool.images.shape == (6, 3, 8, 8)
    assert pool.labels.tolist() == [-1] * 6
    assert pool.warnings == ()


def test_samples_are_left_out_by_bytes_and_by_pixels(tmp_path: Path) -> None:
    samples = read_samples(write(tmp_path / "few", 4), CARD)
    folder = write(tmp_path / "pool", 5, seed=1)
    (folder / "copy.png").write_bytes((tmp_path / "few" / "0-2.png").read_bytes())
    Image.open(tmp_path / "few" / "0-3.png").save(folder / "saved-anew.bmp")
    pool = read_pool(folder, CARD, samples, max_images=100)
    assert len(pool.images) == len(pool.files) == len(pool.sha256) == len(pool.labels) == 5
    assert not any((image == sample).all() for image in pool.images for sample in samples.images)
    assert pool.warnings == (
        "2 images of --pool are also among the samples, as such or as a near copy; left out of the pool.",
    )


def test_near_copies_of_samples_are_left_out(tmp_path: Path) -> None:
    card = tiny.card(image_shape=(3, 32, 32))
    (tmp_path / "few").mkdir()
    (tmp_path / "pool").mkdir()
    for index, image in enumerate(tiny.images(4, card.input_shape)):
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        picture.save(tmp_path / "few" / f"{index}.png")
        picture.resize((64, 64), Image.Resampling.BICUBIC).save(tmp_path / "pool" / f"copy{index}.jpg", quality=75)
    for index, image in enumerate(tiny.images(9, card.input_shape, seed=1)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "pool" / f"other{index}.png")
    pool = read_pool(tmp_path / "pool", card, read_samples(tmp_path / "few", card), max_images=100)
    assert all(name.startswith("other") for name in pool.files)
    assert len(pool.files) == len(pool.images) == 9
    assert pool.warnings[0].startswith("4 images of --pool are also among the samples, as such or as a near copy")


def test_a_refusal_names_the_pool(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="given to --pool, does not exist"):
        read_pool(tmp_path / "none", CARD, no_samples(CARD), max_images=100)


def test_a_pool_of_nothing_but_samples_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "few", 4)
    with pytest.raises(InputRefused, match="All 4 images of the pool") as refusal:
        read_pool(folder, CARD, read_samples(folder, CARD), max_images=100)
    assert "Leave --pool out" in refusal.value.action


def test_at_most_so_many_are_read(tmp_path: Path) -> None:
    pool = read_pool(write(tmp_path / "pool", 9), CARD, no_samples(CARD), max_images=4)
    assert len(pool.images) == 4
    assert pool.warnings == ("--pool: 4 of 9 images were read, spread evenly over the folder.",)


def test_without_samples_every_part_is_empty() -> None:
    samples = no_samples(CARD)
    split = split_samples(
        samples, torch.empty(0, dtype=torch.int64), seed=0, select_fraction=0.1, evidence_fraction=0.15
    )
    assert [len(part) for part in (split.train, split.select, split.evidence)] == [0, 0, 0]
    assert split.to_dict(samples) == {"files": []}
