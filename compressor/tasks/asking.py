"""Asking a network about many images, batch by batch: of each batch only what its task keeps stays in memory."""

from __future__ import annotations

import torch

from compressor.inputs.pixels import Images
from compressor.inputs.teacher import Teacher
from compressor.tasks.protocol import TaskEvidence
from compressor.tasks.seen import Seen, joined
from exporters.logits import BATCH, SpecifiedRunner, fitting_batch, logits_in_batches

TEACHER_BATCH = 256


@torch.no_grad()
def ask_teacher(task: TaskEvidence, teacher: Teacher, images: Images, device: str) -> Seen:
    """Images uint8 (N, C, H, W), N at least 1; what is kept is on the CPU."""
    size = fitting_batch(images.shape[2:], TEACHER_BATCH) if task.DENSE else TEACHER_BATCH
    return joined(
        [task.look(teacher(batch.to(device).float() / 255.0).logits.float().cpu()) for batch in images.split(size)]
    )


def ask_file(task: TaskEvidence, runner: SpecifiedRunner, images: Images) -> Seen:
    """The same of a file, an ONNX file or an engine.

    Raises:
        ExportError: the model takes other images, or failed.
    """
    size = fitting_batch(images.shape[2:], BATCH) if task.DENSE else BATCH
    return joined([task.look(torch.from_numpy(logits)) for logits in logits_in_batches(runner, images, size)])
