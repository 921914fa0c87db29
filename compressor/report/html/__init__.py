"""report.html: one file that needs nothing else, made from report.json and the pictures of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from compressor.report.decision import decision_sentence
from compressor.report.html.agreeing import agreement, classes, confidence, robustness
from compressor.report.html.blocks import said
from compressor.report.html.deciding import DECISIONS, artefacts, gates, tiles
from compressor.report.html.making import images, provenance, reproduce, student, training, warnings
from compressor.report.html.numbers import PLAINEST, Numbers
from compressor.report.html.timing import latency, layers
from compressor.report.schema import Report
from compressor.report.untrusted import NAME_LIMIT, printable, without_controls


def report_html(report: Report, run_folder: Path | None = None) -> str:
    """The whole page, ending in a newline. The same report and pictures give the same text.

    Args:
        run_folder: where the paths of `report.pictures` start; without it the page has no pictures.
    """
    numbers = Numbers(report)
    sections = (
        gates(numbers),
        artefacts(numbers),
        agreement(numbers),
        confidence(numbers),
        robustness(numbers),
        classes(numbers),
        latency(numbers),
        layers(numbers),
        training(numbers),
        images(numbers, run_folder),
        student(numbers),
        warnings(numbers),
        provenance(numbers),
        reproduce(numbers),
    )
    return (
        _environment()
        .get_template("report.html.jinja")
        .render(
            plainest=PLAINEST,
            run_name=printable(report.run_name, NAME_LIMIT),
            made=f"{report.created:%Y-%m-%d %H:%M %Z}",
            target=printable(report.target.title, NAME_LIMIT),
            badge=DECISIONS[report.summary.decision],
            decision=decision_sentence(report),
            headline=said(report.summary.headline),
            points=[said(point) for point in report.summary.points],
            tiles=tiles(numbers),
            sections=[section for section in sections if section is not None],
            version=printable(report.tool_version, NAME_LIMIT),
        )
    )


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("compressor.report", "html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_harmless,
    )


def _harmless(value: Any) -> Any:
    """Whatever the template writes has no control characters but ends of lines; our drawings have none."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(map(without_controls, value.split("\n")))
