"""A classifier of one output becomes one of two classes, exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import InputRefused
from compressor.inputs.intake import TeacherSource, read_teacher
from compressor.inputs.one_logit import ONE_LOGIT
from compressor.inputs.teacher import load_teacher
from compressor.students.architectures import build_network


def network(architecture: str, *, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    made = build_network(architecture, 1)
    if not bias:
        made.fc = nn.Linear(made.get_submodule("fc").in_features, 1, bias=False)  # type: ignore[arg-type]
    return made.eval()


def read(tmp_path: Path, one: nn.Module, architecture: str, **overrides: Any) -> TeacherSource:
    torch.save(one.state_dict(), tmp_path / "t.pt")
    normalised = {"mean": (0.0,) * 3, "std": (1.0,) * 3, "input_size": 32}
    return read_teacher(tmp_path / "t.pt", architecture=architecture, overrides={**normalised, **overrides})


def opinions(source: TeacherSource, images: Tensor) -> Tensor:
    assert source.card is not None
    return load_teacher(source.state_dict, source.card)(images).logits


@pytest.mark.parametrize("architecture", ["cifar_resnet8", "mobilenet_v3_small", "squeezenet1_1"])
def test_the_softmax_of_the_two_is_the_sigmoid_of_the_one(tmp_path: Path, architecture: str) -> None:
    one, images = network(architecture), torch.rand(4, 3, 32, 32)
    source = read(tmp_path, one, architecture)
    with torch.no_grad():
        yes = torch.sigmoid(one(images))
    assert torch.allclose(opinions(source, images).softmax(dim=1), torch.cat([1 - yes, yes], dim=1), atol=1e-6)
    assert source.card is not None
    assert source.card.class_names == ("0", "1")
    assert ONE_LOGIT in source.warnings
    assert "the classes of t.pt are called 0 and 1" in " ".join(source.warnings)


def test_a_regression_keeps_its_number(tmp_path: Path) -> None:
    one, images = network("cifar_resnet8"), torch.rand(4, 3, 32, 32)
    source = read(tmp_path, one, "cifar_resnet8", task="regression")
    with torch.no_grad():
        assert torch.allclose(opinions(source, images), one(images), atol=1e-6)
    assert ONE_LOGIT not in source.warnings


def test_a_card_that_counts_outputs_is_understood(tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text("num_classes: 1\nclass_names: [cat, dog]\n")
    source = read(tmp_path, network("cifar_resnet8"), "cifar_resnet8")
    assert (source.card_facts["num_classes"], source.card_facts["class_names"]) == (2, ("cat", "dog"))


def test_one_name_for_two_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match=r"names one class, 'dog'.*State both, such as 'not dog' and 'dog'"):
        read(tmp_path, network("cifar_resnet8"), "cifar_resnet8", class_names=("dog",))
