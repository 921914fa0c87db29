"""A student and its files against their teacher, on one set of images; and both on images that are disturbed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from compressor.inputs.pixels import Images
from compressor.inputs.teacher import Teacher
from compressor.pipeline.run import Run
from compressor.report.robustness import robustness_of, spread_rows
from compressor.report.robustness_record import Robustness
from compressor.tasks import ask_file, ask_teacher

STUDENT = "student.fp32"


@dataclass(frozen=True)
class Judged:
    """What a set of images says of the student and of every variant, under the names of the report.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: of the task.
        teacher, student: their answers (N, ...); None without images.
        seconds: that both took to answer.
    """

    facts: dict[str, Any]
    variants: dict[str, Any]
    images: Images
    labels: Tensor
    teacher: Tensor | None = None
    student: Tensor | None = None
    seconds: float = 0.0


def judge(run: Run, teacher: Teacher, images: Images, labels: Tensor, only: str | None = None) -> Judged:
    """The student, and every variant by its key or `only` that one, on uint8 (N, C, H, W); all empty without images."""
    if len(images) == 0:
        return Judged({}, {}, images, labels)
    task = run.task()
    started = time.monotonic()
    reference = ask_teacher(task, teacher, images, run.device).answers
    seconds = time.monotonic() - started
    answers: dict[str, Tensor] = {}
    for variant in run.variants():
        if variant.file is not None and variant.judged and only in (None, variant.key):
            with variant.open(run.config.out) as runner:
                started = time.monotonic()
                answers[variant.key] = ask_file(task, runner, images).answers
            if variant.key == STUDENT:
                seconds += time.monotonic() - started
    variants = {
        key: task.variant_facts(reference, answers[f"{key.partition('.')[0]}.fp32"], found, labels)
        for key, found in answers.items()
    }
    student = answers[STUDENT]
    facts = task.evidence_facts(reference, student, labels)
    return Judged(facts, variants, images, labels, reference, student, seconds)


def judge_disturbed(
    run: Run, teacher: Teacher, judged: Judged, where: Literal["evidence", "eval"]
) -> tuple[Robustness, ...]:
    """The teacher and the student's fp32 file on disturbed copies of some of these images; none where the task has no
    class that could be kept."""
    task = run.task()
    if judged.teacher is None or judged.student is None or not task.CLASSES:
        return ()
    rows = spread_rows(judged.images.shape, judged.seconds / len(judged.images))
    (variant,) = (variant for variant in run.variants() if variant.key == STUDENT)
    with variant.open(run.config.out) as runner:

        def answers(images: Tensor) -> tuple[Tensor, Tensor]:
            return ask_teacher(task, teacher, images, run.device).answers, ask_file(task, runner, images).answers

        return robustness_of(
            judged.images[rows],
            (judged.teacher[rows], judged.student[rows]),
            judged.labels[rows],
            where,
            answers=answers,
            same=task.same,
            right=task.right,
        )
