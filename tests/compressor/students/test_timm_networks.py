"""Networks of timm, where it is installed, and what is said where it is not."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from compressor.errors import InputRefused, UsageFault
from compressor.inputs.identify import computed_form, matching_architectures
from compressor.inputs.intake import read_teacher
from compressor.inputs.known_forms import known_forms
from compressor.inputs.settle import checked_identity
from compressor.inputs.teacher import load_teacher
from compressor.students.architectures import build_network, feature_shape, split_backbone
from compressor.students.timm_networks import RECOGNISED, timm_architecture
from compressor.students.unallocated import Unallocated

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is an extra")
pytestmark = pytest.mark.filterwarnings("ignore")


@needs_timm
@pytest.mark.parametrize("name", ["timm:resnet18", "timm:mobilenetv3_small_050", "timm:convnext_atto"])
def test_a_network_of_timm_is_a_teacher_and_a_body(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    network = build_network(name, 5, 1).eval()
    torch.save({"state_dict": network.state_dict(), "arch": name}, tmp_path / "t.pt")
    overrides = {"mean": (0.5,), "std": (0.5,), "input_size": 64}
    source = read_teacher(tmp_path / "t.pt", architecture=name, overrides=overrides)
    assert source.card is not None
    assert (source.card.num_classes, source.card.input_shape) == (5, (1, 64, 64))
    teacher = load_teacher(source.state_dict, source.card)
    assert checked_identity(teacher, None) is not None
    images = torch.rand(2, 1, 64, 64)
    assert torch.allclose(teacher(images).logits, network((images - 0.5) / 0.5), atol=1e-4)
    depth, height, _ = feature_shape(split_backbone(teacher.network, name).eval(), (1, 64, 64))
    assert depth > 100
    assert height == 2
    assert torch.allclose(teacher(images).logits, network((images - 0.5) / 0.5), atol=1e-4)  # it is whole still


@needs_timm
def test_a_name_that_timm_does_not_have_is_a_usage_fault(tmp_path: Path) -> None:
    torch.save(build_network("cifar_resnet8", 5).state_dict(), tmp_path / "t.pt")
    for name in ("timm:no_such_net", "timm:", "timm:timm:resnet18"):
        with pytest.raises(UsageFault, match=r"timm\.list_models"):
            read_teacher(tmp_path / "t.pt", architecture=name)


def test_without_timm_the_way_to_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    timm_architecture.cache_clear()
    torch.save(build_network("cifar_resnet8", 5).state_dict(), tmp_path / "t.pt")
    with pytest.raises(UsageFault, match="pip install timm"):
        read_teacher(tmp_path / "t.pt", architecture="timm:resnet18")
    timm_architecture.cache_clear()


@needs_timm
@pytest.mark.parametrize("name", ["timm:convnext_atto", "timm:mobilenetv3_small_050", "timm:vit_tiny_patch16_224"])
def test_weights_of_a_common_network_are_recognised(tmp_path: Path, name: str) -> None:
    with Unallocated():
        network = build_network(name, 5)
    assert matching_architectures(network.state_dict()) == (name,)
    assert known_forms()[name] == computed_form(name)


@needs_timm
@pytest.mark.slow
@pytest.mark.parametrize("name", RECOGNISED)
def test_the_table_has_the_forms_of_this_timm(name: str) -> None:
    assert known_forms()[name] == computed_form(name)


@needs_timm
def test_networks_that_weights_do_not_tell_apart_are_a_question(tmp_path: Path) -> None:
    torch.save(build_network("timm:mobilenetv3_small_100", 5).state_dict(), tmp_path / "t.pt")
    with pytest.raises(InputRefused, match="timm:mobilenetv3_small_100, timm:tf_mobilenetv3_small_100") as refused:
        read_teacher(tmp_path / "t.pt")
    assert refused.value.action.endswith("such as --arch timm:mobilenetv3_small_100.")
    overrides = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    source = read_teacher(tmp_path / "t.pt", architecture="timm:tf_mobilenetv3_small_100", overrides=overrides)
    assert source.card is not None
    assert source.card.architecture == "timm:tf_mobilenetv3_small_100"


@needs_timm
def test_recognised_weights_without_timm_name_the_way_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(build_network("timm:convnext_atto", 5).state_dict(), tmp_path / "t.pt")
    monkeypatch.setitem(sys.modules, "timm", None)
    timm_architecture.cache_clear()
    with pytest.raises(InputRefused, match=r"has the names and shapes of timm:convnext_atto.*pip install timm"):
        read_teacher(tmp_path / "t.pt")
    timm_architecture.cache_clear()
