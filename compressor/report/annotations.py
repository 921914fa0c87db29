"""The few lines that GitHub shows at the top of a workflow run: failed gates first, then warnings.

A step shows ten of each kind at most and a reader far fewer; everything else stands in report.md.
"""

from __future__ import annotations

from compressor.report.judgements import judgements
from compressor.report.schema import Report
from compressor.report.text import count
from compressor.report.untrusted import printable

LINES = 6
TITLE_LIMIT = 100
SENTENCE_LIMIT = 500


def annotation_lines(report: Report) -> list[str]:
    """Workflow commands, one a line; nothing where everything holds."""
    judged = judgements(report)
    failed = [("error", one) for one in judged if one.outcome == "fail"]
    warned = [("warning", one) for one in judged if one.outcome == "warn"]
    found = [*failed, *warned]
    shown = found if len(found) <= LINES else found[: LINES - 1]
    lines = [_command(level, f"{one.kind} {one.name}", one.sentence) for level, one in shown]
    if rest := len(found) - len(shown):
        level = found[len(shown)][0]
        lines.append(_command(level, "compress", f"{count(rest, 'more limit')} not held or not proven: see report.md."))
    return lines


def _command(level: str, title: str, sentence: str) -> str:
    escaped = _data(printable(title, TITLE_LIMIT)).replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={escaped}::{_data(printable(sentence, SENTENCE_LIMIT))}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
