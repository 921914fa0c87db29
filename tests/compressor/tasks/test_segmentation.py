"""Class maps against counts by hand, and against the definition of each measure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from compressor.errors import StageFailed
from compressor.inputs.card import VOID, TeacherCard
from compressor.tasks import task_of
from compressor.tasks.segmentation import (
    mean_iou,
    overlaps,
    pixel_accuracy,
    pixel_accuracy_difference,
    pixel_agreement,
)

TASK = task_of("segmentation")
CARD = TeacherCard(
    architecture="unet",
    task="segmentation",
    num_classes=3,
    class_names=("sky", "road", "car"),
    input_shape=(3, 4, 4),
    mean=(0.0,) * 3,
    std=(1.0,) * 3,
)
NONE = torch.full((2,), -1)
TEACHER = torch.tensor([[[0, 0], [1, 1]], [[0, 0], [0, 2]]], dtype=torch.uint8)
STUDENT = torch.tensor([[[0, 1], [1, 1]], [[0, 0], [0, 2]]], dtype=torch.uint8)


def noisy(count: int = 30, share: float = 0.1) -> tuple[Tensor, Tensor]:
    """Maps of three classes, and the same with another class on some pixels."""
    random = torch.Generator().manual_seed(0)
    maps = torch.randint(3, (count, 8, 8), generator=random, dtype=torch.uint8)
    moved = torch.rand(count, 8, 8, generator=random) < share
    return maps, torch.where(moved, (maps + 1) % 3, maps)


def test_a_look_keeps_classes_and_how_sure_they_are() -> None:
    logits = torch.zeros(1, 3, 1, 2)
    logits[0, 2, 0, 1] = 50.0
    seen = TASK.look(logits)
    assert seen.answers.dtype == torch.uint8
    assert seen.answers.tolist() == [[[0, 2]]]
    assert seen.confidence is not None
    assert seen.confidence.tolist() == pytest.approx([(1 / 3 + 1) / 2])


def test_a_logit_that_is_not_finite_is_an_answer_of_nobody() -> None:
    logits = torch.zeros(2, 3, 2, 2)
    logits[1, 0, 0, 0] = torch.nan
    with pytest.raises(StageFailed, match="not finite on 1 of 2 images"):
        TASK.look(logits)


def test_shares_by_hand() -> None:
    share = pixel_agreement(TEACHER, STUDENT)
    assert share is not None
    assert (share.value, share.n, share.of) == (7 / 8, 2, "pixels")
    assert share.low == pytest.approx(0.2641, abs=1e-4)  # two images say next to nothing
    assert share.high == 1.0
    overlap = mean_iou(TEACHER, STUDENT)
    assert overlap is not None
    assert overlap.value == pytest.approx((4 / 5 + 2 / 3 + 1) / 3)  # sky, road, car
    both, either = overlaps(TEACHER, STUDENT)
    assert both.tolist() == [[1, 2, 0], [3, 0, 1]]
    assert either.tolist() == [[2, 3, 0], [3, 0, 1]]


def test_void_is_left_out_and_counts_for_neither() -> None:
    masks = TEACHER.clone()
    masks[0, 0, 1] = VOID  # the one pixel on which they differ
    share, overlap = pixel_accuracy(STUDENT, masks), mean_iou(masks, STUDENT)
    assert share is not None
    assert overlap is not None
    assert share.value == overlap.value == 1.0
    masks[1] = VOID  # an image without any mask is none
    share = pixel_accuracy(STUDENT, masks)
    assert share is not None
    assert (share.n, share.low, share.high) == (1, 0.0, 1.0)  # of one image nothing follows for others
    assert pixel_accuracy(STUDENT, torch.full_like(masks, VOID)) is None
    assert mean_iou(torch.full_like(masks, VOID), STUDENT) is None
    assert pixel_accuracy(STUDENT, NONE) is None


def test_iou_is_that_of_sets_and_agreement_that_of_pixels() -> None:
    teacher, student = noisy()
    expected = [
        float(((teacher == k) & (student == k)).sum() / ((teacher == k) | (student == k)).sum()) for k in range(3)
    ]
    overlap, share = mean_iou(teacher, student), pixel_agreement(teacher, student)
    assert overlap is not None
    assert share is not None
    assert overlap.value == pytest.approx(sum(expected) / 3)
    assert share.value == pytest.approx(float((teacher == student).float().mean()))
    assert 0 < share.high - share.low < 0.05
    assert overlap == mean_iou(student, teacher)  # symmetric, as no pixel is void


def test_facts_are_plain_and_of_the_sets_they_were_given() -> None:
    teacher, student = noisy()
    masks = teacher.clone()
    masks[:, 0] = VOID
    facts = TASK.evidence_facts(teacher, student, masks)
    assert facts["teacher_accuracy"]["value"] == facts["teacher_mean_iou"]["value"] == 1.0
    assert facts["student_accuracy"]["value"] == pytest.approx(0.9, abs=0.02)
    comparison = facts["comparison"]
    assert [one["class_index"] for one in comparison["classes"]] == [0, 1, 2]
    assert sum(one["teacher_share"] for one in comparison["classes"]) == pytest.approx(1.0)
    assert {one["teacher_iou"] for one in comparison["classes"]} == {1.0}
    assert comparison["lowest_image"] == float((teacher == student).double().mean(dim=(1, 2)).min())

    without = TASK.evidence_facts(teacher, student, torch.full((30,), -1))
    assert (without["teacher_accuracy"], without["student_mean_iou"]) == (None, None)
    assert without["comparison"]["classes"][0]["teacher_iou"] is None
    variant = TASK.variant_facts(teacher, student, student, masks)
    assert (variant["agreement"], variant["agreement_with_fp32"]["value"]) == (facts["agreement"], 1.0)
    assert variant["student_mean_iou"] == facts["student_mean_iou"]


def test_a_class_that_only_the_student_gives_is_an_error_of_its_own() -> None:
    overlap = mean_iou(torch.zeros(2, 2, 2, dtype=torch.uint8), torch.full((2, 2, 2), 2, dtype=torch.uint8))
    assert overlap is not None
    assert overlap.value == 0.0


def test_groups_captions_and_the_first_look() -> None:
    seen = TASK.look(torch.nn.functional.one_hot(TEACHER.long(), 3).permute(0, 3, 1, 2).float() * 9)
    assert TASK.groups(seen.answers).tolist() == [0, 0]
    assert TASK.counts(seen.answers, CARD) == [2, 0, 0]
    assert TASK.captions(seen, CARD) == ["sky\n50.0 % of it", "sky\n75.0 % of it"]
    found = TASK.first_look(seen, NONE, CARD)
    assert found.accuracy is None
    assert found.sentence.startswith("2 images; the teacher's mean confidence is 99.9")
    masks = (TEACHER + 1) % 3
    assert TASK.first_look(seen, masks, CARD).warnings == ()  # two images prove nothing
    many = TASK.look(torch.nn.functional.one_hot(TEACHER.repeat(5, 1, 1).long(), 3).permute(0, 3, 1, 2).float() * 9)
    assert "do not belong to this teacher" in TASK.first_look(many, masks.repeat(5, 1, 1), CARD).warnings[0]


def test_the_picture_is_written(tmp_path: Path) -> None:
    teacher, student = noisy(3)
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    assert TASK.draw(images, teacher, student, CARD, tmp_path / "overlays.png")
    assert (tmp_path / "overlays.png").stat().st_size > 1000


def test_the_difference_of_accuracies_is_over_pixels_that_are_known() -> None:
    labels, maps = noisy(30, 0.1)
    reference = maps.clone()
    reference[:, 0] = (labels[:, 0] + 1) % 3  # a row of every image is wrong
    labels[:, -1] = VOID
    found = pixel_accuracy_difference(reference, maps, labels)
    before, after = pixel_accuracy(reference, labels), pixel_accuracy(maps, labels)
    assert found is not None
    assert before is not None
    assert after is not None
    assert found.value == pytest.approx(after.value - before.value)
    assert 0.0 < found.low < found.value < found.high
    assert found.high - found.low < after.high - before.low  # paired: the noise that both have counts for neither
    assert (found.n, found.gained, found.lost, found.p_value) == (30, None, None, None)


def test_maps_that_are_alike_and_few_images_are_no_proof() -> None:
    labels, maps = noisy(30, 0.1)
    alike = pixel_accuracy_difference(maps, maps, labels)
    assert alike is not None
    assert alike.value == 0.0
    assert alike.low == pytest.approx(-0.1135, abs=1e-4)  # Wilson's interval of 30 of 30 ends at 0.8865
    assert alike.high == -alike.low
    few = pixel_accuracy_difference(maps[:3], labels[:3], labels[:3])
    assert few is not None
    assert few.high - few.low > 1.0
    single = pixel_accuracy_difference(maps[:1], labels[:1], labels[:1])
    assert single is not None
    assert (single.low, single.high, single.n) == (-1.0, 1.0, 1)
    assert pixel_accuracy_difference(maps, maps, torch.full((30,), -1)) is None
    assert pixel_accuracy_difference(maps, maps, torch.full_like(labels, VOID)) is None
