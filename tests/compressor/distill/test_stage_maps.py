"""Which stages of student and teacher are paired, and what the hint between them is."""

from __future__ import annotations

import pytest
import tiny
import torch

from compressor.distill import losses
from compressor.distill.stage_maps import StagePairs, recorded_maps
from compressor.inputs.teacher import Teacher
from compressor.students.student import Student, classifier_sharing


def pair(student: str, teacher: str, side: int) -> tuple[Student, Teacher, StagePairs]:
    shape = (3, side, side)
    its_teacher = tiny.teacher(teacher, image_shape=shape)
    its_student = classifier_sharing(tiny.backbone(student), its_teacher)
    images = tiny.images(4, shape).float() / 255.0
    return its_student, its_teacher, StagePairs(its_student, its_teacher, images)


@pytest.mark.parametrize(
    ("student", "teacher", "side", "sizes"),
    [
        ("cifar_resnet8", "cifar_resnet14", 16, [16, 8]),
        ("cifar_resnet18", "cifar_resnet34", 32, [32, 16, 8]),
        ("cifar_mobilenet_v2", "cifar_resnet34", 16, [16, 8, 4]),
        ("cifar_wrn16_1", "cifar_wrn40_2", 16, [16, 8]),
        ("mobilenet_v2", "resnet18", 64, [16, 8, 4]),
        ("cifar_resnet8", "lenet5", 32, []),
    ],
)
def test_stages_are_paired_by_the_size_of_their_maps(student: str, teacher: str, side: int, sizes: list[int]) -> None:
    network, its_teacher, pairs = pair(student, teacher, side)
    images = tiny.images(2, (3, side, side)).float() / 255.0
    with torch.no_grad(), recorded_maps(pairs.teacher_stages) as theirs:
        its_teacher(images)
    with torch.no_grad(), recorded_maps(pairs.student_stages) as ours:
        network.eval().feature_map(images)
    assert [found.shape[2] for found in theirs] == sizes
    adapted = pairs(ours)
    assert [found.shape for found in adapted] == [found.shape for found in theirs]


def test_the_teachers_stages_are_whole_ones_and_its_last_map_is_not_among_them() -> None:
    _, teacher, pairs = pair("cifar_resnet8", "cifar_resnet14", 16)
    assert list(pairs.teacher_stages) == [teacher.network.get_submodule(f"layers.{stage}") for stage in (0, 1)]


def test_looking_at_the_networks_changes_neither() -> None:
    teacher = tiny.teacher()
    student = classifier_sharing(tiny.backbone(), teacher).train()
    before = tiny.snapshot(student), tiny.snapshot(teacher)
    pairs = StagePairs(student, teacher, tiny.images(4).float() / 255.0)
    assert tiny.equal(tiny.snapshot(student), before[0])
    assert tiny.equal(tiny.snapshot(teacher), before[1])
    assert student.training
    assert not any(module._forward_hooks for network in (student, teacher) for module in network.modules())
    assert not any(name.startswith(("student", "teacher")) for name in pairs.state_dict())


def test_scales_are_the_variances_of_the_teachers_maps() -> None:
    student, teacher, _ = pair("cifar_resnet8", "cifar_resnet14", 16)
    images = tiny.images(4, (3, 16, 16)).float() / 255.0
    pairs = StagePairs(student, teacher, images)
    with torch.no_grad(), recorded_maps(pairs.teacher_stages) as maps:
        teacher(images)
    assert torch.allclose(pairs.scales, torch.stack([found.var() for found in maps]))


def test_stage_alignment_is_the_mean_of_the_relative_errors() -> None:
    ones, twos = torch.ones(2, 3, 4, 4), torch.full((2, 3, 2, 2), 2.0)
    loss = losses.stage_alignment([ones, twos], [ones + 1.0, twos + 2.0], torch.tensor([0.5, 4.0]))
    assert loss.item() == pytest.approx((1.0 / 0.5 + 4.0 / 4.0) / 2)
    assert losses.stage_alignment([ones], [ones], torch.tensor([0.5])).item() == 0.0
