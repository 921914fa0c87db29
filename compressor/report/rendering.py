"""Every file that is made from report.json, under the name that it has in the run folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from compressor.report.html import report_html
from compressor.report.junit import junit_xml
from compressor.report.markdown import report_markdown
from compressor.report.model_card import model_card
from compressor.report.openmetrics import metrics_text
from compressor.report.schema import Report

RENDERINGS: Mapping[str, Callable[[Report, Path], str]] = MappingProxyType(
    {
        "report.md": lambda report, _folder: report_markdown(report),
        "report.html": report_html,
        "junit.xml": lambda report, _folder: junit_xml(report),
        "metrics.txt": lambda report, _folder: metrics_text(report),
        "model-card.md": lambda report, _folder: model_card(report),
    }
)
"""From a report and its run folder, where the pictures are; equal ones give equal texts."""


def rendered(report: Report, folder: Path) -> dict[str, str]:
    """Name and text of each."""
    return {name: render(report, folder) for name, render in RENDERINGS.items()}
