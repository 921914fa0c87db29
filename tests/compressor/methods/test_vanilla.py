"""The baseline: logits only, real images only, a classifier of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch
from torch import Tensor, nn

from compressor.distill.training import Context, read_log
from compressor.methods import hidfd, vanilla


def test_the_student_is_a_plain_network(tmp_path: Path) -> None:
    settings = tiny.settings(vanilla.Config)
    distilled = vanilla.distill(tiny.teacher(), tiny.backbone(), tiny.training_images(), settings, Context(tmp_path))
    assert distilled.generator is None
    assert isinstance(distilled.student.projector, nn.Identity)
    assert distilled.student.classifier.in_features == 32
    assert all(parameter.requires_grad for parameter in distilled.student.parameters())
    assert distilled.facts["choices"][0]["name"] == "mirror images"


def test_only_real_images_are_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {image.numpy().tobytes() for image in tiny.images().float() / 255.0}
    seen: list[bool] = []

    def look(images: Tensor, _random: torch.Generator, *, flip: bool) -> Tensor:
        seen.extend(image.numpy().tobytes() in known for image in images)
        return images

    monkeypatch.setattr(vanilla, "student_augmentation", look)
    settings = tiny.settings(vanilla.Config)
    vanilla.distill(tiny.teacher(), tiny.backbone(), tiny.training_images(), settings, Context(tmp_path))
    assert seen == [True] * 4 * 6


def test_the_loss_falls(tmp_path: Path) -> None:
    settings = vanilla.Config(student_steps=60, student_batch_size=16, mirror="off")
    vanilla.distill(tiny.teacher(), tiny.backbone(), tiny.training_images(), settings, Context(tmp_path))
    rows = [row["terms"]["knowledge_distillation"] for row in read_log(tmp_path / "log.jsonl")]
    assert rows[-1] < 0.2 * rows[0]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("effort", ["quick", "standard", "full"])
def test_it_trains_as_long_as_hidfd_does(effort: str, device: str) -> None:
    ours, theirs = (method.defaults(effort, (3, 32, 32), device) for method in (vanilla, hidfd))
    for name in ("student_steps", "student_batch_size"):
        assert ours[name] == theirs[name]


@pytest.mark.parametrize(("device", "small", "large"), [("cpu", 128, 16), ("cuda", 256, 64)])
def test_large_images_come_in_small_batches(device: str, small: int, large: int) -> None:
    sizes = [
        vanilla.defaults("full", (3, *sides), device)["student_batch_size"]
        for sides in ((32, 32), (64, 64), (32, 96), (224, 224))
    ]
    assert sizes == [small, small, large, large]


def test_numbers_are_learned_by_squared_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = tiny.teacher(task="regression")
    monkeypatch.setattr(vanilla, "knowledge_distillation", None)
    settings = vanilla.Config(student_steps=60, student_batch_size=16)
    distilled = vanilla.distill(teacher, tiny.backbone(), tiny.training_images(), settings, Context(tmp_path))
    rows = [row["terms"]["knowledge_distillation"] for row in read_log(tmp_path / "log.jsonl")]
    assert sum(rows[-5:]) < 0.3 * sum(rows[:5])
    (choice,) = distilled.facts["choices"]
    assert "of the variance of the teacher's output in place" in choice["reason"]
