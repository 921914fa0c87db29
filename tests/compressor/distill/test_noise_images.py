"""Noise has the training images' mean and standard deviation, and fits between black and white."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch

from compressor.distill.noise_images import noise_images


@pytest.mark.parametrize(
    "changes",
    [
        {"std": (0.05, 0.1, 0.02)},
        {"value_range": (0.0, 255.0), "mean": (104.0, 117.0, 123.0), "std": (9.0, 6.0, 3.0), "channel_order": "BGR"},
        {"value_range": (-1.0, 1.0), "mean": (0.1, 0.0, -0.1), "std": (0.1, 0.2, 0.3)},
    ],
    ids=["0 to 1", "BGR bytes", "-1 to 1"],
)
def test_the_teacher_sees_standard_normal_pixels(changes: dict[str, Any]) -> None:
    teacher = tiny.teacher(image_shape=(3, 16, 16), **changes)
    images = noise_images(64, teacher.card, torch.Generator().manual_seed(0))
    assert images.shape == (64, 3, 16, 16)
    assert ((images >= 0.0) & (images <= 1.0)).all()
    seen = teacher.normalise(images)
    assert torch.allclose(seen.mean(dim=(0, 2, 3)), torch.zeros(3), atol=0.03)
    assert torch.allclose(seen.std(dim=(0, 2, 3)), torch.ones(3), atol=0.03)


def test_it_is_drawn_from_the_generator_that_is_given() -> None:
    card = tiny.card()
    one, again, other = (noise_images(2, card, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
