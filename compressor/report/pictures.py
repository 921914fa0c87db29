"""The report's two pictures: a contact sheet of images and the training curves."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, isfinite, nan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.report.drawing import FAINT, INK, MARGIN, PAPER, TILE, fitting, font, tile
from compressor.report.untrusted import NAME_LIMIT, printable
from compressor.stages import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor, nn

    from compressor.inputs.teacher import Teacher

# --- contact sheet ---------------------------------------------------------------------------------------

COLUMNS = 8
GAP, ROW_GAP = 14, 20


def teacher_captions(teacher_logits: Tensor, class_names: Sequence[str]) -> list[str]:
    """Two lines for each image: the teacher's class and its confidence. teacher_logits: (N, K)."""
    top = teacher_logits.float().softmax(dim=1).max(dim=1)
    return [
        f"{printable(class_names[index], NAME_LIMIT)}\n"
        + ("> 99.9 %" if confidence > 0.999 else f"{100 * confidence:.1f} %")
        for confidence, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]


def contact_sheet(
    images: Tensor, path: Path, captions: Sequence[str], *, title: str = "", max_images: int = COLUMNS * 8
) -> None:
    """Write a PNG with a grid of images, each over its caption.

    Args:
        images: (N, C, H, W) uint8, C 1 or 3. Small ones are enlarged by a whole factor without smoothing, so
            that every pixel is seen as it is.
        captions: N texts of one or two lines; a line that is wider than its tile ends in an ellipsis.
        title: stands above the grid.
        max_images: of more, this many are taken at even distances, so that a folder in class order is not cut
            after its first classes.

    Raises:
        ValueError: no images, or not one caption for each.
    """
    if len(images) == 0 or len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images")
    from PIL import Image, ImageDraw

    shown = min(len(images), max_images)
    picks = [position * len(images) // shown for position in range(shown)]
    tiles = [tile(images[index]) for index in picks]
    tile_width, tile_height = tiles[0].size
    # A narrow image still needs room for its caption.
    cell_width = max(tile_width, TILE * 3 // 4)
    caption_font, title_font = font(14), font(18)
    line_height = 18
    cell_height = tile_height + 4 + 2 * line_height
    columns = min(COLUMNS, shown)
    rows = ceil(shown / columns)
    if shown < len(images):
        title = f"{title} ({shown} of {len(images):,})".strip()
    top = MARGIN + (38 if title else 0)
    width = max(2 * MARGIN + columns * (cell_width + GAP) - GAP, 480 if title else 0)
    sheet = Image.new("RGB", (width, top + rows * (cell_height + ROW_GAP) - ROW_GAP + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 4), fitting(title, title_font, width - 2 * MARGIN), INK, title_font)
    for position, (picture, index) in enumerate(zip(tiles, picks, strict=True)):
        x = MARGIN + position % columns * (cell_width + GAP)
        y = top + position // columns * (cell_height + ROW_GAP)
        sheet.paste(picture, (x, y))
        for number, line in enumerate(captions[index].split("\n")[:2]):
            text = fitting(line, caption_font, cell_width)
            draw.text((x, y + tile_height + 4 + number * line_height), text, FAINT if number else INK, caption_font)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def synthetic_sheet(
    generator: nn.Module, teacher: Teacher, path: Path, *, seed: int, captions_of: Callable[[Tensor], list[str]]
) -> None:
    """Write a contact sheet of generated images: the class that was asked for, if one was, and what the teacher sees.

    Args:
        generator: has `latents(count, random)`, `forward(z, labels)` and `aims_at_realism`, on the teacher's device.
            One that does not aim at realism is asked for no class.
        captions_of: the teacher's logits to a caption of two lines for each image.
    """
    import torch

    random = torch.Generator(teacher.normalise.mean.device).manual_seed(seed)
    with torch.no_grad():
        z, labels = generator.latents(COLUMNS * 8, random)  # type: ignore[operator]
        images = generator(z, labels)
        batches = images.split(COLUMNS)  # the class maps of all of them might not fit
        seen = [caption for batch in batches for caption in captions_of(teacher(batch).logits.cpu())]
    captions = seen
    if generator.aims_at_realism:
        asked = [printable(teacher.card.class_names[index], NAME_LIMIT) for index in labels.tolist()]
        captions = [f"{name}, seen as\n{line.replace(chr(10), ' ')}" for name, line in zip(asked, seen, strict=True)]
    contact_sheet((images * 255.0).round().to(torch.uint8).cpu(), path, captions)


# --- training curves -------------------------------------------------------------------------------------

PANEL_INCHES = (11.0, 4.2)
DOTS_PER_INCH = 100
# Okabe and Ito's colours, distinct with any colour vision, without their yellow, too light for a line.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444")
DASHES = ("-", "--", ":")


@dataclass(frozen=True)
class Curve:
    """One loss term: its value at each step that was logged, in order of the steps."""

    steps: list[int]
    values: list[float]


def curves_of(log_rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Curve]]:
    """Phase -> loss term -> curve, of rows like {"phase": "student", "step": 12, "terms": {"feature": 0.4}}.

    Rows without terms are other events and are left out. Of two rows for one step the later counts.
    """
    values: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in log_rows:
        for term, value in row.get("terms", {}).items():
            finite = value is not None and isfinite(value)
            values[row["phase"]][term][row["step"]] = float(value) if finite else nan
    return {
        phase: {
            term: Curve(sorted(points), [points[step] for step in sorted(points)]) for term, points in terms.items()
        }
        for phase, terms in values.items()
    }


def training_curves(log_rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write a PNG: a panel for each phase, a line for each loss term, smoothed over its faint raw one.

    A panel is logarithmic where all its losses are positive and span more than a factor of 30. Without rows
    the picture says so: a stage that promised it still leaves it.
    """
    # A Figure without pyplot has the Agg canvas, no window system and no state beyond this function.
    from matplotlib.figure import Figure

    phases = curves_of(log_rows)
    width, height = PANEL_INCHES
    rows = max(1, len(phases))
    figure = Figure(figsize=(width, height * rows), dpi=DOTS_PER_INCH, layout="constrained")
    panels: list[Axes] = list(figure.subplots(rows, 1, squeeze=False)[:, 0])
    if not phases:
        panels[0].set_axis_off()
        panels[0].text(0.5, 0.5, "No training step was logged.", ha="center", va="center", fontsize=16, color=FAINT)
    for panel, (phase, curves) in zip(panels, phases.items(), strict=False):
        _draw_phase(panel, phase, curves)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _draw_phase(panel: Axes, phase: str, curves: Mapping[str, Curve]) -> None:
    for index, (term, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        dashes = DASHES[index // len(COLOURS) % len(DASHES)]
        smooth = smoothed(curve.values)
        panel.plot(curve.steps, curve.values, color=colour, alpha=0.22, linewidth=1)
        panel.plot(curve.steps, smooth, color=colour, linestyle=dashes, linewidth=2.2, label=term)
    finite = [value for curve in curves.values() for value in curve.values if isfinite(value)]
    logarithmic = bool(finite) and min(finite) > 0 and max(finite) > 30 * min(finite)
    if logarithmic:
        panel.set_yscale("log")
    panel.set_title(phase, fontsize=17, loc="left", fontweight="bold", color=INK)
    panel.set_xlabel("step", fontsize=15)
    panel.set_ylabel("loss (logarithmic)" if logarithmic else "loss", fontsize=15)
    panel.tick_params(labelsize=13)
    panel.margins(x=0.01)
    panel.grid(color="#e4e4e4", linewidth=0.8)
    panel.spines[["top", "right"]].set_visible(False)
    panel.legend(fontsize=14, frameon=False, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0)


def smoothed(values: Sequence[float]) -> list[float]:
    """Centred mean over about a thirtieth of the curve, so that a falling loss is not drawn too late.

    The window is cut off at both ends. Values that are not finite are passed over.
    """
    reach = len(values) // 60
    means = []
    for index in range(len(values)):
        window = [value for value in values[max(0, index - reach) : index + reach + 1] if isfinite(value)]
        means.append(sum(window) / len(window) if window else nan)
    return means
