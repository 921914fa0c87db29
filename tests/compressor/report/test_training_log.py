"""A long log as a few points."""

from __future__ import annotations

from math import inf

import pytest

from compressor.report.training_log import MOST_POINTS, curve_points


def rows(count: int, phase: str = "student") -> list[dict[str, object]]:
    return [{"phase": phase, "step": 5 * index + 4, "terms": {"feature": float(index)}} for index in range(count)]


@pytest.mark.parametrize("count", [1, 59, 60, 61, 120, 121, 415])
def test_every_row_is_in_one_point(count: int) -> None:
    points = curve_points(rows(count))["student"]
    assert len(points) <= MOST_POINTS
    assert points[-1].step == 5 * count - 1
    size = -(-count // MOST_POINTS)
    sizes = [size] * (count // size) + ([count % size] if count % size else [])
    assert len(points) == len(sizes)
    total = sum(point.terms["feature"] * number for point, number in zip(points, sizes, strict=True))
    assert total == pytest.approx(count * (count - 1) / 2)


def test_a_short_log_is_kept_as_it_is() -> None:
    points = curve_points(rows(3))["student"]
    assert [(point.step, point.terms) for point in points] == [
        (4, {"feature": 0.0}),
        (9, {"feature": 1.0}),
        (14, {"feature": 2.0}),
    ]
    assert curve_points([]) == {}


def test_phases_stay_apart_and_a_term_counts_where_it_is() -> None:
    first = {"phase": "student", "step": 0, "terms": {"feature": 1.0, "late": inf}}
    second = {"phase": "student", "step": 1, "terms": {"feature": 3.0, "late": 8.0}}
    more = [{"phase": "student", "step": 2 + index, "terms": {"feature": 0.0}} for index in range(100)]
    found = curve_points([*rows(2, "generator"), first, second, *more])
    assert list(found) == ["generator", "student"]
    assert found["student"][0].terms == {"feature": 2.0, "late": 8.0}
    assert set(found["student"][1].terms) == {"feature"}
