"""A wrong folder or a wrong normalisation is said in the first minute."""

from __future__ import annotations

import torch

from compressor.report.first_look import first_look

SURE = torch.eye(4)[torch.arange(40) % 4] * 20
LABELS = torch.arange(40) % 4


def test_a_teacher_that_knows_its_samples() -> None:
    seen = first_look(SURE, LABELS)
    assert seen.sentence == "40 images; the teacher's mean confidence is 99.999999 %, its accuracy 100 % on 40 labelled"
    assert seen.warnings == ()
    assert seen.accuracy is not None
    assert seen.accuracy.n == 40


def test_without_labels_there_is_no_accuracy() -> None:
    seen = first_look(SURE, torch.full((40,), -1))
    assert seen.accuracy is None
    assert "accuracy" not in seen.sentence


def test_an_unsure_teacher_is_a_warning() -> None:
    (warning,) = first_look(SURE * 0.01, LABELS).warnings
    assert "The teacher is unsure of these samples (mean confidence 28.9 %)" in warning


def test_labels_that_are_not_the_teachers_are_a_warning() -> None:
    (warning,) = first_look(SURE, (LABELS + 1) % 4).warnings
    assert warning.startswith("The teacher's accuracy on the labelled samples is 0 %")
    some_wrong = torch.where(torch.arange(40) < 20, LABELS, (LABELS + 1) % 4)
    assert first_look(SURE, some_wrong).warnings == ()
