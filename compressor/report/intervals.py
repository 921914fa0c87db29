"""Intervals of shares, and what follows from them: of one share, and of two shares of the same images.

Pure arithmetic on counts; nothing here imports torch, so that a gate can be judged where there is none.
"""

from __future__ import annotations

from math import ceil, sqrt
from statistics import NormalDist
from typing import Literal


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927), without continuity correction.

    Unlike `p ± z sqrt(p (1 - p) / n)` it keeps its coverage for few images and for proportions near 0 and 1,
    which is where agreement on a handful of images lives: 20 of 20 gives 0.839 to 1, not 1 to 1. Successes need not be
    whole: an image that is right in part is no more uncertain than one that is right or wrong.

    Raises:
        ValueError: no trials, successes outside 0..n, or a confidence outside (0, 1).
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials are no proportion")
    z = _normal_quantile(confidence)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # The exact bounds of none and of all are 0 and 1; rounding would leave them a hair outside.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def images_needed(share: float, limit: float, *, side: Literal["low", "high"], confidence: float = 0.95) -> int | None:
    """The fewest images on which Wilson's interval of this share holds the limit with its low or its high end.

    A bound l of the interval is where |share - l| = z sqrt(l (1 - l) / n), so it reaches the limit L at

        n = z² L (1 - L) / (share - L)²

    Args:
        side: low: that end is to be at least the limit; high: that end is to be at most the limit.

    Returns:
        None where the share itself does not hold the limit, or lies on it, so that no number of images is enough.
    """
    if side == "high":
        return images_needed(1.0 - share, 1.0 - limit, side="low", confidence=confidence)
    if limit <= 0.0:
        return 1
    margin = share - limit
    # 1 - 0.95 is a hair above 0.05; a margin of that size is none.
    if margin <= 1e-12:
        return None
    return max(1, ceil(_normal_quantile(confidence) ** 2 * limit * (1.0 - limit) / margin**2 - 1e-9))


def paired_difference(
    both: int, gained: int, lost: int, neither: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Share of a first judge minus share of a second one on the same images, and the ends of its interval.

    Method 10 of R. Newcombe, Improved confidence intervals for the difference between binomial proportions based on
    paired data, Statistics in Medicine 17 (1998). With Wilson's intervals (l1, u1) and (l2, u2) of both shares p1 and
    p2, and the correlation phi of the two judges, its numerator corrected for continuity where it is positive:

        low  = p1 - p2 - sqrt((p1 - l1)² - 2 phi (p1 - l1) (u2 - p2) + (u2 - p2)²)
        high = p1 - p2 + sqrt((u1 - p1)² - 2 phi (u1 - p1) (p2 - l2) + (p2 - l2)²)

    Args:
        both, gained, lost, neither: images that both have right, the first alone, the second alone, and none.

    Raises:
        ValueError: no images, or a number below 0.
    """
    n = both + gained + lost + neither
    if n < 1 or min(both, gained, lost, neither) < 0:
        raise ValueError(f"{both}, {gained}, {lost} and {neither} images are no table of two judges")
    first, second = both + gained, both + lost
    p1, p2 = first / n, second / n
    l1, u1 = wilson_interval(first, n, confidence)
    l2, u2 = wilson_interval(second, n, confidence)
    margins = first * (n - first) * second * (n - second)
    product = both * neither - gained * lost
    corrected = max(product - n / 2, 0.0) if product > 0 else product
    phi = corrected / sqrt(margins) if margins else 0.0
    below = _combined(p1 - l1, u2 - p2, phi)
    above = _combined(u1 - p1, p2 - l2, phi)
    value = (gained - lost) / n
    return value, max(-1.0, value - below), min(1.0, value + above)


def mcnemar_p(gained: int, lost: int) -> float:
    """Two-sided p value of the exact test that a difference favours neither side (McNemar 1947, by the binomial).

        p = min(1, 2 P(X <= min(gained, lost))),  X ~ Binomial(gained + lost, 1/2)

    Raises:
        ValueError: a number below 0.
    """
    if min(gained, lost) < 0:
        raise ValueError(f"{gained} and {lost} are no numbers of images")
    n = gained + lost
    term = total = 1  # binomial coefficients are whole, and Python divides whole numbers of any size exactly
    for k in range(min(gained, lost)):
        term = term * (n - k) // (k + 1)
        total += term
    return min(1.0, 2 * total / (1 << n))


def _combined(one: float, other: float, phi: float) -> float:
    """Two distances of correlated shares, squared and added; rounding may leave a hair below 0."""
    return sqrt(max(0.0, one * one - 2.0 * phi * one * other + other * other))


def _normal_quantile(confidence: float) -> float:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    return NormalDist().inv_cdf((1.0 + confidence) / 2.0)
