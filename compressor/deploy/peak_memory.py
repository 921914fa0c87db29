"""How much memory a model needs: the peak of a fresh process that loads it and runs it, above what it held before.

    python -m compressor.deploy.peak_memory < question.json > answer.json

Here is both the parent's side, `peak_memory`, and the child's. Only a fresh process tells: in one that has run other
models, what those gave back to the allocator serves this one too, and the peak never falls.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from compressor.deploy.child_process import ChildFailed, answer_of_child
from compressor.process_memory import forget_peak, status_kib

RUNS = 3
TIMEOUT_S = 120


class PeakMemory(BaseModel):
    """The memory of one file at one batch size.

    Attributes:
        peak_mib: highest resident memory of the process while it loaded and ran the model, above what it held before.
        runtime_mib: what it held before: Python, numpy and the runtime.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    peak_mib: float
    runtime_mib: float
    batch_size: int
    threads: int


def peak_memory(path: Path, *, threads: int, batch_size: int, optimise: bool = True) -> PeakMemory | None:
    """Measure in a child process; None where the child fails, or the system is not Linux and keeps no such accounts."""
    question = {"path": str(path.absolute()), "threads": threads, "batch_size": batch_size, "optimise": optimise}
    try:
        before_kib, peak_kib = answer_of_child(__name__, question, TIMEOUT_S)
    except ChildFailed:
        return None
    return PeakMemory(
        peak_mib=max(0, peak_kib - before_kib) / 1024,
        runtime_mib=before_kib / 1024,
        batch_size=batch_size,
        threads=threads,
    )


def answer(path: str, threads: int, batch_size: int, optimise: bool) -> tuple[int, int]:
    """The child's side: the resident memory before and the peak after, in KiB."""
    import numpy as np
    import onnxruntime  # noqa: F401  # what it takes itself is not the model's

    from exporters.runners import OnnxRunner

    forget_peak()  # imports have peaks too
    before_kib = status_kib("VmRSS")
    with OnnxRunner(Path(path), threads=threads, optimise=optimise) as runner:
        (spec,) = runner.inputs
        shape = (batch_size, *(int(size or 1) for size in spec.shape[1:]))
        for _ in range(RUNS):
            runner.infer({spec.name: np.full(shape, 0.5, np.float32)})
    return before_kib, status_kib("VmHWM")


if __name__ == "__main__":
    sys.stdout.write(json.dumps(answer(**json.load(sys.stdin))) + "\n")
