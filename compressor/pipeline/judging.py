"""A student and its files against their teacher, on one set of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compressor.inputs.pixels import Images
from compressor.inputs.teacher import Teacher
from compressor.pipeline.run import Run
from compressor.tasks import ask_file, ask_teacher


@dataclass(frozen=True)
class Judged:
    """What a set of images says of the student and of every variant, under the names of the report.

    Attributes:
        images: uint8 (N, C, H, W).
        teacher, student: their answers (N, ...); None without images.
    """

    facts: dict[str, Any]
    variants: dict[str, Any]
    images: Images
    teacher: Tensor | None = None
    student: Tensor | None = None


def judge(run: Run, teacher: Teacher, images: Images, labels: Tensor, only: str | None = None) -> Judged:
    """The student, and every variant by its key or `only` that one, on uint8 (N, C, H, W); all empty without images."""
    if len(images) == 0:
        return Judged({}, {}, images)
    task = run.task()
    reference = ask_teacher(task, teacher, images, run.device).answers
    answers: dict[str, Tensor] = {}
    for variant in run.variants():
        if variant.file is not None and variant.judged and only in (None, variant.key):
            with variant.open(run.config.out) as runner:
                answers[variant.key] = ask_file(task, runner, images).answers
    variants = {
        key: task.variant_facts(reference, answers[f"{key.partition('.')[0]}.fp32"], found, labels)
        for key, found in answers.items()
    }
    student = answers["student.fp32"]
    return Judged(task.evidence_facts(reference, student, labels), variants, images, reference, student)
