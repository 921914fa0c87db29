"""Silence for libraries that print and warn about their own internals."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path


@contextmanager
def quiet() -> Iterator[None]:
    """No warnings, log lines or prints of torch.onnx and what it calls; exceptions still pass."""
    log_level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    # The older exporter prints its graph from C++ when it fails, below what redirect_stdout can reach.
    sys.stdout.flush()
    stdout = os.dup(1)
    try:
        with (
            Path(os.devnull).open("w") as nowhere,
            redirect_stdout(nowhere),
            redirect_stderr(nowhere),
            warnings.catch_warnings(),
        ):
            os.dup2(nowhere.fileno(), 1)
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        logging.disable(log_level)
