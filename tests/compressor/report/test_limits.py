"""Limits of the user and wishes of the target."""

from __future__ import annotations

from compressor.report.limits import Limits, limits_of
from profiles.schema import Budget

BUDGET = Budget(max_latency_ms=5.0, max_size_mib=20.0)


def test_the_user_wins_over_the_budget_of_the_target() -> None:
    assert limits_of(0.5, None, None, BUDGET) == Limits(0.5, 5.0, 20.0, wishes=("max_latency_ms", "max_size_mib"))
    assert limits_of(0.5, 2.0, None, BUDGET) == Limits(0.5, 2.0, 20.0, wishes=("max_size_mib",))
    assert limits_of(0.5, None, 3.0, None) == Limits(0.5, None, 3.0)
    own = limits_of(0.5, None, None, Budget(max_params_m=4.0), max_params_m=2.0, accept_predicted=True)
    assert own == Limits(0.5, max_params_m=2.0, accept_predicted=True)


def test_without_the_wishes_what_the_user_asked_for_is_left() -> None:
    limits = limits_of(0.5, 2.0, None, BUDGET, accept_predicted=True)
    assert limits.of_the_user == Limits(0.5, 2.0, accept_predicted=True)
    assert limits.of_the_user.of_the_user == limits.of_the_user


def test_a_limit_is_called_by_whoever_set_it() -> None:
    limits = limits_of(1.0, 2.0, None, BUDGET, max_params_m=0.5)
    assert limits.called("max_latency_ms") == "the limit of 2 ms"
    assert limits.called("max_size_mib") == "the target's wish of 20 MiB"
    assert limits.called("max_params_m") == "the limit of 0.5 M parameters"
