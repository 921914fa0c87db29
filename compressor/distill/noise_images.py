"""Images of nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.inputs.card import TeacherCard
from compressor.inputs.teacher import pixel_statistics


def noise_images(count: int, card: TeacherCard, random: torch.Generator) -> Tensor:
    """(count, C, H, W) in [0, 1]: every pixel on its own, from N(0, 1) after the teacher's normalisation, then clamped.

    What the pixels of the training images have in common with them is their mean and standard deviation.
    """
    noise = torch.randn(count, *card.input_shape, generator=random, device=random.device)
    mean, std = (torch.tensor(values, device=random.device).view(1, -1, 1, 1) for values in pixel_statistics(card))
    return (mean + std * noise).clamp(0.0, 1.0)
