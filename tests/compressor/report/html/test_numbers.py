"""Every number on the page is the rounding of what report.json has at the place that the number names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import pytest
from full_report import full_regression, full_report, full_segmentation
from html_page import SHOWN, Shown, differing, numbers, parsed
from report_samples import build_report

from compressor.report.artefact_table import variant_lines
from compressor.report.html import report_html
from compressor.report.html.numbers import FORMS, Numbers, plain, pointer
from compressor.report.measured import Proportion
from compressor.report.schema import Report
from compressor.report.student_search import candidate_lines
from compressor.report.table import side_by_side
from compressor.report.text import ABSENT, with_interval

ENDS = ("/low", "/high", "/0", "/1")
REPORTS = [full_report, full_segmentation, full_regression, build_report]


@pytest.mark.parametrize("build", REPORTS, ids=lambda build: build.__name__)
def test_every_number_is_that_of_report_json(build: Callable[[], Report]) -> None:
    report = build()
    shown = numbers(parsed(report_html(report)))
    assert len(shown) > 100
    assert differing(shown, report) == []


def test_a_page_of_another_report_is_found_out() -> None:
    report = full_report()
    other = full_report(student=report.student.model_copy(update={"params_m": 0.0714}))
    wrong = differing(numbers(parsed(report_html(report))), other)
    assert {"/student/params_m"} <= {pointer for one, _ in wrong for pointer in one.pointers.split(" ")}
    assert len(wrong) < 10


def test_a_wrong_digit_is_found_out() -> None:
    report = full_report()
    first, *rest = numbers(parsed(report_html(report)))
    assert [one for one, _ in differing([dataclasses.replace(first, text="97.5 %"), *rest], report)] == [
        Shown("97.5 %", first.value, first.form, first.pointers)
    ]


@pytest.mark.parametrize("build", REPORTS, ids=lambda build: build.__name__)
def test_no_column_of_numbers_has_one_without_its_place(build: Callable[[], Report]) -> None:
    cells = parsed(report_html(build())).find("td", class_="number")
    assert cells
    assert [cell.text for cell in cells if re.search(r"\d", cell.unmarked)] == [
        "cifar_resnet20",
        "cifar_resnet20 width 0.5",
    ]


@pytest.mark.parametrize("build", REPORTS, ids=lambda build: build.__name__)
def test_an_interval_goes_from_its_low_end_to_its_high_end(build: Callable[[], Report]) -> None:
    """Each number is that of its place; here that it is the right place of the two."""
    cells = [cell for cell in parsed(report_html(build())).find("td", class_="number") if " to " in cell.unmarked]
    assert len(cells) > 20
    for cell in cells:
        low, high = (one.pointers.rpartition("/") for one in numbers(cell) if one.pointers.endswith(ENDS))
        assert low[0] == high[0], cell.text
        assert (low[2], high[2]) in (("low", "high"), ("0", "1")), cell.text


@pytest.mark.parametrize("build", REPORTS, ids=lambda build: build.__name__)
def test_the_tables_say_what_every_rendering_says(build: Callable[[], Report]) -> None:
    report = build()
    rows = [
        tuple(cell.text for cell in row.parts if not isinstance(cell, str))
        for row in parsed(report_html(report)).find("tr")
    ]
    for line in side_by_side(report):
        assert any(row[:3] == (line.label, line.teacher, line.student) for row in rows), line
    for artefact in variant_lines(report):
        told = {value for value in dataclasses.astuple(artefact)[2:-1] if value not in (ABSENT, True, False)}
        assert any(row[0].endswith(artefact.label) and told <= set(row) for row in rows), artefact
    for candidate in candidate_lines(report.student_search) if report.student_search else ():
        told = {candidate.params, candidate.macs, candidate.size, candidate.latency, candidate.verdict}
        assert any(row[0] == candidate.spec and told <= set(row) for row in rows), candidate


def test_the_forms_of_the_page_are_all_held_to_account() -> None:
    assert SHOWN.keys() == FORMS.keys()


@pytest.mark.parametrize(("low", "value", "high"), [(0.9, 0.97, 1.0), (-0.4, 0.1, 0.2), (-0.4, -0.3, -0.2)])
def test_a_share_reads_as_everywhere(low: float, value: float, high: float) -> None:
    share = Proportion(value=value, low=low, high=high, n=20, of="variance")
    report = full_report()
    scores = report.student.agreement.model_copy(update={"eval": share})
    report = report.model_copy(update={"student": report.student.model_copy(update={"agreement": scores})})
    assert plain(Numbers(report).share(("student", "agreement", "eval"))) == with_interval(share)


def test_a_pointer_holds_any_key() -> None:
    assert pointer(("terms", "a/b ~c<", 3)) == "/terms/a~1b%20~0c%3C/3"
