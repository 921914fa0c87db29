"""Evidence against the literature, against formulas written out, and at its edges."""

from __future__ import annotations

import time
from math import log

import pytest
import torch
from torch import Tensor

from compressor.errors import StageFailed
from compressor.report.evidence import (
    accuracy,
    accuracy_difference,
    agreement,
    calibration,
    class_accuracies,
    compare,
    confidence_shift,
    confidence_summary,
    flips_per_class,
    mean_kl,
    variant_facts,
)
from compressor.report.intervals import paired_difference, wilson_interval

EMPTY, NO_LABELS = torch.zeros(0, 3), torch.zeros(0, dtype=torch.long)
UNKNOWN = torch.tensor([-1])


def one_hot(classes: list[int], num_classes: int = 3) -> Tensor:
    """Logits (N, K) whose top-1 classes are the given ones."""
    return torch.eye(num_classes)[classes] * 4.0


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
    share, comparison = agreement(teacher, student), compare(teacher, student, UNKNOWN.repeat(200))
    assert share is not None
    assert comparison is not None
    assert sum(flips.num_images for flips in comparison.flips) == share.n
    assert sum(flips.num_flipped for flips in comparison.flips) == round(share.n * (1 - share.value))


def of_confidence(tops: list[float] | Tensor, winner: int = 0) -> Tensor:
    """Logits (N, 2) that give these probabilities, all above a half, to one class."""
    top = torch.as_tensor(tops, dtype=torch.float64)
    pair = [top, 1 - top] if winner == 0 else [1 - top, top]
    return torch.stack(pair, dim=1).log()


def test_calibration_is_the_sum_over_bins_of_equally_many_images() -> None:
    # 20 images are two bins. Below: 10 of mean confidence 0.6, of which 8 are hits; above: 10 of 0.9, of which 7 are.
    logits = of_confidence([0.6] * 10 + [0.9] * 10)
    classes = torch.tensor([0] * 8 + [1] * 2 + [0] * 7 + [1] * 3)
    found = calibration(logits, classes, "labels")
    assert found is not None
    assert found.error == pytest.approx((10 * 0.2 + 10 * 0.2) / 20)
    assert (found.n, found.num_bins, found.against) == (20, 2, "labels")
    one_bin = calibration(logits[5:15], classes[5:15], "teacher")  # there what is too much makes up for too little
    assert one_bin is not None
    assert one_bin.error == pytest.approx(abs(0.75 - 0.8))
    assert (one_bin.num_bins, one_bin.against) == (1, "teacher")


def test_calibration_does_not_depend_on_the_order_of_the_images() -> None:
    random = torch.Generator().manual_seed(1)
    logits = of_confidence(torch.randint(5, 9, (157,), generator=random) / 10 + 0.05)  # many of equal confidence
    classes = torch.randint(2, (157,), generator=random)
    order = torch.randperm(157, generator=random)
    found, shuffled = calibration(logits, classes, "labels"), calibration(logits[order], classes[order], "labels")
    assert found is not None
    assert shuffled is not None
    assert shuffled.error == pytest.approx(found.error, abs=1e-12)
    assert found.num_bins == 15


def test_calibration_of_networks_that_are_known() -> None:
    random = torch.Generator().manual_seed(2)
    tops = 0.5 + 0.5 * torch.rand(20_000, generator=random, dtype=torch.float64)
    hits = torch.rand(20_000, generator=random, dtype=torch.float64) < tops
    honest = calibration(of_confidence(tops), (~hits).long(), "labels")
    sure = calibration(of_confidence(torch.full((20_000,), 1 - 1e-9, dtype=torch.float64)), (~hits).long(), "labels")
    few = calibration(of_confidence(tops[:200]), (~hits[:200]).long(), "labels")
    assert honest is not None
    assert sure is not None
    assert few is not None
    assert honest.error < 0.01
    assert sure.error == pytest.approx(1 - float(hits.double().mean()), abs=1e-6)
    assert few.error > 3 * honest.error  # of the same network: few images make it look worse


def test_the_shift_of_confidence_is_the_mean_difference() -> None:
    teacher, student = of_confidence([0.9, 0.8, 0.7, 0.99]), of_confidence([0.8, 0.8, 0.9, 0.79], winner=1)
    shift = confidence_shift(teacher, student)
    assert shift is not None
    assert shift.value == pytest.approx((-0.1 + 0.0 + 0.2 - 0.2) / 4)
    assert shift.low < shift.value < shift.high
    assert shift == confidence_shift(teacher, student)  # the draws are always the same
    back = confidence_shift(student, teacher)
    assert back is not None
    assert back.value == pytest.approx(-shift.value)
    assert (shift.n, shift.confidence) == (4, 0.95)
    same = confidence_shift(teacher, teacher)
    assert same is not None
    assert same.low == same.value == same.high == 0.0


def test_the_interval_of_a_shift_is_that_of_a_mean() -> None:
    random = torch.Generator().manual_seed(3)
    tops = 0.6 + 0.2 * torch.rand(2, 800, generator=random, dtype=torch.float64)
    shift = confidence_shift(of_confidence(tops[0]), of_confidence(tops[1]))
    assert shift is not None
    error = float((tops[1] - tops[0]).std()) / 800**0.5
    assert (shift.high - shift.low) == pytest.approx(2 * 1.96 * error, rel=0.08)


def test_a_single_image_says_nothing_of_others() -> None:
    shift = confidence_shift(of_confidence([0.9]), of_confidence([0.7]))
    assert shift is not None
    assert (shift.value, shift.low, shift.high) == (pytest.approx(-0.2), -1.0, 1.0)


def test_the_difference_of_accuracies_counts_the_images_that_one_alone_has_right() -> None:
    labels = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    teacher, student = one_hot([0, 1, 2, 0, 1, 0, 1, 2]), one_hot([0, 1, 2, 0, 0, 1, 0, 1])
    found = accuracy_difference(teacher, student, labels)  # both 4, the student alone 2, the teacher alone 1, none 1
    assert found is not None
    assert (found.gained, found.lost, found.n) == (2, 1, 8)
    assert (found.value, found.low, found.high) == paired_difference(4, 2, 1, 1)
    assert found.p_value == 1.0
    before, after = accuracy(teacher, labels), accuracy(student, labels)
    assert before is not None
    assert after is not None
    assert found.value == pytest.approx(after.value - before.value)


def test_accuracy_by_class_adds_up_to_that_of_all() -> None:
    random = torch.Generator().manual_seed(4)
    labels = torch.randint(7, (500,), generator=random)
    labels[labels == 3] = 4
    teacher, student = (torch.randn(500, 7, generator=random) + 2 * torch.eye(7)[labels] for _ in range(2))
    rows, whole = class_accuracies(teacher, student, labels), accuracy_difference(teacher, student, labels)
    assert whole is not None
    assert [row.class_index for row in rows] == [0, 1, 2, 4, 5, 6]
    assert sum(row.num_images for row in rows) == 500
    assert sum(row.num_right - row.num_right_teacher for row in rows) == pytest.approx(whole.value * 500)
    for row in rows:
        mine = labels == row.class_index
        alone = accuracy_difference(teacher[mine], student[mine], labels[mine])
        assert alone is not None
        assert (row.low, row.high) == (alone.low, alone.high)
        assert row.num_right == int((student[mine].argmax(dim=1) == row.class_index).sum())


def test_a_thousand_classes_take_no_time() -> None:
    random = torch.Generator().manual_seed(5)
    labels, logits = torch.arange(3000) % 1000, torch.randn(3000, 1000, generator=random)
    started = time.process_time()
    assert len(class_accuracies(logits, logits, labels)) == 1000
    assert time.process_time() - started < 1.0


def test_a_comparison_knows_what_has_no_label() -> None:
    teacher, student = one_hot([0, 1, 2, 2]), one_hot([0, 1, 1, 2])
    found = compare(teacher, student, torch.tensor([0, 0, -1, -1]))
    assert found is not None
    assert found.calibration is not None
    assert (found.calibration.n, found.calibration.against) == (4, "teacher")
    assert found.calibration_labels == calibration(student[:2], torch.tensor([0, 0]), "labels")
    assert found.teacher_calibration_labels is not None
    unlabelled = compare(teacher, student, UNKNOWN.repeat(4))
    assert unlabelled is not None
    assert unlabelled.calibration == found.calibration
    assert unlabelled.calibration_labels is unlabelled.teacher_calibration_labels is None
    assert unlabelled.confidence_shift is not None


def test_no_images_give_no_number() -> None:
    assert agreement(EMPTY, EMPTY) is None
    assert accuracy(EMPTY, torch.zeros(0, dtype=torch.long)) is None
    assert mean_kl(EMPTY, EMPTY) is None
    assert confidence_summary(EMPTY) is None
    assert flips_per_class(EMPTY, EMPTY) == ()
    assert compare(EMPTY, EMPTY, NO_LABELS) is None
    assert calibration(EMPTY, NO_LABELS, "labels") is None
    assert confidence_shift(EMPTY, EMPTY) is None
    assert accuracy_difference(EMPTY, EMPTY, NO_LABELS) is None
    assert class_accuracies(EMPTY, EMPTY, NO_LABELS) == ()


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
    by_class = found.pop("class_accuracy")
    shares = {name: (value["value"], value["n"]) for name, value in found.items()}
    assert shares == {
        "agreement": (0.5, 4),
        "agreement_with_fp32": (0.75, 4),
        "student_accuracy": (pytest.approx(2 / 3), 3),
        "accuracy_difference": (pytest.approx(1 / 3), 3),
    }
    assert [(row["class_index"], row["num_right_teacher"], row["num_right"]) for row in by_class] == [
        (0, 1, 1),
        (1, 0, 1),
        (2, 0, 0),
    ]
    unlabelled = variant_facts(EMPTY, EMPTY, EMPTY, NO_LABELS)
    assert unlabelled.pop("class_accuracy") == []
    assert set(unlabelled.values()) == {None}
