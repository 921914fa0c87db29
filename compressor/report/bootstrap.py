"""Intervals of what is a function of sums over images: the images are drawn anew, with replacement, many times.

Pixels of one image are not independent of each other, images are; so whole images are drawn. N images, F sums.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from statistics import NormalDist

import torch
from torch import Tensor

RESAMPLES = 2000


def bootstrap(
    sums: Tensor, statistic: Callable[[Tensor], Tensor], *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """The statistic of all images, and the ends of its interval, always the same for the same images.

    The percentile interval is widened for few images as a t interval is wider than a normal one (T. Hesterberg, What
    Teachers Should Know About the Bootstrap, 2015, section 5.3, "expanded percentile interval").

    Args:
        sums: (N, F), what each image adds; N at least 2.
        statistic: (R, F), sums over R sets of images, to (R,); NaN where a set defines no value.
    """
    n = len(sums)
    sums = sums.double()
    value = float(statistic(sums.sum(dim=0, keepdim=True)))
    random = torch.Generator().manual_seed(seed)
    draws = torch.randint(n, (RESAMPLES, n), generator=random)
    times = torch.zeros(RESAMPLES, n, dtype=torch.float64).scatter_add_(1, draws, torch.ones_like(draws).double())
    found = statistic(times @ sums)
    tail = NormalDist().cdf(-sqrt(n / (n - 1)) * t_quantile((1.0 + confidence) / 2.0, n - 1))
    ends = torch.tensor([tail, 1.0 - tail], dtype=torch.float64)
    low, high = torch.nanquantile(found, ends).tolist()
    return value, min(low, value), max(high, value)


def t_quantile(probability: float, degrees: int) -> float:
    """Of Student's t, by the first terms of its expansion around the normal (Abramowitz and Stegun 26.7.5).

    To 0.5 % from 4 degrees of freedom on, too small below; there the widened interval spans all draws anyway.
    """
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
