"""Class maps to look at: image, teacher, student and where they differ, one row for each image."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.report.drawing import FAINT, INK, MARGIN, PAPER, fitting, font, tile
from compressor.report.text import percent
from compressor.report.untrusted import NAME_LIMIT, printable
from compressor.stages import atomic_path

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw
    from torch import Tensor

    from compressor.inputs.pixels import Images

MAX_IMAGES = 8
SIDE = 224  # px of a tile's longer side
GAP = 10
OPACITY = 0.6  # of a class over its image
CONTRAST = 0.35  # of the image below it, around a middle grey: a class has nearly one colour on bright and dark ground
MIDDLE = 128.0
RARE = 1e-3  # of the drawn pixels: a class with fewer is not in the legend
DIFFERENT = (214, 39, 40)
COLUMNS = ("image", "teacher", "student", "where they differ")
LEGEND_WIDTH, LEGEND_HEIGHT, SWATCH = 172, 24, 14
# Okabe and Ito's colours first; classes beyond these get hues at the golden angle, in turns of lightness.
PALETTE = (
    *("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#444444"),
    *("#8b1a3b", "#7a4fd0", "#4d7f17", "#ff9da7", "#9c755f", "#00c5c8", "#b8b8b8", "#1b2a6b"),
)


def overlays(images: Images, teacher: Tensor, student: Tensor, class_names: Sequence[str], path: Path) -> None:
    """Write a PNG of at most eight rows, with a legend of the classes that are in them, but for a few pixels.

    Args:
        images: uint8 (N, C, H, W), N at least 1, of which eight at even distances are shown.
        teacher, student: uint8 (N, H, W), the class of each pixel.
        class_names: in index order; names are made printable.
    """
    import torch
    from PIL import Image, ImageDraw

    shown = min(len(images), MAX_IMAGES)
    picks = [position * len(images) // shown for position in range(shown)]
    pixels = torch.bincount(torch.cat([teacher[picks], student[picks]]).flatten().long())
    classes = (pixels >= RARE * pixels.sum()).nonzero().flatten().tolist()
    rows = [
        [tile(part, SIDE, smooth=number == 0) for number, part in enumerate(parts)]
        for parts in (_parts(images[index], teacher[index], student[index]) for index in picks)
    ]
    width, height = rows[0][0].size
    cell = max(width, SIDE * 3 // 4)  # a narrow image still needs room for its heading
    per_line = max(1, (len(COLUMNS) * (cell + GAP)) // LEGEND_WIDTH)
    heading, caption = 26, 22
    legend = ceil(len(classes) / per_line) * LEGEND_HEIGHT
    top = MARGIN + heading
    sheet = Image.new(
        "RGB",
        (
            2 * MARGIN + len(COLUMNS) * (cell + GAP) - GAP,
            top + shown * (height + caption + GAP) + legend + MARGIN,
        ),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    for number, title in enumerate(COLUMNS):
        draw.text((MARGIN + number * (cell + GAP), MARGIN - 4), title, INK, font(17))
    for position, (row, index) in enumerate(zip(rows, picks, strict=True)):
        y = top + position * (height + caption + GAP)
        for number, part in enumerate(row):
            sheet.paste(part, (MARGIN + number * (cell + GAP), y))
        same = float((teacher[index] == student[index]).double().mean())
        text = fitting(f"{percent(same)} the same", font(14), cell)
        draw.text((MARGIN + 3 * (cell + GAP), y + height + 3), text, FAINT, font(14))
    _legend(draw, classes, class_names, (MARGIN, top + shown * (height + caption + GAP)), per_line)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def colour(index: int) -> tuple[int, int, int]:
    """Of a class, the same in every picture."""
    if index < len(PALETTE):
        red, green, blue = (int(PALETTE[index][start : start + 2], 16) for start in (1, 3, 5))
        return red, green, blue
    lightness = (0.45, 0.62, 0.32)[index % 3]
    parts = colorsys.hls_to_rgb(index * 0.618034 % 1.0, lightness, 0.65)
    red, green, blue = (round(255 * part) for part in parts)
    return red, green, blue


def over_grey(index: int) -> tuple[int, int, int]:
    """The colour of a class where it is drawn over a middle grey."""
    red, green, blue = (round((1 - OPACITY) * MIDDLE + OPACITY * part) for part in colour(index))
    return red, green, blue


def _parts(image: Tensor, teacher: Tensor, student: Tensor) -> Iterator[Tensor]:
    """The four pictures of a row, uint8 (3, H, W) each."""
    import torch

    image = image[:3].cpu().expand(3, -1, -1)
    grey = image.float().mean(dim=0, keepdim=True).expand(3, -1, -1)
    ground = MIDDLE + CONTRAST * (grey - MIDDLE)
    table = torch.tensor([colour(index) for index in range(256)], dtype=torch.float32)

    def over(colours: Tensor) -> Tensor:
        return ((1 - OPACITY) * ground + OPACITY * colours).round().to(torch.uint8)

    yield image
    yield over(table[teacher.cpu().long()].permute(2, 0, 1))
    yield over(table[student.cpu().long()].permute(2, 0, 1))
    pale = ((1 - OPACITY) * grey + OPACITY * 255.0).round().to(torch.uint8)
    mark = torch.tensor(DIFFERENT, dtype=torch.uint8)[:, None, None]
    yield torch.where((teacher != student).cpu(), mark, pale)


def _legend(
    draw: ImageDraw, classes: Sequence[int], class_names: Sequence[str], at: tuple[int, int], per_line: int
) -> None:
    for position, index in enumerate(classes):
        x = at[0] + position % per_line * LEGEND_WIDTH
        y = at[1] + position // per_line * LEGEND_HEIGHT
        draw.rectangle((x, y + 2, x + SWATCH, y + 2 + SWATCH), fill=over_grey(index))
        name = fitting(printable(class_names[index], NAME_LIMIT), font(14), LEGEND_WIDTH - SWATCH - 16)
        draw.text((x + SWATCH + 6, y), name, INK, font(14))
