"""YAML files that a user writes: plain, in UTF-8, with every key once, and refused with line and column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import UsageFault

if TYPE_CHECKING:
    import yaml


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

    try:
        text = file.read_text(encoding="utf-8")
        _refuse_duplicates(yaml.compose(text, Loader=yaml.SafeLoader))
        values = yaml.safe_load(text)
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
    except (yaml.YAMLError, ValueError, RecursionError) as error:
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


def _refuse_duplicates(root: yaml.Node | None) -> None:
    """Raise YAML's own error where a mapping gives a key twice, of which `safe_load` would drop the first.

    A node that aliases name many times is looked at once: a small file can name one a billion times.
    """
    import yaml

    waiting, met = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in met:
            continue
        met.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        problem = f"{key.value!r} is given twice"
                        raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                    seen.add(key.value)
                waiting.append(value)
