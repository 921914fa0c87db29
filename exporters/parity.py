"""Does the exported model compute what the module computes? Numbers first, then a verdict.

Shape letters: B batch, K classes or outputs, H and W pixels of a class map.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.runners import INPUT_NAME, OUTPUT_NAME, Runner

# Faithful fp32 exports differ by 1e-7 to 1e-6. A hundred times that still refuses one that was computed in
# TF32 or fp16 (3e-4 and up).
RTOL = 1e-4

Outputs: TypeAlias = Literal["classes", "values"]
"""What (B, K) holds: logits, of which the largest is the answer, or the numbers of a regression."""

# An output whose variance is below this share of its mean square does not vary but by rounding.
CONSTANT = 1e-12


@dataclass(frozen=True)
class Parity:
    """How far a candidate's logits are from a reference's, over all images that were compared.

    Attributes:
        count: images compared.
        max_abs: max |candidate - reference|, in logits.
        max_rel: max |candidate - reference| / max |reference|. One scale for all values: a division of each
            difference by its own reference would be ruled by the logits that happen to lie near zero. 0 where
            nothing differs, infinite where only the reference is all zeros.
        top1_agreement: share of images with the same largest logit, in [0, 1]: of class maps the share of pixels, of a
            regression's values what `explained` says.

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


def compare(reference: NDArray[Any], candidate: NDArray[Any], *, outputs: Outputs = "classes") -> Parity:
    """Compare two sets of logits of the same images, both (B, K) or (B, K, H, W) with B >= 1.

    Raises:
        ExportError: the shapes differ from each other, or are of another rank.
    """
    return compare_batches([(reference, candidate)], outputs=outputs)


def compare_batches(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]], *, outputs: Outputs = "classes") -> Parity:
    """The same of many batches, reference and candidate, of which only a regression's values are kept.

    Raises:
        ExportError: the shapes of a pair differ, or are of another rank; there is no batch.
    """
    count, max_abs, scale, agreed = 0, 0.0, 0.0, 0.0
    values: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for reference, candidate in pairs:
        if reference.shape != candidate.shape or reference.ndim not in (2, 4) or reference.size == 0:
            raise _incomparable(f"Logits of shape {candidate.shape}", f"a reference of shape {reference.shape}")
        exact, found = reference.astype(np.float64), candidate.astype(np.float64)
        with np.errstate(invalid="ignore"):  # infinity minus infinity is the NaN that we want
            max_abs = float(np.maximum(max_abs, np.abs(found - exact).max()))
        scale = float(np.maximum(scale, np.abs(exact).max()))
        agreed += float(same_class(exact, found).sum())
        count += len(exact)
        if outputs == "values":
            values.append((exact, found))
    if not count:
        raise _incomparable("No logits", "none")
    if max_abs == 0.0:
        max_rel = 0.0
    elif scale == 0.0:
        max_rel = float("inf")
    else:
        max_rel = max_abs / scale
    if outputs == "values":
        share = explained(*(np.concatenate(part) for part in zip(*values, strict=True)))
    else:
        share = agreed / count
    return Parity(count, max_abs, max_rel, share)


def same_class(reference: NDArray[Any], candidate: NDArray[Any]) -> NDArray[np.float64]:
    """(B,): 1 for the same largest logit and 0 for another; of class maps, the share of the pixels with the same."""
    same = reference.argmax(axis=1) == candidate.argmax(axis=1)
    shares: NDArray[np.float64] = same.reshape(len(same), -1).mean(axis=1)
    return shares


def explained(reference: NDArray[Any], candidate: NDArray[Any]) -> float:
    """Of the variance of outputs (B, K), the share that a candidate explains: R², at least 0, mean over the outputs.

    For one image, and for an output that does not vary, its mean square takes the place of its variance. Values that
    are not finite explain nothing.
    """
    exact, found = reference.astype(np.float64), candidate.astype(np.float64)
    if not (np.isfinite(exact).all() and np.isfinite(found).all()):
        return 0.0
    square, spread = (exact**2).mean(axis=0), exact.var(axis=0)
    size = np.where(spread > CONSTANT * square, spread, square)
    error = ((found - exact) ** 2).mean(axis=0)
    missing = np.divide(error, size, out=(error > 0).astype(np.float64), where=size > 0)
    return float(np.clip(1.0 - missing, 0.0, 1.0).mean())


def _incomparable(received: str, reference: str) -> ExportError:
    return ExportError(
        f"{received} were compared with {reference}.",
        "Both must have the same shape (images, classes), or (images, classes, height, width), with one image at "
        "least.",
        "Check that both models were given the same images and have the same classes.",
    )


def check_parity(
    reference_runner: Runner,
    candidate_runner: Runner,
    batches: Iterable[NDArray[np.float32]],
    *,
    rtol: float = RTOL,
    outputs: Outputs = "classes",
) -> Parity:
    """Run both on batches of images (B, C, H, W) and compare all logits at once.

    Give batches of different sizes: a graph with a batch size baked in is right at that size only.

    Raises:
        ExportError: the differences exceed `rtol`, or no batch was given.
    """
    given = iter(batches)
    first = next(given, None)
    if first is None:
        raise ExportError(
            f"No images were given to compare {candidate_runner} with {reference_runner}.",
            "At least one batch of shape (images, channels, height, width) was expected.",
            "Pass a few images.",
        )
    parity = compare_batches(
        (
            (
                reference_runner.infer({INPUT_NAME: images})[OUTPUT_NAME],
                candidate_runner.infer({INPUT_NAME: images})[OUTPUT_NAME],
            )
            for images in chain([first], given)
        ),
        outputs=outputs,
    )
    if not parity.passes(rtol):
        raise ExportError(
            f"{candidate_runner} differs from {reference_runner} by up to {parity.max_abs:.3g}, which is "
            f"{parity.max_rel:.3g} of the largest logit; they agree on {parity.top1_agreement:.1%} of {parity.count} "
            "images.",
            f"At most {rtol:g} of the largest logit was expected.",
            "Do not ship this file; export it again, with another opset if the target allows one.",
        )
    return parity
