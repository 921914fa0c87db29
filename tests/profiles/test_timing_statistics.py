"""The interval of a median against simulation, and the test for two speeds against distributions with one."""

import math

import numpy as np
import pytest

from profiles.timing_statistics import DRIFT, T_95, median_interval, repeat_interval, two_speeds


def test_the_order_statistics_are_the_textbook_ones() -> None:
    # Ranks of the 95 % sign-test interval (for example Conover 1999, table A3).
    ranks = {1: (1, 1), 5: (1, 5), 6: (1, 6), 8: (1, 8), 9: (2, 8), 12: (3, 10), 20: (6, 15), 40: (14, 27)}
    for n, expected in ranks.items():
        low, high, _ = median_interval([*range(1, n + 1)])
        assert (low, high) == expected


@pytest.mark.parametrize("n", [6, 9, 25])
def test_the_interval_covers_the_median_as_often_as_it_says(n: int) -> None:
    samples = np.random.default_rng(0).exponential(size=(4000, n))
    intervals = [median_interval(list(row)) for row in samples]
    covered = np.mean([low <= np.log(2) <= high for low, high, _ in intervals])
    assert intervals[0][2] >= 0.95
    assert covered == pytest.approx(intervals[0][2], abs=0.015)


@pytest.mark.parametrize("shape", ["normal", "uniform", "lognormal", "tail"])
def test_one_speed_is_not_taken_for_two(shape: str) -> None:
    random = np.random.default_rng(1)
    draws = {
        "normal": 10 + random.normal(size=(200, 500)),
        "uniform": random.uniform(5, 15, size=(200, 500)),
        "lognormal": random.lognormal(0, 0.5, size=(200, 500)),
        "tail": 5 + random.gamma(1.5, size=(200, 500)),
    }
    assert sum(two_speeds(times) is not None for times in draws[shape]) <= 2


def test_two_speeds_are_found_and_named() -> None:
    random = np.random.default_rng(2)
    times = np.where(random.random(500) < 0.3, 15.0, 10.0) * random.lognormal(0, 0.03, size=500)
    assert two_speeds(times) == pytest.approx((10, 15), rel=0.02)


def test_rare_outliers_and_few_calls_are_no_second_speed() -> None:
    assert two_speeds(np.r_[np.full(1000, 1.0), np.full(30, 5.0)]) is None
    assert two_speeds(np.r_[np.full(20, 1.0), np.full(20, 5.0)]) is None


def test_the_quantiles_of_student_are_those_of_the_distribution() -> None:
    stats = pytest.importorskip("scipy.stats")
    assert pytest.approx([*stats.t.ppf(0.975, range(1, len(T_95) + 1))], abs=5e-4) == [*T_95]


def test_sessions_that_are_equal_leave_the_drift() -> None:
    low, high = repeat_interval(2.0, [2.0] * 6)
    assert (low, high) == pytest.approx((2 / math.exp(DRIFT), 2 * math.exp(DRIFT)))


@pytest.mark.parametrize("sessions", [3, 6, 12])
def test_a_repetition_lies_in_the_interval_as_often_as_it_says(sessions: int) -> None:
    random = np.random.default_rng(0)
    tries = np.exp(random.normal(0.0, 0.04, (4000, 2, sessions)))
    held = 0
    for first, second in tries:
        low, high = repeat_interval(float(np.exp(np.log(first).mean())), [*first], drift=0.0)
        held += low <= float(np.exp(np.log(second).mean())) <= high
    assert held / len(tries) == pytest.approx(0.95, abs=0.012)
