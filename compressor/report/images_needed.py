"""How many images it takes to show that a share holds a limit: Wilson's interval the other way round."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import Literal

MOST_IMAGES = 100_000_000


def images_needed(share: float, limit: float, *, side: Literal["low", "high"], confidence: float = 0.95) -> int | None:
    """The fewest images on which the interval of this share (Wilson 1927) holds the limit with its low or high end.

    None where the share itself does not hold it, or lies on it, so that no number of images is enough.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)

    def holds(n: int) -> bool:
        centre = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return centre - half >= limit if side == "low" else centre + half <= limit

    if not holds(MOST_IMAGES):
        return None
    fewest, enough = 0, MOST_IMAGES  # the ends move towards the share as n grows, so the interval can be halved
    while enough - fewest > 1:
        middle = (fewest + enough) // 2
        fewest, enough = (fewest, middle) if holds(middle) else (middle, enough)
    return enough
