"""Drawings as inline SVG: intervals, bars and curves, each with a labelled axis.

A drawing is as wide as its place. So what stands across is in per cent of the width and what stands down in pixels,
and letters keep their size on a phone. Colours and letters are the style sheet's, so that they follow the theme.
ElementTree writes the text, which escapes whatever it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from xml.etree.ElementTree import Element, SubElement, tostring

from markupsafe import Markup

from compressor.report.html.numbers import PLAINEST, Number
from compressor.report.text import as_typed
from compressor.report.untrusted import printable

LABEL_LENGTH = 34  # letters that fit beside a value on a phone
LABEL, TRACK, GAP = 22, 18, 10  # px: the line of a label, of a mark, and the space below a row
AXIS = 44  # px: ticks and the axis' name
INSET = 1.5  # per cent at both ends, so that marks on the ends are whole
SHAPES = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True)
class Axis:
    """What is drawn across.

    Attributes:
        tick: text of a tick.
        low, high: its ends; None: where the values end, or a little beyond.
        lines: values to compare with, and what each is.
    """

    title: str
    tick: Callable[[float], str] = as_typed
    low: float | None = None
    high: float | None = None
    lines: tuple[tuple[float, str], ...] = ()


@dataclass(frozen=True)
class Mark:
    """A value with its interval. series: its index among the drawing's series, which gives shape and colour.

    doubtful: drawn hollow, of what is no evidence or only predicted.
    """

    value: float
    low: float
    high: float
    series: int = 0
    doubtful: bool = False


@dataclass(frozen=True)
class Line:
    """One row: its name, the number that is written beside it, if one is, and its marks below each other."""

    label: str
    marks: tuple[Mark, ...]
    number: Number | None = None


@dataclass(frozen=True)
class Bar:
    label: str
    number: Number
    value: float
    rest: bool = False


def intervals(slug: str, title: str, axis: Axis, lines: Sequence[Line], series: Sequence[str] = ()) -> Markup:
    """Dots with whiskers. The description says what is drawn; the numbers are in the table beside it."""
    values = [end for line in lines for mark in line.marks for end in (mark.low, mark.high)]
    values += [value for value, _ in axis.lines]
    scale = _Scale.over(values, axis)
    top = LABEL if axis.lines else 0
    legend = LABEL * len(series)
    heights = [LABEL + TRACK * len(line.marks) + GAP for line in lines]
    plot = top + legend + sum(heights)
    drawn = ", ".join(line.label for line in lines[:5])
    svg = _svg(slug, title, f"{axis.title}, with intervals: {drawn}.", plot + AXIS)
    _legend(svg, series)
    _grid(svg, scale, axis, legend + top, plot)
    for value, said in axis.lines:
        _text(svg, scale.x(value), legend + 14, said, "reference", scale.anchor(value))
        _vertical(svg, scale.x(value), legend + top, plot, "reference")
    y = float(legend + top)
    for line, height in zip(lines, heights, strict=True):
        _label(svg, y, line.label, line.number)
        for index, mark in enumerate(line.marks):
            _mark(svg, scale, mark, y + LABEL + TRACK * (index + 0.5))
        y += height
    return _written(svg)


def bars(slug: str, title: str, axis: Axis, drawn: Sequence[Bar]) -> Markup:
    """From zero, in the order given."""
    scale = _Scale.over([0.0, *(bar.value for bar in drawn)], axis)
    height = LABEL + TRACK
    plot = height * len(drawn)
    svg = _svg(slug, title, f"{axis.title}: {', '.join(bar.label for bar in drawn[:5])}.", plot + AXIS)
    _grid(svg, scale, axis, 0, plot)
    for index, bar in enumerate(drawn):
        y = height * index
        _label(svg, y, bar.label, bar.number)
        width = max(scale.x(bar.value) - scale.x(0.0), 0.2)
        _add(svg, "rect", x=f"{scale.x(0.0):.2f}%", y=y + LABEL, width=f"{width:.2f}%", height=10, rx=2)
        svg[-1].set("class", "rest" if bar.rest else "bar")
    return _written(svg)


def curve(slug: str, title: str, steps: Sequence[int], values: Sequence[float], last: Number) -> Markup:
    """One loss term over the steps, with its own scale: terms differ by orders of magnitude."""
    top, height = 40, 110
    down = _Scale.over(values, Axis(title), count=3)
    across = _Scale.over(steps, Axis("step", low=0, high=max(steps)), count=3)
    svg = _svg(slug, title, f"{title} over {len(steps)} points of training steps.", top + height + AXIS)
    _label(svg, 0, title, last)
    for tick in down.ticks:
        y = top + height * (1 - down.part(tick))
        _add(svg, "line", x1="0%", x2="100%", y1=f"{y:.1f}", y2=f"{y:.1f}")
        svg[-1].set("class", "grid")
        _text(svg, 0, y - 3, as_typed(tick), "tick", "start")
    inner = _add(svg, "svg", x="0", y=top, width="100%", height=height, viewBox="0 0 1000 1000")
    inner.set("preserveAspectRatio", "none")
    points = " ".join(
        f"{10 * across.x(step):.1f},{1000 * (1 - down.part(value)):.1f}"
        for step, value in zip(steps, values, strict=True)
    )
    line = _add(inner, "polyline", points=points)
    line.set("class", "curve")
    line.set("vector-effect", "non-scaling-stroke")
    for tick in across.ticks:
        _text(svg, across.x(tick), top + height + 16, f"{tick:,.0f}", "tick", across.anchor(tick))
    _text(svg, 50, top + height + 36, "step", "axis", "middle")
    return _written(svg)


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], axis: Axis, count: int = 4) -> _Scale:
        """Ends and ticks at round numbers around all values."""
        low = min(values) if axis.low is None else axis.low
        high = max(values) if axis.high is None else axis.high
        if high - low < 1e-12 * max(1.0, abs(high)):
            low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
        raw = (high - low) / count
        power = 10.0 ** floor(log10(raw))
        step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        low = first * step if axis.low is None else low
        high = last * step if axis.high is None else high
        room = 1e-9 * (high - low)
        ticks = tuple(
            round(index * step, 12) for index in range(first, last + 1) if low - room <= index * step <= high + room
        )
        return cls(low, high, ticks)

    def part(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def x(self, value: float) -> float:
        """Per cent of the width; what lies beyond an end stands on it."""
        return INSET + (100 - 2 * INSET) * min(1.0, max(0.0, self.part(value)))

    def anchor(self, value: float) -> str:
        """Text at an end stays inside."""
        part = self.part(value)
        return "start" if part < 0.08 else "end" if part > 0.92 else "middle"


def _svg(slug: str, title: str, description: str, height: float) -> Element:
    attributes = {
        "role": "img",
        "aria-labelledby": f"drawing-{slug}-title drawing-{slug}-desc",
        "width": "100%",
        "height": f"{height:.0f}",
        "class": "chart",
    }
    svg = Element("svg", attributes)
    for tag, text in (("title", title), ("desc", description)):
        SubElement(svg, tag, {"id": f"drawing-{slug}-{tag}"}).text = printable(text, 400)
    return svg


def _grid(svg: Element, scale: _Scale, axis: Axis, top: float, bottom: float) -> None:
    for tick in scale.ticks:
        _vertical(svg, scale.x(tick), top, bottom, "grid")
        _text(svg, scale.x(tick), bottom + 16, axis.tick(tick), "tick", scale.anchor(tick))
    _text(svg, 50, bottom + 36, axis.title, "axis", "middle")


def _legend(svg: Element, series: Sequence[str]) -> None:
    for index, label in enumerate(series):
        _shape(svg, INSET, LABEL * index + 9, index, doubtful=False)
        _text(svg, INSET, LABEL * index + 14, label, "key", "start", dx=12)


def _label(svg: Element, y: float, label: str, number: Number | None) -> None:
    _text(svg, 0, y + 15, printable(label, LABEL_LENGTH), "label", "start")
    if number is not None:
        text = _text(svg, 100, y + 15, number.text, "value", "end")
        text.set("data-path", number.pointers)
        text.set("data-value", repr(number.value))
        if number.form != PLAINEST:
            text.set("data-as", number.form)


def _mark(svg: Element, scale: _Scale, mark: Mark, y: float) -> None:
    ends = [f"{scale.x(end):.2f}%" for end in (mark.low, mark.high)]
    look = f"series{mark.series}{' doubtful' if mark.doubtful else ''}"
    _add(svg, "line", x1=ends[0], x2=ends[1], y1=y, y2=y).set("class", f"whisker {look}")
    for end in ends:
        _add(svg, "line", x1=end, x2=end, y1=y - 4, y2=y + 4).set("class", f"whisker {look}")
    _shape(svg, scale.x(mark.value), y, mark.series, doubtful=mark.doubtful)


def _shape(svg: Element, x: float, y: float, series: int, *, doubtful: bool) -> None:
    """At a place that is part per cent, part pixels."""
    place = _add(svg, "svg", x=f"{x:.2f}%", y=f"{y:g}", overflow="visible")
    match SHAPES[series % len(SHAPES)]:
        case "circle":
            shape = _add(place, "circle", r=5)
        case "square":
            shape = _add(place, "rect", x=-4.5, y=-4.5, width=9, height=9)
        case "diamond":
            shape = _add(place, "path", d="M0-6.5 6.5 0 0 6.5-6.5 0z")
        case _:
            shape = _add(place, "path", d="M0-6 6 5h-12z")
    shape.set("class", f"dot series{series}{' doubtful' if doubtful else ''}")


def _vertical(svg: Element, x: float, top: float, bottom: float, look: str) -> None:
    _add(svg, "line", x1=f"{x:.2f}%", x2=f"{x:.2f}%", y1=top, y2=bottom).set("class", look)


def _text(svg: Element, x: float, y: float, text: str, look: str, anchor: str, dx: float = 0) -> Element:
    element = _add(svg, "text", x=f"{x:.2f}%", y=f"{y:g}")
    element.set("text-anchor", anchor)
    element.set("class", look)
    if dx:
        element.set("dx", f"{dx:g}")
    element.text = printable(text, 80)
    return element


def _add(parent: Element, tag: str, **attributes: str | float) -> Element:
    return SubElement(parent, tag, {name: f"{value}" for name, value in attributes.items()})


def _written(svg: Element) -> Markup:
    """ElementTree has escaped it."""
    return Markup(tostring(svg, encoding="unicode"))
