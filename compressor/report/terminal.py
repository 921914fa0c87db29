"""The end of a run on a terminal of 80 columns: three tables, what to ship, one sentence, and the warnings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from compressor.report.artefact_table import (
    Artefacts,
    VariantLine,
    agreement_name,
    calibration_lines,
    judged_on,
    missing_lines,
    prediction_summary,
    recommendation_lines,
    variant_lines,
)
from compressor.report.gate_record import GateResult
from compressor.report.schema import Report
from compressor.report.shipping import Verdict
from compressor.report.student_search import search_summary
from compressor.report.table import host_name, latency_lines, latency_notes, side_by_side
from compressor.report.text import ABSENT
from compressor.report.time_split import time_lines
from compressor.report.untrusted import NAME_LIMIT, PROSE_LIMIT, printable, without_commands

MAX_WARNINGS = 10
_GATE_WORDS = {"pass": "Gate passes", "warn": "Gate warns", "fail": "Gate fails"}
_GATE_ORDER = ("pass", "warn", "fail")
_GATE_STYLES = {"pass": "green", "warn": "yellow", "fail": "red"}
_STYLES = {"held": "green", "missed": "red", "unproven": "yellow"}


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
    title = f"Artefacts: p50 in ms{f', {agreement_name(report)} on {images}' if images else ''}"
    table = Table(title=_line(title, "bold"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, padding=0)
    table.add_column("")
    table.add_column("")
    lines = variant_lines(report)
    # Eighty characters hold one column of the target: where nothing was measured there, what is predicted.
    predicted = _only_predicted(lines)
    for header in ("size", "to fp32", "agreement", "host", "target, predicted" if predicted else "target"):
        # Where they are too few, names break and intervals stay whole.
        whole = header in ("agreement", "target, predicted")
        table.add_column(_cell(header), justify="right", overflow="fold", no_wrap=whole)
    for line in lines:
        target = line.predicted if predicted else line.target
        cells = (line.label, line.size, line.parity, line.agreement, line.host, target)
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
    if report.student_search is not None:
        _print_paragraphs(console, search_summary(report.student_search), "")
    _print_paragraphs(console, (report.summary.headline, *recommendation_lines(report)), "bold")
    print_warnings(report.warnings, console)
    _print_paragraphs(console, tuple(time_lines(report.time)), "dim")
    print_decision(report, console)


def print_artefacts(report: Artefacts, console: Console) -> None:
    """The artefacts, why one is missing, and how the student's int8 came about."""
    console.print(variant_table(report))
    floats = [
        f"{calibration.model} int8 keeps in float: {', '.join(calibration.float_layers)}."
        for calibration in report.int8
        if calibration.model == "student" and calibration.float_layers
    ]
    notes = (*_predictions(report), *calibration_lines(report, "student"), *floats, *missing_lines(report))
    _print_paragraphs(console, notes, "dim")


def print_recommendation(report: Artefacts, console: Console) -> None:
    """What to ship, and why."""
    console.print()
    _print_paragraphs(console, recommendation_lines(report), "bold")


def print_verdicts(verdicts: Sequence[Verdict], console: Console) -> None:
    """Each limit that is set, and whether it holds."""
    for verdict in verdicts:
        _print_paragraphs(console, (f"{verdict.state.capitalize()}: {verdict.sentence}",), _STYLES[verdict.state])


def print_gates(gates: Sequence[GateResult], console: Console) -> None:
    """Each gate, and whether it passes; what fails stands last, where the eye is."""
    for gate in sorted(gates, key=lambda gate: _GATE_ORDER.index(gate.outcome)):
        _print_paragraphs(console, (f"{_GATE_WORDS[gate.outcome]}: {gate.sentence}",), _GATE_STYLES[gate.outcome])


def print_decision(report: Report, console: Console) -> None:
    """Limits, gates, and what they decide together."""
    print_verdicts(report.verdicts, console)
    print_gates(report.gates, console)
    decision = report.summary.decision
    words = f"Decision on {printable(report.run_name, NAME_LIMIT)}: {decision}"
    _print_paragraphs(console, (words,), "bold" if decision == "ungated" else f"bold {_GATE_STYLES[decision]}")


def print_warnings(warnings: Sequence[str], console: Console) -> None:
    """The first of them."""
    _print_paragraphs(console, [f"Warning: {text}" for text in warnings[:MAX_WARNINGS]], "yellow")
    if (rest := len(warnings) - MAX_WARNINGS) > 0:
        _print_paragraphs(console, (f"More warnings in report.json: {rest:,}.",), "yellow")


def _only_predicted(lines: Sequence[VariantLine]) -> bool:
    """Whether a latency is predicted for the target, and none is measured there."""
    return {line.target for line in lines} == {ABSENT} != {line.predicted for line in lines}


def _predictions(report: Artefacts) -> Iterator[str]:
    """What carries the predicted latencies, and before that themselves where the table has no column for them."""
    lines = variant_lines(report)
    undecided = {variant.label for variant in report.variants if variant.measured is None}
    left = [f"{line.label} {line.predicted}" for line in lines if line.label in undecided and line.predicted != ABSENT]
    if left and not _only_predicted(lines):
        yield f"Predicted for the target, p50 in ms: {', '.join(left)}."
    yield from prediction_summary(report)


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
    return Text(without_commands(printable(text, PROSE_LIMIT)), style=style)
