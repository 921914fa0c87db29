"""What can be said about a student on images that no stage trained or chose on, with labels and without.

Pure functions. N images, K classes; logits are (N, K). With no images there is nothing to say: the answer is
None, never NaN. Logits that are not finite are refused: an argmax over NaN is an answer that nobody gave.
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from compressor.errors import StageFailed
from compressor.report.measured import ClassFlips, Comparison, Confidence, Proportion


def wilson_interval(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927), without continuity correction.

    Unlike `p ± z sqrt(p (1 - p) / n)` it keeps its coverage for few images and for proportions near 0 and 1,
    which is where agreement on a handful of images lives: 20 of 20 gives 0.839 to 1, not 1 to 1. Successes need not be
    whole: an image that is right in part is no more uncertain than one that is right or wrong.

    Raises:
        ValueError: no trials, successes outside 0..n, or a confidence outside (0, 1).
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials are no proportion")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence {confidence} is not between 0 and 1")
    z = NormalDist().inv_cdf((1.0 + confidence) / 2.0)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # The exact bounds of none and of all are 0 and 1; rounding would leave them a hair outside.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return low, high


def agreement(teacher_logits: Tensor, student_logits: Tensor) -> Proportion | None:
    """Share of the images on which the student's top-1 class is the teacher's."""
    _check_pair(teacher_logits, student_logits)
    return _share(teacher_logits.argmax(dim=1) == student_logits.argmax(dim=1))


def accuracy(logits: Tensor, labels: Tensor) -> Proportion | None:
    """Share of the images on which the top-1 class is the label. labels: (N,) integers in 0..K-1."""
    _check_logits("network", logits)
    return _share(logits.argmax(dim=1) == labels)


def mean_kl(teacher_logits: Tensor, student_logits: Tensor) -> float | None:
    """KL(teacher || student) in nats at temperature 1, mean over the images, computed in float64."""
    _check_pair(teacher_logits, student_logits)
    if len(teacher_logits) == 0:
        return None
    teacher = teacher_logits.double().log_softmax(dim=1)
    student = student_logits.double().log_softmax(dim=1)
    # Rounding can leave a divergence of zero a hair below it.
    return max(0.0, float((teacher.exp() * (teacher - student)).sum(dim=1).mean()))


def confidence_summary(logits: Tensor) -> Confidence | None:
    """The probability that a network gives to its own top-1 class: mean, 10th percentile and median."""
    _check_logits("network", logits)
    return summary_of(top_confidence(logits))


def top_confidence(logits: Tensor) -> Tensor:
    """float64 (N,): the probability of each image's own top-1 class."""
    return logits.double().softmax(dim=1).amax(dim=1).clamp(max=1.0)


def summary_of(top: Tensor) -> Confidence | None:
    """Mean, 10th percentile and median of float64 (N,) in [0, 1]."""
    if len(top) == 0:
        return None
    p10, median = torch.quantile(top, torch.tensor([0.1, 0.5], dtype=top.dtype, device=top.device)).tolist()
    return Confidence(mean=float(top.mean().clamp(max=1.0)), p10=p10, median=median, n=len(top))


def flips_per_class(teacher_logits: Tensor, student_logits: Tensor) -> tuple[ClassFlips, ...]:
    """For each class that the teacher gives: the number of its images, and how many the student moves."""
    _check_pair(teacher_logits, student_logits)
    teacher, student = teacher_logits.argmax(dim=1), student_logits.argmax(dim=1)
    num_classes = teacher_logits.shape[1]
    images = torch.bincount(teacher, minlength=num_classes).tolist()
    flipped = torch.bincount(teacher[teacher != student], minlength=num_classes).tolist()
    return tuple(
        ClassFlips(class_index=index, num_images=images[index], num_flipped=flipped[index])
        for index in range(num_classes)
        if images[index]
    )


def compare(teacher_logits: Tensor, student_logits: Tensor) -> Comparison | None:
    """Everything above that needs no label, on one set of images."""
    divergence = mean_kl(teacher_logits, student_logits)
    teacher, student = confidence_summary(teacher_logits), confidence_summary(student_logits)
    if divergence is None or teacher is None or student is None:
        return None
    return Comparison(
        mean_kl_nats=divergence,
        teacher_confidence=teacher,
        student_confidence=student,
        flips=flips_per_class(teacher_logits, student_logits),
    )


def evidence_facts(teacher_logits: Tensor, student_logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """All of the above on one set of images as plain data. labels: int64 (N,), -1 where unknown."""
    labelled = labels >= 0
    found = {
        "agreement": agreement(teacher_logits, student_logits),
        "comparison": compare(teacher_logits, student_logits),
        "teacher_accuracy": accuracy(teacher_logits[labelled], labels[labelled]),
        "student_accuracy": accuracy(student_logits[labelled], labels[labelled]),
    }
    return {name: value and value.model_dump() for name, value in found.items()}


def variant_facts(teacher_logits: Tensor, fp32_logits: Tensor, logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """What one artefact costs on one set of images as plain data, under the names of `evidence_facts`.

    teacher_logits, fp32_logits, logits: (N, K), of the fp32 teacher, the same network's fp32 file and the artefact;
    labels: int64 (N,), -1 where unknown.
    """
    labelled = labels >= 0
    found = {
        "agreement": agreement(teacher_logits, logits),
        "agreement_with_fp32": agreement(fp32_logits, logits),
        "student_accuracy": accuracy(logits[labelled], labels[labelled]),
    }
    return {name: value and value.model_dump() for name, value in found.items()}


def _share(hits: Tensor) -> Proportion | None:
    """Proportion of true values in (N,)."""
    successes, n = int(hits.sum()), len(hits)
    if n == 0:
        return None
    low, high = wilson_interval(successes, n)
    return Proportion(value=successes / n, low=low, high=high, n=n)


def _check_pair(teacher_logits: Tensor, student_logits: Tensor) -> None:
    assert teacher_logits.shape == student_logits.shape, (teacher_logits.shape, student_logits.shape)
    _check_logits("teacher", teacher_logits)
    _check_logits("student", student_logits)


def _check_logits(whose: str, logits: Tensor) -> None:
    broken = int((~logits.isfinite()).any(dim=1).sum())
    if broken:
        raise StageFailed(
            f"The {whose}'s logits are not finite on {broken} of {len(logits)} held-out images.",
            "Evidence needs a finite number for every class.",
            "Look for the step where the losses in distill/log.jsonl stop being finite, then run again with "
            "another --seed.",
        )
