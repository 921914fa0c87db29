"""Evidence against the literature, against formulas written out, and at its edges."""

from __future__ import annotations

from math import log

import pytest
import torch
from torch import Tensor

from compressor.errors import StageFailed
from compressor.report.evidence import (
    accuracy,
    agreement,
    compare,
    confidence_summary,
    flips_per_class,
    mean_kl,
    variant_facts,
    wilson_interval,
)

EMPTY = torch.zeros(0, 3)


def one_hot(classes: list[int], num_classes: int = 3) -> Tensor:
    """Logits (N, K) whose top-1 classes are the given ones."""
    return torch.eye(num_classes)[classes] * 4.0


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


def test_agreement_counts_equal_top1_and_ignores_scale() -> None:
    teacher, student = one_hot([0, 1, 2, 2]), one_hot([0, 1, 2, 0]) * 0.01
    share = agreement(teacher, student)
    assert share is not None
    assert (share.value, share.n) == (0.75, 4)
    assert (share.low, share.high) == wilson_interval(3, 4)
    assert agreement(teacher, teacher) == agreement(student, student)


def test_accuracy_compares_with_labels() -> None:
    share = accuracy(one_hot([0, 1, 2, 2]), torch.tensor([0, 1, 1, 1]))
    assert share is not None
    assert (share.value, share.n) == (0.5, 4)


def test_mean_kl_is_the_formula() -> None:
    teacher = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]).log()
    student = torch.tensor([[0.25, 0.5, 0.25], [0.2, 0.2, 0.6]]).log()
    expected = (0.5 * log(2.0) + 0.25 * log(0.5)) / 2
    # Logits are free of a constant for each image.
    assert mean_kl(teacher + 7.0, student - 3.0) == pytest.approx(expected, rel=1e-5)
    assert mean_kl(teacher, teacher) == 0.0


def test_confidence_summary_of_known_probabilities() -> None:
    tops = torch.linspace(0.5, 1.0 - 1e-6, 11, dtype=torch.float64)
    summary = confidence_summary(torch.stack([tops, 1 - tops], dim=1).log())
    assert summary is not None
    assert summary.n == 11
    assert (summary.mean, summary.p10, summary.median) == pytest.approx((0.75, 0.55, 0.75), abs=1e-5)


def test_confidence_of_saturated_logits_stays_a_probability() -> None:
    summary = confidence_summary(torch.tensor([[1e4, -1e4]]).repeat(7, 1))
    assert summary is not None
    assert summary.mean == summary.median == 1.0


def test_flips_per_class_name_only_classes_that_occur() -> None:
    flips = flips_per_class(one_hot([0, 0, 0, 2], 4), one_hot([0, 1, 2, 2], 4))
    assert [(f.class_index, f.num_images, f.num_flipped) for f in flips] == [(0, 3, 2), (2, 1, 0)]


def test_flips_and_agreement_tell_the_same_story() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher, student = (torch.randn(200, 5, generator=generator) for _ in range(2))
    share, comparison = agreement(teacher, student), compare(teacher, student)
    assert share is not None
    assert comparison is not None
    assert sum(flips.num_images for flips in comparison.flips) == share.n
    assert sum(flips.num_flipped for flips in comparison.flips) == round(share.n * (1 - share.value))


def test_no_images_give_no_number() -> None:
    assert agreement(EMPTY, EMPTY) is None
    assert accuracy(EMPTY, torch.zeros(0, dtype=torch.long)) is None
    assert mean_kl(EMPTY, EMPTY) is None
    assert confidence_summary(EMPTY) is None
    assert flips_per_class(EMPTY, EMPTY) == ()
    assert compare(EMPTY, EMPTY) is None


def test_logits_that_are_not_finite_are_refused() -> None:
    broken = one_hot([0, 1, 2])
    broken[1, 0] = float("nan")
    with pytest.raises(StageFailed) as caught:
        agreement(one_hot([0, 1, 2]), broken)
    assert "student's logits are not finite on 1 of 3" in caught.value.received
    assert "another --seed" in caught.value.action
    assert caught.value.expected == "Evidence needs a finite number for every class."


def test_an_artefact_is_judged_by_teacher_own_fp32_file_and_labels() -> None:
    teacher, single, half = one_hot([0, 1, 2, 2]), one_hot([0, 1, 1, 2]), one_hot([0, 1, 1, 0])
    found = variant_facts(teacher, single, half, torch.tensor([0, 2, 1, -1]))
    shares = {name: (value["value"], value["n"]) for name, value in found.items()}
    assert shares == {
        "agreement": (0.5, 4),
        "agreement_with_fp32": (0.75, 4),
        "student_accuracy": (pytest.approx(2 / 3), 3),
    }
    unlabelled = variant_facts(EMPTY, EMPTY, EMPTY, torch.zeros(0, dtype=torch.int64))
    assert set(unlabelled.values()) == {None}
