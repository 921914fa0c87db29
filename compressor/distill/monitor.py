"""What to watch while a generator is trained against a teacher: numbers that no loss term shows."""

from __future__ import annotations

import math

import torch
from torch import Tensor

KEPT = 0.99  # share of the old value that one observation leaves: the last hundred count
NUM_KEPT = 100


class OutputMonitor:
    """Running means of the teacher's output on generated images: its size, and how often it sees each class.

    A generator that runs away asks for ever larger logits; one that collapses shows ever fewer classes. Nothing here
    waits for the device until it is asked.

    Args:
        num_classes: channels of the output.
        judged: whether too few classes are a collapse: not where they are those of pixels, or no classes at all.
    """

    def __init__(self, num_classes: int, device: torch.device, *, judged: bool = False) -> None:
        self.judged = judged
        self.magnitude = torch.zeros((), device=device)
        self.histogram = torch.zeros(num_classes, device=device)
        self.total = torch.zeros((), device=device)  # what the running means have to be divided by

    def observe(self, output: Tensor) -> None:
        """One batch of logits (B, K) or (B, K, H, W)."""
        output = output.detach().float()
        seen = output.argmax(dim=1).flatten()
        # Not `bincount`, which waits for a GPU; whole numbers, so that their sum does not depend on the order.
        counts = torch.zeros(len(self.histogram), dtype=torch.long, device=seen.device)
        counts.scatter_add_(0, seen, torch.ones_like(seen))
        self.magnitude = KEPT * self.magnitude + (1.0 - KEPT) * output.abs().mean()
        self.histogram = KEPT * self.histogram + (1.0 - KEPT) * counts / len(seen)
        self.total = KEPT * self.total + (1.0 - KEPT)

    def mean_magnitude(self) -> float:
        """Mean absolute output."""
        return float(self.magnitude / self.total.clamp_min(1e-12))

    def class_evenness(self) -> float:
        """See `class_evenness`."""
        return class_evenness(self.histogram)

    def judged_evenness(self) -> float | None:
        """`class_evenness`, once a hundred observations are in it; see `recovery.ShowsClasses`."""
        return self.class_evenness() if self.judged and float(self.total) > 1.0 - KEPT**NUM_KEPT else None

    def averaged(self) -> list[Tensor]:
        """Each process of a training sees its own images; see `training.Averaged`."""
        return [self.magnitude, self.histogram, self.total]

    def state_dict(self) -> dict[str, Tensor]:
        return {"magnitude": self.magnitude, "histogram": self.histogram, "total": self.total}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            setattr(self, name, value.to(self.histogram.device))


def class_evenness(histogram: Tensor) -> float:
    """Entropy of a histogram (K,) over that of a uniform one: 1 for classes in equal shares, 0 for one class alone."""
    share = histogram.float() / histogram.sum().clamp_min(1e-12)
    return float(-(share * torch.log(share.clamp_min(1e-12))).sum() / math.log(len(share)))
