"""What report.json says of mild corruptions: of the teacher and of the student, on the same corrupted images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from compressor.report.measured import Proportion, Record

Corruption = Literal["jpeg", "blur", "noise", "brighter", "darker"]


class Robustness(Record):
    """One corruption, of images that no stage trained or chose on."""

    corruption: Corruption
    strength: str = Field(description="in the corruption's own unit, such as `quality 50`")
    images: Literal["evidence", "eval"] = Field(description="which set they were made from")
    agreement: Proportion = Field(description="student with teacher, both on the corrupted image")
    teacher_kept: Proportion = Field(description="the teacher with its own answer on the clean image")
    student_kept: Proportion = Field(description="the student with its own answer on the clean image")
    teacher_accuracy: Proportion | None = Field(default=None, description="on the labelled ones; null: no labels")
    student_accuracy: Proportion | None = None
