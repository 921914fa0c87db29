"""Small reports to judge and to render."""

from __future__ import annotations

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
