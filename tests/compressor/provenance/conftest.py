"""The small report of tests/compressor/report, for what is made of a report and of files."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.report.schema import Report

SOURCE = Path(__file__).parents[1] / "report" / "conftest.py"


@pytest.fixture(scope="session", name="build_report")
def _build_report() -> Callable[..., Report]:
    specification = importlib.util.spec_from_file_location("report_conftest", SOURCE)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    build: Callable[..., Report] = module.build_report
    return build


@pytest.fixture
def report(build_report: Callable[..., Report]) -> Report:
    return build_report()
