"""What can be said about a student on images that no stage trained or chose on, with labels and without.

Pure functions. N images, K classes; logits are (N, K). With no images there is nothing to say: the answer is
None, never NaN. Logits that are not finite are refused: an argmax over NaN is an answer that nobody gave.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from compressor.errors import StageFailed
from compressor.report.bootstrap import bootstrap
from compressor.report.intervals import mcnemar_p, paired_difference, wilson_interval
from compressor.report.measured import (
    Calibration,
    ClassAccuracy,
    ClassFlips,
    Comparison,
    Confidence,
    Difference,
    Proportion,
    Shift,
)

MOST_BINS = 15
IMAGES_A_BIN = 10


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


def calibration(logits: Tensor, classes: Tensor, against: Literal["labels", "teacher"]) -> Calibration | None:
    """Expected calibration error: in each bin the mean confidence beside the share of hits.

        sum over the bins b of (n_b / n) |hits_b / n_b - mean confidence of b|

    M. Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015; the images are sorted by
    confidence and divided into bins of equally many (J. Nixon et al., Measuring Calibration in Deep Learning, 2019).
    Images of equal confidence share their hits, so that their order does not count. There is a bin for every ten
    images, from 1 to 15. With few images the error is too large rather than too small: in a bin of ten, a network that
    is perfectly calibrated at 0.8 hits between 5.5 and 10 of them, and every such distance counts.

    Args:
        classes: int64 (N,), those that count as hits: labels, or the teacher's top-1 classes.
    """
    _check_logits("network", logits)
    n = len(logits)
    if n == 0:
        return None
    confidence, order = top_confidence(logits).sort(stable=True)
    hits = (logits.argmax(dim=1) == classes)[order].double()
    _, group, sizes = confidence.unique_consecutive(return_inverse=True, return_counts=True)
    shared = torch.zeros(len(sizes), dtype=torch.float64).index_add_(0, group, hits) / sizes
    num_bins = max(1, min(MOST_BINS, n // IMAGES_A_BIN))
    distances = (shared[group] - confidence).tensor_split(num_bins)
    error = sum(abs(float(distance.sum())) for distance in distances) / n
    return Calibration(error=min(1.0, error), n=n, num_bins=num_bins, against=against)


def confidence_shift(teacher_logits: Tensor, student_logits: Tensor) -> Shift | None:
    """The student's confidence in its own top-1 class minus the teacher's in its own, mean over the images.

    On a single image nothing is known of others, so that its interval is all of -1 to 1.
    """
    _check_pair(teacher_logits, student_logits)
    n = len(teacher_logits)
    if n == 0:
        return None
    differences = top_confidence(student_logits) - top_confidence(teacher_logits)
    if n == 1:
        return Shift(value=float(differences[0]), low=-1.0, high=1.0, n=1)
    sums = torch.stack([differences, torch.ones_like(differences)], dim=1)
    value, low, high = bootstrap(sums, lambda total: total[:, 0] / total[:, 1])
    return Shift(value=value, low=low, high=high, n=n)


def accuracy_difference(reference_logits: Tensor, logits: Tensor, labels: Tensor) -> Difference | None:
    """Accuracy minus that of a reference on the same images. labels: (N,) integers in 0..K-1."""
    _check_pair(reference_logits, logits)
    n = len(labels)
    if n == 0:
        return None
    before, after = reference_logits.argmax(dim=1) == labels, logits.argmax(dim=1) == labels
    both, gained, lost = int((before & after).sum()), int((after & ~before).sum()), int((before & ~after).sum())
    value, low, high = paired_difference(both, gained, lost, n - both - gained - lost)
    return Difference(value=value, low=low, high=high, n=n, gained=gained, lost=lost, p_value=mcnemar_p(gained, lost))


def class_accuracies(reference_logits: Tensor, logits: Tensor, labels: Tensor) -> tuple[ClassAccuracy, ...]:
    """The same label by label, for those that some image has. labels: (N,) integers in 0..K-1."""
    _check_pair(reference_logits, logits)
    before, after = reference_logits.argmax(dim=1) == labels, logits.argmax(dim=1) == labels
    counted = [labels, labels[before], labels[after], labels[before & after]]
    rows = torch.stack([torch.bincount(some, minlength=logits.shape[1]) for some in counted], dim=1).tolist()
    found = []
    for index, (images, right_before, right_after, both) in enumerate(rows):
        if images:
            gained, lost = right_after - both, right_before - both
            _, low, high = paired_difference(both, gained, lost, images - both - gained - lost)
            found.append(
                ClassAccuracy(
                    class_index=index,
                    num_images=images,
                    num_right_teacher=right_before,
                    num_right=right_after,
                    low=low,
                    high=high,
                )
            )
    return tuple(found)


def compare(teacher_logits: Tensor, student_logits: Tensor, labels: Tensor) -> Comparison | None:
    """Everything above on one set of images. labels: int64 (N,), -1 where unknown."""
    divergence = mean_kl(teacher_logits, student_logits)
    teacher, student = confidence_summary(teacher_logits), confidence_summary(student_logits)
    if divergence is None or teacher is None or student is None:
        return None
    known = labels >= 0
    return Comparison(
        mean_kl_nats=divergence,
        teacher_confidence=teacher,
        student_confidence=student,
        flips=flips_per_class(teacher_logits, student_logits),
        confidence_shift=confidence_shift(teacher_logits, student_logits),
        calibration=calibration(student_logits, teacher_logits.argmax(dim=1), "teacher"),
        calibration_labels=calibration(student_logits[known], labels[known], "labels"),
        teacher_calibration_labels=calibration(teacher_logits[known], labels[known], "labels"),
    )


def evidence_facts(teacher_logits: Tensor, student_logits: Tensor, labels: Tensor) -> dict[str, Any]:
    """All of the above on one set of images as plain data. labels: int64 (N,), -1 where unknown."""
    labelled = labels >= 0
    found = {
        "agreement": agreement(teacher_logits, student_logits),
        "comparison": compare(teacher_logits, student_logits, labels),
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
    reference, labelled_logits, known = teacher_logits[labelled], logits[labelled], labels[labelled]
    found = {
        "agreement": agreement(teacher_logits, logits),
        "agreement_with_fp32": agreement(fp32_logits, logits),
        "student_accuracy": accuracy(labelled_logits, known),
        "accuracy_difference": accuracy_difference(reference, labelled_logits, known),
    }
    classes = class_accuracies(reference, labelled_logits, known)
    return {
        **{name: value and value.model_dump() for name, value in found.items()},
        "class_accuracy": [one.model_dump() for one in classes],
    }


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
