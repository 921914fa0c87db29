"""Images that a camera, a codec or the light has disturbed a little, and who keeps its answer on them.

    jpeg       encoded and decoded once at quality 65
    blur       Gaussian; its deviation is 0.5 % of the shorter side, and at least 0.4 px
    noise      Gaussian, of deviation 10 of 255, drawn anew for every pixel and channel
    brighter   25 of 255 more in every channel, up to white
    darker     25 of 255 less, down to black

About the mildest of five steps of D. Hendrycks and T. Dietterich, Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations, 2019: their blur is 1 px at 224 px, as here, and 0.4 at 32; their brightness is the same
tenth; their noise is twice ours at 224 px and ours at 32. It is no test of a network's limits but of what a student
lost of its teacher's tolerance. Images are uint8 (N, C, H, W); the same images and seed give the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from compressor.report.measured import Proportion
from compressor.report.robustness_record import Corruption, Robustness

QUALITY = 65
BLUR_SHARE, LEAST_BLUR_PX = 0.005, 0.4
NOISE = 10.0  # of 255, and so is STEP
STEP = 25
CHUNK = 64  # images in float at once
MOST_IMAGES, FEWEST_IMAGES = 256, 32
MOST_SECONDS, MOST_BYTES = 30.0, 2**28

Answers = Callable[[Tensor], tuple[Tensor, Tensor]]
"""uint8 images (N, C, H, W) to the answers of teacher and student, (N, ...) each."""


def robustness_of(
    images: Tensor,
    clean: tuple[Tensor, Tensor],
    labels: Tensor,
    where: Literal["evidence", "eval"],
    *,
    answers: Answers,
    same: Callable[[Tensor, Tensor], Proportion | None],
    right: Callable[[Tensor, Tensor], Proportion | None],
) -> tuple[Robustness, ...]:
    """One record for each corruption that the images can have, disturbed alike whatever the seed of the run.

    Args:
        images: uint8 (N, C, H, W), N at least 1.
        clean: what teacher and student answer to them as they are.
        labels: of the task.
        same, right: agreement of two answers, and accuracy, of `compressor.tasks.TaskEvidence`.
    """
    found = []
    for corruption in get_args(Corruption):
        disturbed = corrupted(images, corruption)
        if disturbed is None:
            continue
        teacher, student = answers(disturbed)
        agreement, kept = same(teacher, student), (same(clean[0], teacher), same(clean[1], student))
        if agreement is not None and kept[0] is not None and kept[1] is not None:
            found.append(
                Robustness(
                    corruption=corruption,
                    strength=strength_of(corruption, images.shape[2:]),
                    images=where,
                    agreement=agreement,
                    teacher_kept=kept[0],
                    student_kept=kept[1],
                    teacher_accuracy=right(teacher, labels),
                    student_accuracy=right(student, labels),
                )
            )
    return tuple(found)


def spread_rows(shape: Sequence[int], seconds_per_image: float) -> Tensor:
    """int64 (M,): so many rows, evenly spread, that all their corruptions take `MOST_SECONDS` and fit `MOST_BYTES`.

    M is at most 256; it is halved until it fits, and not below 32, so that it rarely changes with the machine's mood.

    Args:
        shape: (N, C, H, W) of all images.
        seconds_per_image: of teacher and student together.
    """
    num_images, most = shape[0], MOST_IMAGES
    seconds, num_bytes = len(get_args(Corruption)) * seconds_per_image, prod(shape[1:])
    while most > FEWEST_IMAGES and (most * seconds > MOST_SECONDS or most * num_bytes > MOST_BYTES):
        most //= 2
    kept = min(num_images, most)
    return torch.arange(kept) * num_images // max(1, kept)


def corrupted(images: Tensor, corruption: Corruption, *, seed: int = 0) -> Tensor | None:
    """The images after one corruption; None where it is not defined: JPEG has one channel or three."""
    if corruption == "jpeg" and images.shape[1] not in (1, 3):
        return None
    random = torch.Generator().manual_seed(seed)
    return torch.cat([_CORRUPTIONS[corruption](chunk, random) for chunk in images.split(CHUNK)])


def strength_of(corruption: Corruption, size: Sequence[int]) -> str:
    """In words, for images of this height and width."""
    return {
        "jpeg": f"quality {QUALITY}",
        "blur": f"deviation {_blur_px(size):.3g} px",
        "noise": f"deviation {NOISE:g} of 255",
        "brighter": f"{STEP} of 255 more",
        "darker": f"{STEP} of 255 less",
    }[corruption]


def _jpeg(images: Tensor, random: torch.Generator) -> Tensor:  # noqa: ARG001
    return torch.stack([_recoded(image) for image in images])


def _recoded(image: Tensor) -> Tensor:
    """uint8 (C, H, W) with C 1 or 3."""
    pixels = image.permute(1, 2, 0).contiguous().numpy()
    encoded = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if len(image) == 1 else pixels).save(encoded, "JPEG", quality=QUALITY)
    return torch.from_numpy(np.array(Image.open(encoded))).reshape(*image.shape[1:], len(image)).permute(2, 0, 1)


def _blur(images: Tensor, random: torch.Generator) -> Tensor:  # noqa: ARG001
    """Pillow's, which is whole numbers all the way: three box filters along each axis, of this deviation together."""
    blur = ImageFilter.GaussianBlur(_blur_px(images.shape[2:]))
    planes = [np.asarray(Image.fromarray(plane).filter(blur)) for plane in images.flatten(0, 1).numpy()]
    return torch.from_numpy(np.stack(planes)).reshape(images.shape)


def _noise(images: Tensor, random: torch.Generator) -> Tensor:
    noise = NOISE * torch.randn(images.shape, generator=random)
    return noise.add_(images).round_().clamp_(0.0, 255.0).to(torch.uint8)


def _brighter(images: Tensor, random: torch.Generator) -> Tensor:  # noqa: ARG001
    return _stepped(images, STEP)


def _darker(images: Tensor, random: torch.Generator) -> Tensor:  # noqa: ARG001
    return _stepped(images, -STEP)


def _stepped(images: Tensor, step: int) -> Tensor:
    return torch.from_numpy((np.arange(256) + step).clip(0, 255).astype(np.uint8)[images.numpy()])


_CORRUPTIONS: Mapping[Corruption, Callable[[Tensor, torch.Generator], Tensor]] = MappingProxyType(
    {"jpeg": _jpeg, "blur": _blur, "noise": _noise, "brighter": _brighter, "darker": _darker}
)


def _blur_px(size: Sequence[int]) -> float:
    return max(LEAST_BLUR_PX, BLUR_SHARE * min(size))
