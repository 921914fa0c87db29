"""Numbers that know where in report.json they come from.

A number on the page is looked up by its JSON pointer and never handed over, so what is shown cannot be of another
place than it says. The page carries pointer, full value and form of each, and a test holds all three against the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias
from urllib.parse import quote

from pydantic import BaseModel

from compressor.report import text
from compressor.report.measured import Proportion
from compressor.report.schema import Report

Path: TypeAlias = tuple[str | int, ...]
"""Steps into report.json, of field names, keys and indices."""


@dataclass(frozen=True)
class Form:
    """How a number is shown, and how it follows from the values at its pointers; by default it is the only one."""

    show: Callable[[float], str]
    of: Callable[..., float] = lambda value: value


def bare_percent(fraction: float) -> str:
    """`97.5`, of an interval whose other end has the sign."""
    return text.percent(fraction).removesuffix(" %")


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "count": Form(lambda value: f"{value:,}"),
        "plain": Form(str),
        "percent": Form(text.percent),
        "bare percent": Form(bare_percent),
        "confidence": Form(lambda value: f"{100 * value:g} %"),
        "points": Form(text.signed_points),
        "lost points": Form(lambda fraction: text.significant(100 * fraction)),
        "typed points": Form(lambda fraction: text.as_typed(100 * fraction)),
        "typed percent": Form(lambda fraction: f"{text.as_typed(100 * fraction)} %"),
        "significant": Form(text.significant),
        "predicted": Form(lambda value: f"≈{text.significant(value, 2)}"),
        "two digits": Form(lambda value: text.significant(value, 2)),
        "typed": Form(text.as_typed),
        "exponent": Form(lambda value: f"{value:.1e}"),
        "size": Form(text.size),
        "size of bytes": Form(text.size, lambda num_bytes: num_bytes / 2**20),
        "params": Form(text.params),
        "macs": Form(text.macs),
        "macs of one": Form(text.macs, lambda macs: macs / 1e9),
        "duration": Form(text.duration),
        "times": Form(
            lambda value: f"{text.significant(value)} ×", lambda numerator, denominator: numerator / denominator
        ),
        "share": Form(text.percent, lambda part, whole: part / whole),
        "rest": Form(text.significant, lambda whole, *parts: whole - sum(parts)),
        "right minus teacher's": Form(text.signed_points, lambda ours, theirs, images: (ours - theirs) / images),
    }
)


PLAINEST = "count"
"""The form that needs no saying; a thousand classes have many of it."""


@dataclass(frozen=True)
class Number:
    """One number as the page shows it.

    Attributes:
        pointers: RFC 6901, percent-encoded as in a URI fragment, separated by spaces where there are several.
    """

    text: str
    value: float
    form: str
    pointers: str


@dataclass(frozen=True)
class Name:
    """A name from outside, set as code; already harmless."""

    text: str


Words: TypeAlias = tuple[str | Number | Name, ...]
"""A line of text with numbers and names in it."""

NOTHING: Words = (text.ABSENT,)


@dataclass(frozen=True)
class Numbers:
    """Looks numbers up in a report."""

    report: Report

    def at(self, path: Path) -> Any:
        """What report.json has there."""
        found: Any = self.report
        for step in path:
            found = getattr(found, str(step)) if isinstance(found, BaseModel) else found[step]
        return found

    def number(self, form: str, *paths: Path) -> Number:
        """The number that follows from the values at `paths`."""
        value = FORMS[form].of(*(self.at(path) for path in paths))
        return Number(FORMS[form].show(value), value, form, " ".join(map(pointer, paths)))

    def one(self, form: str, path: Path) -> Words:
        """A number alone, a dash where there is none."""
        return NOTHING if self.at(path) is None else (self.number(form, path),)

    def span(self, path: Path) -> Words:
        """The interval of a share alone, as `text.span` has it."""
        found: Proportion = self.at(path)
        if found.high < 0:
            return (self.number("percent", (*path, "high")),)
        return (self.number("bare percent", (*path, "low")), " to ", self.number("percent", (*path, "high")))

    def share(self, path: Path) -> Words:
        """A share with its interval, as `text.with_interval` has it; a dash where it was not measured."""
        found: Proportion | None = self.at(path)
        if found is None:
            return NOTHING
        value = self.number("percent", (*path, "value"))
        return (value,) if found.high < 0 else (value, " (", *self.span(path), ")")

    def difference(self, path: Path, form: str = "points") -> Words:
        """A difference with its interval, in percentage points; a dash where it was not measured."""
        if self.at(path) is None:
            return NOTHING
        low, high = (self.number(form, (*path, end)) for end in ("low", "high"))
        return (self.number(form, (*path, "value")), " (", low, " to ", high, ")")

    def median(self, path: Path) -> Words:
        """A latency's p50 in ms with what keeps it from being a plain measurement, as `text.median` has it."""
        latency = self.at(path)
        if latency is None:
            return NOTHING
        number = self.number("significant", (*path, "latency_p50_ms"))
        return (number, text.median(latency).removeprefix(number.text))

    def predicted(self, path: Path) -> Words:
        """A predicted p50 in ms with its interval, as `text.approximate` has it."""
        if self.at(path) is None:
            return NOTHING
        low, high = (self.number("two digits", (*path, "latency_p50_interval_ms", end)) for end in (0, 1))
        return (self.number("predicted", (*path, "latency_p50_ms")), " (", low, " to ", high, ")")


def pointer(path: Path) -> str:
    """The JSON pointer of a path; keys may hold any letters."""
    return "".join(f"/{quote(str(step).replace('~', '~0').replace('/', '~1'), safe='~')}" for step in path)


def plain(words: Words) -> str:
    """The text alone."""
    return "".join(piece if isinstance(piece, str) else piece.text for piece in words)
