"""The user's --eval images, without any that a stage may have trained or chosen on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from compressor.inputs.card import TeacherCard
from compressor.inputs.masks import read_masks
from compressor.inputs.samples import read_samples


class EvaluationSet(NamedTuple):
    """Images that nothing was trained or chosen on.

    Attributes:
        images: uint8 (N, C, H, W).
        labels: int64 (N,), -1 where unknown; uint8 (N, H, W), 255 where unknown, for a segmentation with masks.
        warnings: what the report must say, in sentences.
    """

    images: Tensor
    labels: Tensor
    warnings: list[str]


def evaluation_set(folder: Path, card: TeacherCard, samples: Tensor, split: Path | None) -> EvaluationSet:
    """What `folder` holds and the run has not seen.

    Args:
        samples: uint8 (M, C, H, W), all of the run's samples.
        split: `split.json` of the stage `samples`, with the hash of every file; None where the run has no samples.

    Raises:
        InputRefused: the folder has no usable image.
    """
    evaluation = read_samples(folder, card, keep_duplicates=True)
    labels, warnings = evaluation.labels, list(evaluation.warnings)
    if card.task == "segmentation" and (masks := read_masks(folder, evaluation.files, card)) is not None:
        labels = masks.masks
        warnings += masks.warnings
    known = set()
    if split is not None:
        known = {entry["sha256"] for entry in json.loads(split.read_text(encoding="utf-8"))["files"]}
    # A copy that was saved anew has other bytes and the same pixels.
    pixels = {image.numpy().tobytes() for image in samples}
    keep = torch.tensor(
        [
            sha not in known and image.numpy().tobytes() not in pixels
            for sha, image in zip(evaluation.sha256, evaluation.images, strict=True)
        ]
    )
    if not keep.all():
        warnings.append(
            f"{int((~keep).sum())} images of --eval are also among the samples; they are left out of the evaluation."
        )
    return EvaluationSet(evaluation.images[keep], labels[keep], warnings)
