"""junit.xml by the rules that its readers share: counts match, names are unique, and everything parses."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable

from judged import every_outcome, hostile

from compressor.report.junit import NAME_LIMIT, junit_xml
from compressor.report.schema import Report

TOTALS = {"name", "tests", "failures", "errors", "time"}
SUITE = TOTALS | {"skipped", "timestamp", "hostname"}
CASE_PARTS = {"failure", "skipped", "system-out"}


def suite_of(text: str) -> ET.Element:
    """The one suite, after the checks that hold for every file."""
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n')
    root = ET.fromstring(text)
    assert root.tag == "testsuites"
    assert set(root.attrib) == TOTALS
    (suite,) = root
    assert set(suite.attrib) == SUITE
    assert [part.tag for part in suite][:1] == ["properties"]
    cases = suite.findall("testcase")
    assert len(suite) == 1 + len(cases)
    for case in cases:
        assert set(case.attrib) == {"classname", "name", "time"}
        assert len(case) == 1
        assert case[0].tag in CASE_PARTS
    names = [(case.get("classname"), case.get("name")) for case in cases]
    assert len(set(names)) == len(names) > 0
    for element in (root, suite):
        assert element.get("tests") == str(len(cases))
        assert element.get("failures") == str(len(suite.findall("testcase/failure")))
        assert element.get("errors") == "0"
    assert suite.get("skipped") == str(len(suite.findall("testcase/skipped")))
    return suite


def by_name(suite: ET.Element) -> dict[str, str]:
    return {str(case.get("name")): case[0].tag for case in suite.findall("testcase")}


def test_what_fails_what_is_skipped_and_what_passes(build_report: Callable[..., Report]) -> None:
    suite = suite_of(junit_xml(build_report(gates=every_outcome())))
    assert by_name(suite) == {
        "agreement.min": "system-out",
        "accuracy.max_drop": "failure",
        "size.max": "system-out",
        "latency.max": "skipped",
        "latency.proven": "failure",
        "mean_iou.min": "failure",
        "accuracy.min": "failure",
        "agreement.max_regression": "failure",
        "accuracy.max_regression": "skipped",
        "max_latency_ms": "skipped",  # predicted only
        "max_size_mib": "system-out",
    }
    said = {case.get("name"): case[0].text for case in suite.findall("testcase") if case[0].tag == "system-out"}
    assert said["size.max"] == "warn: size.max: agreement is 97 %."
    assert said["agreement.min"] == "agreement.min: agreement is 97 %."
    failure = suite.find("testcase[@name='accuracy.max_drop']/failure")
    assert failure is not None
    assert failure.attrib == {"type": "missed", "message": "accuracy.max_drop: agreement is 97 %."}
    assert suite.get("timestamp") == "2026-11-20T12:30:00"
    assert suite.get("time") == "101.600"


def test_a_warning_fails_where_the_exit_code_does(build_report: Callable[..., Report]) -> None:
    report = build_report(gates=every_outcome())
    found = by_name(suite_of(junit_xml(report, fail_on="warn")))
    assert [name for name, tag in found.items() if tag != "failure"] == ["agreement.min", "max_size_mib"]


def test_a_run_without_limits_has_one_case_that_was_skipped(build_report: Callable[..., Report]) -> None:
    assert by_name(suite_of(junit_xml(build_report(verdicts=())))) == {"any limit": "skipped"}


def test_words_from_outside_are_text_and_long_names_stay_apart(report: Report) -> None:
    text = junit_xml(hostile(report))
    suite = suite_of(text)
    assert "\x1b" not in text
    assert "\ufffe" not in text
    names = [str(case.get("name")) for case in suite.findall("testcase[@classname='compress.gates']")]
    assert names[1] == f"{names[0]} (2)"
    assert len(names[0]) <= NAME_LIMIT


def test_the_same_report_gives_the_same_text(report: Report) -> None:
    assert junit_xml(report) == junit_xml(report.model_copy(deep=True))
