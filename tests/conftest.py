"""Fixtures of whole runs: the files that a user would have, and the command line in this process; and small reports."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_samples import (  # noqa: F401
    _build_report,
    _calibration,
    _candidate,
    _latency,
    _prediction,
    _proportion,
    _student_search,
    _variant,
    report,
)
from tiny_run import Compress, Outcome, write_inputs
from walked_refusals import pytest_configure, pytest_sessionfinish  # noqa: F401


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: of two processes neither waits at the end for the other's last one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _no_build_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a build server our own logs are folded, and tests read them as they are elsewhere."""
    for name in ("GITHUB_ACTIONS", "GITLAB_CI"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with t.pt, few/ and val/; not to be written to."""
    folder = tmp_path_factory.mktemp("inputs")
    write_inputs(folder)
    return folder


@pytest.fixture
def compress(capfd: pytest.CaptureFixture[str]) -> Compress:
    """Run the real command line in this process: a torch import costs seconds."""
    from compressor.cli import invoke

    def run(*arguments: str) -> Outcome:
        capfd.readouterr()
        code = invoke(arguments)
        return Outcome(code, *capfd.readouterr())

    return run
