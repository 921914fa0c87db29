"""KD3's terms against their formulas, and what mixing styles leaves alone."""

from __future__ import annotations

import math

import pytest
import tiny
import torch

from compressor.distill.losses import feature_alignment
from compressor.distill.pool_losses import (
    disagreement_weights,
    mix_distribution,
    style_contrast,
    weighted_feature_alignment,
)


def test_weights_are_the_sigmoid_of_the_distance_of_the_logits() -> None:
    student = torch.tensor([[1.0, 2.0], [3.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[1.0, 2.0], [0.0, 4.0]])
    weights = disagreement_weights(student, teacher)
    assert weights.tolist() == pytest.approx([0.5, 1.0 / (1.0 + math.exp(-5.0))])
    assert not weights.requires_grad


def test_weighted_alignment_by_hand() -> None:
    student, teacher = torch.zeros(2, 1, 1, 2), torch.tensor([[[[1.0, 3.0]]], [[[2.0, 0.0]]]])
    # (0.5 * (1 + 9) + 1 * (4 + 0)) / 4
    assert weighted_feature_alignment(student, teacher, torch.tensor([0.5, 1.0])).item() == pytest.approx(2.25)


def test_with_weights_of_one_it_is_feature_alignment() -> None:
    random = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(3, 4, 2, 2, generator=random), torch.randn(3, 4, 4, 4, generator=random)
    ours = weighted_feature_alignment(student, teacher, torch.ones(3))
    assert ours.item() == pytest.approx(feature_alignment(student, teacher).item())


def test_contrast_against_the_sum_written_out() -> None:
    random = torch.Generator().manual_seed(0)
    one, other = torch.randn(3, 5, generator=random), torch.randn(3, 5, generator=random)
    views = [view / view.norm() for view in (*one, *other)]
    total = 0.0
    for i, view in enumerate(views):
        exponents = {j: math.exp(float(view @ views[j]) / 0.3) for j in range(6) if j != i}
        total -= math.log(exponents[(i + 3) % 6] / sum(exponents.values()))
    assert style_contrast(one, other).item() == pytest.approx(total / 6, rel=1e-5)


def test_contrast_is_low_where_pairs_agree_and_ignores_length() -> None:
    one = torch.eye(4)
    assert style_contrast(one, one) < style_contrast(one, one.roll(1, dims=0))
    assert style_contrast(one, 7.0 * one).item() == pytest.approx(style_contrast(one, one).item(), rel=1e-5)


def test_mixed_styles_stay_images_and_repeat_for_a_seed() -> None:
    images = tiny.images(8).float() / 255.0
    mixed = [mix_distribution(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(mixed[0], mixed[1])
    assert not torch.equal(mixed[0], mixed[2])
    assert mixed[0].shape == images.shape
    assert mixed[0].min() >= 0.0
    assert mixed[0].max() <= 1.0


def test_a_style_is_the_mean_and_deviation_of_a_channel() -> None:
    # Faint images, so that nothing is cut off at black or white.
    images = 0.4 + 0.2 * torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    images = images * torch.linspace(0.9, 1.1, 16)[:, None, None, None]
    mixed = mix_distribution(images, torch.Generator().manual_seed(1))
    own, new = (((x - x.mean((2, 3), keepdim=True)) / x.std((2, 3), keepdim=True)) for x in (images, mixed))
    assert torch.allclose(own, new, atol=1e-3)  # the content is what is left without style
    means = images.mean(dim=(2, 3))
    assert (mixed.mean(dim=(2, 3)) >= means.amin(dim=0) - 1e-4).all()
    assert (mixed.mean(dim=(2, 3)) <= means.amax(dim=0) + 1e-4).all()


def test_most_images_keep_their_style_or_take_the_others() -> None:
    """Beta(0.1, 0.1) has 0.32 of its mass within a hundredth of either end."""
    images = torch.zeros(4000, 1, 2, 2)
    images[:2000, :, :, 1], images[2000:, :, :, 1] = 0.2, 0.4  # two styles
    shares = (mix_distribution(images, torch.Generator().manual_seed(0)).mean(dim=(1, 2, 3)) - 0.1) / 0.1
    own = torch.where(torch.arange(4000) < 2000, shares, 1.0 - shares)
    # Half of the partners have the same style; of the rest 0.68 move by more than a hundredth, 0.32 nearly all the way.
    assert (own > 0.01).float().mean().item() == pytest.approx(0.34, abs=0.03)
    assert (own > 0.99).float().mean().item() == pytest.approx(0.16, abs=0.03)
