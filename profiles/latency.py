"""How long one inference takes on the machine at hand, with what is needed to believe the number.

    warm-up, then windows of back-to-back calls until the medians of the last six windows agree (coefficient
    of variation = standard deviation / mean <= bound), or until the time is up: then `stable` is False

The median carries an interval from the medians of the windows, not from single calls: calls that follow each
other share clock, cache and neighbours, so an interval over them would be far too narrow. It runs between
order statistics of the window medians, which assumes no distribution: from the smallest to the largest of
six, it covers the median with 1 - 2 / 2^6 = 97 %. Whatever casts doubt on the number is in `warnings`.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from profiles.host import HostSnapshot, contention, host_name, host_snapshot
from profiles.timing_statistics import CONFIDENCE, median_interval, two_speeds

__all__ = ["LatencyStats", "host_name", "measure"]

STABLE_WINDOWS = 6
WARMUP_CALLS = 3


class LatencyStats(BaseModel):
    """One measured latency and its origin. Times are of one call, which takes a whole batch.

    Attributes:
        origin: 'measured' here, or 'merged' from a result that another device sent back.
        device, runtime, versions: what ran it, with which software.
        what: 'wall clock' of a whole call, or 'gpu compute' alone: TensorRT's own time, without transfers.
        conditions: how the device was set, such as its power mode and clocks, in phrases.
        is_target: whether `device` is the target that the user named; only then it may fill its column.
        latency_p50_interval_ms: where the median lies with probability `interval_confidence`.
        throughput_ips: images a second, calls one after the other.
        warmup_count, count: calls before the windows, and calls that the percentiles are made of.
        num_windows, num_windows_used: the last six where stable, otherwise all.
        cv: coefficient of variation of the last windows' medians; None with fewer than two windows.
        cpu_mhz, load_average: of the host before the first window, where readable.

    A merged result says nothing of windows and warm-up: their fields, and the interval that they give, are None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: Literal["measured", "merged"] = "measured"
    device: str
    is_target: bool
    runtime: str
    versions: dict[str, str]
    what: Literal["wall clock", "gpu compute"] = "wall clock"
    conditions: tuple[str, ...] = ()
    batch_size: int
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float
    latency_p50_interval_ms: tuple[float, float] | None
    interval_confidence: float | None
    interval_method: str | None = "order statistics of window medians"
    throughput_ips: float
    warmup_count: int | None
    count: int
    num_windows: int | None
    num_windows_used: int | None
    window_s: float | None
    cv: float | None
    cv_bound: float | None
    stable: bool
    cpu_mhz: float | None = None
    load_average: float | None = None
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return self.model_dump(mode="json")


def measure(
    infer: Callable[[], object],
    *,
    batch_size: int,
    device: str,
    runtime: str,
    warmup_s: float = 0.5,
    window_s: float = 0.25,
    max_s: float = 10.0,
    cv_bound: float = 0.05,
    is_target: bool = False,
    versions: Mapping[str, str] | None = None,
    clock: Callable[[], float] = time.perf_counter,
    snapshot: Callable[[], HostSnapshot] = host_snapshot,
) -> LatencyStats:
    """Time `infer`, which runs one batch and returns when its result is there: on a GPU it must synchronise.

    `max_s` limits the time after the warm-up; the window under way when it is reached is still finished, and
    a window holds at least one call. Exceptions of `infer` pass through.
    """
    warmup_count = len(_window(infer, warmup_s, WARMUP_CALLS, clock))
    before = snapshot()
    deadline = clock() + max_s
    windows: list[list[float]] = []
    while True:
        windows.append(_window(infer, window_s, 1, clock))
        recent = [statistics.median(window) for window in windows[-STABLE_WINDOWS:]]
        cv = statistics.stdev(recent) / statistics.fmean(recent) if len(recent) > 1 else None
        stable = cv is not None and len(recent) == STABLE_WINDOWS and cv <= cv_bound
        if stable or clock() >= deadline:
            break
    after = snapshot()

    used = windows[-STABLE_WINDOWS:] if stable else windows
    times_ms = np.concatenate([np.asarray(window) for window in used]) * 1e3
    p50, p90, p99 = (float(value) for value in np.quantile(times_ms, (0.5, 0.9, 0.99)))
    low, high, confidence = median_interval([statistics.median(window) * 1e3 for window in used])
    all_times_ms = np.concatenate([np.asarray(window) for window in windows]) * 1e3
    return LatencyStats(
        device=device,
        is_target=is_target,
        runtime=runtime,
        versions={"os": platform.platform(), "python": platform.python_version(), **(versions or {})},
        batch_size=batch_size,
        latency_p50_ms=p50,
        latency_p90_ms=p90,
        latency_p99_ms=p99,
        # Fast windows hold more calls, so the median of all calls can leave the middle of the medians.
        latency_p50_interval_ms=(min(low, p50), max(high, p50)),
        interval_confidence=confidence,
        throughput_ips=batch_size * len(times_ms) / float(times_ms.sum() / 1e3),
        warmup_count=warmup_count,
        count=len(times_ms),
        num_windows=len(windows),
        num_windows_used=len(used),
        window_s=window_s,
        cv=cv,
        cv_bound=cv_bound,
        stable=stable,
        cpu_mhz=before.cpu_mhz,
        load_average=before.load_average,
        warnings=(
            *_doubts(stable, len(windows), cv, cv_bound, max_s, confidence, len(times_ms)),
            *contention(before, after),
            *_two_speeds_sentence(all_times_ms),
        ),
    )


def _window(infer: Callable[[], object], seconds: float, min_calls: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of each call, back to back, for at least `seconds` and `min_calls`."""
    times: list[float] = []
    start = now = clock()
    while now - start < seconds or len(times) < min_calls:
        infer()
        earlier, now = now, clock()
        times.append(now - earlier)
    return times


def _doubts(
    stable: bool, windows: int, cv: float | None, cv_bound: float, max_s: float, confidence: float, count: int
) -> list[str]:
    found = []
    if windows < STABLE_WINDOWS:
        found.append(f"Unstable: {max_s:g} s held {windows} of the {STABLE_WINDOWS} windows that are compared.")
    elif not stable:
        found.append(f"Unstable: the last windows' medians varied by {cv:.1%} (bound {cv_bound:.1%}).")
    if confidence < CONFIDENCE:
        found.append(f"Too few windows for a 95 % interval: it covers the median with {confidence:.0%}.")
    if count < 100:
        found.append(f"Only {count} calls: p99 is close to the slowest of them.")
    return found


def _two_speeds_sentence(times_ms: NDArray[np.float64]) -> list[str]:
    found = two_speeds(times_ms)
    if found is None:
        return []
    fast, slow = found
    return [f"Calls came in two speeds, {fast:.3g} and {slow:.3g} ms: clocks or other programs changed."]
