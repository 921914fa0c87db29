"""Names, files and sentences from outside come out as the text that they are, however they were meant."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from full_report import full_report
from html_page import Element, differing, numbers, parsed
from pydantic import ValidationError

from compressor.report.html import report_html
from compressor.report.measured import ClassAccuracy
from compressor.report.schema import Report

HOSTILE = "<script>alert(1)</script>"
NAMES = (
    HOSTILE,
    "\u202egnp.exe\u2066",
    "a" * 10_000,
    "\x1b[31mred\x07",
    "</style><img src=x onerror=alert(1)>",
    "'\" onmouseover='alert(1)' x=\"",
    "{{ 7 * 7 }}{% raw %}",
    "]]><!--",
    "&lt;b&gt;",
    "javascript:alert(1)",
    "",
)
TAGS = {
    *("page", "html", "head", "meta", "title", "style", "body", "header", "nav", "main", "section", "footer", "a"),
    *("h1", "h2", "h3", "p", "div", "span", "strong", "small", "code", "pre", "ul", "li", "dl", "dt", "dd"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "details", "summary", "figure", "figcaption", "img"),
    *("svg", "symbol", "use", "path", "desc", "line", "text", "rect", "circle", "polyline"),
}
CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def assert_inert(text: str) -> Element:
    """Nothing in it runs, loads, or reorders the text around it."""
    assert CONTROLS.search(text) is None
    page = parsed(text)
    assert {element.tag for element in page.all()} <= TAGS
    for element in page.all():
        assert not {"style", "srcset", "action"} & element.attributes.keys()
        assert not [name for name in element.attributes if name.startswith("on")]
        assert element.attributes.get("href", "#").startswith("#")
        assert element.attributes.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
    ids = [element.attributes["id"] for element in page.all() if "id" in element.attributes]
    assert len(ids) == len(set(ids))
    (policy,) = page.find("meta", **{"http-equiv": "Content-Security-Policy"})
    assert policy.attributes["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return page


def hostile(written: Any, found: Any, text: str) -> Any:
    """`found`, a part of `written`, with every string replaced that may be one from outside."""
    if isinstance(found, dict):
        for key, value in found.items():
            found[key] = _tried(written, found, key, value, text)
    if isinstance(found, list):
        for index, value in enumerate(found):
            found[index] = _tried(written, found, index, value, text)
    return found


def _tried(written: Any, parent: Any, key: Any, value: Any, text: str) -> Any:
    if not isinstance(value, str):
        return hostile(written, value, text)
    parent[key] = text
    try:
        Report.model_validate(written)
    except ValidationError:
        return value
    return text


@pytest.mark.parametrize("name", NAMES[:6], ids=range(6))
def test_every_text_of_a_report_may_be_hostile(name: str) -> None:
    small = full_report(layers=(), robustness=(), stages=())
    written = json.loads(small.model_dump_json())
    report = Report.model_validate(hostile(written, written, name[:300]))
    assert sum(value == name[:300] for value in _strings(written)) > 100
    page = assert_inert(report_html(report))
    assert differing(numbers(page), report) == []


def _strings(found: Any) -> list[str]:
    if isinstance(found, str):
        return [found]
    parts = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    return [text for part in parts for text in _strings(part)]


@pytest.mark.slow
def test_a_thousand_classes_with_hostile_names() -> None:
    base = full_report()
    names = [*NAMES, "x" * 10_000, *(f"{HOSTILE} {index} {'ä' * 60}" for index in range(2_000))][:1_000]
    report = full_report(
        teacher_source=base.teacher_source.model_copy(update={"class_names": tuple(names)}),
        samples=base.samples.model_copy(update={"pseudo_labels": (3,) * 1_000}),
        comparison_evidence=base.comparison_evidence,
    )
    rows = [variant.class_accuracy for variant in report.variants if variant.class_accuracy]
    assert [len(row) for row in rows] == [1_000] * 5
    six = tuple(
        variant.model_copy(update={"class_accuracy": rows[0]}) if variant.path else variant
        for variant in report.variants
    )
    text = report_html(report.model_copy(update={"variants": six}))
    assert len(text.encode()) < 3_000_000
    page = assert_inert(text)
    assert differing(numbers(page), report.model_copy(update={"variants": six})) == []
    headers = [header.text for header in page.find("th", scope="row")]
    assert sum(HOSTILE in header for header in headers) > 1_000
    assert max(map(len, headers)) < 200


def test_the_worst_classes_come_first_and_the_rest_is_counted() -> None:
    base = full_report()
    names = tuple(f"class {index}" for index in range(60))
    changes: dict[str, Any] = {
        "teacher_source": base.teacher_source.model_copy(update={"class_names": names}),
        "samples": base.samples.model_copy(update={"pseudo_labels": (3,) * 60}),
        "comparison_evidence": base.comparison_evidence,
    }
    report = full_report(**changes)
    worst = ClassAccuracy(class_index=41, num_images=40, num_right_teacher=40, num_right=3, low=-1, high=-0.7)
    variants = list(report.variants)
    variants[1] = variants[1].model_copy(
        update={"class_accuracy": (*variants[1].class_accuracy[:41], worst, *variants[1].class_accuracy[42:])}
    )
    page = parsed(report_html(full_report(**changes, variants=tuple(variants))))
    (table,) = [one for one in page.find("table") if "the 20 worst of 60 classes" in one.text]
    rows = table.find("th", scope="row")
    assert len(rows) == 20
    assert rows[0].text == "class 41"
    assert len(page.find("summary")) > 3
    assert "The rest of the classes with flips" in page.text


def test_a_command_keeps_its_lines_and_loses_its_controls() -> None:
    report = full_report(command="compress run \\\n  --teacher '\x1b[2J</pre><script>\u202e.pt'")
    (command,) = assert_inert(report_html(report)).find("pre")
    assert command.text == "compress run \\\n  --teacher '\ufffd[2J</pre><script>\ufffd.pt'"
