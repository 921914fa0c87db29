"""Pixels in files: written as they come, mapped, and gathered by rows like a tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from torch import Tensor

from compressor.inputs.pixels import StoredImages, kept_rows, pixel_file, whole


def mapped(images: Tensor, folder: Path | None = None) -> Tensor:
    with pixel_file(tuple(images.shape[1:]), folder) as file:
        for image in images:
            file.append(image.numpy())
        return file.mapped()


def test_what_was_written_is_there_after_the_file_is_closed(tmp_path: Path) -> None:
    images = tiny.images(9)
    found = mapped(images, tmp_path)
    assert torch.equal(found, images)
    assert list(tmp_path.iterdir()) == [], "a file without a name leaves nothing behind, whatever ends the process"


def test_arrays_need_not_be_contiguous() -> None:
    pixels = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 4, 3).transpose(2, 0, 1)  # as decoders give them
    with pixel_file(pixels.shape, None) as file:
        file.append(pixels)
        assert np.array_equal(file.mapped()[0].numpy(), pixels)


def test_nothing_written_is_no_image() -> None:
    with pixel_file((3, 8, 8), None) as file:
        assert file.mapped().shape == (0, 3, 8, 8)


def test_rows_are_those_of_a_tensor() -> None:
    images, rows = tiny.images(20), torch.tensor([3, 19, 0, 7, 8])
    stored, expected = StoredImages((mapped(images), rows)), images[rows]
    assert len(stored) == 5
    assert stored.shape == expected.shape
    assert stored.nbytes == expected.nbytes
    draw = torch.tensor([4, 0, 0, 2])
    assert torch.equal(stored[draw], expected[draw])
    assert torch.equal(stored[1:4], expected[1:4])
    assert torch.equal(stored[3], expected[3])
    for ours, theirs in zip(stored.split(2), expected.split(2), strict=True):
        assert torch.equal(ours, theirs)


def test_two_sets_are_one_behind_the_other() -> None:
    few, pool = tiny.images(6), tiny.images(10, seed=1)
    both = StoredImages((few, torch.tensor([5, 1]))) + whole(pool)
    expected = torch.cat([few[[5, 1]], pool])
    for draw in (torch.tensor([0, 11, 2, 1, 5]), torch.tensor([1, 0]), torch.tensor([3, 3])):
        assert torch.equal(both[draw], expected[draw])
    assert torch.equal(both[:], expected)


def test_of_none_there_is_one_empty_batch() -> None:
    none = whole(torch.empty(0, 3, 8, 8, dtype=torch.uint8))
    assert [batch.shape for batch in none.split(4)] == [(0, 3, 8, 8)]
    assert (none + whole(tiny.images(3)))[:].shape == (3, 3, 8, 8)


@pytest.mark.parametrize("keep", [[True] * 5, [False, True, True, False, True], [False] * 5])
def test_what_is_kept_is_what_a_mask_would_keep(keep: list[bool]) -> None:
    images = mapped(tiny.images(5))
    assert torch.equal(kept_rows(images, torch.tensor(keep), None), images[torch.tensor(keep)])
