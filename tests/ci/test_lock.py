"""The lock file of a release has everything that pyproject.toml asks for, by version and hash."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / ".ci"))

from lower_bounds import lower_bounds  # noqa: E402

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# A requirement and its lines of hashes; a comment says who wants it.
ENTRY = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>[^\s;]+)(?P<rest>(?:.*\\\n)+.*\n)", re.MULTILINE)


@pytest.fixture(scope="module")
def locked() -> dict[str, str]:
    """Version by name."""
    text = (ROOT / ".ci" / "requirements.lock").read_text(encoding="utf-8")
    entries = list(ENTRY.finditer(text))
    assert len(entries) == len([line for line in text.splitlines() if re.match(r"[a-z]", line)])
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry["rest"]), entry["name"]
    return {entry["name"]: entry["version"] for entry in entries}


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_every_dependency_is_locked_within_its_bounds(requirement: str, locked: dict[str, str]) -> None:
    wanted = Requirement(requirement)
    assert Version(locked[canonicalize_name(wanted.name)]) in wanted.specifier


def test_lower_bounds_are_those_of_the_project() -> None:
    requirements = ["torch>=2.11", "other>=1,<2", "rich", "windows>=3; sys_platform == 'win32'"]
    assert list(lower_bounds(requirements)) == ["torch==2.11", "other==1"]


@pytest.mark.parametrize("requirement", [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]])
def test_every_requirement_has_a_lower_bound(requirement: str) -> None:
    """`.ci/versions oldest` tests them."""
    wanted = Requirement(requirement)
    assert wanted.name == PROJECT["name"] or any(bound.operator == ">=" for bound in wanted.specifier)
