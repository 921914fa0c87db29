"""Notes what refusals say during the tests, where WALKED_REFUSALS names a folder for docs/errors_page.py."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from compressor.stages import Refusal
from profiles.errors import ToolError

ROOT = Path(__file__).parents[1]
PACKAGES = ("compressor", "exporters", "profiles")
# Folders of the tests, in which a user's files would be somewhere else.
TEMPORARY = re.compile(r"/[^\s'\"`]*?pytest-(?:\d+|current)/(?:popen-gw\d+/)?[^/\s'\"`]+/?")
_said: list[tuple[str, int, str, str, str]] = []


def pytest_configure() -> None:
    if "WALKED_REFUSALS" in os.environ:
        for kind in (ToolError, Refusal):
            _listen(kind)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if folder := os.environ.get("WALKED_REFUSALS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = f"{os.environ.get('PYTEST_XDIST_WORKER', 'alone')}-{os.getpid()}.json"
        (Path(folder) / name).write_text(json.dumps(sorted(set(_said))), encoding="utf-8")


def _listen(kind: Any) -> None:
    make = kind.__init__

    def __init__(self: Any, *arguments: Any) -> None:
        make(self, *arguments)
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_name == "__init__":  # of a class between
            frame = frame.f_back
        module = str(frame.f_globals.get("__name__", ""))
        if module.split(".")[0] in PACKAGES:
            sentences = (TEMPORARY.sub("", str(text)) for text in (self.received, self.expected, self.action))
            _said.append((module, frame.f_lineno, *sentences))  # type: ignore[arg-type]

    kind.__init__ = __init__
