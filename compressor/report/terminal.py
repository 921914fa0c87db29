"""The end of a run on a terminal of 80 columns: two tables, one sentence, and the warnings."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from compressor.report.schema import Report
from compressor.report.table import host_name, latency_lines, latency_notes, side_by_side
from compressor.report.untrusted import NAME_LIMIT, PROSE_LIMIT, printable

MAX_WARNINGS = 10


def summary_table(report: Report) -> Table:
    """Teacher and student side by side in everything but latency."""
    table = _table(f"Report: {report.run_name}", ("", "teacher", "student", "ratio"))
    for line in side_by_side(report):
        table.add_row(*map(_cell, (line.label, line.teacher, line.student, line.ratio)))
    return table


def latency_table(report: Report) -> Table:
    """Latency with a column for the host and one for the target, whichever of them is known."""
    columns = ("", f"host: {host_name(report)}", f"target: {report.target.title}")
    table = _table("Latency of one batch, p50 / p90 / p99 in ms", columns)
    for line in latency_lines(report):
        table.add_row(*map(_cell, (line.model, line.host, line.target)))
    return table


def print_summary(report: Report, console: Console) -> None:
    """What a person reads before opening report.md."""
    console.print(summary_table(report))
    console.print(latency_table(report))
    _print_paragraphs(console, latency_notes(report), "dim")
    console.print()
    _print_paragraphs(console, (report.summary.headline,), "bold")
    _print_paragraphs(console, [f"Warning: {text}" for text in report.warnings[:MAX_WARNINGS]], "yellow")
    if (rest := len(report.warnings) - MAX_WARNINGS) > 0:
        _print_paragraphs(console, (f"More warnings in report.json: {rest:,}.",), "yellow")


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=_line(title, "bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(_line(column), justify="left" if index == 0 else "right", overflow="fold")
    return table


def _cell(text: str) -> Text:
    """A value over its interval, a metric over its images: four columns fit 80 characters only so."""
    return Text("\n").join(
        Text(printable(part, NAME_LIMIT)) for part in text.replace(" (", "\n(").replace(", ", ",\n").split("\n")
    )


def _print_paragraphs(console: Console, texts: Sequence[str], style: str) -> None:
    for text in texts:
        console.print(Padding(_line(text, style), (0, 0, 0, 1)))


def _line(text: str, style: str = "") -> Text:
    """Untrusted text: rich looks for no markup in a Text, and `printable` leaves no terminal escape in it."""
    return Text(printable(text, PROSE_LIMIT), style=style)
