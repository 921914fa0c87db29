"""Intervals of what is a function of sums over images: the images are drawn anew, at random, many times.

Pixels of one image are not independent of each other, images are; so whole images are drawn. N images, F sums.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor

from compressor.report.intervals import wilson_interval

RESAMPLES = 2000
DRAWS = 2_000_000  # images that are drawn at once: 48 MB, however many there are
NO_WIDTH = ALL_BUT = 1e-9
FEW = 10  # images; of fewer, what they share says little of what others would


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
    at_once = max(1, DRAWS // n)
    totals = []
    for first in range(0, RESAMPLES, at_once):
        draws = torch.randint(n, (min(at_once, RESAMPLES - first), n), generator=random)
        times = torch.zeros(draws.shape, dtype=torch.float64).scatter_add_(1, draws, torch.ones_like(draws).double())
        totals.append(times @ sums)
    low, high = _percentiles(statistic(torch.cat(totals)), sqrt(n / (n - 1)), n - 1, confidence)
    return value, min(low, value), max(high, value)


def mean_of_shares(
    parts: Tensor, wholes: Tensor, *, confidence: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Mean over F shares, each of sums over the images, and the ends of its interval.

    The Bayesian bootstrap (D. Rubin, The Bayesian Bootstrap, 1981): weights from the exponential distribution, so that
    a class that few images show is in every draw. In each share counts one image more, of mean size and right to a
    part that is drawn from the beta distribution of one observation with the share as its mean: the prior of a
    Dirichlet process (T. Ferguson, 1973). Without it a class of a single image would be known exactly.

    Args:
        parts, wholes: (N, F), what each image adds to both sides of each share; N at least 2. A share of which the
            images have nothing does not count; one at least has to.
    """
    n = len(parts)
    known = wholes.sum(dim=0) > 0
    parts, wholes = parts[:, known].double(), wholes[:, known].double()
    shares = (parts.sum(dim=0) / wholes.sum(dim=0)).clamp(0.0, 1.0)
    value = float(shares.mean())
    random = torch.Generator().manual_seed(seed)
    weights = torch.empty(RESAMPLES, n, dtype=torch.float64).exponential_(generator=random)
    size = wholes.sum(dim=0) / (wholes > 0).sum(dim=0)
    another = size * torch.empty(RESAMPLES, len(size), dtype=torch.float64).exponential_(generator=random)
    mean = shares.clamp(ALL_BUT, 1.0 - ALL_BUT).numpy()
    right = torch.from_numpy(np.random.default_rng(seed).beta(mean, 1.0 - mean, (RESAMPLES, len(mean))))
    found = ((weights @ parts + another * right) / (weights @ wholes + another)).mean(dim=1)
    low, high = _percentiles(found, sqrt((n + 1) / (n - 1)), n - 1, confidence)
    return value, min(low, value), max(high, value)


def widened(value: float, low: float, high: float, n: int) -> tuple[float, float]:
    """The interval of a share of n images, together with Wilson's of n trials where those that were seen say too
    little of others: below ten images, and where all are alike. It is never of no width."""
    if n < FEW or high - low < NO_WIDTH:
        ends = wilson_interval(min(max(value, 0.0), 1.0) * n, n)
        low, high = min(low, ends[0]), max(high, ends[1])
    return low, min(high, 1.0)


def _percentiles(found: Tensor, widening: float, degrees: int, confidence: float) -> tuple[float, float]:
    """The ends of the middle part of (R,), as much further out as a t interval is wider than a normal one."""
    tail = NormalDist().cdf(-widening * t_quantile((1.0 + confidence) / 2.0, degrees))
    low, high = torch.nanquantile(found, torch.tensor([tail, 1.0 - tail], dtype=torch.float64)).tolist()
    return low, high


def t_quantile(probability: float, degrees: int) -> float:
    """Of Student's t, by the first terms of its expansion around the normal (Abramowitz and Stegun 26.7.5).

    To 0.5 % from 4 degrees of freedom on, too small below; there the widened interval spans all draws anyway.
    """
    z = NormalDist().inv_cdf(probability)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
