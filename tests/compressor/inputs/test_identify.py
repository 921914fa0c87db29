"""Which architecture a state dict belongs to."""

from __future__ import annotations

import pytest
import torch

from compressor.inputs.identify import (
    channel_count,
    class_count,
    compare,
    expected_forms,
    layer_types,
    matching_architectures,
    without_wrapper,
)
from compressor.students.architectures import build_network, teacher_architectures


@pytest.mark.parametrize("name", teacher_architectures())
def test_every_teacher_architecture_is_recognised_and_no_other(name: str) -> None:
    with torch.device("meta"):
        tensors = build_network(name, 7, in_channels=1).state_dict()
    assert matching_architectures(tensors) == (name,)
    assert (class_count(tensors, name), channel_count(tensors, name)) == (7, 1)


def test_comparing_allocates_nothing_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    expected_forms.cache_clear()
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
    for name in teacher_architectures():
        assert len({key.partition(".")[0] for key in expected_forms(name, 2, 3, 1.0)}) > 1


def test_class_count_needs_a_matrix() -> None:
    assert class_count({"fc.weight": torch.zeros(3)}, "resnet18") is None
    assert class_count({}, "resnet18") is None
    assert channel_count({"conv1.weight": torch.zeros(3)}, "resnet18") is None
