"""The end of a run on a terminal of 80 columns: three tables, what to ship, one sentence, and the warnings."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from compressor.report.artefact_table import (
    Artefacts,
    calibration_lines,
    judged_on,
    missing_lines,
    recommendation_lines,
    variant_lines,
)
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


def variant_table(report: Artefacts) -> Table:
    """Every artefact with its size, its difference to fp32, its agreement and p50; an arrow marks the recommended."""
    images = judged_on(report)
    title = f"Artefacts: p50 in ms{f', agreement on {images}' if images else ''}"
    table = Table(
        title=_line(title, "bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    table.add_column("")
    table.add_column("")
    for header in ("size", "to fp32", "agreement", "host", "target"):
        # Where 80 characters are too few, names break and intervals stay whole.
        table.add_column(header, justify="right", overflow="fold", no_wrap=header == "agreement")
    for line in variant_lines(report):
        cells = (line.label, line.size, line.parity, line.agreement, line.host, line.target)
        mark, style = ("→", "bold") if line.recommended else ("", "")
        table.add_row(mark, *map(_cell, cells), style=style)
    return table


def print_summary(report: Report, console: Console) -> None:
    """What a person reads before opening report.md, which has the conditions of every measurement."""
    console.print(summary_table(report))
    console.print(latency_table(report))
    _print_paragraphs(console, latency_notes(report), "dim")
    if report.variants:
        print_artefacts(report, console)
    console.print()
    _print_paragraphs(console, (report.summary.headline, *recommendation_lines(report)), "bold")
    print_warnings(report.warnings, console)


def print_artefacts(report: Artefacts, console: Console) -> None:
    """The artefacts, why one is missing, and how the student's int8 came about."""
    console.print(variant_table(report))
    floats = [
        f"{calibration.model} int8 keeps in float: {', '.join(calibration.float_layers)}."
        for calibration in report.int8
        if calibration.model == "student" and calibration.float_layers
    ]
    _print_paragraphs(console, (*calibration_lines(report, "student"), *floats, *missing_lines(report)), "dim")


def print_recommendation(report: Artefacts, console: Console) -> None:
    """What to ship, and why."""
    console.print()
    _print_paragraphs(console, recommendation_lines(report), "bold")


def print_warnings(warnings: Sequence[str], console: Console) -> None:
    """The first of them."""
    _print_paragraphs(console, [f"Warning: {text}" for text in warnings[:MAX_WARNINGS]], "yellow")
    if (rest := len(warnings) - MAX_WARNINGS) > 0:
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
