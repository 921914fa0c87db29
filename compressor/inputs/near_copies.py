"""Pictures that are in two sets although no file is: encoded anew, or resized, before they came into one of them.

    image -> means over 8x8 cells, in colour -> two are near copies where

        rms(a - b) <= 0.09 max(contrast of a, contrast of b, 8)        in steps of 0..255

Counted once by hand, by no committed program, on CIFAR-10, photographs like them and MNIST, at 28 and 32 px, and on
clothing at 128: found are 96 % or more of the copies in JPEG of quality 75 to 95, 97 % or more of those that were
enlarged twice, and 98 % of those that were both, 75 % for MNIST. The nearest different picture of 3,000 to 20,000 was
at 0.2 or above, so none is taken for a copy, but for 0.6 % of MNIST's test images beside 20,000 of its training images:
nearly all are the digit 1, of which two can be as alike. CamVid's frames, a second apart, are at 0.2 or above.

What it misses: mirrored, turned and cropped copies, others in brightness or contrast, and of small images those that
were halved (most) or strongly compressed (half of those of quality 50 at 32 px).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CELLS = 8
NEAR = 0.09
LEAST_CONTRAST = 8.0  # below, it is the noise of the coding that differs
BATCH = 256
DISTANCES = BATCH * 20_000  # in one table: 20 MiB


def thumbnails(images: Tensor) -> Tensor:
    """uint8 (N, C, H, W) to uint8 (N, C * 64), the means over 8x8 cells."""
    if len(images) == 0:
        return torch.empty(0, images.shape[1] * CELLS**2, dtype=torch.uint8)
    means = [F.adaptive_avg_pool2d(batch.float(), CELLS).flatten(1) for batch in images.split(BATCH)]
    return torch.cat(means).round().to(torch.uint8)


def near_copies(of: Tensor, known: Tensor) -> Tensor:
    """Which of N thumbnails (N, D) have a near copy among M known ones (M, D): bool (N,)."""
    if len(of) == 0 or len(known) == 0:
        return torch.zeros(len(of), dtype=torch.bool)
    known = known.float() - 128.0
    known_contrast, known_square = known.std(dim=1, correction=0), known.square().mean(dim=1)
    found = []
    for batch in of.split(max(1, min(BATCH, DISTANCES // len(known)))):
        batch = batch.float() - 128.0
        product = batch @ known.T / known.shape[1]
        square = batch.square().mean(dim=1)[:, None] + known_square - 2.0 * product
        contrast = torch.maximum(batch.std(dim=1, correction=0)[:, None], known_contrast).clamp_min(LEAST_CONTRAST)
        found.append((square <= (NEAR * contrast).square()).any(dim=1))
    return torch.cat(found)
