"""What call times say: intervals for their median, and whether they mix two speeds. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
FEWEST_CALLS = 80  # below, chance alone often makes two groups out of one

# Student's t with 1, 2, ... degrees of freedom: 95 % lie between -t and t. Above twelve the last one serves.
T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179)

# Half a relative width for what changes over minutes and cannot show within seconds: caches and memory shared with
# others, clocks that follow the heat. A judgement; benchmarks/latency_repeatability.py says how well it holds.
DRIFT = 0.025


def median_interval(medians: Sequence[float]) -> tuple[float, float, float]:
    """Interval of the median from n independent values: (low, high, confidence).

    The narrowest pair of order statistics k and n + 1 - k that covers the median with at least 95 %. The
    confidence 1 - 2 P(X < k), X binomial(n, 1/2), is exact for any distribution. Fewer than six values cannot
    reach 95 %: then it is the widest pair.
    """
    ordered, n = sorted(medians), len(medians)
    outside, rank = 2 / 2**n, 1  # twice the chance that fewer than `rank` of n fair coins show heads
    while 2 * (rank + 1) <= n and (wider := outside + 2 * math.comb(n, rank) / 2**n) <= 1 - CONFIDENCE:
        outside, rank = wider, rank + 1
    return ordered[rank - 1], ordered[n - rank], 1 - outside


def repeat_interval(center: float, session_medians: Sequence[float], drift: float = DRIFT) -> tuple[float, float]:
    """Where a repetition minutes later finds its median, with 95 %, from the medians of n >= 2 separate sessions.

    A prediction interval on the logarithm: two means of n sessions differ with a standard deviation of
    sqrt(2 / n) times that of the sessions, which is estimated from the n here (Student's t, n - 1 degrees of
    freedom). `drift` adds to it as an independent part.
    """
    n = len(session_medians)
    deviation = float(np.std(np.log(session_medians), ddof=1))
    chance = T_95[min(n - 1, len(T_95)) - 1] * deviation * math.sqrt(2 / n)
    factor = math.exp(math.hypot(chance, drift))
    return center / factor, center * factor


def two_speeds(times_ms: NDArray[np.float64]) -> tuple[float, float] | None:
    """The two typical times (fast, slow) if the calls fall into two separate groups, otherwise None.

    times_ms: (N,). The sorted logarithms are split where the variance between the two groups is largest, with
    at least a tenth of the calls in each. The groups are separate if their means lie 15 % apart and Ashman's
    D, the distance of the means over the root mean square of the deviations, is above 4. For comparison,
    halves of one uniform distribution have D = 3.5 and halves of a normal one 2.6.
    """
    logs = np.sort(np.log(times_ms))
    logs = logs[len(logs) // 100 : len(logs) - len(logs) // 100]  # single outliers are tails, not a second speed
    if len(logs) < FEWEST_CALLS:
        return None
    sizes = np.arange(1, len(logs))
    sums = np.cumsum(logs)
    low_means, high_means = sums[:-1] / sizes, (sums[-1] - sums[:-1]) / (len(logs) - sizes)
    spread = sizes * (len(logs) - sizes) * (high_means - low_means) ** 2
    spread[(sizes < len(logs) / 10) | (sizes > len(logs) * 9 / 10)] = 0
    cut = int(np.argmax(spread)) + 1
    fast, slow = logs[:cut], logs[cut:]
    distance = slow.mean() - fast.mean()
    if distance < math.log(1.15) or distance <= 4 * math.sqrt((fast.var() + slow.var()) / 2):
        return None
    return float(np.exp(np.median(fast))), float(np.exp(np.median(slow)))
