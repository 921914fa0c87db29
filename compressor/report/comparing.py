"""Which of two artefacts is faster on the target, as far as the measurements can tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from compressor.report.shipping import Variant
from compressor.report.text import significant
from profiles.latency import LatencyStats
from profiles.schema import DeviceProfile

_HIGHEST_FIRST = ("fp32", "fp16", "int8")
TIE = 0.03  # of the faster p50: less is not worth a lower precision
SAME_PACE = 0.02  # of the p50 at the reference pace: what was timed this close to it is not worth a second number


def milliseconds(variant: Variant) -> float:
    """p50 on the target, where it was measured."""
    assert variant.measured is not None
    return variant.measured.latency_p50_ms


def as_timed(latency: LatencyStats) -> str | None:
    """`1.97 ms as timed`, where that is not what it is at the machine's reference pace."""
    timed_ms = latency.latency_p50_as_timed_ms
    if timed_ms is None or abs(timed_ms - latency.latency_p50_ms) <= SAME_PACE * latency.latency_p50_ms:
        return None
    return f"{significant(timed_ms)} ms as timed"


def holds(latency: LatencyStats, limit_ms: float) -> bool | None:
    """Whether the p50 is within a limit; None where the pace decides: as timed it is on the limit's other side."""
    timed_ms = latency.latency_p50_as_timed_ms
    held = latency.latency_p50_ms <= limit_ms
    return held if timed_ms is None or (timed_ms <= limit_ms) == held else None


def comparable(measured: Sequence[Variant]) -> list[Variant]:
    """Those whose latency is of the commonest kind; a wall clock is no match for a GPU's own time."""
    kinds = Counter(kind(variant) for variant in measured)
    return [variant for variant in measured if kind(variant) == kinds.most_common(1)[0][0]]


def kind(variant: Variant) -> tuple[str, int] | None:
    """What was timed on the target, and of how many images; None where nothing was."""
    latency = variant.measured
    return None if latency is None else (latency.what, latency.batch_size)


def as_fast(variant: Variant, fastest: Variant) -> bool:
    """Not slower than `fastest` by more than a tie, or by less than the two medians are known to."""
    one, other = variant.measured, fastest.measured
    assert one is not None
    assert other is not None
    if one.latency_p50_ms <= (1 + TIE) * other.latency_p50_ms:
        return True
    ours, theirs = one.latency_p50_interval_ms, other.latency_p50_interval_ms
    return ours is not None and theirs is not None and ours[0] <= theirs[1]


def no_larger(variant: Variant, other: Variant) -> bool:
    """False where one of the sizes is not known."""
    return variant.size_mib is not None and other.size_mib is not None and variant.size_mib <= other.size_mib


def p50(variant: Variant) -> str:
    return significant(milliseconds(variant))


def place(target: DeviceProfile) -> str:
    """The target, within a sentence."""
    return "this host" if target.this_host else target.title


def other_mode(variant: Variant, target: DeviceProfile) -> str | None:
    """`measured in power mode MAXN_SUPER (2.10 ms), not in 15W`, where that is so."""
    latency = variant.latency_target
    if latency is None or latency.other_power_mode is None:
        return None
    taken = f"{significant(latency.latency_p50_ms)} ms"
    return f"measured in power mode {latency.other_power_mode} ({taken}), not in {target.peaks.power_mode}"


def precision_rank(variant: Variant) -> int:
    """0 for the highest precision."""
    return _HIGHEST_FIRST.index(variant.precision)
