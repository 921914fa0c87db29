"""DFAD's two generators (Fang et al. 2019, arXiv 1912.11006), which no real image teaches.

    layout a    up to 64 px: linear to a quarter of the side, twice (nearest upsampling, convolution), DAFL's without
                its first activation
    layout b    above: linear to a sixteenth of the side, four transposed convolutions (DCGAN)

The released generators end where their teacher's input begins, in normalised values: `a` in a batch norm without gain
or bias, whose output has the mean and variance of a normalised data set, `b` in tanh. Here images are in [0, 1] and the
teacher normalises them itself. So `a` gives its output the training images' mean and deviation instead and clamps what
is no image, which leaves black areas black; `b` moves tanh to [0, 1]. A sigmoid in the place of the clamp knows no
black: with it half a LeNet-5 had 33 % of MNIST right where the clamp's had 88 (1,000 steps, one seed).

B batch, Z latent. Images are made at `resolution`, cropped from the next multiple of 4 or 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.distill.generator import Generator, bounded_resolution
from compressor.inputs.card import TeacherCard
from compressor.inputs.teacher import pixel_statistics

Layout = Literal["a", "b"]
LARGEST_A = 64  # pixels of the longer side, above which layout `auto` is b


@dataclass(frozen=True)
class AdversarialShape:
    """What an adversarial generator needs to be rebuilt.

    Attributes:
        image_shape: (C, H, W) of the teacher's input.
        resolution: (H, W) at which images are made; they are brought to `image_shape` by bilinear interpolation.
        width: channels of the largest map; smaller maps have up to eight times as many.
        mean, std: (C,) of the teacher's training images in [0, 1].
    """

    layout: Layout
    image_shape: tuple[int, int, int]
    resolution: tuple[int, int]
    latent_dim: int
    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def adversarial_shape(
    layout: Layout | Literal["auto"], card: TeacherCard, *, largest_side: int, latent_dim: int, width: int
) -> AdversarialShape:
    """The generator for a teacher, with no side of what it makes above `largest_side`."""
    resolution = bounded_resolution(card.input_shape[1], card.input_shape[2], largest_side)
    if layout == "auto":
        layout = "a" if max(resolution) <= LARGEST_A else "b"
    return AdversarialShape(layout, card.input_shape, resolution, latent_dim, width, *pixel_statistics(card))


class AdversarialGenerator(Generator):
    """z (B, Z) -> images (B, C, H, W) in [0, 1]. Labels are taken and not looked at: nobody asks for a class."""

    aims_at_realism = False

    def __init__(self, shape: AdversarialShape) -> None:
        super().__init__()
        self.shape: AdversarialShape = shape
        build, reduction = {"a": (_layout_a, 4), "b": (_layout_b, 16)}[shape.layout]
        height, width = (math.ceil(side / reduction) for side in shape.resolution)
        self.stem, self.body = build(shape, (height, width))
        self.base = (height, width)

    def forward(self, z: Tensor, _labels: Tensor | None = None) -> Tensor:
        images: Tensor = self.body(self.stem(z).view(len(z), -1, *self.base)).float()
        height, width = self.shape.resolution
        images = images[:, :, :height, :width]
        if (height, width) != self.shape.image_shape[1:]:
            images = F.interpolate(images, self.shape.image_shape[1:], mode="bilinear", align_corners=False)
        return images

    def latents(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        z = torch.randn(count, self.shape.latent_dim, generator=random, device=random.device)
        return z, torch.zeros(count, dtype=torch.long, device=random.device)


class _Pixels(nn.Module):
    """Values of mean 0 and deviation 1 to images of the given ones, clamped to [0, 1]."""

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return (self.mean + self.std * x.float()).clamp(0.0, 1.0)


class _UnitTanh(nn.Module):
    """tanh moved from [-1, 1] to [0, 1], which is sigmoid(2x)."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(2.0 * x)


def _layout_a(shape: AdversarialShape, base: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """PyTorch's own initial weights, as in the released code."""
    width, channels = shape.width, shape.image_shape[0]
    return nn.Linear(shape.latent_dim, 2 * width * base[0] * base[1]), nn.Sequential(
        nn.BatchNorm2d(2 * width),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(2 * width, 2 * width, 3, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Upsample(scale_factor=2),
        nn.Conv2d(2 * width, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, channels, 3, padding=1),
        nn.Tanh(),
        nn.BatchNorm2d(channels, affine=False),
        _Pixels(shape.mean, shape.std),
    )


def _layout_b(shape: AdversarialShape, base: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """Weights from N(0, 0.02), gains from N(1, 0.02), as in the released code."""
    width, channels = shape.width, shape.image_shape[0]
    widths = (8 * width, 4 * width, 2 * width, width, width)
    layers: list[nn.Module] = [nn.BatchNorm2d(widths[0])]
    for before, after in pairwise(widths):
        layers += [
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.LeakyReLU(0.2),
        ]
    stem = nn.Linear(shape.latent_dim, widths[0] * base[0] * base[1])
    body = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1), _UnitTanh())
    for module in (stem, *body):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, 0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return stem, body
