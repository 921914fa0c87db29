"""The user's --eval images, without any that a stage may have trained or chosen on."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from compressor.inputs.card import TeacherCard
from compressor.inputs.samples import read_samples


def evaluation_set(folder: Path, card: TeacherCard, samples: Tensor, split: Path) -> tuple[Tensor, Tensor, list[str]]:
    """images uint8 (N, C, H, W), labels int64 (N,), and warnings, in sentences.

    Args:
        samples: uint8 (M, C, H, W), all of the run's samples.
        split: `split.json` of the stage `samples`, with the hash of every file.

    Raises:
        InputRefused: the folder has no usable image.
    """
    evaluation = read_samples(folder, card, keep_duplicates=True)
    known = {entry["sha256"] for entry in json.loads(split.read_text(encoding="utf-8"))["files"]}
    # A copy that was saved anew has other bytes and the same pixels.
    pixels = {image.numpy().tobytes() for image in samples}
    keep = torch.tensor(
        [
            sha not in known and image.numpy().tobytes() not in pixels
            for sha, image in zip(evaluation.sha256, evaluation.images, strict=True)
        ]
    )
    warnings = list(evaluation.warnings)
    if not keep.all():
        warnings.append(
            f"{int((~keep).sum())} images of --eval are also among the samples; they are left out of the evaluation."
        )
    return evaluation.images[keep], evaluation.labels[keep], warnings
