"""Where the time goes, as an icicle: all layers on top, the network's parts below, each as wide as its time."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.report.drawing import INK, PAPER
from compressor.report.pictures import COLOURS, DOTS_PER_INCH
from compressor.report.text import significant
from compressor.report.untrusted import printable
from compressor.stages import atomic_path
from profiles.layer_times import LayerTime, LayerTimes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES, ROW_INCHES, TOP_INCHES, LEGEND_INCHES = 14.0, 0.5, 0.55, 0.75
MAX_ROWS = 8
LETTER = 0.0072  # of the picture's width, for a letter of the labels
OTHER = "#b8b8b8"
WHOLE, UNNAMED = "sum of the layers under the profiler", "no part of the network"


@dataclass
class Part:
    """A part of the network with its parts in order of execution; `operator` of a part that has none."""

    name: str
    time_ms: float = 0.0
    operator: str = ""
    parts: list[Part] = field(default_factory=list)


def layers_picture(times: LayerTimes, path: Path, *, title: str) -> None:
    """Write the PNG. Colours are operators, the five most expensive in the legend; the rest is grey."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    whole = tree(times.layers)
    rows = min(MAX_ROWS, _depth(whole))
    operators = times.by_operator()
    colours = {operator: colour for (operator, _, _), colour in zip(operators[:5], COLOURS, strict=False)}
    figure = Figure(
        figsize=(WIDTH_INCHES, ROW_INCHES * rows + TOP_INCHES + LEGEND_INCHES), dpi=DOTS_PER_INCH, facecolor=PAPER
    )
    panel: Axes = figure.subplots()
    height = figure.get_figheight()
    figure.subplots_adjust(left=0.01, right=0.99, top=1 - TOP_INCHES / height, bottom=LEGEND_INCHES / height)
    _draw(panel, whole, 0.0, 0, rows, whole.time_ms or 1.0, colours)
    panel.set(xlim=(0, 1), ylim=(rows, 0))
    panel.set_axis_off()
    panel.set_title(printable(title, 120), fontsize=16, loc="left", fontweight="bold", color=INK)
    handles = [
        Patch(color=colours.get(name, OTHER), label=f"{printable(name, 24)}: {significant(time_ms)} ms")
        for name, _, time_ms in operators[:5]
    ]
    if rest := sum(time_ms for _, _, time_ms in operators[5:]):
        handles.append(Patch(color=OTHER, label=f"others: {significant(rest)} ms"))
    figure.legend(handles=handles, loc="lower left", ncols=3, fontsize=13, frameon=False, borderaxespad=0.3)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def tree(layers: tuple[LayerTime, ...]) -> Part:
    """The layers by the parts of their modules' names. What everything has in common is left out at the top."""
    whole = Part(WHOLE)
    for layer in layers:
        names = [*(layer.module.split(".") if layer.module else [UNNAMED]), ""]
        part = whole
        part.time_ms += layer.time_ms
        for depth, name in enumerate(names):
            leaf = depth == len(names) - 1
            label = layer.operator or layer.name if leaf else name
            found = None if leaf else next((known for known in part.parts if known.name == name), None)
            if found is None:
                found = Part(label, operator=layer.operator or "other" if leaf else "")
                part.parts.append(found)
            found.time_ms += layer.time_ms
            part = found
    return _shortened(whole)


def _shortened(part: Part) -> Part:
    """Without levels that hold one part alone: `layers` > `0` > `conv1` becomes `layers.0.conv1`."""
    part.parts = [_shortened(inner) for inner in part.parts]
    if len(part.parts) != 1:
        return part
    (only,) = part.parts
    if only.operator:
        return Part(part.name, part.time_ms, only.operator)
    return Part(f"{part.name}.{only.name}" if part.name != WHOLE else WHOLE, part.time_ms, only.operator, only.parts)


def _depth(part: Part) -> int:
    return 1 + max((_depth(inner) for inner in part.parts), default=0)


def _draw(panel: Axes, part: Part, left: float, row: int, rows: int, whole_ms: float, colours: dict[str, str]) -> None:
    from matplotlib.patches import Rectangle

    if row >= rows:
        return
    width = part.time_ms / whole_ms
    colour = colours.get(part.operator, OTHER) if part.operator else "#e8e8e8"
    panel.add_patch(Rectangle((left, row + 0.04), width, 0.92, facecolor=colour, edgecolor=PAPER, linewidth=1))
    share = f"{part.name}: {significant(part.time_ms)} ms"
    room = int(width / LETTER) - 1
    label = next((text for text in (share, part.name) if len(text) <= room), "")
    if label:
        ink = PAPER if part.operator in colours else INK
        panel.text(left + width / 2, row + 0.5, printable(label, 80), ha="center", va="center", fontsize=13, color=ink)
    for inner in part.parts:
        _draw(panel, inner, left, row + 1, rows, whole_ms, colours)
        left += inner.time_ms / whole_ms
