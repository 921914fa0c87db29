"""A generator that learns to be tuned in a few updates (FastMeta, Fang et al., AAAI 2022, arXiv 2112.15278).

Every round copies it, tunes the copy and its latents on one batch, and keeps that batch's best images. The gradients
that the copy met are what moves the generator itself (first-order MAML), so that the next round begins closer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from compressor.distill.batch_norm_match import LayerStatistics


class MetaGenerator(nn.Module):
    """z (B, Z) -> images (B, C, H, W) in [0, 1]: linear to a quarter of the side, twice (upsampling, convolution)."""

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int, width: int) -> None:
        super().__init__()
        channels, self.height, self.width = image_shape
        self.base = (math.ceil(self.height / 4), math.ceil(self.width / 4))
        self.stem = nn.Linear(latent_dim, 2 * width * self.base[0] * self.base[1])
        self.body = nn.Sequential(
            nn.BatchNorm2d(2 * width),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.LeakyReLU(0.2),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(2 * width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, channels, 3, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.body(self.stem(z).view(len(z), -1, *self.base)).float().sigmoid()
        return images[:, :, : self.height, : self.width]


def add_gradients(target: nn.Module, source: nn.Module) -> None:
    """Add the gradients of `source`, a copy of `target` that has moved, to those of `target`."""
    for kept, moved in zip(target.parameters(), source.parameters(), strict=True):
        assert moved.grad is not None
        kept.grad = moved.grad.clone() if kept.grad is None else kept.grad + moved.grad


class BlendedStatistics:
    """Statistics of a teacher's batch norms over the batches of all rounds, because one batch shows few classes.

        blended = (1 - memory) * this batch + memory * the rounds before

    The first round stands alone. A blend passes on only (1 - memory) of the gradient, which is why the term that uses
    it has a weight of 10.
    """

    def __init__(self, memory: float) -> None:
        self.memory = memory
        self.past: list[tuple[Tensor, Tensor]] = []

    def blend(self, statistics: Sequence[LayerStatistics]) -> list[LayerStatistics]:
        """The statistics of a batch, with its graph, in the company of the rounds before."""
        if not self.past:
            return list(statistics)
        return [
            replace(layer, mean=layer.mean.lerp(mean, self.memory), var=layer.var.lerp(var, self.memory))
            for layer, (mean, var) in zip(statistics, self.past, strict=True)
        ]

    def remember(self, blended: Sequence[LayerStatistics]) -> None:
        """Make the last blend of a round the past of the next."""
        self.past = [(layer.mean.detach(), layer.var.detach()) for layer in blended]

    def state_dict(self) -> dict[str, Any]:
        return {"past": list(self.past)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.past = list(state["past"])


def boundary_adversarial(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Minus KL(teacher || student), the more of it the more both agree on the class; a mean over the batch.

    The generator lowers it: images between the two decision boundaries, on which the student is right for now (CMI,
    Fang et al. 2021). Agreement is the student's probability of the teacher's class, a constant. The released code asks
    whether both name the same class, which leaves batches without any gradient while the student is young.

    Args:
        student_logits, teacher_logits: (B, K).
    """
    student, teacher = student_logits.float(), teacher_logits.float()
    agreement = student.detach().softmax(dim=1).gather(1, teacher.argmax(dim=1, keepdim=True))[:, 0]
    divergence = F.kl_div(student.log_softmax(dim=1), teacher.log_softmax(dim=1), reduction="none", log_target=True)
    return -(divergence.sum(dim=1) * agreement).mean()
