"""One class for each image. answers: the logits (N, K); labels: int64 (N,), -1 where unknown."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from compressor.inputs.card import TeacherCard
from compressor.inputs.pixels import Images
from compressor.report import first_look as looking
from compressor.report.evidence import accuracy, agreement, evidence_facts, top_confidence, variant_facts
from compressor.report.first_look import FirstLook
from compressor.report.measured import Proportion
from compressor.report.pictures import teacher_captions
from compressor.tasks.seen import Seen

__all__ = [
    "CLASSES",
    "DENSE",
    "captions",
    "counts",
    "draw",
    "evidence_facts",
    "first_look",
    "groups",
    "look",
    "right",
    "same",
    "variant_facts",
]

DENSE = False
CLASSES = True


def look(logits: Tensor) -> Seen:
    """All of the logits: KL divergence and confidence need them."""
    return Seen(logits, top_confidence(logits))


def groups(answers: Tensor) -> Tensor:
    """The top-1 class."""
    return answers.argmax(dim=1)


def counts(answers: Tensor, card: TeacherCard) -> list[int]:
    """Images by top-1 class."""
    return torch.bincount(groups(answers), minlength=card.num_classes).tolist()


def captions(seen: Seen, card: TeacherCard) -> list[str]:
    """The class and its probability."""
    return teacher_captions(seen.answers, card.class_names)


def first_look(seen: Seen, labels: Tensor, card: TeacherCard) -> FirstLook:  # noqa: ARG001
    """Confidence, and accuracy on the labelled samples."""
    return looking.first_look(seen.answers, labels)


def same(reference: Tensor, answers: Tensor) -> Proportion | None:
    """Of the images."""
    return agreement(reference, answers)


def right(answers: Tensor, labels: Tensor) -> Proportion | None:
    """Of the labelled images."""
    return accuracy(answers[labels >= 0], labels[labels >= 0])


def draw(images: Images, teacher: Tensor, student: Tensor, card: TeacherCard, path: Path) -> bool:  # noqa: ARG001
    """Nothing: a class is a word."""
    return False
