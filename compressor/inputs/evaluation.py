"""The user's --eval images, without any that a stage may have trained or chosen on."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from compressor.inputs.card import TeacherCard
from compressor.inputs.masks import read_masks
from compressor.inputs.near_copies import near_copies, thumbnails
from compressor.inputs.pixels import kept_rows
from compressor.inputs.samples import read_samples

WHERE = {"samples": "among the samples", "pool": "in the pool"}


class EvaluationSet(NamedTuple):
    """Images that nothing was trained or chosen on.

    Attributes:
        images: uint8 (N, C, H, W), mapped from a file.
        labels: int64 (N,), -1 where unknown; uint8 (N, H, W), 255 where unknown, for a segmentation with masks.
        warnings: what the report must say, in sentences.
        files, sha256: N paths relative to the folder, and the hashes of their bytes.
    """

    images: Tensor
    labels: Tensor
    warnings: list[str]
    files: tuple[str, ...]
    sha256: tuple[str, ...]


def evaluation_set(
    folder: Path, card: TeacherCard, known: Mapping[str, Tensor], *, scratch: Path | None = None
) -> EvaluationSet:
    """What `folder` holds and the run has not seen, neither as such nor as a near copy; maybe nothing.

    Args:
        known: `thumbnails` of what the run has, by its name in WHERE.
        scratch: where the pixels lie while they are in use; see `read_samples`.

    Raises:
        InputRefused: the folder has no usable image.
        OSError: there is no room for the pixels.
    """
    evaluation = read_samples(folder, card, keep_duplicates=True, flag="--eval", scratch=scratch)
    labels, warnings = evaluation.labels, list(evaluation.warnings)
    if card.task == "segmentation" and (masks := read_masks(folder, evaluation.files, card, scratch)) is not None:
        labels = masks.masks
        warnings += masks.warnings
    looks = thumbnails(evaluation.images)
    keep = torch.ones(len(looks), dtype=torch.bool)
    for name, seen in known.items():
        copies = near_copies(looks, seen)
        if count := int(copies.sum()):
            images = "1 image of --eval is" if count == 1 else f"{count:,} images of --eval are"
            warnings.append(f"{images} also {WHERE[name]}, as such or as a near copy; left out of the evaluation.")
        keep &= ~copies
    if not keep.any():
        warnings.append(
            "No image of --eval is left to judge the student, because the run has seen all of them: nothing is known "
            "of it there. Give images that are neither among --samples nor in --pool."
        )
    files, sha256 = (tuple(compress(every, keep)) for every in (evaluation.files, evaluation.sha256))
    return EvaluationSet(kept_rows(evaluation.images, keep, scratch), labels[keep], warnings, files, sha256)
