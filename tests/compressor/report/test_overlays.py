"""The picture of class maps: every pixel where it is, its class by its colour, and names that cannot act."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from compressor.report.drawing import MARGIN
from compressor.report.overlays import DIFFERENT, MAX_IMAGES, colour, over_grey, overlays

NAMES = ("sky", "road", "a name that is much too long for the legend", "\x1b[31mred\u202e")


def maps(count: int, height: int = 28, width: int = 56) -> tuple[Tensor, Tensor, Tensor]:
    """White images; the teacher gives the left half to class 1, the student all but one pixel of it."""
    teacher = torch.zeros(count, height, width, dtype=torch.uint8)
    teacher[:, :, : width // 2] = 1
    student = teacher.clone()
    student[:, 0, 0] = 3
    return torch.full((count, 3, height, width), 255, dtype=torch.uint8), teacher, student


def drawn(path: Path, count: int, *, channels: int = 3) -> np.ndarray:
    images, teacher, student = maps(count)
    overlays(images[:, :channels], teacher, student, NAMES, path)
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_pixel_that_differs_is_red_and_alone(channels: int, tmp_path: Path) -> None:
    picture = drawn(tmp_path / "one.png", 1, channels=channels)
    red = (picture == DIFFERENT).all(axis=2)
    assert red.sum() == 4 * 4  # 56 px are enlarged four times
    row, column = np.argwhere(red)[0]
    assert row == MARGIN + 26
    assert column > picture.shape[1] * 3 // 4 - MARGIN


def test_the_halves_have_their_classes_colours(tmp_path: Path) -> None:
    picture = drawn(tmp_path / "one.png", 1)
    left = MARGIN + 224 + 10  # the teacher's map is the second column
    for offset, index in ((20, 1), (200, 0)):
        wanted = 0.6 * np.array(colour(index)) + 0.4 * (128 + 0.35 * (255 - 128))
        np.testing.assert_allclose(picture[MARGIN + 26 + 50, left + offset], wanted, atol=1)


def test_the_legend_has_the_colours_of_the_maps_and_no_class_of_a_few_pixels(tmp_path: Path) -> None:
    images, teacher, student = maps(1)
    overlays(torch.full_like(images, 128), teacher, student, NAMES, tmp_path / "one.png")
    with Image.open(tmp_path / "one.png") as opened:
        picture = np.asarray(opened)
    legend = picture[MARGIN + 26 + 112 + 22 + 10 :]
    for index in (0, 1):
        for part in (picture[: -len(legend)], legend):
            assert (np.abs(part - np.array(over_grey(index), dtype=float)).max(axis=2) <= 1).sum() > 100
    assert not (np.abs(legend - np.array(over_grey(3), dtype=float)).max(axis=2) <= 1).any()  # one pixel of 3,136


def test_of_many_images_eight_are_drawn(tmp_path: Path) -> None:
    heights = [drawn(tmp_path / "some.png", count).shape[0] for count in (7, MAX_IMAGES, 40)]
    assert heights[0] < heights[1] == heights[2]


def test_colours_differ_and_stay() -> None:
    assert colour(0) == (0, 114, 178)
    colours = np.array([colour(index) for index in range(21)], dtype=np.float64)
    assert min(np.abs(a - b).sum() for a, b in combinations(colours, 2)) > 40
    assert len({colour(index) for index in range(255)}) > 250
