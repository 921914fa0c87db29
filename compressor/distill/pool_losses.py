"""Loss terms of KD3 (Tang et al., ICCV 2023, arXiv 2307.11469) as pure functions, and its mixture of styles.

Shapes: B batch, K classes, D features, E embedding, (h, w) positions. Losses are scalars in float32, minimised.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def disagreement_weights(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """w = sigmoid(||s - t||_2), (B,) in [0.5, 1), constants: images on which the two still differ count up to twice.

    Args:
        student_logits, teacher_logits: (B, K).
    """
    difference = student_logits.detach().float() - teacher_logits.detach().float()
    distance: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return distance.sigmoid()


def weighted_feature_alignment(projected_map: Tensor, teacher_map: Tensor, weights: Tensor) -> Tensor:
    """Mean over batch, channels and positions of w_i (P(S(x_i)) - T(x_i))^2.

    Where the teacher's map is larger it is average-pooled to the student's size.

    Args:
        projected_map, teacher_map: (B, D, h, w).
        weights: (B,), constants.
    """
    if teacher_map.shape[-2:] != projected_map.shape[-2:]:
        height, width = projected_map.shape[-2:]
        teacher_map = F.adaptive_avg_pool2d(teacher_map, (height, width))
    squares = (projected_map.float() - teacher_map.float()).square()
    return (weights[:, None, None, None] * squares).mean()


def style_contrast(one: Tensor, other: Tensor, temperature: float = 0.3) -> Tensor:
    """NT-Xent (Chen et al. 2020): each view of an image finds the other among all 2B views but itself.

    Args:
        one, other: embeddings (B, E) of the same images in two styles; they are normalised here.
    """
    views = F.normalize(torch.cat([one.float(), other.float()]), dim=1)
    similarity = views @ views.T / temperature
    similarity = similarity.masked_fill(torch.eye(len(views), dtype=torch.bool, device=views.device), -torch.inf)
    partner = torch.arange(len(views), device=views.device).roll(len(one))
    return F.cross_entropy(similarity, partner)


def mix_distribution(images: Tensor, random: torch.Generator, concentration: float = 0.1) -> Tensor:
    """Move each image's mean and deviation per channel towards those of another image of the batch.

    MixDistribution is MixStyle (Zhou et al. 2021) on pixels: the image's own statistics keep a share drawn from
    Beta(0.1, 0.1), which mostly is near 0 or near 1. Images (B, C, H, W) in [0, 1]; so is the result.
    """
    batch = len(images)
    deviation, mean = torch.std_mean(images, dim=(2, 3), keepdim=True)
    deviation = (deviation.square() + 1e-6).sqrt()
    partner = torch.randperm(batch, generator=random, device=random.device)
    uniform = torch.rand(2, batch, 1, 1, 1, generator=random, device=random.device).clamp_min(1e-12)
    # Joehnk's X / (X + Y) with X = U^(1/a), in logarithms. It rejects X + Y > 1, which at a = 0.1 is one draw in
    # seventy and is left in here.
    share = ((uniform[0].log() - uniform[1].log()) / concentration).sigmoid()
    new_mean = share * mean + (1.0 - share) * mean[partner]
    new_deviation = share * deviation + (1.0 - share) * deviation[partner]
    return ((images - mean) / deviation * new_deviation + new_mean).clamp(0.0, 1.0)
