"""Distillation on a pool, plain and KD3: which images, which teacher answers, which terms."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import tiny
import torch
from torch import Tensor, nn

from compressor.distill.selectors import Selector, asks_the_student
from compressor.distill.training import Context, read_log
from compressor.methods import TrainingImages, kd3, pool

BOTH = pytest.mark.parametrize("method", [pool, kd3], ids=["pool", "kd3"])


def run(method: Any, folder: Path, images: TrainingImages | None = None, **changes: Any) -> Any:
    settings = tiny.settings(method.Config, **changes)
    given = tiny.training_images() if images is None else images
    return method.distill(tiny.teacher(), tiny.backbone(), given, settings, Context(folder))


@BOTH
def test_the_loss_falls(tmp_path: Path, method: Any) -> None:
    changes = {"student_steps": 80, "student_batch_size": 16, "mirror": "off"}
    run(method, tmp_path, **changes, **({"contrast_weight": 0.0} if method is kd3 else {}))
    term = "feature_alignment" if method is kd3 else "knowledge_distillation"
    rows = [row["terms"][term] for row in read_log(tmp_path / "log.jsonl")]
    assert sum(rows[-5:]) < 0.7 * sum(rows[:5])


@BOTH
def test_few_and_pool_are_trained_on_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any) -> None:
    given = tiny.training_images(3, num_pool=2)
    known = [image.numpy().tobytes() for image in given.everything.float() / 255.0]
    seen: set[int] = set()

    def look(images: Tensor, _random: torch.Generator, *, flip: bool, max_shift: int | None) -> Tensor:
        seen.update(known.index(image.numpy().tobytes()) for image in images)
        return images

    monkeypatch.setattr(method, "student_augmentation", look)
    run(method, tmp_path, given, student_steps=8, **({"selection": "off"} if method is kd3 else {}))
    assert seen == set(range(5))


@BOTH
@pytest.mark.parametrize("asked", [None, 0, 3])
def test_images_are_moved_as_far_as_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: Any, asked: int | None
) -> None:
    shifts: set[int | None] = set()

    def look(images: Tensor, _random: torch.Generator, *, flip: bool, max_shift: int | None) -> Tensor:
        shifts.add(max_shift)
        return images

    monkeypatch.setattr(method, "student_augmentation", look)
    run(method, tmp_path, student_steps=2, **({} if asked is None else {"max_shift": asked}))
    assert shifts == {asked}


@BOTH
def test_images_of_the_task_alone_are_a_pool_too(tmp_path: Path, method: Any) -> None:
    facts = run(method, tmp_path, tiny.training_images(9, num_pool=0), student_steps=2).facts
    assert facts["num_images"] == 9
    assert set(facts["kept_images"]) == {9}  # none of them is dropped


@pytest.mark.parametrize("selector", get_args(Selector))
def test_a_pool_is_selected_as_often_as_the_selector_changes_its_mind(tmp_path: Path, selector: Selector) -> None:
    changes = {"student_steps": 6, "num_selections": 3, "keep_fraction": 0.25}
    facts = run(pool, tmp_path, tiny.training_images(0), selector=selector, **changes).facts
    assert len(facts["kept_images"]) == (3 if asks_the_student(selector) else 1)
    if selector in ("lowest_entropy", "lowest_cross_entropy", "teaching_score"):
        assert set(facts["kept_images"]) == {6}  # a quarter of 24
    if selector == "none":
        assert facts["kept_images"] == [24]


@pytest.mark.parametrize(("selection", "selections"), [("teacher and student", 3), ("teacher", 1), ("off", 0)])
def test_kd3_selects_as_its_switch_says(tmp_path: Path, selection: str, selections: int) -> None:
    facts = run(kd3, tmp_path, student_steps=6, num_selections=3, selection=selection).facts
    assert len(facts["kept_images"]) == selections
    assert facts["departures"] == kd3.DEPARTURES


def test_kd3_keeps_the_teachers_classifier_and_a_projector_but_no_embedding(tmp_path: Path) -> None:
    student = run(kd3, tmp_path).student
    assert torch.equal(student.classifier.weight, tiny.teacher().classifier.weight)
    assert not student.classifier.weight.requires_grad
    assert not isinstance(student.projector, nn.Identity)
    assert not any("embedding" in name for name in student.state_dict())


def test_a_student_without_batch_norm_learns_slower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    sgd = torch.optim.SGD
    monkeypatch.setattr(torch.optim, "SGD", lambda *a, **options: (rates.append(options["lr"]), sgd(*a, **options))[1])
    for architecture in (tiny.ARCHITECTURE, "lenet5"):
        folder = tmp_path / architecture
        folder.mkdir()
        settings = tiny.settings(pool.Config, student_steps=1)
        pool.distill(tiny.teacher(), tiny.backbone(architecture), tiny.training_images(), settings, Context(folder))
    assert rates == [0.05, 0.01]


def test_pool_has_a_classifier_of_its_own(tmp_path: Path) -> None:
    student = run(pool, tmp_path).student
    assert isinstance(student.projector, nn.Identity)
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_without_contrast_there_is_no_such_term(tmp_path: Path) -> None:
    run(kd3, tmp_path, contrast_weight=0.0)
    assert {name for row in read_log(tmp_path / "log.jsonl") for name in row["terms"]} == {"feature_alignment"}


def test_weighting_is_a_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(kd3, "disagreement_weights", lambda student, _t: asked.append(1) or torch.ones(len(student)))
    run(kd3, tmp_path, weighting="off", student_steps=2)
    assert not asked
    (tmp_path / "on").mkdir()
    run(kd3, tmp_path / "on", weighting="on", student_steps=2)
    assert len(asked) == 2


def test_a_cpu_goes_without_the_contrast() -> None:
    for effort in ("quick", "standard", "full"):
        assert kd3.defaults(effort, (3, 32, 32), "cpu")["contrast_weight"] == 0.0
        assert kd3.Config(**kd3.defaults(effort, (3, 32, 32), "cuda")).contrast_weight == 1e-3
