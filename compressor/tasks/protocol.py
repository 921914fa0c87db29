"""What every task knows about its answers. N images, C channels, H and W pixels, K classes or outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from compressor.inputs.card import TeacherCard
from compressor.inputs.pixels import Images
from compressor.report.first_look import FirstLook
from compressor.report.measured import Proportion
from compressor.tasks.seen import Seen


class TaskEvidence(Protocol):
    """One task, a module.

    answers: (N, ...) as `compressor.tasks` says; labels: int64 (N,), -1 where unknown, or uint8 (N, H, W), 255 there.

    Attributes:
        DENSE: whether its logits are (N, K, H, W).
        CLASSES: whether an answer is a class, which an image that is disturbed keeps or loses.
    """

    @property
    def DENSE(self) -> bool: ...
    @property
    def CLASSES(self) -> bool: ...

    def look(self, logits: Tensor) -> Seen:
        """What is kept of a batch.

        Raises:
            StageFailed: the logits of a segmentation are not finite; the other tasks say so when they compare.
        """

    def groups(self, answers: Tensor) -> Tensor:
        """int64 (N,): what the split of the samples is stratified by."""

    def counts(self, answers: Tensor, card: TeacherCard) -> list[int]:
        """Images by class, one number for each; empty where the task has no classes."""

    def captions(self, seen: Seen, card: TeacherCard) -> list[str]:
        """Two lines for each image of a contact sheet; names are made printable."""

    def first_look(self, seen: Seen, labels: Tensor, card: TeacherCard) -> FirstLook:
        """The teacher's opinion of the samples, of which there is one at least."""

    def evidence_facts(self, teacher: Tensor, student: Tensor, labels: Tensor) -> dict[str, Any]:
        """Everything that is said of a student on one set of images, as plain data for `facts.json`."""

    def variant_facts(self, teacher: Tensor, fp32: Tensor, answers: Tensor, labels: Tensor) -> dict[str, Any]:
        """What one artefact costs, under the same names; fp32 is the same network's fp32 file."""

    def same(self, reference: Tensor, answers: Tensor) -> Proportion | None:
        """The agreement of two answers to the same images; None where nothing can be said."""

    def right(self, answers: Tensor, labels: Tensor) -> Proportion | None:
        """The accuracy; None without labels."""

    def draw(self, images: Images, teacher: Tensor, student: Tensor, card: TeacherCard, path: Path) -> bool:
        """Write a PNG of uint8 images (N, C, H, W) with both answers; False where the task has none to draw."""
