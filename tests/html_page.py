"""A page as a reader finds it, without a browser: its numbers with their pointers, its tables, and every tag."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any
from urllib.parse import unquote

from compressor.report import text
from compressor.report.schema import Report

VOID = {"meta", "img", "br", "hr", "input", "link"}


@dataclass
class Element:
    tag: str
    attributes: dict[str, str]
    parts: list[str | Element] = field(default_factory=list)

    def all(self) -> Iterable[Element]:
        """This and everything in it."""
        yield self
        for part in self.parts:
            if isinstance(part, Element):
                yield from part.all()

    def find(self, tag: str, **attributes: str) -> list[Element]:
        """Those with this tag and these attributes, `class_` for class."""
        wanted = {name.rstrip("_"): value for name, value in attributes.items()}
        return [one for one in self.all() if one.tag == tag and wanted.items() <= one.attributes.items()]

    @property
    def text(self) -> str:
        return "".join(part if isinstance(part, str) else part.text for part in self.parts)

    @property
    def unmarked(self) -> str:
        """The text outside of numbers that name their place."""
        if "data-path" in self.attributes:
            return ""
        return "".join(part if isinstance(part, str) else part.unmarked for part in self.parts)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open = [Element("page", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].parts.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].tag == tag, f"</{tag}> closes <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def parsed(page: str) -> Element:
    """The page's elements; every tag is closed where it should be."""
    parser = _Parser()
    parser.feed(page)
    parser.close()
    assert [element.tag for element in parser.open] == ["page"]
    return parser.open[0]


@dataclass(frozen=True)
class Shown:
    """One number of a page."""

    text: str
    value: str
    form: str
    pointers: str


def numbers(page: Element) -> list[Shown]:
    marked = [(one.text, one.attributes) for one in page.all() if "data-path" in one.attributes]
    return [Shown(said, of["data-value"], of.get("data-as", "count"), of["data-path"]) for said, of in marked]


# Written out here once more: what each form of the page has to be.
SHOWN: Mapping[str, Callable[..., str]] = {
    "count": "{:,}".format,
    "plain": "{}".format,
    "percent": text.percent,
    "bare percent": lambda value: text.percent(value)[:-2],
    "confidence": lambda value: f"{100 * value:g} %",
    "points": text.signed_points,
    "lost points": lambda value: text.significant(100 * value),
    "typed points": lambda value: text.as_typed(100 * value),
    "typed percent": lambda value: f"{text.as_typed(100 * value)} %",
    "significant": text.significant,
    "predicted": lambda value: f"≈{text.significant(value, 2)}",
    "two digits": lambda value: text.significant(value, 2),
    "typed": text.as_typed,
    "exponent": "{:.1e}".format,
    "size": text.size,
    "size of bytes": lambda num_bytes: text.size(num_bytes / 2**20),
    "params": text.params,
    "macs": text.macs,
    "macs of one": lambda number: text.macs(number / 1e9),
    "duration": text.duration,
    "times": text.times,
    "share": lambda part, whole: text.percent(part / whole),
    "rest": lambda whole, *parts: text.significant(whole - sum(parts)),
    "right minus teacher's": lambda ours, theirs, images: text.signed_points((ours - theirs) / images),
}


def differing(shown: Iterable[Shown], report: Report) -> list[tuple[Shown, str]]:
    """Every number that is not what report.json has at its pointers, with what it should be."""
    written = json.loads(report.model_dump_json())
    wrong = []
    for one in shown:
        values = [looked_up(written, pointer) for pointer in one.pointers.split(" ")]
        expected = SHOWN[one.form](*values)
        if one.text != expected or (len(values) == 1 and one.value not in (repr(values[0]), derived(one, values[0]))):
            wrong.append((one, expected))
    return wrong


def derived(shown: Shown, value: Any) -> str | None:
    """The value of a number in another unit than report.json's."""
    divisors = {"size of bytes": 2**20, "macs of one": 1e9}
    return repr(value / divisors[shown.form]) if shown.form in divisors else None


def looked_up(written: Any, pointer: str) -> Any:
    """RFC 6901 in the form of a URI fragment."""
    for step in pointer.split("/")[1:]:
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        written = written[int(key)] if isinstance(written, list) else written[key]
    return written
