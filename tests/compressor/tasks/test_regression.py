"""What a student explains of a teacher's numbers: against the definition, and where it is not defined."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from compressor.errors import StageFailed
from compressor.inputs.card import TeacherCard
from compressor.tasks import task_of
from compressor.tasks.regression import explained_variance

TASK = task_of("regression")
CARD = TeacherCard(
    architecture="cifar_resnet8",
    task="regression",
    num_classes=2,
    class_names=("x", "y\x1b"),
    input_shape=(3, 8, 8),
    mean=(0.0,) * 3,
    std=(1.0,) * 3,
)


def outputs(count: int = 60, seed: int = 0) -> Tensor:
    """Two outputs of very different units, one of them far from zero."""
    draw = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return draw * torch.tensor([0.01, 100.0]) + torch.tensor([5.0, 0.0])


def test_explained_variance_is_the_mean_of_r2_over_the_outputs() -> None:
    teacher = outputs()
    student = teacher + outputs(seed=1) * torch.tensor([0.0, 0.1])
    residual = ((teacher - student).double() ** 2).sum(dim=0)
    spread = ((teacher.double() - teacher.double().mean(dim=0)) ** 2).sum(dim=0)
    share = explained_variance(teacher, student)
    assert share is not None
    assert share.value == pytest.approx(float((1 - residual / spread).mean()), rel=1e-9)
    assert (share.n, share.of) == (60, "variance")
    assert 0.98 < share.low < share.value < share.high < 1.0


def test_equal_outputs_are_all_and_a_constant_student_is_nothing() -> None:
    teacher = outputs()
    same = explained_variance(teacher, teacher)
    assert same is not None
    assert (same.value, same.high) == (1.0, 1.0)
    assert same.low == pytest.approx(0.9398, abs=1e-4)  # sixty of sixty: equal outputs are no proof of others
    mean = explained_variance(teacher, teacher.mean(dim=0).expand_as(teacher))
    assert mean is not None
    assert mean.value == pytest.approx(0.0, abs=1e-6)


def test_worse_than_the_mean_is_negative_and_can_be_said() -> None:
    teacher = outputs()
    share = explained_variance(teacher, -teacher)
    assert share is not None
    assert share.value < -1
    assert share.low <= share.value


def test_where_it_is_not_defined() -> None:
    assert explained_variance(outputs(4), outputs(4)) is None
    assert explained_variance(outputs(5), outputs(5)) is not None
    assert explained_variance(outputs(0), outputs(0)) is None
    constant = torch.ones(5, 2)
    assert explained_variance(constant, constant + 1) is None
    half = torch.cat([outputs(20)[:, 1:], torch.ones(20, 1)], dim=1)  # an output that does not vary counts for nothing
    share = explained_variance(half, half + torch.tensor([0.0, 3.0]))
    assert share is not None
    assert share.value == 1.0


def test_facts_by_output() -> None:
    teacher = outputs()
    student = teacher + torch.tensor([0.0, 3.0])
    facts = TASK.evidence_facts(teacher, student, torch.full((60,), -1))
    first, second = facts["comparison"]["outputs"]
    assert (first["explained"], first["rmse"]) == (1.0, 0.0)
    assert second["rmse"] == pytest.approx(3.0, rel=1e-5)
    assert second["teacher_std"] == pytest.approx(float(teacher[:, 1].std(correction=0)), rel=1e-5)
    assert facts["comparison"]["rmse"] == pytest.approx((9 / 2) ** 0.5, rel=1e-5)
    variant = TASK.variant_facts(teacher, student, student, torch.full((60,), -1))
    assert variant["agreement"] == facts["agreement"]
    assert variant["agreement_with_fp32"]["value"] == 1.0
    assert TASK.evidence_facts(outputs(0), outputs(0), torch.empty(0)) == {"agreement": None, "comparison": None}


def test_an_output_that_is_not_finite_is_refused() -> None:
    broken = outputs()
    broken[3, 0] = torch.inf
    with pytest.raises(StageFailed, match="not finite on 1 of 60 images"):
        TASK.evidence_facts(outputs(), broken, torch.empty(0))


def test_samples_have_one_group_no_classes_and_no_confidence(tmp_path: Path) -> None:
    seen = TASK.look(outputs())
    assert seen.confidence is None
    assert TASK.groups(seen.answers).unique().tolist() == [0]
    assert TASK.counts(seen.answers, CARD) == []
    assert TASK.captions(seen, CARD)[0].startswith("x 4.99\ny")
    assert "\x1b" not in "".join(TASK.captions(seen, CARD))
    found = TASK.first_look(seen, torch.full((60,), -1), CARD)
    assert (found.confidence, found.accuracy, found.warnings) == (None, None, ())
    assert found.sentence.startswith("60 images; the teacher's outputs deviate from their means by 0.0")
    (warning,) = TASK.first_look(TASK.look(torch.ones(4, 2)), torch.full((4,), -1), CARD).warnings
    assert "the same for all samples" in warning
    three = CARD.model_copy(update={"num_classes": 3, "class_names": ("x", "y", "z")})
    assert TASK.captions(TASK.look(torch.ones(1, 3)), three) == ["x 1.00\nand 2 more"]
    assert not TASK.draw(torch.zeros(1, 3, 8, 8), seen.answers, seen.answers, CARD, tmp_path / "none.png")
    assert list(tmp_path.iterdir()) == []
