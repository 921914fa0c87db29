"""What a section of the page is made of; the template knows how each is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeAlias, TypeVar

from markupsafe import Markup

from compressor.report.html.numbers import NOTHING, Name, Words
from compressor.report.untrusted import NAME_LIMIT, PROSE_LIMIT, printable

T = TypeVar("T")

WORST = 20  # rows that are shown at once
MOST = 1000  # entries of one list; the rest is in report.json


@dataclass(frozen=True)
class Badge:
    """A state with a sign of its own, so that no one needs to see its colour.

    tone: good, doubt or bad, or none where nothing was judged.
    """

    kind: ClassVar[str] = "badge"
    text: str
    tone: str


@dataclass(frozen=True)
class Paragraph:
    kind: ClassVar[str] = "paragraph"
    words: Words
    faint: bool = False


@dataclass(frozen=True)
class Heading:
    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Bullets:
    kind: ClassVar[str] = "bullets"
    items: tuple[Words, ...]


@dataclass(frozen=True)
class Column:
    """numeric: set to the right; wide: of sentences, which need room."""

    title: str
    numeric: bool = False
    wide: bool = False


@dataclass(frozen=True)
class Row:
    """The first cell is the row's header, before it its state. strong: the one to look at."""

    cells: tuple[Words, ...]
    strong: bool = False
    badge: Badge | None = None


@dataclass(frozen=True)
class Table:
    """The caption is its name, one of a kind on the page."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Terms and what is known of each."""

    kind: ClassVar[str] = "facts"
    entries: tuple[tuple[str, Words], ...]


@dataclass(frozen=True)
class Figure:
    """A drawing of ours."""

    kind: ClassVar[str] = "figure"
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Figures:
    """Small drawings side by side."""

    kind: ClassVar[str] = "figures"
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Inlined:
    """A picture of the run; `source` is a data URI."""

    kind: ClassVar[str] = "picture"
    title: str
    source: str
    width: int
    height: int


@dataclass(frozen=True)
class Command:
    """Shell lines, to the letter."""

    kind: ClassVar[str] = "command"
    label: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Details:
    """What is only read by those who look for it."""

    kind: ClassVar[str] = "details"
    summary: str
    blocks: tuple[Block, ...]


Block: TypeAlias = (
    Badge | Paragraph | Heading | Bullets | Table | Facts | Figure | Figures | Inlined | Command | Details
)


@dataclass(frozen=True)
class Section:
    """slug: its anchor; short: its name in the list of sections."""

    slug: str
    title: str
    short: str
    blocks: tuple[Block, ...]


def name(raw: str) -> Name:
    """A name from outside, harmless and of bounded length."""
    return Name(printable(raw, NAME_LIMIT) or "\ufffd")


def said(raw: str) -> Words:
    """A sentence that may quote names, harmless and of bounded length."""
    return (printable(raw, PROSE_LIMIT),)


def table(caption: str, columns: Sequence[Column], rows: Sequence[Row], note: str = "") -> Table:
    """Without the columns in which nothing is known; the first and those without any row stay."""
    known = [
        index
        for index in range(len(columns))
        if index == 0 or not rows or any(row.cells[index] not in (NOTHING, ()) for row in rows)
    ]
    kept = tuple(replace(row, cells=tuple(row.cells[index] for index in known)) for row in rows)
    return Table(caption, tuple(columns[index] for index in known), kept, note)


def worst_first(caption: str, columns: Sequence[Column], rows: Sequence[Row], what: str) -> tuple[Block, ...]:
    """The first rows, and all that follow in details. what: such as `the classes`."""
    first, rest = rows[:WORST], rows[WORST:MOST]
    if not rest:
        return (table(caption, columns, first),)
    left = len(rows) - len(first) - len(rest)
    note = f"and {left:,} more in report.json" if left else ""
    return (
        table(f"{caption}: the first {len(first)} of {len(rows):,}", columns, first),
        Details(f"The rest of {what} ({len(rest):,})", (table(f"{caption}: the rest", columns, rest, note),)),
    )


def bullets(items: Sequence[T], render: Callable[[T], Words], what: str) -> tuple[Block, ...]:
    """A list of any length: the first in sight, more in details, and how many are only in report.json."""
    first, rest = items[:WORST], items[WORST : WORST + MOST]
    blocks: list[Block] = [Bullets(tuple(map(render, first)))] if first else []
    if rest:
        left = len(items) - len(first) - len(rest)
        texts = [*map(render, rest), *([(f"and {left:,} more in report.json",)] if left else [])]
        blocks.append(Details(f"The rest of {what} ({len(rest):,})", (Bullets(tuple(texts)),)))
    return tuple(blocks)
