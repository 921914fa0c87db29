"""Limits of the user and of the target."""

from __future__ import annotations

from compressor.report.limits import Limits, limits_of
from profiles.schema import Budget


def test_the_user_wins_over_the_budget_of_the_target() -> None:
    budget = Budget(max_latency_ms=5.0, max_size_mib=20.0)
    assert limits_of(0.5, None, None, budget) == Limits(0.5, 5.0, 20.0)
    assert limits_of(0.5, 2.0, None, budget) == Limits(0.5, 2.0, 20.0)
    assert limits_of(0.5, None, 3.0, None) == Limits(0.5, None, 3.0)
