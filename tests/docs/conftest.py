"""Small reports to log."""

from __future__ import annotations

from report_samples import _build_report, report  # noqa: F401
