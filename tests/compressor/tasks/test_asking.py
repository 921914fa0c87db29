"""A network and its file are asked batch by batch, and all tasks say the same of both."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import tiny
import tiny_dense
import torch
from torch import nn

from compressor.inputs.card import Task
from compressor.report.evidence import evidence_facts, variant_facts
from compressor.tasks import ask_file, ask_teacher, task_of
from exporters import logits as exporting
from exporters.logits import fitting_batch, onnx_logits
from exporters.runners import OnnxRunner


class Teacher(nn.Module):
    """Class maps of what is brightest, and how many images it got at once."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def forward(self, images: torch.Tensor) -> nn.Module:
        self.sizes.append(len(images))
        output = nn.Module()
        output.logits = images * 4.0
        return output


def test_every_task_of_a_card_is_there() -> None:
    assert [task_of(name).DENSE for name in get_args(Task)] == [False, True, False]
    assert [task_of(name).CLASSES for name in get_args(Task)] == [True, True, False]


def test_classification_says_what_it_said_before() -> None:
    task = task_of("classification")
    assert task.evidence_facts is evidence_facts
    assert task.variant_facts is variant_facts
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert task.look(logits).answers is logits
    assert task.groups(logits).tolist() == [0, 1]


def test_class_maps_of_large_images_are_asked_for_in_small_batches() -> None:
    assert [fitting_batch(size, 256) for size in ((32, 32), (180, 240), (512, 512), (2048, 2048))] == [256, 24, 4, 1]
    assert fitting_batch((), 32) == 32
    teacher, images = Teacher(), tiny.images(3, seed=0)
    images = images.repeat_interleave(64, dim=2).repeat_interleave(64, dim=3)
    seen = ask_teacher(task_of("segmentation"), teacher, images, "cpu")  # type: ignore[arg-type]
    assert teacher.sizes == [3]  # 512 px, four at once at most
    torch.testing.assert_close(seen.answers, images.argmax(dim=1).to(torch.uint8))


@pytest.mark.parametrize("batch", [None, 3])
def test_a_file_gives_the_maps_of_its_logits(
    batch: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PIXELS", 4 * 12 * 16)  # four images at once
    path = tiny_dense.segmenter(tmp_path / "dense.onnx", batch=batch)
    images = np.random.default_rng(0).integers(0, 256, (10, *tiny_dense.IMAGE_SHAPE), dtype=np.uint8)
    with OnnxRunner(path) as runner:
        seen = ask_file(task_of("segmentation"), runner, torch.from_numpy(images))
    whole = onnx_logits(path, images.astype(np.float32) / np.float32(255))
    assert whole.shape == (10, tiny_dense.CLASSES, 12, 16)
    np.testing.assert_array_equal(seen.answers.numpy(), whole.argmax(axis=1))
