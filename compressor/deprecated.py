"""What earlier versions called things: understood for one more version, with a warning, and unknown after it.

A setting or a flag that is renamed or dropped gets a row here and a line in CHANGELOG.md; the row goes with the version
that it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Former:
    """A name that is no longer used.

    Attributes:
        now: the name that took its place; empty where nothing has to be said any more.
        reason: why, in words that follow a colon.
        until: the version that no longer knows it.
    """

    now: str
    reason: str
    until: str

    def warning(self, name: str) -> str:
        """What whoever used it is told."""
        instead = f"use {self.now}" if self.now else "leave it out"
        return f"{name} is of an earlier version: {self.reason}. From {self.until} on it is an error; {instead}."


_GENERATOR = Former("", "the generator is kept wherever a method trains one", until="0.2.0")

SETTINGS: Mapping[str, Former] = {"distill.export_generator": _GENERATOR}
"""By dotted name, as in a YAML file."""

FLAGS: Mapping[str, Former] = {"--export-generator": _GENERATOR, "--no-export-generator": _GENERATOR}
"""Of these, those that are dropped take no value."""


def current_words(words: Sequence[str], former: Mapping[str, Former] = FLAGS) -> tuple[list[str], list[str]]:
    """The words of a command line with the flags of today, and a warning for each that was not."""
    current, warnings = [], []
    for position, word in enumerate(words):
        flag, equals, value = word.partition("=")
        if flag not in former or "--" in words[:position]:  # behind `--` there are no flags
            current.append(word)
            continue
        warnings.append(former[flag].warning(flag))
        if former[flag].now:
            current.append(f"{former[flag].now}{equals}{value}")
    return current, warnings
