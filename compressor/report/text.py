"""Numbers as text, the same in every rendering."""

from __future__ import annotations

from collections.abc import Iterable
from math import floor, log10

from compressor.report.measured import Proportion
from compressor.report.predicted import Prediction
from profiles.latency import LatencyStats

ABSENT = "–"


def percent(fraction: float) -> str:
    """`97.5 %`. Only all is `100 %` and only none is `0 %`: 4,999 of 5,000 is `99.98 %`.

    What is below 0, a variance that is explained by less than nothing, is `none`: its size says nothing.
    """
    if fraction < 0:
        return "none"
    if fraction in (0.0, 1.0):
        return f"{100 * fraction:.0f} %"
    digits = 1
    while digits < 6 and float(f"{100 * fraction:.{digits}f}") in (0.0, 100.0):
        digits += 1
    return f"{100 * fraction:.{digits}f} %"


def span(proportion: Proportion) -> str:
    """The interval alone: `87.1 to 99.6 %`, `none to 12.0 %`, `none`."""
    if proportion.high < 0:
        return percent(proportion.high)
    return f"{percent(proportion.low).removesuffix(' %')} to {percent(proportion.high)}"


def with_interval(proportion: Proportion) -> str:
    """`97.5 % (87.1 to 99.6 %)`; `none` where all of the interval is."""
    if proportion.high < 0:
        return percent(proportion.value)
    return f"{percent(proportion.value)} ({span(proportion)})"


def shared(proportion: Proportion, noun: str = "image") -> str:
    """What a share was found on: `of 40 images`, `of the pixels of 40 images`, `of the variance over 40 images`."""
    images = count(proportion.n, noun)
    return {
        "images": f"of {images}",
        "pixels": f"of the pixels of {images}",
        "overlap": f"over {images}",
        "variance": f"of the variance over {images}",
    }[proportion.of]


def agrees(proportion: Proportion, whose: str, share: str, noun: str = "image") -> str:
    """A verb phrase: `agrees with fp32 on 97 % of 40 images`, `explains 97 % of the variance of fp32 over 40 images`.

    share: the value, with its interval or without.
    """
    if proportion.of == "variance":
        return f"explains {share} of the variance of {whose} over {count(proportion.n, noun)}"
    return f"agrees with {whose} on {share} {shared(proportion, noun)}"


AGREEMENT = {
    "images": "agreement",
    "pixels": "agreement of pixels",
    "overlap": "mean IoU",
    "variance": "variance explained",
}
"""What agreement is called in a table, by what it is a share of."""

ACCURACY = {**AGREEMENT, "images": "accuracy", "pixels": "accuracy of pixels"}


def significant(value: float, digits: int = 3) -> str:
    """So many significant digits without an exponent, by default three: 0.0123, 1.23, 123, 12,300."""
    rounded = float(f"{value:.{digits}g}")
    exponent = floor(log10(abs(rounded))) if rounded else 0
    return f"{rounded:,.{max(0, digits - 1 - exponent)}f}"


def as_typed(value: float) -> str:
    """A limit as a user gave it: 33.3, 0.6125, 2."""
    return f"{value:.12g}"


def beside(value: float, limit: float, digits: int = 3) -> str:
    """So many significant digits, or as many more as it takes for them to be on `value`'s side of `limit`."""
    while digits < 12 and _side(float(f"{value:.{digits}g}"), limit) != _side(value, limit):
        digits += 1
    return significant(value, digits)


def _side(value: float, limit: float) -> int:
    return (value > limit) - (value < limit)


def params(params_m: float) -> str:
    """Millions of parameters as `11.2 M` or `77.9 k`."""
    return _scaled(params_m, ("M", "k"), 1000)


def macs(macs_g: float) -> str:
    """Billions of multiply-accumulates as `1.82 G`, `12.3 M` or `80.1 k`."""
    return _scaled(macs_g, ("G", "M", "k"), 1000)


def size(size_mib: float) -> str:
    """`42.6 MiB`, `308 KiB`."""
    return _scaled(size_mib, ("MiB", "KiB"), 1024)


def times(numerator: float, denominator: float) -> str:
    """`0.262 ×`."""
    return f"{significant(numerator / denominator)} ×"


def points(value: float) -> str:
    """Percentage points: `1 point`, `2.3 points`; of a variance more than all may be lost."""
    if value > 100:
        return "more than 100 points"
    text = f"{value:.3g}"
    return f"{text} point" if text == "1" else f"{text} points"


def signed_points(fraction: float) -> str:
    """A difference of shares in percentage points, with its sign: `+0.52`, `−3`, `−12.5`, `0`."""
    value = 100 * fraction
    rounded = float(f"{value:.{2 if abs(value) < 10 else 3}g}")
    return f"{rounded:+,.12g}".replace("-", "−") if rounded else "0"


def joined(texts: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = texts
    return f"{', '.join(first)} and {last}" if first else last


def milliseconds(latency: LatencyStats) -> str:
    """`0.281 / 0.302 / 0.377`: p50, p90, p99 in ms, and what keeps them from being a plain measurement."""
    return _marked(latency, latency.latency_p50_ms, latency.latency_p90_ms, latency.latency_p99_ms)


def median(latency: LatencyStats) -> str:
    """`0.281`: p50 alone, in ms, marked alike."""
    return _marked(latency, latency.latency_p50_ms)


def approximate(prediction: Prediction, unit: str = "", limit_ms: float | None = None) -> str:
    """`≈3.1 (2.4 to 4.0)`: a predicted p50 in ms and its interval, to the two digits that a prediction is worth.

    With the unit " ms" it is `≈3.1 ms (2.4 to 4.0)`. Beside a limit the p50 has as many digits as tell it from that.
    """
    low, high = prediction.latency_p50_interval_ms
    p50_ms = prediction.latency_p50_ms
    median_ms = significant(p50_ms, 2) if limit_ms is None else beside(p50_ms, limit_ms, 2)
    return f"≈{median_ms}{unit} ({significant(low, 2)} to {significant(high, 2)})"


def support(prediction: Prediction) -> tuple[str, ...]:
    """All that is said of a prediction, in sentences that follow a name and a colon."""
    return (*carried_by(prediction), *nearest(prediction), *prediction.doubts)


def carried_by(prediction: Prediction) -> tuple[str]:
    """What it rests on."""
    known = f"with {count(prediction.num_measurements, 'measurement')} of the device in all"
    carried = {
        "calibrated": f"calibrated at this precision, {known}",
        "transferred": f"transferred from other precisions or devices of its kind, {known}",
        "roofline": "from its peak rates and what devices reach on average",
    }[prediction.basis]
    return (
        f"predicted for {prediction.device}, batch {prediction.batch_size}, and not measured: {carried}, "
        f"{100 * prediction.interval_confidence:g} % interval.",
    )


def nearest(prediction: Prediction) -> tuple[str, ...]:
    """The measurement that is most like it; report.json has the others."""
    return tuple(f"the nearest measurement is {anchor}." for anchor in prediction.anchors[:1])


def conditions(latency: LatencyStats) -> str:
    """How a latency was obtained and how sure its median is, in one line; what its device did not say is left out."""
    parts = [f"{latency.origin} on {latency.device} with {latency.runtime}", *latency.conditions]
    if latency.what != "wall clock":
        parts.append(f"{latency.what} alone")
    warmup = "" if latency.warmup_count is None else f" after {latency.warmup_count:,} to warm up"
    text = ", ".join([*parts, f"batch {latency.batch_size}", f"{count(latency.count, 'call')}{warmup}"])
    if latency.latency_p50_interval_ms is None:
        return text
    low, high = map(significant, latency.latency_p50_interval_ms)
    text += f"; p50 between {low} and {high} ms"
    if latency.pace is None or latency.latency_p50_as_timed_ms is None:
        return text
    as_timed = significant(latency.latency_p50_as_timed_ms)
    return f"{text} at this machine's reference pace, {as_timed} ms as timed at {latency.pace:.0%} of it"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `1 h 05 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """`1 image`, `1,200 images`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _marked(latency: LatencyStats, *times_ms: float) -> str:
    marks: list[str] = [] if latency.origin == "measured" else [latency.origin]
    marks += [] if latency.other_power_mode is None else [f"in {latency.other_power_mode}"]
    marks += [] if latency.stable else ["unstable"]
    text = " / ".join(map(significant, times_ms))
    return f"{text} ({', '.join(marks)})" if marks else text


def _scaled(value: float, units: tuple[str, ...], step: float) -> str:
    """`value`, given in units[0], in the first unit in which it is at least 1; each is `step` of the next."""
    for unit in units[:-1]:
        if value >= 1:
            return f"{significant(value)} {unit}"
        value *= step
    return f"{significant(value)} {units[-1]}"
