"""What the samples settle about a teacher, and what is settled without any."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from compressor.errors import InputRefused
from compressor.inputs.intake import TeacherSource, read_teacher
from compressor.inputs.settle import checked_identity, provisional_card, settled_card
from compressor.inputs.teacher import Teacher, load_teacher


def source(folder: Path, **overrides: object) -> TeacherSource:
    torch.save(tiny.teacher().network.state_dict(), folder / "t.pt")
    return read_teacher(folder / "t.pt", architecture=tiny.ARCHITECTURE, overrides={"input_size": 8, **overrides})


def test_a_stated_normalisation_needs_no_samples(tmp_path: Path) -> None:
    card, origin, warnings = settled_card(source(tmp_path, mean=(0.5,) * 3, std=(0.2,) * 3), None)
    assert (card.mean, origin, warnings) == ((0.5,) * 3, "a flag", ())


def test_without_samples_an_unstated_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputRefused) as refused:
        settled_card(source(tmp_path), None)
    assert "there are no samples" in refused.value.received
    assert refused.value.action == "State --mean and --std, or mean and std in a card, or give --samples."


def test_the_identity_holds_on_random_images_as_well(tmp_path: Path) -> None:
    found = source(tmp_path)
    teacher = load_teacher(found.state_dict, provisional_card(found))
    error = checked_identity(teacher, None)
    assert error is not None
    assert error < 1e-5
    assert checked_identity(teacher, None) == error


def test_a_network_without_the_identity_is_refused_by_random_images() -> None:
    teacher = tiny.teacher()
    broken = Teacher(teacher.network, teacher.card.model_copy(update={"feature_layer": "layers.2.0.bn2"}))
    with pytest.raises(InputRefused, match="On random images, the logits differ from fc"):
        checked_identity(broken, None)


def test_a_segmentation_is_not_asked_because_nobody_shares_its_classifier() -> None:
    assert checked_identity(tiny.dense_teacher(), None) is None
