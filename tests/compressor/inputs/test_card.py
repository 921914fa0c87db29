"""The card: what it accepts, and that it reports every problem at once."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from compressor.inputs.card import TeacherCard

FACTS: dict[str, Any] = {
    "architecture": "cifar_resnet8",
    "num_classes": 2,
    "class_names": ["a", "b"],
    "input_shape": [3, 8, 8],
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
}


def test_a_card_survives_json() -> None:
    card = TeacherCard.model_validate({**FACTS, "resize": [9, 9], "value_range": [0, 255]})
    assert TeacherCard.model_validate_json(card.model_dump_json()) == card
    assert TeacherCard.model_validate(card.model_dump(mode="json")) == card


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input_shape": [2, 8, 8]}, "must be 1, 3 or 4 channels of 4"),
        ({"input_shape": [3, 3, 8]}, "4 to 4096 pixels"),
        ({"input_shape": [3, 8, 5000]}, "4 to 4096 pixels"),
        ({"resize": 0}, "resize 0 must be 4 to 4096 pixels"),
        ({"resize": [8, -8]}, "must be 4 to 4096 pixels"),
        ({"class_names": ["a"]}, "1 class_names for 2 classes"),
        ({"class_names": ["a", "a"]}, "differ from each other"),
        ({"class_names": ["a", False]}, "valid string"),
        ({"channel_order": "L"}, "does not fit 3 channels"),
        ({"mean": [0.5]}, "mean and std need 3 numbers each"),
        ({"std": [0.5, -1.0, 0.5]}, "std must be positive"),
        ({"mean": [float("nan"), 0.0, 0.0]}, "must be finite"),
        ({"value_range": [1.0, 0.0]}, "value_range must rise"),
        ({"crop": "none", "resize": 8}, "without a crop"),
        ({"unknown": 1}, "Extra inputs"),
        ({"num_classes": 1, "class_names": ["a"]}, "a classification needs at least 2 classes"),
        ({"num_classes": 0, "class_names": [], "task": "regression"}, "greater than or equal to 1"),
        ({"num_classes": 256, "class_names": range(256), "task": "segmentation"}, "at most 255 classes"),
        ({"task": "detection"}, "'classification', 'segmentation' or 'regression'"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TeacherCard.model_validate({**FACTS, **fields})


def test_a_card_from_before_there_were_tasks_is_a_classifiers() -> None:
    assert TeacherCard.model_validate(FACTS).task == "classification"


def test_a_regression_may_have_one_output() -> None:
    card = TeacherCard.model_validate({**FACTS, "task": "regression", "num_classes": 1, "class_names": ["angle"]})
    assert card.class_names == ("angle",)


def test_every_problem_is_reported_at_once() -> None:
    with pytest.raises(ValidationError, match=r"1 class_names for 2 classes; .* std must be positive"):
        TeacherCard.model_validate({**FACTS, "class_names": ["a"], "std": [0.0], "mean": [0.0]})


def test_whole_numbers_become_class_names() -> None:
    assert TeacherCard.model_validate({**FACTS, "class_names": [0, "b"]}).class_names == ("0", "b")


def test_without_a_crop_resize_may_say_the_input_size() -> None:
    assert TeacherCard.model_validate({**FACTS, "crop": "none", "resize": [8, 8]}).resize == (8, 8)
