"""junit.xml: one suite for the run, one case for each gate and limit, as CI servers show test results.

    failed                          <failure> with the sentence
    not decided, and not failed     <skipped> with the reason: what could not be judged has not passed
    missed, and only a warning      passes, and says so in <system-out>: JUnit knows no warning

The form is that which the common readers agree on (Jenkins' junit-10.xsd, GitLab, the actions of GitHub).
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC

from compressor.report.gate_record import Severity
from compressor.report.judgements import Judgement, judgements
from compressor.report.schema import Report
from compressor.report.untrusted import printable

NAME_LIMIT = 300
SENTENCE_LIMIT = 2_000
CLASSES = {"gate": "compress.gates", "limit": "compress.limits", "wish": "compress.wishes"}


def junit_xml(report: Report, *, fail_on: Severity = "fail") -> str:
    """The whole file. The same report gives the same text.

    Args:
        fail_on: warn: what is otherwise a warning fails, as it does in the exit code under `--fail-on warn`.
    """
    suite = ET.Element("testsuite", name=f"compress {_text(report.run_name, NAME_LIMIT)}")
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(report):
        ET.SubElement(properties, "property", name=name, value=_text(value, NAME_LIMIT))
    taken: set[tuple[str, str]] = set()
    for judgement in judgements(report):
        _case(suite, judgement, fail_on, taken)
    if not taken:
        _nothing_asked(suite)
    seconds = sum(stage.seconds for stage in report.stages)
    totals = {
        "tests": f"{len(suite.findall('testcase'))}",
        "failures": f"{len(suite.findall('testcase/failure'))}",
        "errors": "0",
        "time": f"{seconds:.3f}",
    }
    of_suite = {
        "skipped": f"{len(suite.findall('testcase/skipped'))}",
        "timestamp": f"{report.created.astimezone(UTC):%Y-%m-%dT%H:%M:%S}",
        "hostname": "localhost",  # the form wants one, and nobody is to learn it from here
    }
    for key, value in (totals | of_suite).items():
        suite.set(key, value)
    root = ET.Element("testsuites", {"name": "compress", **totals})
    root.append(suite)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _case(suite: ET.Element, judgement: Judgement, fail_on: Severity, taken: set[tuple[str, str]]) -> None:
    group = CLASSES[judgement.kind]
    name = wanted = _text(judgement.name, NAME_LIMIT)
    number = 1
    while (group, name) in taken:  # two names may become one when they are cut, and readers key on the name
        number += 1
        name = f"{wanted} ({number})"
    taken.add((group, name))
    case = ET.SubElement(suite, "testcase", classname=group, name=name, time="0.000")
    sentence = _text(judgement.sentence, SENTENCE_LIMIT)
    warns = judgement.outcome == "warn"
    if judgement.outcome == "fail" or (warns and fail_on == "warn"):
        ET.SubElement(case, "failure", type=judgement.state, message=sentence).text = sentence
    elif not judgement.decided:
        ET.SubElement(case, "skipped", message=f"{judgement.state}: {sentence}")
    else:
        ET.SubElement(case, "system-out").text = f"{'warn: ' if warns else ''}{sentence}"


def _nothing_asked(suite: ET.Element) -> None:
    """A file without a case is refused by some readers, and a case that passes would say what nobody judged."""
    case = ET.SubElement(suite, "testcase", classname=CLASSES["limit"], name="any limit", time="0.000")
    ET.SubElement(case, "skipped", message="No gate and no limit was set, so nothing was judged.")


def _properties(report: Report) -> tuple[tuple[str, str], ...]:
    return (
        ("run", report.run_name),
        ("tool_version", report.tool_version),
        ("teacher_sha256", report.teacher_source.sha256),
        ("student_sha256", report.onnx.sha256),
        ("target", report.target.profile),
        ("decision", report.summary.decision),
    )


def _text(text: str, limit: int) -> str:
    """On one line, and without what XML 1.0 has no place for: controls, surrogates and its two noncharacters."""
    return printable(text, limit).translate({0xFFFE: "\ufffd", 0xFFFF: "\ufffd"}) or "\ufffd"
