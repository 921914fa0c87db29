"""The pool: images of unknown relation to the teacher's task, such as collected ones, that a method may train on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from compressor.errors import InputRefused
from compressor.inputs.card import TeacherCard
from compressor.inputs.near_copies import near_copies, thumbnails
from compressor.inputs.pixels import kept_rows
from compressor.inputs.samples import SampleSet, read_samples


def read_pool(
    folder: Path, card: TeacherCard, samples: SampleSet, *, max_images: int, scratch: Path | None = None
) -> SampleSet:
    """Every usable image below `folder` that is not also among the samples; names of folders mean nothing.

    A sample in the pool would be trained on although it is held out, and so would a copy of it that was encoded anew
    or resized; see `near_copies`.

    Args:
        max_images: read only this many files, spread evenly over all.
        scratch: where the pixels lie while they are in use; see `read_samples`.

    Raises:
        InputRefused: the folder is missing, or holds fewer than two images that can be used.
        OSError: there is no room for the pixels.
    """
    pool = read_samples(folder, card, max_images=max_images, labelled=False, flag="--pool", scratch=scratch)
    keep = ~near_copies(thumbnails(pool.images), thumbnails(samples.images))
    warnings = [f"--pool: {warning}" for warning in pool.warnings]
    if dropped := len(keep) - int(keep.sum()):
        images = "1 image of --pool is" if dropped == 1 else f"{dropped:,} images of --pool are"
        warnings.append(f"{images} also among the samples, as such or as a near copy; left out of the pool.")
    if dropped == len(keep):
        raise InputRefused(
            f"All {len(keep):,} images of the pool {folder} are also among the samples, as such or as near copies.",
            "Other images were expected: those of --samples are trained on as they are.",
            "Leave --pool out, or give a folder of more images.",
        )
    return replace(
        pool,
        images=kept_rows(pool.images, keep, scratch),
        labels=pool.labels[keep],
        files=tuple(name for name, kept in zip(pool.files, keep, strict=True) if kept),
        sha256=tuple(sha for sha, kept in zip(pool.sha256, keep, strict=True) if kept),
        warnings=tuple(warnings),
    )
