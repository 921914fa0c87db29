"""The pool: images of unknown relation to the teacher's task, such as collected ones, that a method may train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from compressor.errors import InputRefused
from compressor.inputs.card import TeacherCard
from compressor.inputs.samples import SampleSet, read_samples


def read_pool(folder: Path, card: TeacherCard, samples: SampleSet, *, max_images: int) -> SampleSet:
    """Every usable image below `folder` that is not also among the samples; names of folders mean nothing.

    A sample in the pool would be trained on although it is held out.

    Args:
        max_images: read only this many files, spread evenly over all.

    Raises:
        InputRefused: the folder is missing, or holds fewer than two images that can be used.
    """
    pool = read_samples(folder, card, max_images=max_images, labelled=False)
    known = set(samples.sha256)
    # A copy that was saved anew has other bytes and the same pixels.
    pixels = {image.numpy().tobytes() for image in samples.images}
    keep = [
        sha not in known and image.numpy().tobytes() not in pixels
        for sha, image in zip(pool.sha256, pool.images, strict=True)
    ]
    warnings = [f"--pool: {warning}" for warning in pool.warnings]
    if dropped := keep.count(False):
        images = "1 image of --pool is" if dropped == 1 else f"{dropped:,} images of --pool are"
        warnings.append(f"{images} also among the samples; left out of the pool.")
    if keep.count(True) == 0:
        raise InputRefused(
            f"All {len(keep):,} images of the pool {folder} are also among the samples.",
            "Other images were expected: those of --samples are trained on as they are.",
            "Leave --pool out, or give a folder of more images.",
        )
    chosen = torch.tensor(keep)
    return replace(
        pool,
        images=pool.images[chosen],
        labels=pool.labels[chosen],
        files=tuple(name for name, kept in zip(pool.files, keep, strict=True) if kept),
        sha256=tuple(sha for sha, kept in zip(pool.sha256, keep, strict=True) if kept),
        warnings=tuple(warnings),
    )
