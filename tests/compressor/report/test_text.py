"""Numbers as people read them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from compressor.report.measured import Proportion
from compressor.report.predicted import Prediction
from compressor.report.text import (
    approximate,
    as_typed,
    beside,
    conditions,
    count,
    duration,
    joined,
    macs,
    params,
    percent,
    points,
    signed_points,
    significant,
    size,
    span,
    times,
    with_interval,
)
from profiles.latency import LatencyStats


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.975, "97.5 %"),
        (1.0, "100 %"),
        (0.0, "0 %"),
        (0.9998, "99.98 %"),  # 4,999 of 5,000 is not all of them
        (0.00004, "0.004 %"),
        (0.5, "50.0 %"),
    ],
)
def test_percent_says_all_and_none_only_when_it_is_so(fraction: float, text: str) -> None:
    assert percent(fraction) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.012345, "0.0123"),
        (-0.0415, "-0.0415"),
        (0.9999, "1.00"),
        (1.0, "1.00"),
        (9.999, "10.0"),
        (12.34, "12.3"),
        (99.96, "100"),
        (12345.0, "12,300"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert significant(value) == text


def test_units() -> None:
    assert (params(11.17), params(0.0779)) == ("11.2 M", "77.9 k")
    assert (macs(1.82), macs(0.0123), macs(0.0000801)) == ("1.82 G", "12.3 M", "80.1 k")
    assert (size(42.6), size(0.301)) == ("42.6 MiB", "308 KiB")
    assert times(1.0, 4.0) == "0.250 ×"
    assert (duration(4.23), duration(59.97), duration(200), duration(3900)) == (
        "4.2 s",
        "1 min 00 s",
        "3 min 20 s",
        "1 h 05 min",
    )
    assert (count(1, "class", "classes"), count(1200, "image")) == ("1 class", "1,200 images")


def test_lists_and_points() -> None:
    assert [joined("abc"[:length]) for length in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert [points(value) for value in (1.0, 0.5, 2.345, 10.0)] == [
        "1 point",
        "0.5 points",
        "2.35 points",
        "10 points",
    ]


def test_an_interval_stands_beside_its_share() -> None:
    share = Proportion(value=0.975, low=0.871, high=0.996, n=40)
    assert with_interval(share) == "97.5 % (87.1 to 99.6 %)"


def test_a_prediction_is_worth_two_digits_and_shows_its_interval(prediction: Callable[..., Prediction]) -> None:
    guess = prediction(3.14159, latency_p50_interval_ms=(2.449, 4.02))
    assert approximate(guess) == "≈3.1 (2.4 to 4.0)"
    assert approximate(guess, " ms") == "≈3.1 ms (2.4 to 4.0)"
    assert approximate(guess, " ms", 3.1) == "≈3.14 ms (2.4 to 4.0)"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0"), (0.0996, "0.10"), (0.996, "1.0"), (9.96, "10"), (12345.0, "12,000"), (-3.14, "-3.1")],
)
def test_two_significant_digits(value: float, text: str) -> None:
    assert significant(value, 2) == text


def test_a_limit_stands_as_it_was_typed() -> None:
    assert [as_typed(value) for value in (0.6125, 33.3, 2.0, 0.1 + 0.2)] == ["0.6125", "33.3", "2", "0.3"]


@pytest.mark.parametrize(
    ("value", "limit", "text"),
    [
        (0.6128, 0.6125, "0.613"),
        (0.61251, 0.6125, "0.613"),
        (0.61249, 0.6125, "0.612"),
        (0.61254, 0.613, "0.6125"),
        (0.6134, 0.613, "0.6134"),
        (2.500001, 2.5, "2.500001"),
        (2.5, 2.5, "2.50"),
        (0.29, 1.0, "0.290"),
    ],
)
def test_a_value_is_seen_to_hold_its_limit_or_to_miss_it(value: float, limit: float, text: str) -> None:
    assert beside(value, limit) == text


def test_a_latency_at_the_reference_pace_says_what_it_was_as_timed(latency: Callable[..., LatencyStats]) -> None:
    assert "as timed" not in conditions(latency(0.148))
    scaled = latency(0.148, pace=0.889, latency_p50_as_timed_ms=0.167)
    assert conditions(scaled).endswith("ms at this machine's reference pace, 0.167 ms as timed at 89% of it")


def test_less_than_nothing_of_a_variance_is_none() -> None:
    assert percent(-301.028) == percent(-1e-9) == "none"
    wide = Proportion(value=-2.0, low=-9.0, high=0.25, n=9, of="variance")
    assert with_interval(wide) == "none (none to 25.0 %)"
    assert with_interval(wide.model_copy(update={"high": -0.5})) == "none"
    assert span(wide.model_copy(update={"high": -0.5})) == "none"
    assert points(30202.8) == "more than 100 points"


@pytest.mark.parametrize(
    ("fraction", "text"),
    [
        (0.0, "0"),
        (0.005, "+0.5"),
        (-0.0234, "−2.3"),
        (-0.03, "−3"),
        (-0.1249, "−12.5"),
        (1.0, "+100"),
        (-3e-5, "−0.003"),
    ],
)
def test_a_difference_of_shares_has_a_sign(fraction: float, text: str) -> None:
    assert signed_points(fraction) == text
