"""Sessions of ONNX files in a fresh process, one after the other: what `profiles.latency.measure_in_turn` takes.

    python -m compressor.deploy.timed_sessions < question.json > answer.json

A process of its own lays out its memory anew. Sessions within one process take over the pages of those before them,
and with them a speed that a process an hour later will not have.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from compressor.deploy.child_process import ChildFailed, answer_of_child
from exporters.errors import ExportError
from exporters.runners import OnnxRunner
from profiles.latency import Session, timed_session
from profiles.pace import pace_probe


@dataclass(frozen=True)
class OnnxSession:
    """A file, and how it is run; `optimise` as in OnnxRunner."""

    path: str
    threads: int
    batch_size: int
    image_shape: tuple[int, ...]
    optimise: bool


def sessions_in_a_child(files: Sequence[OnnxSession], warmup_s: float, window_s: float) -> list[Session]:
    """One session of each file.

    Raises:
        ExportError: a file does not run, or the process died.
    """
    question = {"files": [asdict(file) for file in files], "warmup_s": warmup_s, "window_s": window_s}
    try:
        answer: dict[str, Any] = answer_of_child(__name__, question)
    except ChildFailed as error:
        names = ", ".join(Path(path).name for path in dict.fromkeys(file.path for file in files))
        raise ExportError(
            f"The process that times {names} gave no answer: {error}.",
            "A process that runs every file for a fraction of a second was expected.",
            "Free memory, and check with `compress doctor` that ONNX Runtime works.",
        ) from error
    if refusal := answer.get("refusal"):
        raise ExportError(*refusal)
    return [Session.from_dict(found) for found in answer["sessions"]]


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """The child's side."""
    try:
        probe = pace_probe()
        sessions = [
            timed_session(partial(_opened, OnnxSession(**file)), question["warmup_s"], question["window_s"], probe)
            for file in question["files"]
        ]
    except ExportError as error:
        return {"refusal": [error.received, error.expected, error.action]}
    return {"sessions": [session.to_dict() for session in sessions]}


@contextmanager
def _opened(file: OnnxSession) -> Iterator[Callable[[], object]]:
    """What runs one batch of grey images."""
    with OnnxRunner(Path(file.path), threads=file.threads, optimise=file.optimise) as runner:
        (spec,) = runner.inputs
        images = np.full((file.batch_size, *file.image_shape), 0.5, np.float32)
        yield partial(runner.infer, {spec.name: images})


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(json.load(sys.stdin))) + "\n")
