"""Disturbed images: mild at any size, always the same, and judged beside the images as they were."""

from __future__ import annotations

from typing import get_args

import pytest
import tiny
import torch
from torch import Tensor

from compressor.report.evidence import agreement
from compressor.report.robustness import (
    CHUNK,
    FEWEST_IMAGES,
    MOST_IMAGES,
    MOST_SECONDS,
    corrupted,
    robustness_of,
    spread_rows,
    strength_of,
)
from compressor.report.robustness_record import Corruption
from compressor.tasks import task_of

CORRUPTIONS: tuple[Corruption, ...] = get_args(Corruption)


def disturbed(images: Tensor, corruption: Corruption) -> Tensor:
    found = corrupted(images, corruption)
    assert found is not None
    return found


@pytest.mark.parametrize("corruption", CORRUPTIONS)
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 8, 8), (3, 33, 70), (3, 224, 224)])
def test_every_corruption_changes_the_image_a_little_and_always_alike(
    corruption: Corruption, shape: tuple[int, int, int]
) -> None:
    images = tiny.images(2, shape)
    before, found = images.clone(), disturbed(images, corruption)
    assert torch.equal(images, before)
    assert (found.shape, found.dtype) == (images.shape, torch.uint8)
    assert torch.equal(found, disturbed(images, corruption))
    distance = (found.float() - images.float()).square().mean().sqrt()
    assert 0.0 < distance < 27.0, distance


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_many_images_are_disturbed_as_few_are(corruption: Corruption) -> None:
    images = tiny.images(CHUNK + 3)
    assert torch.equal(disturbed(images, corruption)[:CHUNK], disturbed(images[:CHUNK], corruption))
    assert len(disturbed(images, corruption)) == CHUNK + 3


def test_light_is_a_step_within_black_and_white() -> None:
    images = torch.tensor([0, 20, 100, 240], dtype=torch.uint8).reshape(1, 1, 2, 2)
    assert disturbed(images, "brighter").flatten().tolist() == [25, 45, 125, 255]
    assert disturbed(images, "darker").flatten().tolist() == [0, 0, 75, 215]


def test_noise_is_drawn_for_every_pixel_and_seed() -> None:
    images = torch.full((8, 3, 32, 32), 128, dtype=torch.uint8)
    noise = disturbed(images, "noise").float() - 128.0
    assert float(noise.mean()) == pytest.approx(0.0, abs=0.3)
    assert float(noise.std()) == pytest.approx(10.0, rel=0.03)
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(disturbed(images, "noise"), corrupted(images, "noise", seed=1))


def test_blur_spreads_a_point_and_keeps_its_light() -> None:
    point = torch.zeros(1, 1, 65, 65, dtype=torch.uint8)
    point[0, 0, 32, 32] = 255
    small = disturbed(point, "blur")[0, 0]
    assert (small.int() - small.T.int()).abs().max() <= 1  # each axis is rounded
    assert 100 < int(small[32, 32]) < 255
    assert 0.9 < float(small.sum()) / 255 < 1.1
    flat = torch.full((1, 3, 300, 300), 77, dtype=torch.uint8)
    assert torch.equal(disturbed(flat, "blur"), flat)
    assert [strength_of("blur", (side, 400)) for side in (8, 32, 224, 600)] == [
        "deviation 0.4 px",
        "deviation 0.4 px",
        "deviation 1.12 px",
        "deviation 2 px",
    ]


def test_jpeg_has_one_channel_or_three() -> None:
    assert corrupted(tiny.images(2, (4, 8, 8)), "jpeg") is None
    assert corrupted(tiny.images(2, (4, 8, 8)), "blur") is not None
    grey, colour = tiny.images(1, (1, 16, 16)), tiny.images(1, (3, 16, 16))
    assert disturbed(grey, "jpeg").shape == (1, 1, 16, 16)
    swapped = disturbed(colour.transpose(2, 3), "jpeg").transpose(2, 3)
    assert (swapped.float() - disturbed(colour, "jpeg").float()).abs().mean() < 2.0  # rows stay rows


def test_as_many_images_as_time_and_memory_allow() -> None:
    assert spread_rows((10, 3, 8, 8), 0.001).tolist() == list(range(10))
    rows = spread_rows((1000, 3, 8, 8), 0.001)
    assert len(rows) == MOST_IMAGES
    assert int(rows[-1]) == 1000 * (MOST_IMAGES - 1) // MOST_IMAGES
    assert len(rows.unique()) == MOST_IMAGES
    assert len(spread_rows((1000, 3, 8, 8), MOST_SECONDS / 5 / 100)) == 64
    assert len(spread_rows((1000, 3, 8, 8), 60.0)) == FEWEST_IMAGES
    assert len(spread_rows((1000, 3, 2048, 2048), 0.001)) == FEWEST_IMAGES
    assert len(spread_rows((0, 3, 8, 8), 0.0)) == 0


def test_each_network_is_compared_with_itself_and_with_the_other() -> None:
    """A teacher that sees brightness, a student that has one opinion."""
    images = torch.tensor([100, 100, 120, 200], dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 8, 8)
    labels = torch.tensor([0, -1, 0, 1])

    def answers(some: Tensor) -> tuple[Tensor, Tensor]:
        bright = some.double().mean(dim=(1, 2, 3)) > 128
        return torch.eye(2)[bright.long()], torch.tensor([[1.0, 0.0]]).repeat(len(some), 1)

    task = task_of("classification")
    found = robustness_of(images, answers(images), labels, "eval", answers=answers, same=task.same, right=task.right)
    assert [one.corruption for one in found] == list(CORRUPTIONS)
    assert {one.images for one in found} == {"eval"}
    brighter = next(one for one in found if one.corruption == "brighter")
    assert (brighter.teacher_kept.value, brighter.student_kept.value) == (0.75, 1.0)  # 120 is above 128 now
    assert brighter.agreement == agreement(*answers(disturbed(images, "brighter")))
    assert brighter.agreement.value == 0.5
    assert brighter.strength == "25 of 255 more"
    assert brighter.teacher_accuracy is not None
    assert brighter.student_accuracy is not None
    assert (brighter.teacher_accuracy.n, brighter.student_accuracy.n) == (3, 3)
    assert brighter.student_accuracy.value == pytest.approx(2 / 3)
    unlabelled = robustness_of(
        images, answers(images), labels * 0 - 1, "evidence", answers=answers, same=task.same, right=task.right
    )
    assert unlabelled[0].teacher_accuracy is unlabelled[0].student_accuracy is None


def test_a_segmentation_keeps_pixels() -> None:
    task = task_of("segmentation")
    images = tiny.images(12)

    def answers(some: Tensor) -> tuple[Tensor, Tensor]:
        return (some[:, 0] > 128).to(torch.uint8), (some[:, 1] > 128).to(torch.uint8)

    found = robustness_of(
        images, answers(images), torch.full((12,), -1), "evidence", answers=answers, same=task.same, right=task.right
    )
    assert {one.teacher_kept.of for one in found} == {"pixels"}
    assert all(0.5 < one.teacher_kept.value < 1.0 for one in found)
