"""The whole rule of `--method auto`, row by row, and what it promises in between."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from compressor.inputs.teacher import TEACHER_PARTS, TeacherPart
from compressor.method_choice import (
    ENOUGH_DENSE,
    ENOUGH_IMAGES,
    FEW_PER_CLASS,
    LARGEST_WITHOUT_IMAGES,
    RELATED,
    UNRELATED,
    Relatedness,
    SituationFacts,
    choose_method,
    relatedness,
)
from compressor.methods import load_method, method_names

NOTHING = SituationFacts(
    task="classification",
    num_classes=10,
    num_few=0,
    num_pool=0,
    relatedness=None,
    has_batch_norm=True,
    image_side=32,
    effort="standard",
    same_layout=False,
)
RELATED_POOL, PARTLY, UNRELATED_POOL = Relatedness(0.9, 0.95), Relatedness(0.28, 0.57), Relatedness(0.97, 0.01)
K = NOTHING.num_classes

ROWS = [
    # what differs from nothing at all, the method, and what its reason says
    ({}, "dfq", "there is no image"),
    ({"effort": "quick"}, "fast", "minutes matter"),
    ({"effort": "full"}, "dfq", "batch norms describe its training images"),
    ({"has_batch_norm": False}, "dfad", "no batch norm"),
    ({"has_batch_norm": False, "effort": "quick"}, "dfad", "no batch norm"),
    ({"image_side": 224}, "dfq", "at 224 px do not expect much"),
    ({"num_few": FEW_PER_CLASS * K - 1}, "dfq", "19 images of the task are too few"),
    ({"num_few": 1, "has_batch_norm": False}, "dfad", "1 image of the task is too few"),
    ({"num_few": FEW_PER_CLASS * K}, "hidfd", "20 images of 10 classes"),
    ({"num_few": ENOUGH_IMAGES - 1}, "hidfd", "1,999 images"),
    ({"num_few": ENOUGH_IMAGES}, "kd3", "2,000 images of the task are enough"),
    ({"num_few": K, "same_layout": True}, "netgraft", "pruned copy of its teacher"),
    ({"num_few": K - 1, "same_layout": True}, "dfq", "9 images of the task are too few"),
    ({"num_few": ENOUGH_IMAGES, "same_layout": True}, "kd3", "2,000 images"),
    ({"num_pool": 5000, "relatedness": RELATED_POOL}, "kd3", "the pool is related to its task (sure of 90%"),
    ({"num_pool": 5000, "relatedness": RELATED_POOL, "has_batch_norm": False}, "pool", "the teacher's answers on"),
    ({"num_pool": 5000, "relatedness": PARTLY}, "kd3", "the pool is partly related to its task (sure of 28%"),
    ({"num_pool": 5000, "relatedness": UNRELATED_POOL}, "dfq", "the 5,000 of the pool are unrelated or few"),
    ({"num_pool": 500, "relatedness": RELATED_POOL}, "dfq", "the 500 of the pool are unrelated or few"),
    ({"num_pool": 5000, "relatedness": UNRELATED_POOL, "num_few": 100}, "hidfd", "100 images of 10 classes"),
    ({"num_pool": 5000, "relatedness": RELATED_POOL, "num_few": 100}, "kd3", "5,100 images"),
    ({"num_pool": 1950, "relatedness": RELATED_POOL, "num_few": 50}, "kd3", "2,000 images"),
    (
        {"num_pool": 5000, "relatedness": UNRELATED_POOL, "image_side": 224},
        "kd3",
        "at 224 px no method without images",
    ),
    ({"num_pool": 5000, "relatedness": UNRELATED_POOL, "num_few": ENOUGH_IMAGES}, "hidfd", "2,000 images of 10"),
    ({"num_few": 5, "image_side": 224}, "kd3", "the 5 images are used"),
    ({"num_few": 100, "image_side": 224}, "hidfd", "100 images"),
    ({"task": "segmentation"}, "ddad", "there is no image of the task; this method needs none"),
    (
        {"task": "segmentation", "num_few": 19},
        "ddad",
        "19 images of the task are too few for segmentation (vanilla from 20",
    ),
    ({"task": "segmentation", "has_batch_norm": False}, "dfad", "this method needs none"),
    ({"task": "segmentation", "num_few": ENOUGH_DENSE}, "vanilla", "20 images of the task are enough"),
    ({"task": "regression"}, "dfad", "there is no image of the task, and this method needs none"),
    ({"task": "regression", "num_few": 1000}, "vanilla", "1,000 images of the task are enough for regression"),
]


@pytest.mark.parametrize(("changes", "method", "reason"), ROWS, ids=lambda value: str(value)[:60])
def test_the_rule(changes: dict[str, object], method: str, reason: str) -> None:
    choice = choose_method(replace(NOTHING, **changes))  # type: ignore[arg-type]
    assert choice.method == method
    assert reason in choice.reason


EVERYTHING = frozenset(TEACHER_PARTS)
FROM_A_FILE: tuple[frozenset[TeacherPart], ...] = (frozenset({"logits"}), frozenset({"logits", "input_gradient"}))


@pytest.mark.parametrize(
    ("few", "pool", "related", "task", "method", "words"),
    [
        (50, 0, None, "classification", "vanilla", "50 images of the task are all there is to learn from"),
        (1, 0, None, "classification", "vanilla", "1 image of the task is all"),
        (50, 5000, "related", "classification", "pool", "its answers to 5,050 images"),
        (50, 5000, "unrelated", "classification", "pool", "no gradient for a generator"),
        (0, 40, "unrelated", "classification", "pool", "40 images"),
        (0, 0, None, "classification", "noise", "so give images"),
        (5, 0, None, "segmentation", "vanilla", "5 images"),
        (0, 0, None, "regression", "noise", "there is no image: noise"),
        (0, 40, "related", "regression", "noise", "the pool of 40 images is not usable for a regression"),
        (0, 1, "related", "segmentation", "noise", "the pool of 1 image is not usable for a segmentation"),
        (5, 40, "related", "regression", "vanilla", "(more of them help)"),
    ],
)
def test_of_logits_alone_what_images_there_are_are_learned_from(
    few: int, pool: int, related: str | None, task: Any, method: str, words: str
) -> None:
    found = {None: None, "related": RELATED_POOL, "unrelated": UNRELATED_POOL}[related]
    facts = replace(NOTHING, task=task, num_few=few, num_pool=pool, relatedness=found, gives=FROM_A_FILE[0])
    choice = choose_method(replace(facts, has_batch_norm=False))
    assert choice.method == method
    assert words in choice.reason


@pytest.mark.parametrize(
    ("few", "side", "method"), [(0, 32, "dfad"), (50, 32, "dfad"), (3000, 32, "pool"), (50, 224, "pool")]
)
def test_with_gradients_a_generator_makes_images_where_they_are_few_and_small(few: int, side: int, method: str) -> None:
    facts = replace(NOTHING, num_few=few, image_side=side, has_batch_norm=False, gives=FROM_A_FILE[1])
    assert choose_method(facts).method == method


def situations() -> list[SituationFacts]:
    images = ((0, 0), (1, 0), (20, 0), (5000, 0), (0, 5000), (20, 5000), (300, 40))
    pools = (RELATED_POOL, PARTLY, UNRELATED_POOL)
    return [
        replace(
            NOTHING,
            task=task,  # type: ignore[arg-type]
            num_few=few,
            num_pool=pool,
            relatedness=related if pool else None,
            has_batch_norm=norms,
            image_side=side,
            effort=effort,
            same_layout=pruned and gives == EVERYTHING,
            gives=gives,
        )
        for task, (few, pool), related, norms, side, effort, pruned, gives in itertools.product(
            ("classification", "segmentation", "regression"),
            images,
            pools,
            (True, False),
            (28, LARGEST_WITHOUT_IMAGES, 224),
            ("quick", "standard", "full"),
            (True, False),
            (EVERYTHING, *FROM_A_FILE),
        )
        if gives == EVERYTHING or not norms
    ]


def test_a_chosen_method_can_always_do_it() -> None:
    for facts in situations():
        choice = choose_method(facts)
        assert choice.method in method_names()
        method = load_method(choice.method)
        assert facts.task in method.TASKS, facts
        assert facts.has_batch_norm or "batch_norm" not in method.USES, facts
        assert set(method.USES) <= facts.gives, facts
        assert method.NEEDS != "few" or facts.num_few > 0, facts
        assert method.NEEDS != "pool" or facts.num_few + facts.num_pool > 0, facts


def test_a_reason_is_one_clause_without_a_full_stop() -> None:
    for facts in situations():
        reason = choose_method(facts).reason
        assert not reason.endswith("."), reason
        assert ". " not in reason
        assert len(reason) < 220


# --- relatedness ------------------------------------------------------------------------------------------------------


def answers(labels: list[int], sure: bool = True, num_classes: int = 4) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(labels), num_classes).float() * (10.0 if sure else 0.5)


def test_sure_and_even_answers_are_related() -> None:
    found = relatedness(answers([0, 1, 2, 3] * 5))
    assert (found.sure, found.coverage, found.score) == pytest.approx((1.0, 1.0, 1.0))
    assert found.score >= RELATED


def test_one_name_for_everything_is_unrelated_however_sure() -> None:
    found = relatedness(answers([2] * 50))
    assert found.sure == 1.0
    assert found.coverage == pytest.approx(0.0, abs=1e-6)
    assert found.score < UNRELATED


def test_unsure_answers_are_unrelated_however_even() -> None:
    found = relatedness(answers([0, 1, 2, 3] * 5, sure=False))
    assert found.sure == 0.0
    assert found.coverage == pytest.approx(1.0)
    assert found.score < UNRELATED


def test_coverage_counts_classes() -> None:
    # Two of four classes alike: the entropy is log 2, so (2 - 1) / (4 - 1).
    assert relatedness(answers([0, 1] * 9)).coverage == pytest.approx(1.0 / 3.0)


def test_one_in_four_related_images_is_partly_related() -> None:
    # A teacher that gives every strange image the same name, and is sure of all: digits among photographs.
    found = relatedness(answers([*range(10), *[3] * 30] * 10, num_classes=10))
    assert UNRELATED < found.score < RELATED
