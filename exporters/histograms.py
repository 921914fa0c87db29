"""A histogram of unknown span that grows, and where to clip what it counted.

It spans [-2^e, 2^e) in bins of equal width and doubles its span by adding neighbouring bins, so a value is in the bin
where a wider histogram would have counted it from the start: sums of histograms do not depend on order or grouping.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BINS = 2048  # on each side of zero; at least half of them lie within the greatest magnitude
LEVELS = 128  # of a magnitude in int8
CANDIDATE_STEP = 8  # bins between two thresholds that entropy tries: 0.4 % of the span
LEAST_SHARE = 1e-4  # of Q in the bin that takes what was clipped; ONNX Runtime and MXNet smooth by as much
# One image of 224 px gives a million values in one tensor. A sample of them bounds the time, never the extremes.
MAX_COUNTED = 2**16
LEAST_EXPONENT = -100  # a span of 1e-30: what is smaller counts as zero


@dataclass
class Histogram:
    """The values of one tensor.

    Attributes:
        lowest, highest: of all values.
        exponent: the counts span [-2^exponent, 2^exponent).
        counts: (2 · BINS,) values in each bin.
    """

    lowest: float
    highest: float
    exponent: int
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, values: NDArray[np.float32]) -> Histogram:
        """The histogram of a flat array with at least one value, all of them finite."""
        lowest, highest = float(values.min()), float(values.max())
        exponent = max(int(np.frexp(max(-lowest, highest))[1]), LEAST_EXPONENT)  # |x| < 2^exponent
        # Scaling by a power of two is exact, so a bin of this span is always two bins of half of it.
        bins = np.floor(_sample(values) * np.float32(BINS * 2.0**-exponent)).astype(np.intp) + BINS
        return cls(lowest, highest, exponent, np.bincount(bins, minlength=2 * BINS))

    def spanning(self, exponent: int) -> NDArray[np.int64]:
        """The counts over [-2^exponent, 2^exponent), which is no narrower than this one's span."""
        counts = self.counts
        for _ in range(min(exponent - self.exponent, 2 * BINS.bit_length())):
            halves = counts.reshape(-1, 2).sum(axis=1)
            counts = np.pad(halves, BINS // 2)
        return counts

    def __add__(self, other: Histogram) -> Histogram:
        exponent = max(self.exponent, other.exponent)
        return Histogram(
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            exponent,
            self.spanning(exponent) + other.spanning(exponent),
        )

    @property
    def edges(self) -> NDArray[np.float64]:
        """(2 · BINS + 1,) borders of the bins."""
        return np.linspace(-(2.0**self.exponent), 2.0**self.exponent, 2 * BINS + 1, dtype=np.float64)


def entropy_threshold(seen: Histogram) -> float:
    """The magnitude t at which clipping costs least information: min over t of KL(P || Q_t).

    P is the histogram of |x| clipped at t, and Q_t what LEVELS levels of it tell (S. Migacz, 8-bit inference with
    TensorRT, GTC 2017); t is the border of a bin. Exact zeros, half of all values behind a ReLU, have no error at any
    scale and are left out: their bin counts as its neighbour does.
    """
    counts = (seen.counts[BINS:] + seen.counts[BINS - 1 :: -1]).astype(np.float64)  # of |x|, in BINS bins
    counts[0] = counts[1]
    used = int(np.flatnonzero(counts)[-1]) + 1 if counts.any() else 0
    if used <= LEVELS:
        return max(-seen.lowest, seen.highest)
    candidates = [*range(LEVELS, used, CANDIDATE_STEP), used]
    best = min(candidates, key=lambda kept: _divergence(counts, kept))
    return float(seen.edges[BINS + best])


def _divergence(counts: NDArray[np.float64], kept: int) -> float:
    """KL(P || Q): P the first `kept` bins with everything beyond in the last, Q what LEVELS levels tell of them.

    A level's counts are spread over those of its bins that hold any. Clipped values may come to lie in a bin that held
    none; with nothing there in Q the divergence would be infinite, and one far outlier would forbid all clipping.
    """
    inside = counts[:kept]
    if not inside.any():  # no value is as small as this threshold
        return float("inf")
    clipped = inside.copy()
    clipped[-1] += counts[kept:].sum()
    starts = np.arange(LEVELS) * kept // LEVELS
    occupied = np.add.reduceat((inside > 0).astype(np.float64), starts)
    share = np.divide(np.add.reduceat(inside, starts), occupied, out=np.zeros(LEVELS), where=occupied > 0)
    told = np.where(inside > 0, np.repeat(share, np.diff(starts, append=kept)), 0.0)
    told[-1] = max(told[-1], LEAST_SHARE * inside.sum())
    some = clipped > 0
    p, q = clipped[some] / clipped.sum(), told[some] / told.sum()
    return float((p * np.log(p / q)).sum())


def percentile_range(seen: Histogram, share: float) -> tuple[float, float]:
    """(low, high) that hold `share` percent of the values, with half of the rest on either side."""
    cumulative = np.cumsum(seen.counts) / seen.counts.sum()
    tail = (1.0 - share / 100.0) / 2.0
    first = int(np.searchsorted(cumulative, tail, side="right"))
    last = int(np.searchsorted(cumulative, 1.0 - tail, side="left"))
    return max(seen.lowest, float(seen.edges[first])), min(seen.highest, float(seen.edges[last + 1]))


def _sample(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most MAX_COUNTED values: fixed places for each length, without a step that could meet rows and columns."""
    if values.size <= MAX_COUNTED:
        return values
    return values[np.random.default_rng(values.size).integers(values.size, size=MAX_COUNTED)]
