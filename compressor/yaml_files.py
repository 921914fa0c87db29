"""YAML files that a user writes: plain, in UTF-8, with every key once, and refused with line and column."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from pathlib import Path

from compressor.errors import UsageFault

MOST_BYTES = 2**20

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother = 2, 80, 80


def read_yaml(file: Path, *, kind: str, expected: str, flag: str) -> Mapping[str, object]:
    """The mapping at the top level of a file; empty where the file holds nothing.

    Args:
        kind: what the file is, such as `configuration file`.
        expected: what it should hold, as a sentence.
        flag: what it was given to.

    Raises:
        UsageFault: it cannot be read, is no YAML, gives a key twice, or holds no mapping.
    """
    import yaml

    from profiles.plain_yaml import load_plain

    if "\0" in str(file) or (file.exists() and not (file.is_file() and file.stat().st_size <= MOST_BYTES)):
        raise UsageFault(
            f"The {kind} {file} is no text file of at most 1 MiB.",
            expected,
            f"Give the path of such a file to {flag}, or leave it out.",
        )
    try:
        text = file.read_text(encoding="utf-8")
        values = load_plain(text)
    except OSError as error:
        raise UsageFault(
            f"The {kind} {file} cannot be read: {error.strerror}.",
            expected,
            f"Give the path of an existing file to {flag}, or leave it out.",
        ) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UsageFault(
            f"{file} is not readable as YAML{where}: {error.problem}.",
            expected,
            "Correct that line and run the same command again.",
        ) from error
    except (yaml.YAMLError, ValueError) as error:
        raise UsageFault(
            f"{file} is not plain YAML in UTF-8.", expected, f"Give a text file to {flag}, or leave it out."
        ) from error
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise UsageFault(
            f"{file} holds a {type(values).__name__} at its top level.",
            expected,
            "Put every value under its section and name.",
        )
    return values


def brief(value: object) -> str:
    """A value for a message. In full it may have a billion letters, and a number more than Python writes."""
    try:
        return _SHORT.repr(value)
    except ValueError:
        return "a number of thousands of digits"
