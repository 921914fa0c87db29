"""Every kind of teacher that there is, from its file through intake to one step of the default method."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn

from compressor.distill.training import Context, read_log
from compressor.inputs.intake import read_teacher
from compressor.inputs.settle import checked_identity
from compressor.inputs.teacher import load_teacher
from compressor.methods import hidfd
from compressor.students.architectures import build_network
from compressor.students.specification import build_backbone

MLP_HEAD = """
from torch import nn

def build():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(32, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 4),
    )
"""

Change = Callable[[nn.Module], nn.Module]


def same(network: nn.Module) -> nn.Module:
    return network


@pytest.mark.parametrize(
    ("image_shape", "num_outputs", "change"),
    [
        pytest.param((3, 8, 8), 4, same, id="colour"),
        pytest.param((1, 8, 8), 4, same, id="grey"),
        pytest.param((4, 8, 8), 4, same, id="four channels"),
        pytest.param((3, 8, 12), 4, same, id="not square"),
        pytest.param((3, 8, 8), 1, same, id="one logit"),
        pytest.param((3, 8, 8), 2, same, id="two classes"),
        pytest.param((3, 8, 8), 1000, same, id="a thousand classes"),
        pytest.param((3, 8, 8), 4, nn.Module.half, id="float16"),
        pytest.param((3, 8, 8), 4, nn.Module.bfloat16, id="bfloat16"),
        pytest.param((3, 8, 8), 4, nn.Module.double, id="float64"),
        pytest.param((3, 8, 8), 4, lambda net: net.to(memory_format=torch.channels_last), id="channels last"),
    ],
)
def test_a_network_of_ours(tmp_path: Path, image_shape: tuple[int, int, int], num_outputs: int, change: Change) -> None:
    torch.manual_seed(0)
    network = change(build_network(tiny.ARCHITECTURE, num_outputs, image_shape[0]))
    torch.save(network.state_dict(), tmp_path / "t.pt")
    takes_one_step(tmp_path, image_shape, num_classes=max(2, num_outputs), student="width:0.5")


@pytest.mark.parametrize("student", ["prune:0.5", "cifar_resnet8"])
def test_an_mlp_head_of_the_users_own_code(tmp_path: Path, student: str) -> None:
    code = tmp_path / "net_with_head.py"
    code.write_text(MLP_HEAD)
    space: dict[str, Any] = {}
    exec(MLP_HEAD, space)
    torch.manual_seed(0)
    torch.save(space["build"]().state_dict(), tmp_path / "t.pt")
    takes_one_step(tmp_path, (3, 8, 8), 4, student, architecture="net_with_head:build", code=code)


def takes_one_step(
    folder: Path, image_shape: tuple[int, int, int], num_classes: int, student: str, **options: Any
) -> None:
    """`t.pt` becomes a teacher of the card, and a student of it has a finite loss and finite logits."""
    channels, *sides = image_shape
    stated = {"input_size": tuple(sides), "mean": (0.5,) * channels, "std": (0.25,) * channels}
    source = read_teacher(folder / "t.pt", overrides=stated, **options)
    assert source.card is not None
    assert (source.card.input_shape, source.card.num_classes) == (image_shape, num_classes)
    assert {tensor.dtype for tensor in source.state_dict.values()} <= {torch.float32, torch.int64}
    teacher = load_teacher(source.state_dict, source.card)
    assert checked_identity(teacher, None) is not None
    backbone = build_backbone(student, teacher, channel_multiple=4, seed=0)
    settings = tiny.settings(hidfd.Config, generator_steps=1, student_steps=1)
    distilled = hidfd.distill(
        teacher, backbone, tiny.training_images(8, image_shape), settings, Context(folder, seed=0)
    )
    terms = [value for row in read_log(folder / "log.jsonl") for value in row["terms"].values()]
    assert terms
    assert all(map(math.isfinite, terms))
    logits = distilled.student(torch.rand(2, *image_shape))
    assert logits.shape == (2, num_classes)
    assert logits.isfinite().all()
