"""The parts of FastMeta: the generator, its gradient from a copy that moved, blended statistics, the boundary."""

from __future__ import annotations

import copy
import math

import pytest
import tiny
import torch
from torch import nn

from compressor.distill.batch_norm_match import LayerStatistics, recorded_statistics
from compressor.distill.losses import batch_norm_distance
from compressor.distill.meta_generator import BlendedStatistics, MetaGenerator, add_gradients, boundary_adversarial


@pytest.mark.parametrize("image_shape", [(3, 8, 8), (1, 28, 28), (3, 9, 14)], ids=str)
def test_images_have_the_size_asked_for_and_lie_between_zero_and_one(image_shape: tuple[int, int, int]) -> None:
    images = MetaGenerator(image_shape, latent_dim=5, width=4)(torch.randn(6, 5))
    assert images.shape == (6, *image_shape)
    assert images.min() > 0.0
    assert images.max() < 1.0


def test_gradients_of_the_copy_add_up_in_the_original() -> None:
    kept = nn.Linear(2, 1, bias=False)
    moved = copy.deepcopy(kept)
    for factor in (1.0, 10.0):
        moved.zero_grad()
        (factor * moved(torch.tensor([[1.0, 2.0]]))).sum().backward()
        add_gradients(kept, moved)
    assert kept.weight.grad is not None
    assert kept.weight.grad.tolist() == [[11.0, 22.0]]
    moved.zero_grad(set_to_none=True)
    assert kept.weight.grad.tolist() == [[11.0, 22.0]], "the sum is the original's own"


def layer(mean: float, var: float) -> LayerStatistics:
    return LayerStatistics(torch.tensor([mean]), torch.tensor([var]), torch.tensor([1.0]), torch.tensor([2.0]))


def test_statistics_are_blended_with_the_rounds_before() -> None:
    blended = BlendedStatistics(memory=0.9)
    (first,) = blended.blend([layer(1.0, 2.0)])
    assert (first.mean.item(), first.var.item()) == (1.0, 2.0)  # nothing before it
    blended.remember([first])
    (second,) = blended.blend([layer(11.0, 12.0)])
    assert (second.mean.item(), second.var.item()) == pytest.approx((2.0, 3.0))  # 0.9 * before + 0.1 * now
    assert (second.stored_mean.item(), second.stored_var.item()) == (1.0, 2.0)


def test_a_round_is_compared_with_the_past_until_it_is_remembered() -> None:
    blended = BlendedStatistics(memory=0.9)
    blended.remember([layer(0.0, 1.0)])
    for _ in range(3):  # the updates of one round
        assert blended.blend([layer(10.0, 1.0)])[0].mean.item() == pytest.approx(1.0)


def test_what_is_remembered_is_resumed() -> None:
    blended, other = BlendedStatistics(0.9), BlendedStatistics(0.9)
    blended.remember([layer(3.0, 4.0)])
    other.load_state_dict(blended.state_dict())
    assert other.blend([layer(3.0, 4.0)])[0].mean.item() == pytest.approx(3.0)


def test_blending_divides_the_gradient_by_ten() -> None:
    teacher = tiny.teacher()

    def gradient(blended: BlendedStatistics) -> torch.Tensor:
        images = (tiny.images(16, seed=9).float() / 255.0).requires_grad_()
        with recorded_statistics(teacher) as statistics:
            teacher(images)
        shared = blended.blend(statistics)
        mean = torch.stack([each.mean.sum() for each in shared]).sum()
        return torch.autograd.grad(mean, images)[0]

    alone, later = BlendedStatistics(0.9), BlendedStatistics(0.9)
    with recorded_statistics(teacher) as statistics:
        teacher(tiny.images(16).float() / 255.0)
    later.remember(statistics)
    assert torch.allclose(gradient(later), 0.1 * gradient(alone), atol=1e-6)
    assert batch_norm_distance(later.blend(statistics)) == batch_norm_distance(statistics)


def test_the_boundary_by_hand() -> None:
    teacher = torch.tensor([[0.8, 0.2], [0.5, 0.5]]).log()
    student = torch.tensor([[0.6, 0.4], [0.9, 0.1]]).log()
    first = 0.8 * math.log(0.8 / 0.6) + 0.2 * math.log(0.2 / 0.4)
    second = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    # Each times the student's probability of the teacher's class, which is class 0 in both.
    expected = -(0.6 * first + 0.9 * second) / 2
    assert boundary_adversarial(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_the_boundary_counts_little_where_the_student_is_elsewhere() -> None:
    teacher = torch.tensor([[6.0, 0.0]])
    near, far = torch.tensor([[0.5, 0.0]]), torch.tensor([[-12.0, 0.0]])
    assert boundary_adversarial(near, teacher) < boundary_adversarial(far, teacher) < 0.0
    assert boundary_adversarial(teacher, teacher).item() == pytest.approx(0.0, abs=1e-6)
