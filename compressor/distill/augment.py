"""Augmentation of whole batches on the device, differentiable, drawn from an explicit random generator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.inputs.pixels import Images

Mirror = Literal["auto", "on", "off"]
MIRROR_AGREEMENT = 0.9
MIRROR_ASKED = 256  # images that decide it
MIRROR_PIXELS = 2**20  # at once; up to 64 x 64 pixels all of them


def random_shift(images: Tensor, max_shift: int, random: torch.Generator) -> Tensor:
    """Move every image (B, C, H, W) by its own whole number of pixels in -max_shift..max_shift; edges are repeated."""
    if max_shift == 0:
        return images
    offsets = torch.randint(0, 2 * max_shift + 1, (2, len(images)), generator=random, device=random.device)
    return _shifted(images, max_shift, *offsets)


def random_flip(images: Tensor, random: torch.Generator) -> Tensor:
    """Mirror each image (B, C, H, W) left to right with probability one half."""
    flip = torch.rand(len(images), generator=random, device=random.device) < 0.5
    return _mirrored(images, flip)


def _shifted(images: Tensor, max_shift: int, down: Tensor, right: Tensor) -> Tensor:
    """The window of every image that begins `down` and `right` (B,) pixels into its border of `max_shift` pixels."""
    height, width = images.shape[-2:]
    padded = F.pad(images, (max_shift,) * 4, mode="replicate")
    rows = down[:, None] + torch.arange(height, device=images.device)
    columns = right[:, None] + torch.arange(width, device=images.device)
    index = torch.arange(len(images), device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[index, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _mirrored(images: Tensor, which: Tensor) -> Tensor:
    return torch.where(which[:, None, None, None], images.flip(3), images)


def _cut_out(images: Tensor, size: int, top: Tensor, left: Tensor) -> Tensor:
    """Blank a square of `size` pixels in each image, at the image's own mean; `top` and `left` are (B,)."""
    rows = torch.arange(images.shape[2], device=images.device)
    columns = torch.arange(images.shape[3], device=images.device)
    in_rows = (rows >= top[:, None]) & (rows < top[:, None] + size)
    in_columns = (columns >= left[:, None]) & (columns < left[:, None] + size)
    hole = in_rows[:, None, :, None] & in_columns[:, None, None, :]
    return torch.where(hole, images.mean(dim=(2, 3), keepdim=True), images)


def draw_views(count: int, size: tuple[int, int], random: torch.Generator, *, flip: bool) -> Tensor:
    """How `differentiable_augmentation` will see a batch, drawn before it is divided: int64 (count, 5).

    Args:
        size: (H, W) of the images.
        flip: mirror half of them.
    """
    max_shift, hole = _view_sizes(size)
    height, width = size
    bounds = (2 * max_shift + 1, 2 * max_shift + 1, height - hole + 1, width - hole + 1, 2 if flip else 1)
    draws = [torch.randint(bound, (count,), generator=random, device=random.device) for bound in bounds]
    return torch.stack(draws, dim=1)


def differentiable_augmentation(images: Tensor, views: Tensor) -> Tensor:
    """Shift by an eighth of the width, cut out a quarter of the side, and mirror where the teacher does not mind.

    Differentiable Augmentation (Zhao et al. 2020): with few real images the discriminator memorises them; when real
    and synthetic images are seen through the same random views it cannot. Colour is left alone, because a private
    teacher may depend on it.

    Args:
        images: (B, C, H, W).
        views: (B, 5) from `draw_views`.
    """
    max_shift, hole = _view_sizes((images.shape[2], images.shape[3]))
    down, right, top, left, mirror = views.unbind(dim=1)
    return _mirrored(_cut_out(_shifted(images, max_shift, down, right), hole, top, left), mirror.bool())


def _view_sizes(size: tuple[int, int]) -> tuple[int, int]:
    """Pixels of the longest shift, and of the side of the hole."""
    height, width = size
    return max(1, width // 8), max(1, min(height, width) // 4)


def student_augmentation(
    images: Tensor, random: torch.Generator, *, flip: bool, max_shift: int | None = None
) -> Tensor:
    """The usual crop of a padded image, as a shift, and the mirror image where it fits.

    Args:
        max_shift: pixels; None: an eighth of the width.
    """
    images = random_shift(images, max(1, images.shape[-1] // 8) if max_shift is None else max_shift, random)
    return random_flip(images, random) if flip else images


@torch.no_grad()
def mirroring(
    setting: Mirror, images: Images, classify: Callable[[Tensor], Tensor], *, numbers: bool = False
) -> tuple[bool, dict[str, str]]:
    """Whether to mirror images in training, and why, as a choice for the report.

    `auto` asks the teacher: where it calls a mirrored training image what it calls the image, mirroring is harmless;
    for digits and road signs it is not.

    Args:
        images: (N, C, H, W), uint8, of which at most 256 are asked about.
        classify: images in [0, 1] to logits (B, K), or (B, K, H, W) in the pixels of the image that it was given.
        numbers: what `classify` returns is K numbers, not classes.
    """
    if setting != "auto":
        return setting == "on", {"name": "mirror images", "value": setting, "reason": "as asked"}
    # At even distances: images come in the order of their folders, and the first ones may be of one class.
    rows = torch.linspace(0, len(images) - 1, min(len(images), MIRROR_ASKED), device=images.device).long()
    sizes = max(1, min(MIRROR_ASKED, MIRROR_PIXELS // (images.shape[2] * images.shape[3])))
    originals, mirrored = [], []
    for sample in (images[part].float() / 255.0 for part in rows.split(sizes)):
        answer, turned = classify(sample), classify(sample.flip(3))
        if answer.ndim == 4:
            turned = turned.flip(3)
        # Of class maps the logits of all images at once would be gigabytes.
        originals.append(answer if numbers else answer.argmax(dim=1))
        mirrored.append(turned if numbers else turned.argmax(dim=1))
    original, other = torch.cat(originals), torch.cat(mirrored)
    if numbers:
        changed = (original - other).square().mean() / original.var(dim=0, correction=0).mean().clamp_min(1e-12)
        same = max(0.0, 1.0 - float(changed))
        finding = f"mirroring the training images leaves {same:.0%} of the variance of the teacher's output in place"
    else:
        same = float((original == other).float().mean())
        what = "pixels of the mirrored" if original.ndim > 1 else "mirrored"
        finding = f"the teacher calls {same:.0%} of the {what} training images what it calls the originals"
    mirror = same >= MIRROR_AGREEMENT
    return mirror, {
        "name": "mirror images",
        "value": "on" if mirror else "off",
        "reason": f"{finding} (on from {MIRROR_AGREEMENT:.0%})",
    }


def mirroring_queries(setting: Mirror, num_images: int) -> int:
    """How many images `mirroring` shows to the teacher, of `num_images` that it is given."""
    return 2 * min(num_images, MIRROR_ASKED) if setting == "auto" else 0
