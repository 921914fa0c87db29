"""Aligned columns for terminals; wide ones wrap in their last column."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

GAP = 2
MIN_LAST = 24


def columns(rows: Sequence[Sequence[str]], *, indent: int = 0, width: int | None = None) -> list[str]:
    """Lines of text, each column as wide as its widest cell; the last wraps at `width`, the terminal's by default."""
    width = width or shutil.get_terminal_size().columns
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    start = indent + sum(size + GAP for size in widths)
    room = max(MIN_LAST, width - start)
    lines = []
    for row in rows:
        cells = "".join(f"{cell:<{size + GAP}}" for cell, size in zip(row, widths, strict=False))
        first, *rest = textwrap.wrap(row[-1], room, break_long_words=False, break_on_hyphens=False) or [""]
        lines.append(f"{' ' * indent}{cells}{first}".rstrip())
        lines += [f"{' ' * start}{line}" for line in rest]
    return lines
