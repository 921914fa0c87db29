"""A metric's numbers as text, the same wherever it is judged or compared."""

from __future__ import annotations

from compressor.gates.metrics import UNITS, Found, Metric, Unit
from compressor.report.text import as_typed, beside, significant


def number(unit: Unit, value: float, limit: float | None = None, *, typed: bool = False, digits: int = 3) -> str:
    """In the metric's unit; beside a limit with as many digits as tell it from that. Only all is `100 %`."""
    share = unit == "share"
    value = round(100 * value if share else value, 9)
    if typed:
        text = as_typed(value)
    elif limit is not None or share:
        text = beside(value, 100.0 if limit is None else 100 * limit if share else limit, digits)
    else:
        text = significant(value, digits)
    return f"{text}{UNITS[unit]}"


def with_interval(metric: Metric, found: Found, limit: float | None = None) -> str:
    """`98.8 % (97.6 to 99.4 %)`, `≈0.79 ms (0.16 to 4.0 ms)`: a prediction to the two digits that it is worth."""
    predicted = found.origin == "predicted"
    digits = 2 if predicted else 3
    value = f"{'≈' if predicted else ''}{number(metric.unit, found.value, limit, digits=digits)}"
    if found.low is None or found.high is None:
        return value
    low = number(metric.unit, found.low, digits=digits).removesuffix(UNITS[metric.unit])
    return f"{value} ({low} to {number(metric.unit, found.high, digits=digits)})"
