"""Selectors against their formulas, on pools small enough to work out by hand."""

from __future__ import annotations

import itertools
import math
from typing import get_args

import pytest
import torch
from torch import Tensor

from compressor.distill import selectors
from compressor.distill.selectors import Selector, class_balanced, highest, mixed, select, teacher_share


def logits_of(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities).log()


SURE, LIKELY, TORN = [0.98, 0.01, 0.01], [0.6, 0.4, 1e-6], [0.34, 0.33, 0.33]


# --- ranks ------------------------------------------------------------------------------------------------------------


def test_entropy_and_cross_entropy_in_nats() -> None:
    logits = logits_of([0.5, 0.25, 0.25], [1.0 / 3.0] * 3)
    assert selectors.entropy(logits).tolist() == pytest.approx([1.5 * math.log(2.0), math.log(3.0)])
    assert selectors.own_cross_entropy(logits).tolist() == pytest.approx([math.log(2.0), math.log(3.0)])


def test_entropy_and_cross_entropy_can_disagree() -> None:
    # Two likely classes are less undecided over all ten than one likely class and a long tail.
    two, tail = [0.5, 0.5, *[1e-9] * 8], [0.55, *[0.05] * 9]
    logits = logits_of(two, tail)
    assert selectors.entropy(logits).argmin() == 0
    assert selectors.own_cross_entropy(logits).argmin() == 1


def test_the_highest_are_kept_and_of_equals_the_first() -> None:
    scores = torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0])
    assert highest(scores, 0.6).tolist() == [False, True, True, True, False]
    assert highest(scores, 0.01).tolist() == [False, True, False, False, False]  # never none
    assert highest(scores, 1.0).all()


@pytest.mark.parametrize("selector", ["lowest_entropy", "lowest_cross_entropy"])
def test_a_ranking_selector_keeps_what_the_teacher_is_sure_of(selector: Selector) -> None:
    logits = logits_of(TORN, SURE, LIKELY, TORN)
    assert select(selector, logits, None, 0.0, 0.5).tolist() == [False, True, True, False]


def test_the_teaching_score_is_the_formula() -> None:
    teacher, student = logits_of([0.9, 0.05, 0.05]), logits_of([0.2, 0.7, 0.1])
    score = selectors.teaching_score(teacher, student)
    assert score.item() == pytest.approx(math.log(0.9) + math.log(0.8), abs=1e-6)


def test_what_teaches_most_is_sure_for_the_teacher_and_wrong_for_the_student() -> None:
    teacher = logits_of(SURE, SURE, TORN, TORN)
    student = logits_of(SURE, [0.01, 0.98, 0.01], SURE, [0.01, 0.98, 0.01])
    assert selectors.teaching_score(teacher, student).argmax() == 1
    assert select("teaching_score", teacher, student, 0.0, 0.25).tolist() == [False, True, False, False]


def test_a_student_that_is_certain_scores_finitely() -> None:
    teacher = torch.tensor([[100.0, 0.0]])
    assert selectors.teaching_score(teacher, teacher).isfinite().all()


def test_none_keeps_everything_and_every_name_is_answered() -> None:
    logits = logits_of(TORN, SURE, LIKELY, TORN)
    for selector in get_args(Selector):
        mask = select(selector, logits, logits, 0.5, 0.5)
        assert mask.shape == (4,)
        assert mask.dtype == torch.bool
        assert mask.any()
        assert selector != "none" or mask.all()


def test_only_those_that_look_at_the_student_are_asked_again() -> None:
    assert {name for name in get_args(Selector) if selectors.asks_the_student(name)} == {
        "class_balanced",
        "teaching_score",
    }


# --- KD3 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epoch", "share"),
    [(1, 0.992), (20, 0.977), (40, 0.937), (60, 0.853), (80, 0.705), (100, 0.493), (110, 0.374), (119, 0.268)],
)
def test_the_teachers_share_is_the_papers_curve(epoch: int, share: float) -> None:
    assert teacher_share((epoch + 1) / 240) == pytest.approx(share, abs=6e-3)


def test_the_teachers_share_falls_smoothly_to_a_floor_and_stays() -> None:
    shares = [teacher_share(step / 1000) for step in range(1001)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(1.0 - math.exp(-5.0))
    assert max(before - after for before, after in itertools.pairwise(shares)) < 0.005
    assert set(shares[620:]) == {selectors.LAST_SHARE}


def test_logits_are_mixed_before_the_softmax() -> None:
    teacher, student = torch.tensor([[4.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    assert mixed(teacher, student, 0.75).tolist() == [[3.0, 0.5]]
    # At the start the teacher decides, at the end the student nearly alone.
    assert select("class_balanced", teacher, student, 0.0, 0.5).tolist() == [True]


@pytest.mark.parametrize(
    ("balance", "threshold"), [(1.0, 0.95), (0.9, 0.777), (0.75, 0.57), (0.5, 0.317), (0.25, 0.136), (0.1, 0.05)]
)
def test_a_rarer_class_has_a_lower_threshold(balance: float, threshold: float) -> None:
    """100 images of class 0 and 100 b of class 1, the last of them just below or just above its threshold."""

    def kept(confidence: float) -> bool:
        rare = round(100 * balance)
        frequent, others = [0.99, 0.005, 0.004, 0.001], [0.005, 0.99, 0.004, 0.001]
        rest = (1.0 - confidence) / 2 - 1e-4
        # Four classes, so that a confidence of a third can be the largest.
        last = [rest / 2, confidence, rest / 2, 1.0 - confidence - rest]
        if confidence < 0.34:
            return bool(confidence > threshold)  # no longer an argmax; the formula is covered by the rows above
        logits = logits_of(*[frequent] * 100, *[others] * (rare - 1), last)
        return bool(class_balanced(logits, smallest_share=0.01)[-1])

    assert kept(threshold + 0.01)
    assert not kept(threshold - 0.01)


def test_a_class_that_nothing_belongs_to_does_no_harm() -> None:
    mask = class_balanced(logits_of([0.97, 0.02, 0.01], [0.5, 0.4, 0.1]), smallest_share=0.1)
    assert mask.tolist() == [True, False]


def test_when_too_few_pass_those_come_in_that_miss_by_the_least() -> None:
    pool = [[p, 1.0 - p] for p in (0.6, 0.9, 0.7, 0.8)]  # all of one class: its threshold is 0.95
    assert class_balanced(logits_of(*pool), smallest_share=0.5).tolist() == [False, True, False, True]
    assert class_balanced(logits_of(*pool), smallest_share=0.01).sum() == 1  # never nothing


def test_balance_keeps_the_rare_class_that_a_fixed_threshold_starves() -> None:
    random = torch.Generator().manual_seed(0)
    labels = torch.cat([torch.zeros(900, dtype=torch.long), torch.ones(100, dtype=torch.long)])
    confidence = 0.6 + 0.39 * torch.rand(1000, generator=random)
    logits = torch.stack([torch.where(labels == k, confidence, 1.0 - confidence) for k in (0, 1)], dim=1).log()
    mask = class_balanced(logits, smallest_share=0.01)
    fixed = confidence > selectors.CUTOFF
    assert mask[labels == 1].all()  # tau = 0.95 * (1/9) / (2 - 1/9) = 0.056
    assert fixed[labels == 1].float().mean() < 0.2
    assert torch.equal(mask[labels == 0], fixed[labels == 0])
