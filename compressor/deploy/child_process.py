"""Work that needs a process of its own: `python -m <module>` with JSON in and out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any


def answer_of_child(module: str, question: Any, timeout_s: float | None = None) -> Any:
    """Start a module in a fresh process, give it `question` as JSON, and read what it prints last as JSON.

    It finds the modules that this process finds, and nothing in the current folder.

    Raises:
        ChildFailed: it ended with an error, did not end in time, or printed something else.
    """
    command = [sys.executable, "-P", "-m", module]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(
            command, input=json.dumps(question), capture_output=True, text=True, timeout=timeout_s, env=environment
        )
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()
            raise ChildFailed(f"it ended with code {done.returncode}" + (f" ({lines[-1][:200]})" if lines else ""))
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise ChildFailed(f"it did not end within {timeout_s:g} s") from error
    except (OSError, ValueError, IndexError) as error:
        raise ChildFailed(f"{type(error).__name__}: {error}") from error


class ChildFailed(Exception):
    """Why a child gave no answer, in words that go on after a colon."""
