"""Does the exported model compute what the module computes? Numbers first, then a verdict.

Shape letters: B batch, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.runners import INPUT_NAME, OUTPUT_NAME, Runner

# Faithful fp32 exports differ by 1e-7 to 1e-6. A hundred times that still refuses one that was computed in
# TF32 or fp16 (3e-4 and up).
RTOL = 1e-4


@dataclass(frozen=True)
class Parity:
    """How far a candidate's logits are from a reference's, over all images that were compared.

    Attributes:
        count: images compared.
        max_abs: max |candidate - reference|, in logits.
        max_rel: max |candidate - reference| / max |reference|. One scale for all values: a division of each
            difference by its own reference would be ruled by the logits that happen to lie near zero. 0 where
            nothing differs, infinite where only the reference is all zeros.
        top1_agreement: share of images with the same largest logit, in [0, 1].

    A value that is not finite in one of the two makes max_abs and max_rel infinite or NaN.
    """

    count: int
    max_abs: float
    max_rel: float
    top1_agreement: float

    def passes(self, rtol: float = RTOL) -> bool:
        """Whether max_rel <= rtol; never where a logit is not finite.

        Agreement does not decide: within the default tolerance only near ties can change places. There is no
        absolute tolerance: a network's logits can be so small that any file would pass it.
        """
        return self.max_rel <= rtol


def compare(reference: NDArray[Any], candidate: NDArray[Any]) -> Parity:
    """Compare two sets of logits of the same images, both (B, K) with B >= 1.

    Raises:
        ExportError: the shapes differ from each other, or are not (B, K).
    """
    if reference.shape != candidate.shape or reference.ndim != 2 or reference.size == 0:
        raise ExportError(
            f"Logits of shape {candidate.shape} were compared with a reference of shape {reference.shape}.",
            "Both must have the same shape (images, classes), with one image at least.",
            "Check that both models were given the same images and have the same classes.",
        )
    reference, candidate = reference.astype(np.float64), candidate.astype(np.float64)
    with np.errstate(invalid="ignore"):  # infinity minus infinity is the NaN that we want
        max_abs = float(np.abs(candidate - reference).max())
    scale = float(np.abs(reference).max())
    if max_abs == 0.0:
        max_rel = 0.0
    elif scale == 0.0:
        max_rel = float("inf")
    else:
        max_rel = max_abs / scale
    agreement = float((reference.argmax(axis=1) == candidate.argmax(axis=1)).mean())
    return Parity(len(reference), max_abs, max_rel, agreement)


def check_parity(
    reference_runner: Runner,
    candidate_runner: Runner,
    batches: Iterable[NDArray[np.float32]],
    *,
    rtol: float = RTOL,
) -> Parity:
    """Run both on batches of images (B, C, H, W) and compare all logits at once.

    Give batches of different sizes: a graph with a batch size baked in is right at that size only.

    Raises:
        ExportError: the differences exceed `rtol`, or no batch was given.
    """
    references, candidates = [], []
    for images in batches:
        references.append(reference_runner.infer({INPUT_NAME: images})[OUTPUT_NAME])
        candidates.append(candidate_runner.infer({INPUT_NAME: images})[OUTPUT_NAME])
    if not references:
        raise ExportError(
            f"No images were given to compare {candidate_runner} with {reference_runner}.",
            "At least one batch of shape (images, channels, height, width) was expected.",
            "Pass a few images.",
        )
    parity = compare(np.concatenate(references), np.concatenate(candidates))
    if not parity.passes(rtol):
        raise ExportError(
            f"{candidate_runner} differs from {reference_runner} by up to {parity.max_abs:.3g}, which is "
            f"{parity.max_rel:.3g} of the largest logit, and names the same class on "
            f"{parity.top1_agreement:.1%} of {parity.count} images.",
            f"At most {rtol:g} of the largest logit was expected.",
            "Do not ship this file; export it again, with another opset if the target allows one.",
        )
    return parity
