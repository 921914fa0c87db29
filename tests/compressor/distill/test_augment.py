"""Augmentation: same shape, same draw for the same generator, differentiable; and when images may be mirrored."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tiny
import torch
from torch import Tensor

from compressor.distill.augment import (
    differentiable_augmentation,
    draw_views,
    mirroring,
    mirroring_queries,
    random_flip,
    random_shift,
    student_augmentation,
)

Augmentation = Callable[[Tensor, torch.Generator], Tensor]

AUGMENTATIONS: dict[str, Augmentation] = {
    "shift": lambda images, random: random_shift(images, 2, random),
    "flip": random_flip,
    "differentiable": lambda images, random: differentiable_augmentation(
        images, draw_views(len(images), (images.shape[2], images.shape[3]), random, flip=True)
    ),
    "student": lambda images, random: student_augmentation(images, random, flip=True),
}
SHAPES = [(5, 3, 8, 8), (2, 1, 6, 12), (1, 3, 4, 4), (0, 3, 8, 8)]

augmentations = pytest.mark.parametrize("augment", AUGMENTATIONS.values(), ids=AUGMENTATIONS)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator(7))


@augmentations
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shape_and_range_stay(augment: Augmentation, shape: tuple[int, ...]) -> None:
    augmented = augment(some_images(*shape), generator())
    assert augmented.shape == shape
    assert ((augmented >= 0) & (augmented <= 1)).all()


@augmentations
def test_the_draw_comes_from_the_generator_alone(augment: Augmentation) -> None:
    images = some_images(16, 3, 8, 8)
    state = torch.get_rng_state()
    assert torch.equal(augment(images, generator(1)), augment(images, generator(1)))
    assert not torch.equal(augment(images, generator(1)), augment(images, generator(2)))
    assert torch.equal(torch.get_rng_state(), state)


@augmentations
def test_gradients_reach_the_images(augment: Augmentation) -> None:
    images = some_images(4, 3, 8, 8).requires_grad_()
    augment(images, generator()).square().sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert (images.grad.flatten(1).abs().sum(dim=1) > 0).all()


def test_a_shift_moves_whole_pixels_and_repeats_the_edge() -> None:
    rows = torch.arange(4.0)[:, None] * torch.ones(4)
    image = torch.stack([rows, rows.T])[None] / 4.0  # one channel knows its row, the other its column
    seen = set()
    for seed in range(200):
        shifted = random_shift(image, 1, generator(seed))[0] * 4.0
        down, right = int(shifted[0, 1, 1]) - 1, int(shifted[1, 1, 1]) - 1
        expected_rows = (torch.arange(4) + down).clamp(0, 3)
        expected_columns = (torch.arange(4) + right).clamp(0, 3)
        assert torch.equal(shifted[0], expected_rows[:, None].expand(4, 4).float())
        assert torch.equal(shifted[1], expected_columns[None, :].expand(4, 4).float())
        seen.add((down, right))
    assert seen == {(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)}


def test_each_image_is_shifted_on_its_own() -> None:
    image = some_images(1, 3, 8, 8).expand(32, -1, -1, -1)
    assert len(random_shift(image, 1, generator()).flatten(1).unique(dim=0)) > 4


def test_no_shift_is_the_image_itself() -> None:
    images = some_images(2, 3, 8, 8)
    assert random_shift(images, 0, generator()) is images


@pytest.mark.parametrize(("asked", "moved"), [(None, 2), (0, 0), (1, 1), (3, 3)])
def test_the_student_sees_shifts_of_an_eighth_or_as_asked(asked: int | None, moved: int) -> None:
    images = some_images(40, 1, 16, 16)
    views = student_augmentation(images, generator(2), flip=False, max_shift=asked)
    assert torch.equal(views, random_shift(images, moved, generator(2)))


def test_a_flip_is_the_image_or_its_mirror_image_half_of_the_time() -> None:
    image = some_images(1, 3, 4, 6)
    flipped = random_flip(image.expand(400, -1, -1, -1), generator())
    same = (flipped == image).flatten(1).all(dim=1)
    mirrored = (flipped == image.flip(3)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 160 < int(same.sum()) < 240


def test_a_view_shifts_then_blanks_a_square_at_the_image_mean_then_mirrors() -> None:
    image = some_images(1, 3, 8, 12)
    still = torch.tensor([[1, 1, 2, 3, 0]])  # no shift: the border of one pixel is entered at (1, 1)
    blanked = differentiable_augmentation(image, still)
    hole = (blanked != image).all(dim=1)[0]
    assert hole.nonzero().tolist() == [[row, column] for row in (2, 3) for column in (3, 4)]  # a quarter of the side
    assert torch.allclose(blanked[0, :, hole], image.mean(dim=(2, 3))[0][:, None])
    mirrored = differentiable_augmentation(image, torch.tensor([[1, 1, 2, 3, 1]]))
    assert torch.equal(mirrored, blanked.flip(3))
    down = differentiable_augmentation(image, torch.tensor([[0, 1, 6, 10, 0]]))
    assert torch.equal(down[0, :, 1:6, :10], image[0, :, :5, :10])


def test_views_cover_their_range_and_mirror_only_where_asked() -> None:
    views = draw_views(4_000, (8, 16), generator(), flip=True)
    assert views.shape == (4_000, 5)
    assert views.min(dim=0).values.tolist() == [0, 0, 0, 0, 0]
    assert views.max(dim=0).values.tolist() == [4, 4, 6, 14, 1]
    assert draw_views(100, (8, 16), generator(), flip=False)[:, 4].max() == 0


def test_a_part_of_a_batch_is_seen_as_it_is_in_the_whole() -> None:
    images = some_images(6, 3, 8, 8)
    views = draw_views(6, (8, 8), generator(), flip=True)
    whole = differentiable_augmentation(images, views)
    assert torch.equal(differentiable_augmentation(images[1::2], views[1::2]), whole[1::2])


def test_mirroring_is_off_where_the_teacher_tells_left_from_right() -> None:
    images = (some_images(50, 1, 4, 4) * 255).to(torch.uint8)
    mirror, choice = mirroring("auto", images, left_or_right)
    assert not mirror
    assert choice["value"] == "off"
    assert "calls 0% of the mirrored training images" in choice["reason"]
    assert "on from 90%" in choice["reason"]


def test_mirroring_is_on_where_the_teacher_does_not_mind() -> None:
    images = (some_images(50, 1, 4, 4) * 255).to(torch.uint8)
    mirror, choice = mirroring(
        "auto", images, lambda batch: batch.mean(dim=(1, 2, 3))[:, None] - torch.tensor([0.5, 0])
    )
    assert mirror
    assert choice["value"] == "on"
    assert "100%" in choice["reason"]


def test_mirroring_asks_about_256_images_at_most() -> None:
    asked = []

    def classify(images: Tensor) -> Tensor:
        asked.append(len(images))
        return images.mean(dim=(1, 2, 3))[:, None].expand(-1, 2)

    mirroring("auto", torch.zeros(300, 1, 4, 4, dtype=torch.uint8), classify)
    assert asked == [256, 256]


def test_mirroring_of_large_images_is_asked_in_batches_with_the_same_answer() -> None:
    images = (some_images(40, 1, 256, 256) * 255).to(torch.uint8)
    asked: list[int] = []

    def classify(batch: Tensor) -> Tensor:
        asked.append(len(batch))
        return left_or_right(batch)

    answer = mirroring("auto", images, classify)
    assert asked == [16] * 4 + [8] * 2
    assert answer[0] is False
    assert "calls 0% of the mirrored training images" in answer[1]["reason"]


@pytest.mark.parametrize(("setting", "mirror"), [("on", True), ("off", False)])
def test_mirroring_as_asked_does_not_ask_the_teacher(setting: str, mirror: bool) -> None:
    def classify(_images: Tensor) -> Tensor:
        raise AssertionError

    answer, choice = mirroring(setting, torch.zeros(1, 1, 4, 4, dtype=torch.uint8), classify)  # type: ignore[arg-type]
    assert answer is mirror
    assert choice == {"name": "mirror images", "value": setting, "reason": "as asked"}


def left_or_right(images: Tensor) -> Tensor:
    """Two logits: how bright the left half is, and the right."""
    left, right = images.chunk(2, dim=3)
    return torch.stack([left.mean(dim=(1, 2, 3)), right.mean(dim=(1, 2, 3))], dim=1)


def test_mirroring_asks_about_all_of_the_images() -> None:
    # 600 images in the order of their folders: the first class is symmetric to the classifier, the rest is not.
    images = torch.zeros(600, 1, 8, 8, dtype=torch.uint8)
    images[300:, :, :, :4] = 255

    def which_side(batch: torch.Tensor) -> torch.Tensor:
        left, right = batch[..., :4].mean(dim=(1, 2, 3)), batch[..., 4:].mean(dim=(1, 2, 3))
        return torch.stack([left, right + 0.1], dim=1)

    mirror, choice = mirroring("auto", images, which_side)
    assert not mirror
    assert "50%" in choice["reason"]


# --- whether to mirror, of other outputs than classes -----------------------------------------------------------------


def test_a_dense_prediction_is_mirrored_back_before_it_is_compared() -> None:
    images = tiny.images(8)
    assert mirroring("auto", images, lambda batch: torch.cat([batch, 1.0 - batch], dim=1))[0]
    ramp = torch.linspace(0.0, 1.0, images.shape[-1])

    def classify(batch: Tensor) -> Tensor:  # left or right half, whatever the image
        return torch.stack([ramp - 0.5, 0.5 - ramp]).view(1, 2, 1, -1).expand(len(batch), 2, batch.shape[2], -1)

    mirror, choice = mirroring("auto", images, classify)
    assert not mirror
    assert "calls 0% of the pixels of the mirrored training images" in choice["reason"]


def test_numbers_are_compared_by_the_variance_that_mirroring_leaves() -> None:
    images = tiny.images(8)
    mirror, choice = mirroring("auto", images, lambda batch: batch.mean(dim=(2, 3)), numbers=True)
    assert mirror
    assert "leaves 100% of the variance" in choice["reason"]
    # Where the brightest column is, which a mirror turns around.
    mirror, _ = mirroring("auto", images, lambda batch: batch.mean(dim=(1, 2)).argmax(1)[:, None].float(), numbers=True)
    assert not mirror


def test_the_teacher_is_asked_about_a_bounded_number_of_images() -> None:
    asked = 0

    def classify(images: Tensor) -> Tensor:
        nonlocal asked
        asked += len(images)
        return images.mean(dim=(2, 3))

    for count in (1, 7, 300):
        asked = 0
        mirroring("auto", tiny.images(count), classify)
        assert asked == mirroring_queries("auto", count)
    assert mirroring_queries("auto", 300) == 2 * 256
    assert mirroring_queries("on", 300) == mirroring_queries("off", 300) == 0
