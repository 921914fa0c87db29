"""Grafting: the two phases, what they train, and what it is worth to a pruned student."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor

from compressor.distill.graft import Grafts
from compressor.distill.training import Context
from compressor.errors import InputRefused
from compressor.methods import TrainingImages, netgraft
from compressor.students.prune import pruned_backbone


def few(count: int = 16) -> TrainingImages:
    return tiny.training_images(count, num_pool=0)


def test_blocks_come_one_by_one_and_then_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[tuple[int, int]] = []
    forward = Grafts.forward

    def look(self: Grafts, images: Tensor, first: int, last: int) -> Tensor:
        places.append((first, last))
        return forward(self, images, first, last)

    monkeypatch.setattr(Grafts, "forward", look)
    settings = tiny.settings(netgraft.Config, graft_steps=7, student_steps=4)
    distilled = netgraft.distill(tiny.teacher(), tiny.backbone(), few(), settings, Context(tmp_path))
    assert places == [(0, 0)] * 3 + [(1, 1)] * 2 + [(2, 2)] * 2 + [(0, 1)] * 2 + [(0, 2)] * 2
    assert distilled.facts["num_blocks"] == 3


def test_the_student_is_a_plain_network(tmp_path: Path) -> None:
    teacher = tiny.teacher()
    backbone = pruned_backbone(teacher, 0.5, channel_multiple=4)
    student = netgraft.distill(teacher, backbone, few(), tiny.settings(netgraft.Config), Context(tmp_path)).student
    assert not student.card.projector
    assert student.card.pruned
    assert {name.partition(".")[0] for name in student.state_dict()} == {"normalise", "backbone", "classifier"}


def test_a_pruned_student_is_repaired(tmp_path: Path) -> None:
    """Distance of the logits' directions to the teacher's, on other images than those trained on."""
    teacher = tiny.teacher()
    other = tiny.images(64, seed=77).float() / 255.0

    def distance(steps: int) -> float:
        folder = tmp_path / str(steps)
        folder.mkdir()
        backbone = pruned_backbone(teacher, 0.3, channel_multiple=4)
        settings = netgraft.Config(graft_steps=steps, student_steps=steps, student_batch_size=16, mirror="off")
        student = netgraft.distill(teacher, backbone, few(24), settings, Context(folder)).student
        with torch.no_grad():
            ours, theirs = (torch.nn.functional.normalize(x, dim=1) for x in (student(other), teacher(other).logits))
        return float((ours - theirs).square().sum(dim=1).mean())

    assert distance(60) < 0.5 * distance(1)


def test_another_layout_is_refused_before_anything_trains(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=r"cifar_resnet14\) has 8 layers.*--student prune:0.4"):
        netgraft.distill(
            tiny.teacher(), tiny.backbone("cifar_resnet14"), few(), tiny.settings(netgraft.Config), Context(tmp_path)
        )
    assert list(tmp_path.iterdir()) == []
