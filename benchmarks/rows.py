"""The rows of the benchmarks: one JSON object each, with where it was made, appended as it is finished."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from profiles.host import host_name


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row to the JSON list, whole or not at all; several programs may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (Path(tempfile.gettempdir()) / f"{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        rows = json.loads(path.read_text()) if path.exists() else []
        temporary = path.with_suffix(".tmp")
        temporary.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in [*rows, row]) + "\n]\n")
        temporary.replace(path)


def write_between(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what a page holds between two marks.

    Raises:
        ValueError: a mark is missing.
    """
    before, _, rest = page.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{page} does not have both marks {begin} and {end}")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def provenance() -> dict[str, Any]:
    """The machine, the versions and the revision that made a row; `-dirty` with changes that were not committed.

    Rows themselves, below `benchmarks/results`, change while a program appends them and count for nothing.
    A copy without its history is told the revision by the environment variable COMPRESS_REVISION.
    """
    revision = _git("describe", "--always")
    if revision and _git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":/!benchmarks/results"):
        revision += "-dirty"
    return {
        "device": host_name(),
        "threads": torch.get_num_threads(),
        **({"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda} if torch.cuda.is_available() else {}),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "revision": revision or os.environ.get("COMPRESS_REVISION", ""),
        "date": time.strftime("%Y-%m-%d"),
    }


def _git(*words: str) -> str:
    """What git says, or nothing where there is no repository."""
    try:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
