"""Torchvision's classifiers as teachers and as bodies."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch import nn
from torchvision import models

from compressor.distill.graft import matching_blocks
from compressor.errors import InputRefused
from compressor.inputs.intake import read_teacher
from compressor.inputs.settle import checked_identity
from compressor.inputs.teacher import Classifier
from compressor.students.architectures import ARCHITECTURES, build_network, feature_shape, split_backbone
from compressor.students.student import named_backbone
from compressor.students.unallocated import Unallocated

# The smallest of each kind of head and body, with a small image that it takes.
EACH_KIND = {
    "densenet121": 32,
    "mnasnet0_5": 32,
    "regnet_y_400mf": 32,
    "shufflenet_v2_x0_5": 32,
    "squeezenet1_1": 32,
    "mobilenet_v3_small": 32,
    "alexnet": 64,
}
LARGER = {"googlenet": 32, "efficientnet_b0": 32, "convnext_tiny": 32, "swin_t": 32, "vgg11_bn": 32, "inception_v3": 80}
LARGEST = {"vit_b_32": 224, "maxvit_t": 224}
each = pytest.mark.parametrize(
    ("name", "side"),
    [
        *EACH_KIND.items(),
        *(pytest.param(name, side, marks=pytest.mark.slow) for name, side in {**LARGER, **LARGEST}.items()),
    ],
)


def test_every_classifier_of_torchvision_is_here() -> None:
    assert set(models.list_models(module=models)) <= set(ARCHITECTURES)


@each
def test_a_teacher_answers_like_its_network_and_its_classifier_reads_its_map(name: str, side: int) -> None:
    teacher = tiny.teacher(name, image_shape=(3, side, side))
    for head in (layer for layer in teacher.network.modules() if isinstance(layer, nn.Linear)):
        if not head.weight.any():  # torchvision starts ViT's at zero
            nn.init.normal_(head.weight, std=0.02)
    images = torch.rand(2, 3, side, side, requires_grad=True)
    said = teacher(images)
    assert torch.equal(said.logits, Classifier(teacher)(images))
    assert torch.allclose(teacher.classifier(said.feature_map.mean(dim=(2, 3))), said.logits, atol=1e-4)
    assert said.features.shape == (2, teacher.feature_dim)
    assert checked_identity(teacher, None) is not None
    (gradient,) = torch.autograd.grad(said.logits.square().sum(), images)
    assert bool(gradient.abs().sum() > 0)


@each
def test_a_body_ends_in_a_map(name: str, side: int) -> None:
    teacher = tiny.teacher(name, image_shape=(3, side, side))
    depth, height, width = feature_shape(split_backbone(teacher.network, name), (3, side, side))
    assert depth > 0
    assert 1 <= height == width <= side


def test_folding_changes_no_answer_of_a_map_that_is_worked_on_in_place() -> None:
    teacher = tiny.teacher("densenet121", image_shape=(3, 32, 32))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        plain = teacher(images)
        with teacher.folded():
            folded = teacher(images)
    assert bool((plain.feature_map >= 0).all())
    assert torch.allclose(plain.feature_map, folded.feature_map, atol=1e-3)
    assert torch.allclose(plain.logits, folded.logits, atol=1e-3)


def test_grafting_refuses_a_head_that_it_would_leave_out() -> None:
    teacher = tiny.teacher("squeezenet1_1", image_shape=(3, 32, 32))
    assert not teacher.classifies_its_map
    assert tiny.teacher().classifies_its_map
    with pytest.raises(InputRefused, match="more than an average between map and classifier"):
        matching_blocks(teacher, named_backbone("squeezenet1_1", 3))


def test_only_one_size_fits_a_network_that_names_positions(tmp_path: Path) -> None:
    with Unallocated():
        network = build_network("vit_b_32", 3)
    torch.save({name: torch.zeros(value.shape) for name, value in network.state_dict().items()}, tmp_path / "t.pt")
    with pytest.raises(InputRefused, match="takes 224x224 pixels and nothing else"):
        read_teacher(tmp_path / "t.pt", overrides={"input_size": 64})
