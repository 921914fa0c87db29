"""Drawings: marks stand where their values are, and labels are only text."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from html_page import Element, parsed

from compressor.report.html.charts import INSET, Axis, Bar, Line, Mark, bars, curve, intervals
from compressor.report.html.numbers import Number

NUMBER = Number("7", 7.0, "significant", "/a")


def drawn(lines: Sequence[Line], axis: Axis) -> Element:
    return parsed(intervals("slug", "Title", axis, lines))


def x_of(element: Element, name: str = "x") -> float:
    """In parts of the axis."""
    return (float(element.attributes[name].removesuffix("%")) - INSET) / (100 - 2 * INSET)


def test_marks_and_whiskers_stand_where_their_values_are() -> None:
    svg = drawn([Line("one", (Mark(0.9, 0.85, 0.95),))], Axis("share", low=0.8, high=1.0))
    drawn_lines = svg.find("line", class_="whisker series0")
    (whisker,) = [one for one in drawn_lines if one.attributes["x1"] != one.attributes["x2"]]
    assert [x_of(whisker, "x1"), x_of(whisker, "x2")] == pytest.approx([0.25, 0.75], abs=1e-4)
    (dot,) = [one for one in svg.find("svg") if one.find("circle") and one.attributes.get("role") is None]
    assert x_of(dot) == pytest.approx(0.5, abs=1e-4)


def test_an_axis_has_a_name_and_ticks_at_round_numbers() -> None:
    svg = drawn([Line("one", (Mark(0.31, 0.234, 0.4),))], Axis("p50, ms", low=0.0))
    assert [tick.text for tick in svg.find("text", class_="tick")] == ["0", "0.1", "0.2", "0.3", "0.4"]
    assert [axis.text for axis in svg.find("text", class_="axis")] == ["p50, ms"]


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-9, 1e9])
def test_a_single_value_has_an_axis_too(value: float) -> None:
    svg = drawn([Line("one", (Mark(value, value, value),))], Axis("it"))
    assert len(svg.find("text", class_="tick")) >= 2


def test_series_differ_in_shape_and_have_a_key() -> None:
    marks = tuple(Mark(0.1 * series, 0.0, 0.5, series) for series in range(3))
    svg = parsed(intervals("slug", "Title", Axis("share"), [Line("one", marks)], ("a", "b", "c")))
    assert [key.text for key in svg.find("text", class_="key")] == ["a", "b", "c"]
    assert [len(svg.find(shape)) for shape in ("circle", "rect", "path")] == [2, 2, 2]


def test_what_is_doubtful_is_drawn_hollow() -> None:
    svg = drawn([Line("one", (Mark(0.5, 0.4, 0.6, doubtful=True),))], Axis("share"))
    assert svg.find("circle", class_="dot series0 doubtful")


def test_bars_are_as_long_as_their_values() -> None:
    drawing = [Bar("a", NUMBER, 2.0), Bar("b", NUMBER, 1.0), Bar("rest", NUMBER, 0.5, rest=True)]
    rects = parsed(bars("slug", "Title", Axis("ms", low=0.0), drawing)).find("rect")
    widths = [float(rect.attributes["width"].removesuffix("%")) for rect in rects]
    assert widths == pytest.approx([97.0, 48.5, 24.25], abs=0.01)
    assert rects[-1].attributes["class"] == "rest"


def test_a_curve_runs_from_its_first_point_to_its_last() -> None:
    svg = parsed(curve("slug", "loss", [0, 50, 100], [3.0, 2.0, 1.0], NUMBER))
    (line,) = svg.find("polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attributes["points"].split()]
    assert [y for _, y in points] == pytest.approx([0.0, 500.0, 1000.0])
    assert points[0][0] < points[1][0] < points[2][0]
    assert [axis.text for axis in svg.find("text", class_="axis")] == ["step"]


def test_labels_are_only_text_and_of_bounded_length() -> None:
    svg = drawn([Line("<script>&\u202e" + "x" * 900, (Mark(0.5, 0.4, 0.6),), NUMBER)], Axis("<b>"))
    (label,) = svg.find("text", class_="label")
    assert label.text.startswith("<script>&\ufffdxxx")
    assert len(label.text) < 40
    assert not svg.find("script")


def test_a_drawing_has_a_name_and_a_description() -> None:
    (svg,) = [one for one in drawn([Line("one", (Mark(1, 1, 1),))], Axis("it")).find("svg") if "role" in one.attributes]
    names = svg.attributes["aria-labelledby"].split()
    assert [svg.find(tag, id=name)[0].text for tag, name in zip(("title", "desc"), names, strict=True)] == [
        "Title",
        "it, with intervals: one.",
    ]
