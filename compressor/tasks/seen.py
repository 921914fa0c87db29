"""What is kept of a network's output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """N images as a network sees them.

    Attributes:
        answers: (N, ...), what its task compares.
        confidence: float64 (N,), in [0, 1], how sure it is of each image; None where outputs are no logits.
    """

    answers: Tensor
    confidence: Tensor | None


def joined(batches: Sequence[Seen]) -> Seen:
    """One after the other; one batch at least."""
    confidences = [batch.confidence for batch in batches if batch.confidence is not None]
    return Seen(
        torch.cat([batch.answers for batch in batches]),
        torch.cat(confidences) if confidences else None,
    )
