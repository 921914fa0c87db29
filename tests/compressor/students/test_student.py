"""The deployed student: its parts, its shapes, and that its files hold all of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from compressor.errors import InputRefused
from compressor.inputs.teacher import Normalise
from compressor.students.architectures import ARCHITECTURES, feature_shape
from compressor.students.prune import pruned_backbone
from compressor.students.student import (
    Backbone,
    Student,
    as_shipped,
    classifier_sharing,
    load_backbone,
    load_student,
    make_projector,
    named_backbone,
    own_classifier,
    rebuild_student,
    save_backbone,
    save_student,
)


def num_params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


CLASSIFIERS = {name for name, entry in ARCHITECTURES.items() if "classification" in entry.tasks and entry.is_candidate}


# The two deepest are resnet50's code; building them takes seconds.
@pytest.mark.parametrize("name", sorted(CLASSIFIERS - {"resnet101", "resnet152"}))
def test_every_architecture_shares_the_teachers_classifier(name: str) -> None:
    teacher = tiny.teacher(image_shape=(3, 32, 32))  # a map of 8x8 and 64 channels
    backbone = named_backbone(name, 3)
    student = classifier_sharing(backbone, teacher).eval()
    images = torch.rand(2, 3, 32, 32)
    _, height, width = feature_shape(backbone, (3, 32, 32))
    assert student.feature_map(images).shape == (2, 64, min(height, 8), min(width, 8))
    assert student(images).shape == (2, tiny.NUM_CLASSES)
    assert student.card.architecture == name


@pytest.mark.parametrize(
    ("student", "teacher", "map_size"),
    [
        ("cifar_resnet8", "cifar_resnet8", None),  # 8x8 and 8x8
        ("cifar_resnet8", "resnet18", (1, 1)),  # 8x8 is pooled to the teacher's 1x1
        ("resnet18", "cifar_resnet8", None),  # 1x1 stays; the loss pools the teacher's 8x8
    ],
)
def test_the_larger_map_is_pooled(student: str, teacher: str, map_size: tuple[int, int] | None) -> None:
    made = classifier_sharing(tiny.backbone(student), tiny.teacher(teacher, image_shape=(3, 32, 32)))
    assert made.card.map_size == map_size
    if map_size is not None:
        assert made.eval().feature_map(torch.rand(1, 3, 32, 32)).shape[-2:] == map_size


def test_the_classifier_is_a_frozen_copy() -> None:
    teacher = tiny.teacher()
    student = classifier_sharing(tiny.backbone(), teacher)
    assert student.classifier is not teacher.classifier
    assert torch.equal(student.classifier.weight, teacher.classifier.weight)
    assert torch.equal(student.classifier.bias, teacher.classifier.bias)
    assert not any(parameter.requires_grad for parameter in student.classifier.parameters())
    assert all(parameter.requires_grad for parameter in student.projector.parameters())
    assert all(parameter.requires_grad for parameter in student.backbone.parameters())


def test_logits_are_the_classifier_on_the_pooled_projected_map() -> None:
    student = classifier_sharing(tiny.backbone(), tiny.teacher()).eval()
    images = torch.rand(3, *tiny.IMAGE_SHAPE)
    projected = student.projector(student.backbone(Normalise(tiny.card())(images)))
    assert torch.allclose(student(images), student.classifier(projected.mean(dim=(2, 3))), atol=1e-6)


def test_a_student_of_its_own_has_a_new_classifier() -> None:
    student = own_classifier(tiny.backbone(), tiny.teacher())
    assert isinstance(student.projector, nn.Identity)
    assert (student.classifier.in_features, student.classifier.out_features) == (32, tiny.NUM_CLASSES)
    assert all(parameter.requires_grad for parameter in student.classifier.parameters())
    assert student(torch.rand(2, *tiny.IMAGE_SHAPE)).shape == (2, tiny.NUM_CLASSES)


# --- other tasks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["unet8", "lraspp_mobilenet_v3_large", "deeplabv3_mobilenet_v3_large"])
def test_a_student_of_every_pixel_upsamples_a_1x1_convolution(name: str) -> None:
    teacher = tiny.dense_teacher(image_shape=(3, 32, 48))
    student = own_classifier(named_backbone(name, 3), teacher).eval()
    images = torch.rand(2, 3, 32, 48)
    assert isinstance(student.classifier, nn.Conv2d)
    assert student.classifier.kernel_size == (1, 1)
    small = student.classifier(student.feature_map(images))
    rebuilt = nn.functional.interpolate(small, (32, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(student(images), rebuilt)
    assert student(images).shape == (2, tiny.NUM_CLASSES, 32, 48)


def test_the_classifier_of_every_pixel_is_not_shared() -> None:
    with pytest.raises(InputRefused) as refused:
        classifier_sharing(tiny.dense_backbone(), tiny.dense_teacher())
    assert refused.value.received == "The teacher (unet8) does segmentation."


def test_numbers_come_from_a_linear_layer() -> None:
    student = own_classifier(tiny.backbone(), tiny.teacher(task="regression", num_classes=1))
    assert isinstance(student.classifier, nn.Linear)
    assert student(torch.rand(2, *tiny.IMAGE_SHAPE)).shape == (2, 1)


@pytest.mark.parametrize(("task", "projects"), [("classification", True), ("regression", False)])
def test_only_a_classifier_is_counted_with_a_projector(task: str, projects: bool) -> None:
    student = as_shipped(tiny.backbone(), tiny.teacher(task=task))
    assert student.card.projector is projects
    assert not as_shipped(tiny.dense_backbone(), tiny.dense_teacher()).card.projector


# --- the projector --------------------------------------------------------------------------------------------------


def test_the_projector_is_simkds() -> None:
    backbone = named_backbone("cifar_resnet18", 3)
    projector = make_projector(backbone, 512, 512)
    assert num_params(projector) == 854_016  # the official code's count at 512 -> 512
    kinds = [type(layer).__name__ for layer in projector]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 3
    assert projector(torch.rand(2, 512, 4, 4)).shape == (2, 512, 4, 4)


@pytest.mark.parametrize(
    ("student", "feature_dim", "middle"),
    [
        ("cifar_resnet18", 512, 256),
        ("mobilenet_v2", 1280, 320),
        ("cifar_resnet8", 512, 64),
        ("mobilenet_v3_small", 2048, 128),
    ],
)
def test_the_projector_does_not_outweigh_the_backbone(student: str, feature_dim: int, middle: int) -> None:
    backbone = named_backbone(student, 3)
    in_channels = feature_shape(backbone, (3, 32, 32))[0]
    projector = make_projector(backbone, in_channels, feature_dim)
    convolutions = sum(layer.weight.numel() for layer in projector if isinstance(layer, nn.Conv2d))
    assert convolutions <= num_params(backbone)
    first = projector[0]
    assert isinstance(first, nn.Conv2d)
    assert first.out_channels == middle


def test_where_no_factor_fits_the_projector_is_the_smallest() -> None:
    backbone = tiny.backbone(width=0.01)
    first = make_projector(backbone, 8, 2048)[0]
    assert isinstance(first, nn.Conv2d)
    assert first.out_channels == 2048 // 16


# --- files ----------------------------------------------------------------------------------------------------------


def shared(backbone: Backbone, **teacher: Any) -> Student:
    return classifier_sharing(backbone, tiny.teacher(**teacher))


def pruned(ratio: float, multiple: int, **teacher: Any) -> Backbone:
    return pruned_backbone(tiny.teacher(**teacher), ratio, channel_multiple=multiple)


def shared_without_bias() -> Student:
    teacher = tiny.teacher()
    teacher.classifier.register_parameter("bias", None)
    return classifier_sharing(tiny.backbone(), teacher)


WIDE: dict[str, Any] = {"architecture": "cifar_wrn16_2"}
SMALL_MOBILE: dict[str, Any] = {"architecture": "cifar_mobilenet_v2", "image_shape": (3, 16, 16)}
MOBILE: dict[str, Any] = {"architecture": "mobilenet_v2", "image_shape": (3, 32, 32)}
DENSE: dict[str, Any] = {"architecture": tiny.DENSE}
LITE: dict[str, Any] = {"architecture": "lraspp_mobilenet_v3_large", "image_shape": (3, 32, 32)}
STUDENTS: dict[str, Callable[[], Student]] = {
    "shared classifier": lambda: shared(tiny.backbone()),
    "own classifier": lambda: own_classifier(tiny.backbone(), tiny.teacher()),
    "pruned": lambda: shared(pruned(0.5, 8)),
    "pruned, own classifier": lambda: own_classifier(pruned(0.3, 1), tiny.teacher()),
    "pruned wide resnet": lambda: shared(pruned(0.5, 8, **WIDE), **WIDE),
    "pruned small mobilenet": lambda: shared(pruned(0.5, 8, **SMALL_MOBILE), **SMALL_MOBILE),
    "pruned mobilenet": lambda: shared(pruned(0.5, 8, **MOBILE), **MOBILE),
    "pooled": lambda: shared(tiny.backbone(), architecture="resnet18", image_shape=(3, 32, 32)),
    "grey": lambda: own_classifier(tiny.backbone(in_channels=1), tiny.teacher(image_shape=(1, 8, 8))),
    "no bias": shared_without_bias,
    "every pixel": lambda: own_classifier(tiny.dense_backbone(), tiny.dense_teacher()),
    "every pixel, pruned": lambda: own_classifier(pruned(0.5, 2, **DENSE), tiny.teacher(**DENSE)),
    "lite raspp, pruned": lambda: own_classifier(pruned(0.5, 8, **LITE), tiny.teacher(**LITE)),
    "numbers": lambda: own_classifier(tiny.backbone(), tiny.teacher(task="regression")),
}


@pytest.mark.parametrize("kind", STUDENTS)
def test_a_student_comes_back_from_its_files_bit_by_bit(tmp_path: Path, kind: str) -> None:
    student = STUDENTS[kind]().eval()
    weights, card = tmp_path / "student.safetensors", tmp_path / "student.json"
    save_student(student, weights, card)
    loaded = load_student(weights, card)
    assert tiny.equal(tiny.snapshot(loaded), tiny.snapshot(student))
    assert loaded.card == student.card
    assert not any(module.training for module in loaded.modules())
    images = torch.rand(2, *student.card.input.input_shape)
    assert torch.equal(loaded(images), student(images))


def test_a_student_trained_in_channels_last_is_saved_like_any_other(tmp_path: Path) -> None:
    student = classifier_sharing(tiny.backbone(), tiny.teacher()).to(memory_format=torch.channels_last)
    save_student(student, tmp_path / "s.safetensors", tmp_path / "s.json")
    loaded = load_student(tmp_path / "s.safetensors", tmp_path / "s.json")
    assert tiny.equal(tiny.snapshot(loaded), tiny.snapshot(student))


def test_weights_of_another_student_are_not_accepted() -> None:
    sharing, own = (make(tiny.backbone(), tiny.teacher()) for make in (classifier_sharing, own_classifier))
    with pytest.raises(RuntimeError, match="projector"):
        rebuild_student(own.card, sharing.state_dict())


def test_the_card_is_readable_and_names_every_class(tmp_path: Path) -> None:
    save_student(classifier_sharing(tiny.backbone(), tiny.teacher()), tmp_path / "s.safetensors", tmp_path / "s.json")
    card = json.loads((tmp_path / "s.json").read_text())
    assert card["architecture"] == "cifar_resnet8"
    assert card["width"] == 0.5
    assert card["projector"] is True
    assert card["input"]["class_names"] == ["class 0", "class 1", "class 2", "class 3"]


@pytest.mark.parametrize("is_pruned", [False, True])
def test_a_backbone_comes_back_from_its_files(tmp_path: Path, is_pruned: bool) -> None:
    backbone = pruned(0.5, 8) if is_pruned else tiny.backbone(width=0.75)
    save_backbone(backbone, tmp_path / "b.safetensors", tmp_path / "b.json")
    loaded = load_backbone(tmp_path / "b.safetensors", tmp_path / "b.json", in_channels=3)
    assert tiny.equal(tiny.snapshot(loaded), tiny.snapshot(backbone))
    assert (loaded.architecture, loaded.width, loaded.pruned) == (backbone.architecture, backbone.width, is_pruned)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
