"""Which of the teacher's blocks a shallower student takes, and when it takes none."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from compressor.students.architectures import split_backbone
from compressor.students.inherit import inherit_weights
from compressor.students.specification import build_backbone

BLOCKS = {  # student, teacher: the teacher's block that each of the student's takes, in a stage
    ("cifar_resnet18", "cifar_resnet34"): [[0, 2], [0, 3], [0, 5], [0, 2]],
    ("cifar_resnet14", "cifar_resnet32"): [[0, 4]] * 3,
    ("cifar_resnet8", "cifar_resnet20"): [[0]] * 3,
    ("cifar_resnet20", "cifar_resnet20"): [[0, 1, 2]] * 3,
}


@pytest.mark.parametrize(("names", "blocks"), BLOCKS.items(), ids=str)
def test_first_from_first_last_from_last_and_evenly_between(names: tuple[str, str], blocks: list[list[int]]) -> None:
    teacher = tiny.teacher(names[1], width=0.25)
    body = tiny.backbone(names[0], width=0.25, seed=1)
    assert inherit_weights(body, split_backbone(teacher.network, names[1])) == 1.0
    for stage, taken in enumerate(blocks):
        for block, other in enumerate(taken):
            own = body.get_submodule(f"layers.{stage}.{block}").state_dict()
            assert tiny.equal(own, teacher.network.get_submodule(f"layers.{stage}.{other}").state_dict())
    assert tiny.equal(body.bn1.state_dict(), teacher.network.bn1.state_dict())  # type: ignore[union-attr, operator]


def test_the_teacher_is_copied_and_not_shared() -> None:
    teacher = tiny.teacher("cifar_resnet14")
    before = tiny.snapshot(teacher)
    body = build_backbone("cifar_resnet8", teacher, channel_multiple=1, seed=0)
    assert body.inherited == 1.0
    assert all(parameter.requires_grad for parameter in body.parameters())
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(1.0)
    assert tiny.equal(tiny.snapshot(teacher), before)


@pytest.mark.parametrize(
    ("student", "teacher", "inherits"),
    [
        ("cifar_wrn16_2", "cifar_wrn40_2", True),
        ("resnet18", "resnet34", True),
        ("resnet50", "resnet101", True),
        ("resnet18", "resnet50", False),
        ("cifar_wrn16_1", "cifar_wrn40_2", False),
        ("mobilenet_v3_small", "mobilenet_v3_large", False),
        ("cifar_mobilenet_v2", "cifar_resnet34", False),
    ],
)
def test_families_of_equal_widths_inherit_and_others_do_not(student: str, teacher: str, inherits: bool) -> None:
    torch.manual_seed(0)
    body, other = tiny.backbone(student, width=1.0), tiny.backbone(teacher, width=1.0, seed=1)
    before = tiny.snapshot(body)
    share = inherit_weights(body, other)
    assert (share == 1.0) if inherits else (share == 0.0 and tiny.equal(tiny.snapshot(body), before))


def test_a_body_that_is_mostly_another_keeps_its_own_weights() -> None:
    def chain(*widths: int) -> nn.Sequential:
        return nn.Sequential(*(nn.Linear(width, width) for width in widths))

    assert inherit_weights(chain(2, 8), chain(2, 9)) == 0.0
    assert inherit_weights(chain(8, 2), chain(8, 3)) == pytest.approx(72 / 78)


def test_an_inherited_body_begins_near_its_teacher() -> None:
    """A residual network less some of its blocks is nearer to the whole than a random one is."""
    teacher = tiny.teacher("cifar_resnet20")
    images = tiny.images(8).float() / 255.0
    target = teacher(images).feature_map
    inherited = build_backbone("cifar_resnet14", teacher, channel_multiple=1, seed=0)
    random = tiny.backbone("cifar_resnet14", width=1.0)
    distances = [
        (body(teacher.normalise(images)) - target).square().mean().item() for body in (inherited.eval(), random.eval())
    ]
    assert distances[0] < distances[1]
