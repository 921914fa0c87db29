"""Which images of an unlabelled pool to train on, from what teacher and student say of them.

Every selector is a pure function of logits (M, K) over the pool to a mask (M,), true for what is kept.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Selector = Literal["none", "lowest_entropy", "lowest_cross_entropy", "class_balanced", "teaching_score"]

CUTOFF = 0.95  # confidence asked of the most frequent class (KD3)
STEEPNESS = 5.0  # of the teacher's share (KD3)
LAST_SHARE = 0.1  # below which the teacher's share does not fall
SMALLEST_SHARE_KEPT = 0.25  # of the pool, whatever the thresholds say


def asks_the_student(selector: Selector) -> bool:
    """Whether a selector's answer changes while the student learns, so that it is worth asking again."""
    return selector in ("class_balanced", "teaching_score")


def select(
    selector: Selector, teacher_logits: Tensor, student_logits: Tensor | None, progress: float, fraction: float
) -> Tensor:
    """The mask (M,) of a selector by name.

    Args:
        student_logits: (M, K); None where the selector does not ask the student.
        progress: share of the training that is done, for the selectors that change with it.
        fraction: share of the pool to keep, for the selectors that rank.
    """
    match selector:
        case "none":
            return torch.ones(len(teacher_logits), dtype=torch.bool, device=teacher_logits.device)
        case "lowest_entropy":
            return highest(-entropy(teacher_logits), fraction)
        case "lowest_cross_entropy":
            return highest(-own_cross_entropy(teacher_logits), fraction)
        case "class_balanced":
            assert student_logits is not None
            return class_balanced(mixed(teacher_logits, student_logits, teacher_share(progress)))
        case "teaching_score":
            assert student_logits is not None
            return highest(teaching_score(teacher_logits, student_logits), fraction)


# --- ranks ------------------------------------------------------------------------------------------------------------


def highest(scores: Tensor, fraction: float) -> Tensor:
    """Mask of the `fraction` of M with the highest scores (M,), at least one; of equals the first."""
    count = max(1, round(fraction * len(scores)))
    mask = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    mask[scores.argsort(descending=True, stable=True)[:count]] = True
    return mask


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats (M,) of the prediction: how undecided it is over all classes."""
    logs = F.log_softmax(logits, dim=1)
    return -(logs.exp() * logs).sum(dim=1)


def own_cross_entropy(logits: Tensor) -> Tensor:
    """Cross-entropy (M,) of a prediction with its own first class, -log max p (DFND, Chen et al. 2021)."""
    return -F.log_softmax(logits, dim=1).amax(dim=1)


def teaching_score(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """How much an image has to teach (M,): log p_T(y) + log(1 - p_S(y)), y being the teacher's class.

    High where the teacher is sure and the student is not (the loss of the policy in TST, arXiv 2212.05422, with the
    teacher's class in the label's place).
    """
    labels = teacher_logits.argmax(dim=1, keepdim=True)
    sure = F.log_softmax(teacher_logits, dim=1).gather(1, labels)
    missed = 1.0 - student_logits.softmax(dim=1).gather(1, labels)
    return (sure + missed.clamp_min(1e-8).log())[:, 0]


# --- KD3: thresholds by class, teacher and student together -----------------------------------------------------------


def teacher_share(progress: float) -> float:
    """The teacher's share in the selecting prediction: it falls from 0.99 along KD3's curve and stays at the floor.

    alpha(e) = 1 - exp(-5 ((e + 1) / 160 - 1)^2) over 240 epochs, that is, with u = (e + 1) / 240,
    1 - exp(-5 (1.5 u - 1)^2), which reaches zero at u = 2/3. The released code jumps to zero at u = 1/2.
    """
    curve = 1.0 - math.exp(-STEEPNESS * (min(1.5 * progress, 1.0) - 1.0) ** 2)
    return max(LAST_SHARE, curve)


def mixed(teacher_logits: Tensor, student_logits: Tensor, share: float) -> Tensor:
    """The prediction that selects: logits mixed, as in the released code. The student's shall have the same scale."""
    return share * teacher_logits + (1.0 - share) * student_logits


def class_balanced(logits: Tensor, smallest_share: float = SMALLEST_SHARE_KEPT) -> Tensor:
    """Keep what is surer than its class's threshold, which is lower for rarer classes (KD3, after FlexMatch).

        b_c = count_c / max count,    tau_c = 0.95 b_c / (2 - b_c),    keep i where p_i > tau_{c_i}

    If that keeps less than `smallest_share` of the pool, those come in that miss their threshold by the least.
    """
    confidence, labels = logits.softmax(dim=1).max(dim=1)
    counts = torch.bincount(labels, minlength=logits.shape[1]).float()
    balance = counts / counts.max()
    threshold = CUTOFF * balance / (2.0 - balance)
    margin = confidence - threshold[labels]
    return (margin > 0) | highest(margin, smallest_share)
