"""The training log as report.json keeps it: a few points for each phase, means of the rows that they stand for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import fsum, isfinite
from typing import Any

from compressor.report.schema import CurvePoint

MOST_POINTS = 60


def curve_points(log_rows: Iterable[Mapping[str, Any]]) -> dict[str, tuple[CurvePoint, ...]]:
    """Phase -> its curve, of rows like {"phase": "student", "step": 12, "terms": {"feature": 0.4}} in their order.

    The rows of a phase are divided into at most 60 groups of as many rows, the last of which may be smaller. A point
    has the step of the last row of its group, and of every term the mean over the rows that have it.
    """
    by_phase: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in log_rows:
        by_phase[row["phase"]].append(row)
    return {phase: tuple(_points(rows)) for phase, rows in by_phase.items()}


def _points(rows: Sequence[Mapping[str, Any]]) -> Iterable[CurvePoint]:
    size = -(-len(rows) // MOST_POINTS)
    for first in range(0, len(rows), size):
        group = rows[first : first + size]
        values: dict[str, list[float]] = defaultdict(list)
        for row in group:
            for name, value in row["terms"].items():
                if isfinite(value):
                    values[name].append(value)
        yield CurvePoint(step=group[-1]["step"], terms={name: fsum(some) / len(some) for name, some in values.items()})
