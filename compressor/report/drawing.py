"""What the pictures of images share: an image as a tile, and text that fits beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from compressor.report.untrusted import ELLIPSIS, printable

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont
    from torch import Tensor

TILE = 112  # px; images are enlarged by a whole factor up to this, or reduced to it
MARGIN = 24
INK, FAINT, PAPER = "#1a1a1a", "#6b6b6b", "#ffffff"


def tile(image: Tensor, longest: int = TILE, *, smooth: bool = True) -> Image:
    """(C, H, W) uint8 as an RGB picture whose longer side is at most about `longest` pixels.

    Of four channels the first three are shown. Small ones are enlarged by a whole factor without smoothing; where
    `smooth` is off none is smoothed.
    """
    from PIL import Image

    picture = Image.fromarray(image[:3].permute(1, 2, 0).expand(-1, -1, 3).contiguous().cpu().numpy())
    longer = max(picture.size)
    if longer > longest:
        width, height = (max(1, side * longest // longer) for side in picture.size)
        return picture.resize((width, height), Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)
    factor = longest // longer
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def font(size: int) -> FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows Latin, Greek, Cyrillic and Arabic letters."""
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def fitting(text: str, face: FreeTypeFont, width: int) -> str:
    """The text, or as much of its start as fits into `width` px together with an ellipsis."""
    text = printable(text, 200)
    if face.getlength(text) <= width:
        return text
    while text and face.getlength(text + ELLIPSIS) > width:
        text = text[:-1]
    return text.rstrip() + ELLIPSIS
