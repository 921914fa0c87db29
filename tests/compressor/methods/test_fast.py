"""FastMeta: rounds that make images, and a student that learns from what was made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from compressor.distill.synthetic_pool import SyntheticPool
from compressor.distill.training import Context, read_log
from compressor.errors import InputRefused
from compressor.methods import TrainingImages, check_fit, fast


def nothing() -> TrainingImages:
    return tiny.training_images(0, num_pool=0)


def run(folder: Path, context: Context | None = None, **changes: Any) -> Any:
    settings = tiny.settings(fast.Config, tuning=2, **changes)
    return fast.distill(tiny.teacher(), tiny.backbone(), nothing(), settings, context or Context(folder))


def test_it_needs_no_image_and_says_why_it_does_not_mirror(tmp_path: Path) -> None:
    (choice,) = run(tmp_path).facts["choices"]
    assert (choice["value"], choice["reason"]) == ("off", "there is no image to ask about")


@pytest.mark.parametrize(
    ("steps", "every", "before", "rounds"), [(4, 2, 3, 5), (5, 2, 0, 3), (3, 10, 1, 2), (4, 1, 2, 6)]
)
def test_a_round_comes_before_its_share_of_the_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, every: int, before: int, rounds: int
) -> None:
    added: list[int] = []
    add = SyntheticPool.add
    monkeypatch.setattr(SyntheticPool, "add", lambda self, images: (added.append(len(images)), add(self, images))[1])
    facts = run(tmp_path, student_steps=steps, synthesis_every=every, generator_steps=before).facts
    assert added == [6] * rounds
    assert facts["pool_images"] == 6 * rounds


def test_the_pool_keeps_the_last_images(tmp_path: Path) -> None:
    assert run(tmp_path, pool_size=10).facts["pool_images"] == 10


def test_the_adversary_waits_for_the_student(tmp_path: Path) -> None:
    run(tmp_path)
    for row in read_log(tmp_path / "log.jsonl"):
        assert ("boundary_adversarial" in row["terms"]) == (row["phase"] == "student" and row["step"] % 2 == 0)
        assert ("knowledge_distillation" in row["terms"]) == (row["phase"] == "student")


def test_the_best_images_of_a_round_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second update of three has the lowest loss."""
    made: list[torch.Tensor] = []
    losses = iter([3.0, 1.0, 2.0])
    terms = fast.Maker.terms

    def known(self: fast.Maker, images: torch.Tensor, labels: torch.Tensor, student: Any) -> Any:
        made.append(images.detach().clone())
        found, blended = terms(self, images, labels, student)
        value = next(losses)
        return {name: term - term.detach() + value for name, term in found.items()}, blended

    monkeypatch.setattr(fast.Maker, "terms", known)
    settings = tiny.settings(fast.Config, tuning=3, batch_norm_weight=1.0, class_weight=0.0)
    teacher = tiny.teacher()
    generator = fast.MetaGenerator(tiny.IMAGE_SHAPE, settings.latent_dim, settings.generator_width)
    pool = SyntheticPool(6, tiny.IMAGE_SHAPE, torch.device("cpu"))
    fast.Maker(teacher, generator, pool, False, settings, Context(tmp_path)).round(None)
    assert not torch.equal(made[0], made[1])
    assert torch.equal(pool.images, (made[1] * 255.0).round().to(torch.uint8))


def test_tuning_lowers_the_loss_of_a_round_and_later_rounds_begin_lower(tmp_path: Path) -> None:
    """What first-order MAML is for."""
    settings = fast.Config(
        generator_batch_size=16, generator_width=8, latent_dim=16, tuning=5, generator_lr=5e-3, latent_lr=0.015,
        pool_size=64, mirror="off",
    )  # fmt: skip

    class Losses(Context):
        def log(self, terms: Any) -> None:
            values.append(float(terms["asked_class"].detach()))

    values: list[float] = []
    torch.manual_seed(0)
    teacher = tiny.teacher()
    generator = fast.MetaGenerator(tiny.IMAGE_SHAPE, 16, 8)
    pool = SyntheticPool(64, tiny.IMAGE_SHAPE, torch.device("cpu"))
    maker = fast.Maker(teacher, generator, pool, False, settings, Losses(tmp_path))
    for _ in range(12):
        maker.round(None)
    rounds = [values[start : start + 5] for start in range(0, 60, 5)]
    assert sum(each[-1] for each in rounds) < sum(each[0] for each in rounds)
    before = [parameter.detach().clone() for parameter in generator.parameters()]
    maker.round(None)
    assert any(not torch.equal(a, b) for a, b in zip(before, generator.parameters(), strict=True))


def test_a_constant_student_is_given_back_as_it_was(tmp_path: Path) -> None:
    from compressor.students.student import own_classifier

    teacher = tiny.teacher()
    student = own_classifier(tiny.backbone(), teacher).train()
    before = tiny.snapshot(student)
    settings = tiny.settings(fast.Config, tuning=2)
    generator = fast.MetaGenerator(tiny.IMAGE_SHAPE, settings.latent_dim, settings.generator_width)
    pool = SyntheticPool(6, tiny.IMAGE_SHAPE, torch.device("cpu"))
    fast.Maker(teacher, generator, pool, False, settings, Context(tmp_path)).round(student)
    assert tiny.equal(tiny.snapshot(student), before)
    assert all(module.training for module in student.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in student.parameters())


def test_a_teacher_without_batch_norm_is_refused() -> None:
    with pytest.raises(InputRefused, match=r"\(lenet5\) has no batch norm.*method fast matches.*--method dfad"):
        check_fit("fast", tiny.teacher("lenet5"), 0, 0)


@pytest.mark.parametrize(("side", "images"), [(32, 60_000), (64, 21_845), (224, 1_783)])
def test_the_pool_of_large_images_is_bounded(side: int, images: int) -> None:
    assert fast.defaults("full", (3, side, side), "cuda")["pool_size"] == images


def test_the_papers_size_is_full_effort_on_a_gpu() -> None:
    config = fast.Config(**fast.defaults("full", (3, 32, 32), "cuda"))
    assert (config.student_steps, config.synthesis_every, config.generator_steps) == (80_000, 400, 20)
    assert (config.tuning, config.generator_lr, config.latent_lr) == (10, 2e-3, 0.01)
    assert (config.batch_norm_weight, config.class_weight, config.adversarial_weight) == (10.0, 0.5, 1.33)
    assert config.pool_size == 60_000
    assert (config.student_lr, config.weight_decay, config.temperature) == (0.2, 1e-4, 20.0)
