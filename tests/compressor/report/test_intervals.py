"""Intervals against the literature, against their definitions, and at their edges."""

from __future__ import annotations

from math import comb, sqrt

import pytest

from compressor.report.intervals import images_needed, mcnemar_p, paired_difference, wilson_interval


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_is_the_published_one(successes: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=5e-5)


def test_wilson_interval_solves_its_definition() -> None:
    # The bounds are the proportions from which the observed one is exactly z standard errors away.
    z = 1.6448536269514722
    for bound in wilson_interval(7, 12, confidence=0.90):
        assert abs(7 / 12 - bound) == pytest.approx(z * (bound * (1 - bound) / 12) ** 0.5, rel=1e-9)


@pytest.mark.parametrize("n", [1, 2, 7, 40, 1000])
def test_wilson_interval_properties(n: int) -> None:
    intervals = [wilson_interval(successes, n) for successes in range(n + 1)]
    for successes, (low, high) in enumerate(intervals):
        assert 0.0 <= low <= successes / n <= high <= 1.0
        mirrored_low, mirrored_high = intervals[n - successes]
        assert (low, high) == pytest.approx((1 - mirrored_high, 1 - mirrored_low), abs=1e-12)
        wider_low, wider_high = wilson_interval(successes, n, confidence=0.99)
        assert wider_low <= low
        assert high <= wider_high
    assert intervals == sorted(intervals)
    assert intervals[0][0] == 0.0
    assert intervals[n][1] == 1.0


def test_more_images_narrow_the_interval() -> None:
    widths = [high - low for low, high in (wilson_interval(9 * k, 10 * k) for k in (1, 4, 16, 64))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("successes", "n", "confidence"), [(0, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
def test_wilson_interval_refuses_what_is_no_proportion(successes: int, n: int, confidence: float) -> None:
    with pytest.raises(ValueError, match=r"no proportion|not between"):
        wilson_interval(successes, n, confidence)


# --- how many images a limit takes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 0.9, 0.97, 0.995, 1.0])
@pytest.mark.parametrize("limit", [0.3, 0.85, 0.96, 0.99])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_so_many_images_hold_the_limit_and_one_less_does_not(share: float, limit: float, confidence: float) -> None:
    needed = images_needed(share, limit, side="low", confidence=confidence)
    if share <= limit:
        assert needed is None
        return
    assert needed is not None
    low, _ = wilson_interval(share * needed, needed, confidence)
    assert low >= limit - 1e-9
    if needed > 1:
        low, _ = wilson_interval(share * (needed - 1), needed - 1, confidence)
        assert low < limit
    assert images_needed(1.0 - share, 1.0 - limit, side="high", confidence=confidence) == needed  # from the other side


def test_images_needed_of_shares_that_prove_nothing_or_everything() -> None:
    assert images_needed(0.97, 0.97, side="low") is None
    assert images_needed(1.0, 1.0, side="low") is None  # no number of images shows that all others are right
    assert images_needed(0.0, 0.0, side="low") == 1
    assert images_needed(0.05, 0.05, side="high") is None
    assert images_needed(0.95, 1.0 - 0.05, side="low") is None
    assert images_needed(1.0, 0.99, side="low") == 381  # z² 0.99 / 0.01
    assert images_needed(0.3, 1.0, side="high") == 1


# --- two judges of the same images ------------------------------------------------------------------------------------


def test_a_paired_difference_is_the_published_one() -> None:
    # Complete response before and after consolidation therapy, as the R package `contingencytables` computes it for
    # chapter 8 of M. Fagerland, S. Lydersen and P. Laake, Statistical Analysis of Contingency Tables.
    assert paired_difference(59, 6, 16, 80) == pytest.approx((-0.0621, -0.1186, -0.0046), abs=5e-5)


def test_a_paired_difference_is_the_formula() -> None:
    both, gained, lost, neither = 30, 7, 3, 10
    n = 50
    (l1, u1), (l2, u2) = wilson_interval(37, n), wilson_interval(33, n)
    p1, p2 = 37 / n, 33 / n
    phi = (both * neither - gained * lost - n / 2) / sqrt(37 * 13 * 33 * 17)
    below = (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2
    above = (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * (p2 - l2) + (p2 - l2) ** 2
    expected = (0.08, 0.08 - sqrt(below), 0.08 + sqrt(above))
    assert paired_difference(both, gained, lost, neither) == pytest.approx(expected)


@pytest.mark.parametrize("both", [0, 1, 5, 400])
@pytest.mark.parametrize("gained", [0, 1, 6])
@pytest.mark.parametrize("lost", [0, 2, 30])
@pytest.mark.parametrize("neither", [0, 3, 50])
def test_paired_difference_properties(both: int, gained: int, lost: int, neither: int) -> None:
    if both + gained + lost + neither == 0:
        return
    value, low, high = paired_difference(both, gained, lost, neither)
    assert -1.0 <= low < high <= 1.0  # also of judges that are always of one opinion
    assert low <= value <= high
    swapped = paired_difference(both, lost, gained, neither)
    assert (value, low, high) == pytest.approx((-swapped[0], -swapped[2], -swapped[1]), abs=1e-12)
    wider = paired_difference(both, gained, lost, neither, confidence=0.99)
    assert wider[1] <= low
    assert wider[2] >= high


def test_a_pair_says_more_than_two_sets_of_images_would() -> None:
    _, low, high = paired_difference(90, 2, 1, 7)
    (l1, u1), (l2, u2) = wilson_interval(92, 100), wilson_interval(91, 100)
    unpaired = sqrt((0.92 - l1) ** 2 + (u2 - 0.91) ** 2) + sqrt((u1 - 0.92) ** 2 + (0.91 - l2) ** 2)
    assert high - low < 0.7 * unpaired


@pytest.mark.parametrize("table", [(0, 0, 0, 0), (4, -1, 0, 0)])
def test_no_images_are_no_table(table: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="no table"):
        paired_difference(*table)


def test_mcnemar_is_the_binomial_test() -> None:
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar_p(6, 16) == pytest.approx(2 * sum(comb(22, k) for k in range(7)) / 2**22)
    assert mcnemar_p(16, 6) == mcnemar_p(6, 16)
    assert mcnemar_p(5, 5) == 1.0
    assert mcnemar_p(0, 10) == 2 / 2**10
    assert 0.0 <= mcnemar_p(0, 5000) < 1e-300  # neither an overflow nor a division by one
    with pytest.raises(ValueError, match="no numbers"):
        mcnemar_p(-1, 2)
