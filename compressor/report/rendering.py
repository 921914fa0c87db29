"""Every file that is made from report.json, under the name that it has in the run folder."""

from __future__ import annotations

from pathlib import Path

from compressor.report.html import report_html
from compressor.report.junit import junit_xml
from compressor.report.markdown import report_markdown
from compressor.report.metrics import metrics_text
from compressor.report.model_card import model_card
from compressor.report.schema import Report


def rendered(report: Report, folder: Path) -> dict[str, str]:
    """Name and text of each; the same report and pictures give the same texts.

    Args:
        folder: the run folder, for the pictures.
    """
    return {
        "report.md": report_markdown(report),
        "report.html": report_html(report, folder),
        "junit.xml": junit_xml(report),
        "metrics.txt": metrics_text(report),
        "model-card.md": model_card(report),
    }
