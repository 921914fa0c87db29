"""The picture of a search for a student: how long each candidate takes against how much of the teacher it keeps."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.report.drawing import FAINT, INK, PAPER
from compressor.report.pictures import COLOURS, DOTS_PER_INCH
from compressor.report.student_search import StudentSearch, latency_kind
from compressor.report.text import as_typed
from compressor.report.untrusted import ELLIPSIS, printable
from compressor.stages import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

INCHES = (11.0, 6.6)
NAME_LENGTH, DEVICE_LENGTH = 24, 60  # characters
LOOKS = {  # colour, marker and its size in points, in the order of the legend
    "teacher": (INK, "*", 20),
    "pruned": (COLOURS[0], "o", 11),
    "narrower": (COLOURS[1], "s", 10),
    "other": (COLOURS[2], "^", 11),
}
RING, BOUND = COLOURS[5], COLOURS[6]
RING_WIDTH = 13  # points that the ring around the chosen one adds to its marker
# Where a name may stand beside its marker: offset in points and alignment. The freest place is taken.
PLACES = (
    (13, 0, "left", "center"),
    (-13, 0, "right", "center"),
    (8, 10, "left", "bottom"),
    (8, -10, "left", "top"),
    (-8, 10, "right", "bottom"),
    (-8, -10, "right", "top"),
    (0, 14, "center", "bottom"),
    (0, -14, "center", "top"),
)
AROUND = 16  # points around a marker in which a name seems to be its own
# A bound further away than this, as a multiple of the largest value, would leave no room for the candidates.
FAR = 1.6


@dataclass(frozen=True)
class Point:
    """One network on the picture.

    Attributes:
        x: p50 in ms; where no latency is known, per cent of the teacher's multiply-accumulates (MACs).
        span: the interval of x.
        y: per cent of the teacher's MACs; where x has those, of its parameters.
    """

    name: str
    kind: str
    x: float
    span: tuple[float, float]
    y: float
    fits: bool
    chosen: bool


def points_of(search: StudentSearch) -> tuple[bool, tuple[Point, ...]]:
    """Whether x is a latency, and the networks that have both an x and a y, the teacher first."""
    timed = any(candidate.latency is not None for candidate in search.candidates)
    return timed, tuple(_points(search, timed=timed))


def candidate_picture(search: StudentSearch, path: Path, *, wish_ms: float | None = None) -> None:
    """Write a PNG: a marker for each network, filled where it holds every bound, with the interval of its latency.

    The same search gives the same picture. What cannot be drawn, since it could not be made or was not timed, is
    counted below it.

    Args:
        wish_ms: the latency that the target's budget wishes for, drawn where the user set no limit.
    """
    # A Figure without pyplot has no window system and no state beyond this function.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed, points = points_of(search)
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)  # measures names
    axes: Axes = figure.subplots()
    for point in points:
        _draw(axes, point)
    axes.set_xlim(0, 1.12 * max((value for point in points for value in (point.x, *point.span)), default=1.0))
    axes.set_ylim(-3, 1.1 * max((point.y for point in points), default=1.0))
    limit_ms = search.limits.max_latency_ms
    bound = wish_ms if limit_ms is None else limit_ms
    if timed and bound is not None:
        _draw_bound(axes, bound, "the target's wish" if limit_ms is None else "limit")
    _describe(axes, search, points, timed=timed)
    with warnings.catch_warnings(), atomic_path(path) as temporary:
        warnings.filterwarnings("ignore", message="Glyph")  # a letter that the font lacks is drawn as a box
        figure.draw_without_rendering()  # names are placed on the final layout
        _name_points(axes, points, bound if timed else None)
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _points(search: StudentSearch, *, timed: bool) -> Iterator[Point]:
    teacher = search.teacher
    for network in (teacher, *search.candidates):
        if network.macs_g is None or teacher.macs_g is None or network.params_m is None or teacher.params_m is None:
            continue
        macs, params = 100 * network.macs_g / teacher.macs_g, 100 * network.params_m / teacher.params_m
        latency = network.latency
        if timed and latency is None:
            continue
        x = macs if latency is None or not timed else latency.latency_p50_ms
        interval = None if latency is None or not timed else latency.latency_p50_interval_ms
        yield Point(
            name=_short(network.spec),
            kind=network.kind,
            x=x,
            span=interval or (x, x),
            y=macs if timed else params,
            fits=network.failure is None and not network.misses,
            chosen=network.kind != "teacher" and network.spec == search.chosen,
        )


def _draw(axes: Axes, point: Point) -> None:
    colour, marker, size = LOOKS[point.kind]
    low, high = point.span
    axes.plot([low, high], [point.y, point.y], color=colour, linewidth=2.5, alpha=0.35, solid_capstyle="butt")
    if point.chosen:
        axes.plot(
            point.x, point.y, "o", markersize=size + RING_WIDTH, color=PAPER, markeredgecolor=RING, markeredgewidth=4
        )
    filled = point.fits or point.kind == "teacher"
    axes.plot(
        point.x,
        point.y,
        marker,
        markersize=size,
        color=colour if filled else PAPER,
        markeredgecolor=colour,
        markeredgewidth=2,
        zorder=3,
    )


def _draw_bound(axes: Axes, bound: float, whose: str) -> None:
    left, right = axes.get_xlim()
    text = f"{whose} {as_typed(bound)} ms"
    if bound > FAR * right:
        axes.text(right, 0, f"{text} → ", fontsize=14, color=FAINT, ha="right", va="bottom")
        return
    axes.set_xlim(left, max(right, 1.25 * bound))
    axes.axvline(bound, color=BOUND, linewidth=2, linestyle="--", zorder=1)
    axes.axvspan(bound, axes.get_xlim()[1], color=BOUND, alpha=0.06, linewidth=0, zorder=0)
    axes.text(bound, axes.get_ylim()[1], f" {text}", fontsize=14, color=BOUND, va="top")


def _describe(axes: Axes, search: StudentSearch, points: Sequence[Point], *, timed: bool) -> None:
    latency = next((one.latency for one in search.candidates if one.latency is not None), None)
    device = "" if latency is None else f" for {printable(latency.device, DEVICE_LENGTH)}"
    axes.set_title(f"Students{device}", fontsize=18, loc="left", fontweight="bold", color=INK, parse_math=False)
    time = f"{latency_kind(search)} of one image in {search.precision}, ms"
    axes.set_xlabel(time if timed else "MACs, % of the teacher's", fontsize=15)
    axes.set_ylabel(f"{'MACs' if timed else 'parameters'}, % of the teacher's", fontsize=15)
    axes.tick_params(labelsize=13)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        handles=_legend(points, timed=timed),
        fontsize=14,
        frameon=False,
        labelspacing=0.8,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
    )
    if left_out := 1 + len(search.candidates) - len(points):
        axes.text(
            1.02, 0, f"{left_out:,} not drawn,\nsee the table", transform=axes.transAxes, fontsize=13, color=FAINT
        )


def _legend(points: Sequence[Point], *, timed: bool) -> list[Line2D]:
    from matplotlib.lines import Line2D

    def example(label: str, marker: str, size: int, fill: str, edge: str, width: float) -> Line2D:
        return Line2D(
            [],
            [],
            linestyle="",
            marker=marker,
            markersize=size,
            color=fill,
            markeredgecolor=edge,
            markeredgewidth=width,
            label=label,
        )

    kinds = {point.kind for point in points}
    found = [example(kind, mark, size, ink, ink, 2) for kind, (ink, mark, size) in LOOKS.items() if kind in kinds]
    found.append(example("misses a bound", "o", 11, PAPER, FAINT, 2))
    found.append(example("chosen", "o", 20, PAPER, RING, 4))
    if timed:
        found.append(Line2D([], [], color=FAINT, linewidth=3, alpha=0.5, label="interval"))
    return found


def _name_points(axes: Axes, points: Sequence[Point], bound: float | None) -> None:
    """Each name where it covers the least of ink and other names, and is not taken for that of another marker.

    Teacher and chosen one always have theirs; another that would cover a name that stands already has none.
    """
    taken = [*_ink(axes, points, bound), *(words.get_window_extent() for words in axes.texts)]
    # The two that everyone looks for choose first.
    names: list[Bbox] = []
    for point in sorted(points, key=lambda one: not _sought(one)):
        avoided = [*taken, *(_marker(axes, other, AROUND) for other in points if other is not point)]
        placed = [_name(axes, point, place) for place in PLACES]
        boxes = [_box(name) for name in placed]
        covered = [
            sum(_overlap(box, other) for other in avoided) + box.width * box.height - _overlap(box, axes.bbox)
            for box in boxes
        ]
        best = covered.index(min(covered))
        kept = _sought(point) or not any(_overlap(boxes[best], other) for other in names)
        if kept:
            taken.append(boxes[best])
            names.append(boxes[best])
        for index, name in enumerate(placed):
            if index != best or not kept:
                name.remove()
    if unnamed := len(points) - len(names):
        axes.text(
            1.02,
            0.1,
            f"{unnamed:,} without a name,\nsee the table",
            transform=axes.transAxes,
            fontsize=13,
            color=FAINT,
        )


def _sought(point: Point) -> bool:
    return point.chosen or point.kind == "teacher"


def _name(axes: Axes, point: Point, place: tuple[float, float, str, str]) -> Annotation:
    from matplotlib.patheffects import withStroke

    dx, dy, horizontal, vertical = place
    name = axes.annotate(
        point.name,
        (point.x, point.y),
        (dx, dy),
        textcoords="offset points",
        ha=horizontal,
        va=vertical,
        fontsize=14,
        fontweight="bold" if point.chosen else "normal",
        color=LOOKS[point.kind][0],
        arrowprops={"arrowstyle": "-", "color": LOOKS[point.kind][0], "linewidth": 1, "shrinkA": 0, "shrinkB": 0},
        path_effects=[withStroke(linewidth=3, foreground=PAPER)],
        zorder=4,
        parse_math=False,  # a name with two dollars is no formula
    )
    name.set_in_layout(False)
    return name


def _box(name: Annotation) -> Bbox:
    """Of the words alone, without the line to their marker, in pixels."""
    from matplotlib.text import Text

    name.get_window_extent()  # settles where they stand
    return Text.get_window_extent(name)


def _ink(axes: Axes, points: Sequence[Point], bound: float | None) -> Iterator[Bbox]:
    """What is drawn already, in pixels."""
    from matplotlib.transforms import Bbox

    for point in points:
        (low, y), (high, _) = axes.transData.transform([(end, point.y) for end in point.span])
        yield Bbox([[low, y - 3], [high, y + 3]])
        yield _marker(axes, point)
    if bound is not None:
        x = axes.transData.transform((bound, 0))[0]
        yield Bbox([[x - 3, axes.bbox.y0], [x + 3, axes.bbox.y1]])


def _marker(axes: Axes, point: Point, around: float = 0) -> Bbox:
    """Of one point and its ring, in pixels; with so many points more on every side."""
    from matplotlib.transforms import Bbox

    x, y = axes.transData.transform((point.x, point.y))
    size = LOOKS[point.kind][2] + (RING_WIDTH if point.chosen else 0)
    reach = (0.5 * size + around) * DOTS_PER_INCH / 72
    return Bbox([[x - reach, y - reach], [x + reach, y + reach]])


def _overlap(one: Bbox, other: Bbox) -> float:
    """In square pixels."""
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return float(max(0.0, width) * max(0.0, height))


def _short(name: str) -> str:
    text = printable(name, 10 * NAME_LENGTH)
    return text if len(text) <= NAME_LENGTH else text[: NAME_LENGTH - 1] + ELLIPSIS
