"""The control: noise in, the teacher's output learned, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from compressor.distill.noise_images import noise_images
from compressor.distill.training import Context, read_log
from compressor.methods import TrainingImages, dfad, noise


def test_it_learns_the_teachers_output_on_noise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = noise_images(16, tiny.card(), torch.Generator().manual_seed(0))
    monkeypatch.setattr(noise, "noise_images", lambda *_arguments: shown)  # one batch, so that few steps are enough
    settings = noise.Config(student_steps=40, student_batch_size=16, student_lr=0.02)
    nothing = TrainingImages(tiny.images(0), tiny.images(0))
    distilled = noise.distill(tiny.teacher(), tiny.backbone(), nothing, settings, Context(tmp_path))
    assert distilled.generator is None
    rows = [row["terms"]["discrepancy"] for row in read_log(tmp_path / "log.jsonl")]
    assert rows[-1] < 0.5 * rows[0]


def test_a_vector_of_numbers_is_learned_as_well(tmp_path: Path) -> None:
    teacher = tiny.teacher(task="regression")
    nothing = TrainingImages(tiny.images(0), tiny.images(0))
    student = noise.distill(teacher, tiny.backbone(), nothing, tiny.settings(noise.Config), Context(tmp_path)).student
    assert student(torch.rand(2, *tiny.IMAGE_SHAPE)).shape == (2, tiny.NUM_CLASSES)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("effort", ["quick", "standard", "full"])
def test_it_trains_as_long_as_dfad_does(effort: str, device: str) -> None:
    ours, theirs = (method.defaults(effort, (3, 32, 32), device) for method in (noise, dfad))
    for name in ("student_steps", "student_batch_size"):
        assert ours[name] == theirs[name]
