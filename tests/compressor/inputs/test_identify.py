"""Which architecture a state dict belongs to."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compressor.inputs import known_forms as known_forms_module
from compressor.inputs.identify import (
    channel_count,
    class_count,
    compare,
    computed_form,
    expected_forms,
    layer_types,
    matching_architectures,
    nearest_architectures,
    remembered_forms,
    without_wrapper,
)
from compressor.inputs.known_forms import known_forms, written_forms
from compressor.students.architectures import ARCHITECTURES, build_network, teacher_architectures
from compressor.students.timm_networks import RECOGNISED
from compressor.students.unallocated import Unallocated

FAMILIES = {ARCHITECTURES[name].family: name for name in reversed(teacher_architectures())}


def check_recognised(name: str) -> None:
    with Unallocated():
        tensors = build_network(name, 7, in_channels=1).state_dict()
    assert matching_architectures(tensors) == (name,)
    assert (class_count(tensors, name), channel_count(tensors, name)) == (7, 1)
    assert known_forms()[name] == computed_form(name)


@pytest.mark.parametrize("name", FAMILIES.values())
def test_the_first_of_every_family_is_recognised_and_no_other(name: str) -> None:
    check_recognised(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(teacher_architectures()) - set(FAMILIES.values())))
def test_every_teacher_architecture_is_recognised_and_no_other(name: str) -> None:
    check_recognised(name)


def test_the_table_of_forms_has_every_architecture_once() -> None:
    assert list(known_forms()) == [*teacher_architectures(), *RECOGNISED]
    ours = [known_forms()[name] for name in teacher_architectures()]
    assert len({(form.free, form.digest) for form in ours}) == len(ours)


def test_a_table_is_read_as_it_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forms = {name: known_forms()[name] for name in ("resnet18", "vit_b_16")}
    monkeypatch.setattr(known_forms_module, "TABLE", tmp_path / "forms.json")
    (tmp_path / "forms.json").write_text(written_forms(forms))
    assert known_forms.__wrapped__() == forms


@pytest.mark.parametrize("change", ["transposed", "renamed", "left out", "added"])
def test_any_change_of_a_name_or_shape_ends_the_match_and_shows_the_nearest(change: str) -> None:
    tensors = build_network("cifar_resnet8", 5).state_dict()
    name = "layers.1.0.conv2.weight"
    tensor = tensors.pop(name)
    tensors |= {
        "transposed": {name: tensor[:, :-1]},
        "renamed": {"layers.1.0.conv9.weight": tensor},
        "left out": {},
        "added": {name: tensor, "more": tensor},
    }[change]
    assert matching_architectures(tensors) == ()
    nearest, differences = nearest_architectures(tensors)[0]
    assert nearest == "cifar_resnet8"
    assert ("more" if change == "added" else "layers.1.0.conv") in str(differences)


def test_strange_tensors_have_no_nearest() -> None:
    assert nearest_architectures({"zzz": torch.zeros(2)}) == ()
    assert nearest_architectures({"layers.weight": torch.zeros(2), "body.0.weight": torch.zeros(2)}) == ()
    assert matching_architectures({"fc.weight": torch.zeros(()), "fc.bias": torch.zeros(2)}) == ()


def test_comparing_allocates_nothing_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    remembered_forms.cache_clear()
    assert expected_forms("cifar_resnet8", 3, 3, 1.0)["fc.weight"].shape == (3, 64)
    layer_types("cifar_resnet8")
    assert torch.equal(torch.get_rng_state(), before)


def test_width_is_part_of_the_comparison() -> None:
    tensors = build_network("cifar_resnet8", 5, width=0.5).state_dict()
    assert not compare("cifar_resnet8", tensors, width=0.5)
    assert compare("cifar_resnet8", tensors)
    assert matching_architectures(tensors) == ()


def test_differences_count_all_and_name_three() -> None:
    tensors = build_network("cifar_resnet8", 5).state_dict()
    renamed = {name.replace("bn1", "norm1"): tensor for name, tensor in tensors.items()}
    renamed["conv1.weight"] = torch.zeros(16, 3, 5, 5)
    text = str(compare("cifar_resnet8", renamed))
    assert "16 missing (bn1.weight, bn1.bias, bn1.running_mean, ...)" in text
    assert "20 unexpected (norm1.weight, norm1.bias, norm1.running_mean, ...)" in text
    assert "1 of another shape (conv1.weight (16, 3, 5, 5) instead of (16, 3, 3, 3))" in text


def test_whole_numbers_do_not_stand_for_weights() -> None:
    tensors = build_network("cifar_resnet8", 5).state_dict()
    tensors["fc.bias"] = tensors["fc.bias"].to(torch.int8)
    assert str(compare("cifar_resnet8", tensors)) == "1 of another shape (fc.bias integer (5,) instead of (5,))"


def test_half_precision_stands_for_single() -> None:
    tensors = build_network("cifar_resnet8", 5).half().state_dict()
    assert tensors["fc.weight"].dtype == torch.float16
    assert not compare("cifar_resnet8", tensors)


def test_counters_of_batch_norm_may_be_missing() -> None:
    tensors = build_network("cifar_resnet8", 5).state_dict()
    old = {name: tensor for name, tensor in tensors.items() if not name.endswith("num_batches_tracked")}
    assert not compare("cifar_resnet8", old)


def test_wrappers_are_dropped_whole() -> None:
    tensors = build_network("cifar_resnet8", 5).state_dict()
    wrapped = {f"module._orig_mod.{name}": tensor for name, tensor in tensors.items()}
    plain, prefix = without_wrapper(wrapped)
    assert prefix == "module._orig_mod."
    assert list(plain) == list(tensors)
    assert without_wrapper(tensors) == (tensors, "")
    assert without_wrapper({}) == ({}, "")
    half_wrapped = {**tensors, "module.fc.weight": tensors["fc.weight"]}
    assert without_wrapper(half_wrapped)[1] == ""


def test_no_architecture_lies_below_one_name() -> None:
    assert all(len(form.parts) > 1 for form in known_forms().values())


def test_class_count_needs_a_matrix() -> None:
    assert class_count({"fc.weight": torch.zeros(3)}, "resnet18") is None
    assert class_count({}, "resnet18") is None
    assert channel_count({"conv1.weight": torch.zeros(3)}, "resnet18") is None
