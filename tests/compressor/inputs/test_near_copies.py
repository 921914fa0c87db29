"""Copies that no hash finds, and different pictures that must not be taken for them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from torch import Tensor

from compressor.inputs.near_copies import BATCH, CELLS, near_copies, thumbnails

SHAPE = (3, 32, 32)


def changed(images: Tensor, *, quality: int | None = None, scale: float = 1.0) -> Tensor:
    """The images enlarged, encoded as JPEG, decoded and brought back to their size."""
    height, width = images.shape[2:]
    found = []
    for image in images:
        picture = Image.fromarray(image.permute(1, 2, 0).numpy())
        picture = picture.resize((round(width * scale), round(height * scale)), Image.Resampling.BILINEAR)
        if quality is not None:
            file = io.BytesIO()
            picture.save(file, "JPEG", quality=quality)
            picture = Image.open(file)
        found.append(np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR)))
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("quality", "scale"), [(None, 1.0), (75, 1.0), (95, 1.0), (None, 2.0), (75, 2.0), (75, 1.3)])
def test_encoded_and_resized_copies_are_found(quality: int | None, scale: float) -> None:
    images = tiny.images(64, SHAPE)
    copies = changed(images, quality=quality, scale=scale)
    others = thumbnails(tiny.images(200, SHAPE, seed=1))
    assert near_copies(thumbnails(copies), torch.cat([others, thumbnails(images)])).all()


def test_different_pictures_are_none() -> None:
    images, others = tiny.images(BATCH + 40, SHAPE), tiny.images(2_000, SHAPE, seed=1)
    assert not near_copies(thumbnails(images), thumbnails(others)).any()


def test_a_mirrored_or_brighter_copy_is_missed_as_the_docstring_says() -> None:
    images = tiny.images(20, SHAPE)
    known = thumbnails(images)
    assert not near_copies(thumbnails(images.flip(3)), known).any()
    assert not near_copies(thumbnails((images // 2) + 64), known).any()


def test_the_same_grey_in_another_colour_is_another_picture() -> None:
    red, green = torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.zeros(1, *SHAPE, dtype=torch.uint8)
    red[:, 0, :16] = green[:, 1, :16] = 200
    assert not near_copies(thumbnails(red), thumbnails(green)).any()


def test_flat_pictures_of_other_greys_differ() -> None:
    flat = torch.arange(0, 250, 10, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8)
    looks = thumbnails(flat)
    for index in range(len(looks)):
        assert near_copies(looks, looks[index : index + 1]).tolist() == [row == index for row in range(len(looks))]


def test_thumbnails_are_means_over_cells() -> None:
    image = torch.zeros(1, 1, 16, 24, dtype=torch.uint8)
    image[:, :, :2, :3] = 100
    image[:, :, 2:4, :3][..., 0] = 90
    looks = thumbnails(image)
    assert looks.shape == (1, CELLS**2)
    assert looks.dtype == torch.uint8
    assert looks.view(CELLS, CELLS)[:3, 0].tolist() == [100, 30, 0]
    assert int(looks.sum()) == 130


def test_without_pictures_there_is_nothing() -> None:
    none = thumbnails(torch.empty(0, *SHAPE, dtype=torch.uint8))
    some = thumbnails(tiny.images(3, SHAPE))
    assert none.shape == (0, 3 * CELLS**2)
    assert near_copies(none, some).tolist() == []
    assert near_copies(some, none).tolist() == [False] * 3
