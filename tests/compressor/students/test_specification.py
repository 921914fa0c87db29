"""What --student may say, and how it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import tiny_networks
import tiny_onnx
import torch

from compressor.errors import InputRefused, UsageFault
from compressor.students.specification import build_backbone, parse_student


@pytest.mark.parametrize(
    ("spec", "parsed"),
    [
        ("width:0.5", ("width", 0.5)),
        ("width:1", ("width", 1.0)),
        ("prune:0.25", ("prune", 0.25)),
        ("cifar_resnet8", ("name", "cifar_resnet8")),
        ("mobilenet_v3_small", ("name", "mobilenet_v3_small")),
        ("auto", ("auto", "auto")),
    ],
)
def test_the_forms(spec: str, parsed: tuple[str, object]) -> None:
    assert parse_student(spec) == parsed


@pytest.mark.parametrize(
    ("spec", "ratio"),
    [
        ("width:0", "0"),
        ("width:1.5", "1.5"),
        ("width:-0.5", "-0.5"),
        ("width:half", "half"),
        ("width:", ""),
        ("width:inf", "inf"),
        ("prune:1", "1"),
        ("prune:nan", "nan"),
        ("prune:50%", "50%"),
    ],
)
def test_bad_ratios_are_refused(spec: str, ratio: str) -> None:
    with pytest.raises(UsageFault) as refused:
        parse_student(spec)
    kind = spec.partition(":")[0]
    assert refused.value.received == f"The student {spec!r} has the ratio {ratio!r}."
    assert refused.value.expected == "A ratio is a number above 0 and below 1 (a width may be 1)."
    assert refused.value.action == f"Use for example --student {kind}:0.5."
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("spec", "action"),
    [
        ("cifar_resnet9", "Did you mean 'cifar_resnet8'?"),
        ("autto", "Did you mean 'auto'?"),
        ("MobileNet_V2", "Did you mean 'mobilenet_v2'?"),
        ("vgg", "Leave --student out, and one that fits is chosen."),
        ("", "Leave --student out, and one that fits is chosen."),
        ("prune", "Did you mean 'prune:0.5'?"),
    ],
)
def test_unknown_students_are_refused(spec: str, action: str) -> None:
    with pytest.raises(UsageFault) as refused:
        parse_student(spec)
    assert refused.value.received == f"Unknown student {spec!r}."
    assert refused.value.expected.startswith("Available: auto, width:RATIO, prune:RATIO, cifar_resnet8, cifar_resnet14")
    assert refused.value.action == action


def test_width_is_relative_to_the_teachers_own() -> None:
    backbone = build_backbone("width:0.5", tiny.teacher(width=2.0), channel_multiple=8, seed=0)
    assert (backbone.architecture, backbone.width, backbone.pruned) == ("cifar_resnet8", 1.0, False)
    assert backbone.get_submodule("conv1").weight.shape == (16, 3, 3, 3)


def test_a_name_is_another_architecture_for_the_teachers_images() -> None:
    backbone = build_backbone("mobilenet_v2", tiny.teacher(image_shape=(1, 8, 8)), channel_multiple=8, seed=0)
    assert (backbone.architecture, backbone.width, backbone.pruned) == ("mobilenet_v2", 1.0, False)
    assert backbone(torch.rand(2, 1, 32, 32)).shape == (2, 1280, 1, 1)


@pytest.mark.parametrize(
    ("spec", "teacher", "received"),
    [
        ("unet8", {}, "does segmentation, and the teacher's task is classification."),
        ("resnet18", {"architecture": "unet8"}, "does classification and regression, and the teacher's task is seg"),
        ("unet8", {"task": "regression"}, "does segmentation, and the teacher's task is regression."),
    ],
)
def test_a_network_for_another_task_is_refused(spec: str, teacher: dict[str, str], received: str) -> None:
    with pytest.raises(UsageFault) as refused:
        build_backbone(spec, tiny.teacher(**teacher), channel_multiple=8, seed=0)
    assert received in refused.value.received
    assert ("unet8" in refused.value.expected) == (spec == "resnet18")


def test_a_network_of_one_width_is_not_made_narrower() -> None:
    teacher = tiny.teacher("lraspp_mobilenet_v3_large", image_shape=(3, 32, 32))
    with pytest.raises(InputRefused) as refused:
        build_backbone("width:0.5", teacher, channel_multiple=8, seed=0)
    assert refused.value.expected == "lraspp_mobilenet_v3_large comes in one width."
    assert refused.value.action == "Use --student prune:0.5, or name a smaller architecture."


def test_pruning_starts_from_the_teacher() -> None:
    backbone = build_backbone("prune:0.5", tiny.teacher(), channel_multiple=8, seed=0)
    assert backbone.pruned
    assert backbone.architecture == "cifar_resnet8"


@pytest.mark.parametrize("spec", ["width:0.5", "cifar_resnet14", "prune:0.5"])
def test_the_seed_decides_the_weights(spec: str) -> None:
    teacher = tiny.teacher()
    one, same, other = (
        tiny.snapshot(build_backbone(spec, teacher, channel_multiple=8, seed=seed)) for seed in (1, 1, 2)
    )
    assert tiny.equal(one, same)
    assert tiny.equal(one, other) == spec.startswith("prune")  # the teacher's own weights have no seed


@pytest.mark.parametrize("spec", ["width:0.5", "prune:0.4"])
def test_students_of_layers_are_refused_where_none_are_known(spec: str, tmp_path: Path) -> None:
    teacher = tiny_networks.teacher(tiny_onnx.write(tmp_path / "t.onnx"), "onnx")
    with pytest.raises(InputRefused, match=r"onnx\), whose layers are not known.*cifar_resnet8.*leave --student out"):
        build_backbone(spec, teacher, channel_multiple=1, seed=0)
    backbone = build_backbone("cifar_resnet8", teacher, channel_multiple=1, seed=0)
    assert backbone.inherited == 0
