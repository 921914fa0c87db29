"""Prints a line `name==version` for each lower bound in pyproject.toml, as constraints for pip.

Extras count too. A requirement of another system or Python is left out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def lower_bounds(requirements: Iterable[str]) -> Iterator[str]:
    """What pip is held to: of every requirement that has one, its `>=`."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        for bound in requirement.specifier:
            if bound.operator == ">=":
                yield f"{requirement.name}=={bound.version}"


def main() -> None:
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    print("\n".join(dict.fromkeys(bound for group in groups for bound in lower_bounds(group))))


if __name__ == "__main__":
    main()
