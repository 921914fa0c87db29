"""Intervals by drawing images anew: against formulas, their own definition, and at the edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressor.report.bootstrap import bootstrap, mean_of_shares, t_quantile, widened
from compressor.report.intervals import wilson_interval


def mean(total: Tensor) -> Tensor:
    return total[:, 0] / total[:, 1]


def sums(values: Tensor) -> Tensor:
    return torch.stack([values, torch.ones_like(values)], dim=1)


def draw(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(("degrees", "published"), [(4, 2.776), (10, 2.228), (30, 2.042), (100, 1.984)])
def test_t_quantile_is_the_published_one(degrees: int, published: float) -> None:
    assert t_quantile(0.975, degrees) == pytest.approx(published, rel=5e-3)


@pytest.mark.parametrize("n", [12, 400])
def test_of_a_mean_it_is_the_t_interval(n: int) -> None:
    values = draw(n)
    value, low, high = bootstrap(sums(values), mean)
    half = t_quantile(0.975, n - 1) * float(values.std()) / n**0.5
    assert value == pytest.approx(float(values.mean()))
    assert (high - low) / 2 == pytest.approx(half, rel=0.12)


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    inside = 0
    for seed in range(200):
        _, low, high = bootstrap(sums(draw(15, seed)), mean)
        inside += low <= 0.0 <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_the_same_images_give_the_same_interval() -> None:
    values = sums(draw(20))
    assert bootstrap(values, mean) == bootstrap(values, mean)


def test_equal_images_leave_no_doubt_and_two_span_both() -> None:
    assert bootstrap(sums(torch.full((5,), 0.25)), mean) == (0.25, 0.25, 0.25)
    assert bootstrap(sums(torch.tensor([0.0, 1.0])), mean) == (0.5, 0.0, 1.0)


def test_draws_that_define_no_value_are_passed_over() -> None:
    def broken(total: Tensor) -> Tensor:
        return torch.where(total[:, 0] > 1.5, torch.nan, total[:, 0])

    value, low, high = bootstrap(sums(torch.tensor([0.0, 1.0])), broken)
    assert (value, low, high) == (1.0, 0.0, 1.0)


# --- means of shares: classes, some of which few images show ----------------------------------------------------------

SHOWN = torch.tensor([1.0, 0.9, 0.5, 0.3, 0.15]).double()  # how many of the images show a class
RIGHT = torch.tensor([0.97, 0.9, 0.8, 0.65, 0.5]).double()


def classes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pixels that two maps share and that either has, by image and class; images are easy or hard as a whole."""
    random = torch.Generator().manual_seed(seed)
    shape = (count, len(SHOWN))
    shown = torch.rand(shape, generator=random) < SHOWN
    areas = 1000 * shown * torch.empty(shape, dtype=torch.float64).exponential_(generator=random)
    hard = torch.randn(count, 1, generator=random) + torch.randn(shape, generator=random)
    return (areas * torch.sigmoid(torch.logit(RIGHT) + 0.7 * hard)), areas


@pytest.mark.parametrize("n", [15, 40])
def test_a_mean_of_shares_covers_the_truth_and_lies_inside(n: int) -> None:
    parts, wholes = (sums.sum(dim=0) for sums in classes(200_000, 1))
    truths = parts / wholes
    covered, places = 0, []
    for seed in range(150):
        parts, wholes = classes(n, 1000 + seed)
        value, low, high = mean_of_shares(parts, wholes)
        covered += low <= float(truths[wholes.sum(dim=0) > 0].mean()) <= high
        places.append((value - low) / (high - low))
    assert 0.90 <= covered / 150 <= 0.99
    assert 0.0 < min(places) < max(places) < 1.0
    assert 0.4 < sum(places) / 150 < 0.6


def test_a_class_that_one_image_shows_is_not_known_exactly() -> None:
    parts, wholes = torch.full((12, 2), 9.0), torch.full((12, 2), 10.0)
    parts[1:, 1] = wholes[1:, 1] = 0
    parts[0, 1] = 0  # and there it is all wrong
    value, low, high = mean_of_shares(parts, wholes)
    assert value == pytest.approx(0.45)
    assert low < 0.4
    assert high >= 0.45
    half = torch.cat([parts[:, :1], torch.where(wholes[:, 1:] > 0, 5.0, 0.0)], dim=1)
    value, low, high = mean_of_shares(half, wholes)
    assert value == pytest.approx(0.7)
    assert low < 0.6 < 0.8 < high


def test_a_class_that_no_image_shows_counts_for_nothing() -> None:
    parts, wholes = torch.full((12, 2), 9.0), torch.full((12, 2), 10.0)
    parts[:, 1] = wholes[:, 1] = 0
    assert mean_of_shares(parts, wholes)[0] == pytest.approx(0.9)


def test_few_images_and_equal_ones_leave_as_much_doubt_as_trials() -> None:
    low, high = widened(1.0, 1.0, 1.0, 3)
    assert low == pytest.approx(0.4385, abs=1e-4)
    assert high == 1.0
    assert widened(1.0, 1.0, 1.0, 40) == wilson_interval(40, 40)
    assert widened(0.9, 0.88, 0.92, 9) == wilson_interval(0.9 * 9, 9)
    assert widened(0.9, 0.1, 0.95, 9)[0] == 0.1
    assert widened(0.9, 0.88, 0.92, 10) == (0.88, 0.92)
