"""What stands on the page, in which order, for each task and for a report that has little to say."""

from __future__ import annotations

from typing import Any

import pytest
from full_report import full_regression, full_report, full_segmentation, gates
from html_page import Element, parsed
from report_samples import build_report

from compressor.report.html import report_html
from compressor.report.measured import Scores
from compressor.report.schema import Report

ORDER = [
    "decision",
    "gates",
    "artefacts",
    "agreement",
    "confidence",
    "robustness",
    "classes",
    "latency",
    "layers",
    "training",
    "images",
    "student",
    "warnings",
    "provenance",
    "reproduce",
]


def page_of(report: Report) -> Element:
    return parsed(report_html(report))


def section(page: Element, slug: str) -> Element:
    (found,) = page.find("section", id=slug)
    return found


def test_the_decision_comes_first_and_the_way_to_make_it_again_last() -> None:
    page = page_of(full_report())
    assert [one.attributes["id"] for one in page.find("section")] == ORDER
    assert [link.attributes["href"] for link in page.find("nav")[0].find("a")] == [f"#{slug}" for slug in ORDER]


@pytest.mark.parametrize(("decision", "word"), [("pass", "Pass"), ("warn", "Warning"), ("fail", "Fail")])
def test_the_decision_is_a_word_with_a_sign_and_in_the_title(decision: str, word: str) -> None:
    base = full_report()
    page = page_of(full_report(summary=base.summary.model_copy(update={"decision": decision})))
    (heading,) = section(page, "decision").find("h2")
    assert heading.text == word
    assert len(heading.find("use")) == 1
    assert page.find("title")[0].text == f"{word}: t-jetson, compression report"


def test_every_gate_says_its_state_and_its_sentence_the_failed_ones_first() -> None:
    rows = section(page_of(full_report()), "gates").find("table")[0].find("tbody")[0].find("tr")
    badges = [row.find("span", class_=f"badge {tone}")[0].text for row in rows for tone in _tone(row)]
    assert badges[:5] == ["fail: missed", "fail: missing", "warn: unproven", "warn: too few", "warn: stale"]
    assert set(badges[5:]) == {"held"}
    for gate in gates():
        assert any(gate.sentence in row.text for row in rows)


def _tone(row: Element) -> list[str]:
    return [tone for tone in ("good", "doubt", "bad") if row.find("span", class_=f"badge {tone}")]


def test_limits_of_gates_have_their_unit() -> None:
    text = section(page_of(full_report()), "gates").text
    for said in ("at least 95 %", "loses at most 0.5 points", "at most 0.4 ms", "regresses by at most 5 % of it"):
        assert said in text
    for said in ("at most 0.1 M", "regresses by at most 0.01 nats", "loses at most 20 % of it", "0.600 points"):
        assert said in text


def test_generated_images_are_said_to_be_no_evidence() -> None:
    text = section(page_of(full_report()), "agreement").text
    assert "generated, no evidence" in text
    assert "No evidence: the images are of the method's own generator" in text


def test_a_latency_of_one_device_never_stands_on_the_drawing_of_another() -> None:
    host, target = section(page_of(full_report()), "latency").find("svg", role="img")
    assert "predicted" not in host.text
    assert "student fp16, predicted" in target.text


def test_layers_beyond_the_slowest_are_one_bar_that_fills_the_sum() -> None:
    report = full_report()
    drawn = section(page_of(report), "layers").find("svg", role="img")[1]
    assert len(drawn.find("rect")) == 16
    shown = [float(one.attributes["data-value"]) for one in drawn.find("text", class_="value")]
    assert sum(shown) == pytest.approx(report.layers[1].sum_ms)
    assert "the other 42 layers" in drawn.text


def test_a_segmentation_speaks_of_overlaps() -> None:
    page = page_of(full_segmentation())
    classes = section(page, "classes").text
    assert "On every one of 120 images at least 81.0 % of the pixels agree." in classes
    assert "The rest of the classes (10)" in classes
    assert "mean IoU, held-out images" in section(page, "agreement").text
    assert not page.find("section", id="confidence")


def test_a_regression_speaks_of_outputs() -> None:
    page = page_of(full_regression())
    rows = section(page, "classes").find("tbody")[-1].find("tr")
    assert ["none" in rows[0].text, "the teacher's is constant" in rows[2].text] == [True, True]
    assert "explained of the teacher's variance" in section(page, "decision").text


def test_a_report_of_an_earlier_schema_leaves_out_what_it_does_not_know() -> None:
    later: dict[str, Any] = {"gates": (), "robustness": (), "layers": (), "image_sets": ()}
    page = page_of(build_report(student_search=None, warnings=(), limits=None, verdicts=(), **later))
    known = [one.attributes["id"] for one in page.find("section")]
    assert known == [slug for slug in ORDER if slug not in ("gates", "robustness", "layers", "student", "warnings")]


def test_a_run_that_nothing_was_judged_on() -> None:
    base = build_report()
    unknown = {"agreement": Scores(), "accuracy": Scores(), "latency_host": None}
    page = page_of(
        build_report(
            teacher=base.teacher.model_copy(update=unknown),
            student=base.student.model_copy(update=unknown),
            variants=(),
            recommendation=None,
            comparison_evidence=None,
        )
    )
    assert not page.find("section", id="agreement")
    assert "26.2 %" in section(page, "decision").text


def test_the_same_report_gives_the_same_page() -> None:
    assert report_html(full_report()) == report_html(full_report())
