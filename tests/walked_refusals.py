"""Notes what refusals say during the tests, where WALKED_REFUSALS names a folder for docs/errors_page.py.

A line of JSON for each, in a file of the process that said it: module, line of the code, and the three sentences.
While a test has taken the room for files away, lines wait.
"""

from __future__ import annotations

import json
import os
import re
import resource
import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

from compressor.stages import Refusal
from profiles.errors import ToolError

PACKAGES = ("compressor", "exporters", "profiles")
# Folders of the tests, in which a user's files would be somewhere else.
TEMPORARY = re.compile(r"/[^\s'\"`]*?pytest-(?:\d+|current)/(?:popen-gw\d+/)?[^/\s'\"`]+/?")
ENOUGH = 20  # of one place, in one process
_said: Counter[tuple[str, int]] = Counter()
_waiting: list[str] = []


def pytest_configure() -> None:
    listen()


def listen() -> None:
    """In this process, from now on."""
    if folder := os.environ.get("WALKED_REFUSALS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        for kind in (ToolError, Refusal):
            _listen(kind, Path(folder))


def _listen(kind: Any, folder: Path) -> None:
    make = kind.__init__

    def __init__(self: Any, *arguments: Any) -> None:
        make(self, *arguments)
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_locals.get("self") is self:  # of a class between
            frame = frame.f_back
        place = str(frame.f_globals.get("__name__", "")), frame.f_lineno
        _said[place] += 1
        if place[0].split(".")[0] in PACKAGES and _said[place] <= ENOUGH:
            sentences = [TEMPORARY.sub("./", str(text)) for text in (self.received, self.expected, self.action)]
            _waiting.append(json.dumps([*place, *sentences]) + "\n")
            _write(folder / f"{os.getpid()}.jsonl")

    kind.__init__ = __init__


def pytest_sessionfinish() -> None:
    if folder := os.environ.get("WALKED_REFUSALS"):
        _write(Path(folder, f"{os.getpid()}.jsonl"))


def _write(path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY:
        return
    with suppress(OSError), path.open("a", encoding="utf-8") as file:
        file.write("".join(_waiting))
        _waiting.clear()
