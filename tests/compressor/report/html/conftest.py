"""Pages of reports that are full, hostile, or of another task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from full_report import full_report

from compressor.report.schema import Report


@pytest.fixture
def build_full(build_report: Callable[..., Report]) -> Callable[..., Report]:
    """`full_report` with top-level fields replaced."""

    def build(**changes: Any) -> Report:
        return full_report(build_report, **changes)

    return build
