"""Every loss against its formula written out, or against numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from compressor.distill import losses
from compressor.distill.batch_norm_match import LayerStatistics
from compressor.distill.losses import ClassFrequency


def log_softmax(row: list[float], slot: int) -> float:
    return row[slot] - math.log(sum(math.exp(value) for value in row))


# --- adversarial and class terms ------------------------------------------------------------------------------------


def test_hinge_of_the_discriminator() -> None:
    # Real: max(0, 1 - 2) = 0 and 1 - 0.5 = 0.5. Synthetic: max(0, 1 - 2) = 0 and 1 + 0.25 = 1.25. Two means.
    loss = losses.hinge_discriminator(torch.tensor([2.0, 0.5]), torch.tensor([-2.0, 0.25]))
    assert loss.item() == pytest.approx(0.25 + 0.625)


def test_hinge_of_the_generator() -> None:
    assert losses.hinge_generator(torch.tensor([2.0, 0.5])).item() == -1.25


def test_class_term_of_the_discriminator_is_cross_entropy_over_two_slots_a_class() -> None:
    real, synthetic = [0.1, -0.4, 0.7, 0.2], [0.3, 0.9, -0.2, 0.5]
    loss = losses.class_discriminator(
        torch.tensor([real]), torch.tensor([1]), torch.tensor([synthetic]), torch.tensor([0])
    )
    # Real images of class 1 belong into slot 2, synthetic ones of class 0 into slot 1.
    assert loss.item() == pytest.approx(-log_softmax(real, 2) - log_softmax(synthetic, 1))


def test_class_term_of_the_generator_is_the_difference_of_the_two_slots() -> None:
    # CE(real slot) - CE(synthetic slot) leaves logit[2y + 1] - logit[2y]: 4 - 3 and -1 - 2.
    logits = torch.tensor([[9.0, 9.0, 3.0, 4.0], [2.0, -1.0, 5.0, 5.0]])
    assert losses.class_generator(logits, torch.tensor([1, 0])).item() == pytest.approx((1.0 - 3.0) / 2)


# --- feature integration --------------------------------------------------------------------------------------------


def test_feature_integration_pairs_matched_and_crossed() -> None:
    teacher_real, teacher_synthetic = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 1.0]])
    head_real, head_synthetic = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -1.0]])
    pairs = (teacher_real, teacher_synthetic, head_real, head_synthetic)
    # Plain Euclidean distances, not squared: |(3, 4)| + |(0, 2)|, and crossed |(3, 5)| + |(0, 1)|.
    assert losses.feature_integration_matched(*pairs).item() == pytest.approx(5.0 + 2.0)
    assert losses.feature_integration_crossed(*pairs).item() == pytest.approx(math.sqrt(34.0) + 1.0)


def test_feature_integration_is_a_mean_over_the_batch() -> None:
    zero = torch.zeros(2, 3)
    far = torch.tensor([[0.0, 0.0, 6.0], [0.0, 0.0, 0.0]])
    assert losses.feature_integration_matched(far, zero, zero, zero).item() == pytest.approx(3.0, abs=1e-5)


@pytest.mark.parametrize("term", [losses.feature_integration_matched, losses.feature_integration_crossed])
def test_feature_integration_has_a_finite_gradient_at_distance_zero(term: Callable[..., Tensor]) -> None:
    features = torch.ones(2, 3)
    head = torch.ones(2, 3, requires_grad=True)
    term(features, features, head, head).backward()
    assert head.grad is not None
    assert head.grad.isfinite().all()


# --- category frequency smoothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("num_classes", [2, 10, 100])
def test_smoothing_is_minus_log_k_at_the_uniform_marginal(num_classes: int) -> None:
    uniform, ones = torch.full((num_classes,), 1.0 / num_classes), torch.ones(num_classes)
    loss = losses.category_frequency_smoothing(uniform, ones)
    assert loss.item() == pytest.approx(-math.log(num_classes), abs=1e-5)


def test_smoothing_is_larger_everywhere_else() -> None:
    random = torch.Generator().manual_seed(0)
    ones = torch.ones(10)
    for scale in (0.1, 1.0, 10.0):
        marginal = (scale * torch.randn(10, generator=random)).softmax(dim=0)
        assert losses.category_frequency_smoothing(marginal, ones) > -math.log(10) + 1e-4


def test_smoothing_is_finite_at_a_one_hot_marginal() -> None:
    marginal = torch.tensor([1.0, 0.0, 0.0], requires_grad=True)
    loss = losses.category_frequency_smoothing(marginal, torch.ones(3))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert marginal.grad is not None
    assert marginal.grad.isfinite().all()


def test_smoothing_gives_a_class_with_a_larger_weight_more_mass() -> None:
    # At p_k = exp(mu / w_k - 1) the derivatives w_k (log p_k + 1) are equal: the stationary point on the simplex.
    weights, mu = torch.tensor([2.0, 0.6, 0.4]), -0.5
    marginal = torch.exp(mu / weights - 1.0).requires_grad_()
    losses.category_frequency_smoothing(marginal, weights).backward()
    assert torch.allclose(marginal.grad, torch.full((3,), mu), atol=1e-4)  # type: ignore[arg-type]
    assert marginal[0] > marginal[1] > marginal[2]


def test_one_update_gives_the_rarest_class_the_largest_weight() -> None:
    frequency = ClassFrequency(torch.tensor([10.0, 10.0, 10.0]), period=2)
    predictions = torch.tensor([0, 0, 0, 1])
    frequency.observe(predictions, step=0)
    assert torch.equal(frequency.class_weights, torch.ones(3))
    assert torch.equal(frequency.counts, torch.tensor([3.0, 1.0, 0.0]))
    frequency.observe(predictions, step=1)
    # N = 0.5 * 10 + 0.5 * (6, 2, 0) = (8, 6, 5); the weights are 3 / N over the sum of 1 / N = 59 / 120.
    assert torch.equal(frequency.frequency, torch.tensor([8.0, 6.0, 5.0]))
    assert frequency.class_weights.tolist() == pytest.approx([45 / 59, 60 / 59, 72 / 59])
    assert frequency.class_weights.mean().item() == pytest.approx(1.0)
    assert torch.equal(frequency.counts, torch.zeros(3))


def test_the_frequency_never_falls_below_one() -> None:
    frequency = ClassFrequency(torch.tensor([0.0, 1.0]), period=1)
    for step in range(20):
        frequency.observe(torch.tensor([1]), step)
    assert torch.equal(frequency.frequency, torch.ones(2))


def test_the_marginal_of_few_classes_is_the_batch_mean() -> None:
    frequency = ClassFrequency(torch.ones(2), period=1)
    probabilities = torch.tensor([[0.2, 0.8], [0.6, 0.4]])
    assert frequency.marginal(probabilities).tolist() == pytest.approx([0.4, 0.6])


def test_the_marginal_of_many_classes_runs_on_but_passes_the_gradient_of_its_batch() -> None:
    frequency = ClassFrequency(torch.ones(4), period=1)
    probabilities = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], requires_grad=True)
    marginal = frequency.marginal(probabilities)
    # Keeps 1 - B / 4K = 7/8 of the uniform start and adds 1/8 of the batch's mean (1/2, 1/2, 0, 0).
    assert marginal.tolist() == pytest.approx([9 / 32, 9 / 32, 7 / 32, 7 / 32])
    marginal[0].backward()
    assert probabilities.grad is not None
    assert probabilities.grad[:, 0].tolist() == [0.5, 0.5]
    assert probabilities.grad[:, 1:].abs().sum() == 0


def test_the_frequency_survives_a_checkpoint() -> None:
    one, other = (ClassFrequency(torch.tensor([10.0, 10.0]), period=3) for _ in range(2))
    for step in range(4):
        one.marginal(torch.tensor([[0.9, 0.1]]))
        one.observe(torch.tensor([0]), step)
    other.load_state_dict(one.state_dict())
    for frequency in (one, other):
        frequency.observe(torch.tensor([1]), step=5)
    assert torch.equal(one.class_weights, other.class_weights)
    assert torch.equal(one.running_marginal, other.running_marginal)


def test_a_saved_frequency_does_not_change_afterwards() -> None:
    frequency = ClassFrequency(torch.tensor([10.0, 10.0]), period=2)
    saved = frequency.state_dict()
    frequency.observe(torch.tensor([0]), step=0)
    assert saved["counts"].sum() == 0


# --- student terms --------------------------------------------------------------------------------------------------


def test_feature_alignment_is_the_mean_of_squares() -> None:
    projected, teacher = torch.zeros(1, 2, 1, 2), torch.tensor([[[[1.0, 2.0]], [[3.0, 0.0]]]])
    assert losses.feature_alignment(projected, teacher).item() == (1 + 4 + 9 + 0) / 4


def test_feature_alignment_pools_a_larger_teacher_map() -> None:
    teacher = torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]])
    assert losses.feature_alignment(torch.full((1, 1, 1, 1), 1.0), teacher).item() == 9.0


def test_knowledge_distillation_is_kl_from_the_teacher() -> None:
    teacher = torch.tensor([[math.log(3.0), 0.0]])  # (3/4, 1/4)
    student = torch.tensor([[0.0, 0.0]])  # (1/2, 1/2)
    loss = losses.knowledge_distillation(student, teacher, temperature=1.0)
    assert loss.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    # The other direction is another number: 1/2 log(2/3) + 1/2 log 2.
    swapped = losses.knowledge_distillation(teacher, student, temperature=1.0)
    assert swapped.item() == pytest.approx(0.5 * math.log(2 / 3) + 0.5 * math.log(2.0))


def test_knowledge_distillation_softens_and_scales_by_the_squared_temperature() -> None:
    teacher, student = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([[0.5, 0.1, 0.0]])
    plain = losses.knowledge_distillation(student, teacher, temperature=1.0)
    softened = losses.knowledge_distillation(4 * student, 4 * teacher, temperature=4.0)
    assert softened.item() == pytest.approx(16 * plain.item(), rel=1e-5)


def test_knowledge_distillation_is_zero_for_equal_predictions_and_a_mean_over_the_batch() -> None:
    teacher = torch.tensor([[2.0, 0.0, -1.0]])
    assert losses.knowledge_distillation(teacher + 5.0, teacher, temperature=4.0).item() == pytest.approx(0, abs=1e-6)
    student = torch.tensor([[0.5, 0.1, 0.0]])
    one = losses.knowledge_distillation(student, teacher, temperature=4.0)
    three = losses.knowledge_distillation(student.expand(3, -1), teacher.expand(3, -1), temperature=4.0)
    assert three.item() == pytest.approx(one.item())


def test_knowledge_distillation_of_pixels_is_a_mean_over_them() -> None:
    teacher, student = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    student_rows, teacher_rows = (maps.permute(0, 2, 3, 1).reshape(-1, 3) for maps in (student, teacher))
    dense = losses.knowledge_distillation(student, teacher, temperature=4.0)
    rows = losses.knowledge_distillation(student_rows, teacher_rows, temperature=4.0)
    assert dense.item() == pytest.approx(rows.item(), rel=1e-5)


def test_squared_error_is_a_mean_over_all_elements() -> None:
    assert losses.squared_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 5.0]])).item() == (1 + 9) / 2


# --- the discrepancy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 2), (1, 2, 1, 2), (4,)])
def test_the_discrepancy_is_a_mean_over_all_elements_of_any_shape(shape: tuple[int, ...]) -> None:
    student, teacher = torch.tensor([1.0, -2.0, 0.0, 4.0]).view(shape), torch.zeros(shape)
    assert losses.discrepancy(student, teacher).item() == 7 / 4
    assert losses.negative_discrepancy(student, teacher).item() == -7 / 4
    assert losses.negative_log_discrepancy(student, teacher).item() == pytest.approx(-math.log(11 / 4))


def test_the_log_form_has_the_plain_gradient_divided_by_the_gap_and_one() -> None:
    gradients = []
    for loss in (losses.negative_discrepancy, losses.negative_log_discrepancy):
        student = torch.tensor([3.0, -1.0], requires_grad=True)
        loss(student, torch.zeros(2)).backward()
        assert student.grad is not None
        gradients.append(student.grad)
    assert torch.allclose(gradients[1], gradients[0] / (2.0 + 1.0))


# --- what training images look like ---------------------------------------------------------------------------------


def test_batch_norm_distance_is_a_sum_of_norms_over_layers() -> None:
    def layer(mean: list[float], var: list[float]) -> LayerStatistics:
        return LayerStatistics(torch.tensor(mean), torch.tensor(var), torch.zeros(2), torch.ones(2))

    statistics = [layer([3.0, 4.0], [1.0, 1.0]), layer([0.0, 0.0], [1.0, 3.0])]
    assert losses.batch_norm_distance(statistics).item() == pytest.approx(5.0 + 2.0, abs=1e-4)


def test_batch_norm_distance_has_a_finite_gradient_at_zero() -> None:
    mean = torch.zeros(2, requires_grad=True)
    losses.batch_norm_distance([LayerStatistics(mean, torch.ones(2), torch.zeros(2), torch.ones(2))]).backward()
    assert mean.grad is not None
    assert mean.grad.isfinite().all()


def test_own_class_is_cross_entropy_to_the_argmax() -> None:
    rows = [[2.0, 0.0, -1.0], [0.0, 0.5, 0.0]]
    expected = -(log_softmax(rows[0], 0) + log_softmax(rows[1], 1)) / 2
    assert losses.own_class(torch.tensor(rows)).item() == pytest.approx(expected)
    dense = torch.tensor(rows).T.reshape(1, 3, 1, 2)
    assert losses.own_class(dense).item() == pytest.approx(expected)


def test_class_balance_is_lowest_where_classes_are_even_over_the_batch() -> None:
    sure = torch.eye(4) * 50.0
    assert losses.class_balance(sure).item() == pytest.approx(-math.log(4.0), abs=1e-5)
    assert losses.class_balance(sure[:1].expand(4, -1)).item() == pytest.approx(0.0, abs=1e-5)
    dense = sure.T.reshape(1, 4, 2, 2)
    assert losses.class_balance(dense).item() == pytest.approx(-math.log(4.0), abs=1e-5)


def test_activation_rewards_large_features() -> None:
    assert losses.activation(torch.tensor([[1.0, -3.0], [0.0, 4.0]])).item() == -2.0


# --- all of them ----------------------------------------------------------------------------------------------------


def bfloat16(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape))).to(torch.bfloat16)


@pytest.mark.parametrize(
    "loss",
    [
        losses.hinge_discriminator(bfloat16(3), bfloat16(3)),
        losses.hinge_generator(bfloat16(3)),
        losses.class_discriminator(bfloat16(2, 4), torch.tensor([0, 1]), bfloat16(2, 4), torch.tensor([1, 0])),
        losses.class_generator(bfloat16(2, 4), torch.tensor([0, 1])),
        losses.feature_integration_matched(*(bfloat16(2, 3),) * 4),
        losses.feature_integration_crossed(*(bfloat16(2, 3),) * 4),
        losses.category_frequency_smoothing(bfloat16(3), torch.ones(3)),
        losses.feature_alignment(bfloat16(1, 2, 3, 3), bfloat16(1, 2, 6, 6)),
        losses.knowledge_distillation(bfloat16(2, 3), bfloat16(2, 3), temperature=4.0),
        losses.knowledge_distillation(bfloat16(2, 3, 4, 4), bfloat16(2, 3, 4, 4), temperature=4.0),
        losses.squared_error(bfloat16(2, 3), bfloat16(2, 3)),
        losses.discrepancy(bfloat16(2, 3), bfloat16(2, 3)),
        losses.negative_discrepancy(bfloat16(2, 3), bfloat16(2, 3)),
        losses.negative_log_discrepancy(bfloat16(2, 3, 4, 4), bfloat16(2, 3, 4, 4)),
        losses.batch_norm_distance([LayerStatistics(*(bfloat16(3),) * 4)]),
        losses.own_class(bfloat16(2, 3)),
        losses.class_balance(bfloat16(2, 3)),
        losses.activation(bfloat16(2, 3)),
    ],
)
def test_half_precision_inputs_give_a_scalar_in_float32(loss: Tensor) -> None:
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert loss.isfinite()


@pytest.mark.parametrize("num_classes", [4, 40], ids=["batch", "running mean"])
def test_the_marginal_of_a_batch_in_parts_is_that_of_the_whole(num_classes: int) -> None:
    logits = torch.randn(8, num_classes, generator=torch.Generator().manual_seed(0))
    weights = torch.linspace(0.5, 1.5, num_classes)
    values, gradients, running = [], [], []
    for num_parts in (1, 2):
        frequency = losses.ClassFrequency(torch.ones(num_classes), period=1)
        leaf = logits.clone().requires_grad_()
        whole = leaf.detach().softmax(dim=1) if num_parts > 1 else None
        if whole is not None:
            frequency.remember(whole)
        for part in leaf.chunk(num_parts):
            marginal = frequency.marginal(part.softmax(dim=1), whole)
            loss = losses.category_frequency_smoothing(marginal, weights)
            (loss / num_parts).backward()
        assert leaf.grad is not None
        values.append(marginal.detach())
        gradients.append(leaf.grad)
        running.append(frequency.running_marginal)
    assert torch.allclose(values[0], values[1], atol=1e-6)
    assert torch.allclose(running[0], running[1], atol=1e-6)
    assert (gradients[0] - gradients[1]).norm() < 1e-6 * gradients[0].norm()
