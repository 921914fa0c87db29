"""YAML files that a user writes: plain, in UTF-8, with every key once, and refused with line and column."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import UsageFault

if TYPE_CHECKING:
    import yaml


MOST_BYTES = 2**20


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

    if file.exists() and not (file.is_file() and file.stat().st_size <= MOST_BYTES):
        raise UsageFault(
            f"The {kind} {file} is no text file of at most 1 MiB.",
            expected,
            f"Give the path of such a file to {flag}, or leave it out.",
        )
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
    """Raise YAML's own error where a mapping gives a key twice, of which `safe_load` would drop the first, and where a
    node holds itself.

    A node that aliases name many times is looked at once: a small file can name one a billion times.
    """
    import yaml

    done, above = set[int](), set[int]()

    def look(node: yaml.Node | None) -> None:
        if id(node) in above:
            raise yaml.YAMLError("a value holds itself")
        if id(node) in done or not isinstance(node, yaml.CollectionNode):
            return
        above.add(id(node))
        seen: set[str] = set()
        for entry in node.value:
            key, value = entry if isinstance(node, yaml.MappingNode) else (None, entry)
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"{key.value!r} is given twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen.add(key.value)
            look(value)
        above.remove(id(node))
        done.add(id(node))

    look(root)
