"""Intervals by drawing images anew: against formulas, their own definition, and at the edges."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from compressor.report.bootstrap import bootstrap, t_quantile


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
