"""The pictures of a run as data URIs, within a bound on their sum."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.report.html.blocks import Inlined
from compressor.report.schema import Picture
from compressor.report.untrusted import NAME_LIMIT, printable

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 1_200_000  # of all data URIs together
MOST_PIXELS = 50_000_000
SMALLEST_SIDE = 320  # px, below which a sheet of images says nothing


@dataclass(frozen=True)
class Shown:
    """The pictures that are there, and a sentence for each that is not."""

    pictures: tuple[Inlined, ...]
    left_out: tuple[str, ...]


def inlined(pictures: Sequence[Picture], run_folder: Path | None) -> Shown:
    """Each picture gets an equal part of what the ones before it left."""
    if run_folder is None:
        return Shown((), ())
    found: list[Inlined] = []
    left_out: list[str] = []
    left = MOST_BYTES
    for index, picture in enumerate(pictures):
        title = printable(picture.title, NAME_LIMIT)
        allowed = left // (len(pictures) - index)
        try:
            one = _one(_inside(run_folder, picture.path), title, allowed)
        except (OSError, ValueError, SyntaxError) as error:
            left_out.append(f"{title}: left out, {printable(str(error), NAME_LIMIT).rstrip('.')}.")
            continue
        found.append(one)
        left -= len(one.source)
    return Shown(tuple(found), tuple(left_out))


def _inside(run_folder: Path, relative: str) -> Path:
    """Where a link leads out of the run folder, the file is not the run's to show."""
    path = (run_folder / relative).resolve()
    if not path.is_relative_to(run_folder.resolve()):
        raise ValueError("its file lies outside of the run folder")
    if not path.is_file():
        raise ValueError("its file is missing")
    return path


def _one(path: Path, title: str, allowed: int) -> Inlined:
    """The file itself where it is small enough, or else with fewer colours, or smaller.

    Raises:
        ValueError: it is no PNG, or still too large when small.
    """
    from PIL import Image as files
    from PIL import UnidentifiedImageError

    try:
        with files.open(path, formats=("PNG",)) as picture:
            width, height = picture.size
            if width * height > MOST_PIXELS:
                raise ValueError(f"it has more than {MOST_PIXELS:,} pixels")
            picture.load()
            for content in chain((path.read_bytes(),), _smaller(picture)):
                source = f"data:image/png;base64,{base64.b64encode(content).decode('ascii')}"
                if len(source) <= allowed:
                    return Inlined(title, source, width, height)
    except (UnidentifiedImageError, files.DecompressionBombError) as error:
        raise ValueError("its file is no PNG of a usual size") from error
    raise ValueError("it is too large even when reduced")


def _smaller(picture: Image) -> Iterator[bytes]:
    """Of 256 colours, then at ever smaller sizes."""
    from PIL.Image import Resampling

    smaller = picture.convert("RGB")
    while min(smaller.size) >= SMALLEST_SIDE or smaller.size == picture.size:
        written = io.BytesIO()
        smaller.quantize(256).save(written, format="PNG", optimize=True)
        yield written.getvalue()
        width, height = (max(1, side * 7 // 10) for side in smaller.size)
        smaller = smaller.resize((width, height), Resampling.LANCZOS)
