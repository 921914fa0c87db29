"""One class for each pixel. answers: class maps uint8 (N, H, W); labels: masks uint8 (N, H, W), 255 where unknown.

Everything is computed from a few sums of each image: how many pixels both give to a class, and how many either does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from compressor.errors import StageFailed
from compressor.inputs.card import VOID, TeacherCard
from compressor.inputs.pixels import Images
from compressor.report import first_look as looking
from compressor.report.bootstrap import FEW, NO_WIDTH, bootstrap, mean_of_shares, widened
from compressor.report.first_look import FirstLook
from compressor.report.intervals import paired_difference
from compressor.report.measured import ClassOverlap, Difference, Proportion, SegmentationComparison
from compressor.report.overlays import overlays
from compressor.report.text import percent
from compressor.report.untrusted import NAME_LIMIT, printable
from compressor.tasks.seen import Seen

DENSE = True
CLASSES = True


def look(logits: Tensor) -> Seen:
    """logits (N, K, H, W): the class of each pixel, and the mean over the pixels of its probability.

    Raises:
        StageFailed: a logit is not finite.
    """
    if broken := int((~logits.isfinite()).flatten(1).any(dim=1).sum()):
        raise StageFailed(
            f"Logits are not finite on {broken} of {len(logits)} images.",
            "Evidence needs a finite number for every class of every pixel.",
            "Look for the step where the losses in distill/log.jsonl stop being finite, then run again with "
            "another --seed.",
        )
    highest, classes = logits.max(dim=1)
    probability = (highest - logits.logsumexp(dim=1)).exp()
    confidence = probability.double().mean(dim=(1, 2)).clamp(max=1.0)
    return Seen(classes.to(torch.uint8), confidence)


def groups(answers: Tensor) -> Tensor:
    """The most frequent class of each image."""
    return torch.tensor([int(torch.bincount(image).argmax()) for image in answers.flatten(1).long()], dtype=torch.int64)


def counts(answers: Tensor, card: TeacherCard) -> list[int]:
    """Images by their most frequent class."""
    return torch.bincount(groups(answers), minlength=card.num_classes).tolist()


def captions(seen: Seen, card: TeacherCard) -> list[str]:
    """The most frequent class and its share of the pixels."""
    most = groups(seen.answers)
    shares = (seen.answers == most[:, None, None]).double().mean(dim=(1, 2))
    return [
        f"{printable(card.class_names[index], NAME_LIMIT)}\n{percent(share)} of it"
        for index, share in zip(most.tolist(), shares.tolist(), strict=True)
    ]


def first_look(seen: Seen, labels: Tensor, card: TeacherCard) -> FirstLook:
    """Confidence, and the share of the pixels that are right where there are masks."""
    assert seen.confidence is not None
    return looking.impression(seen.confidence, pixel_accuracy(seen.answers, labels), card.num_classes)


def evidence_facts(teacher: Tensor, student: Tensor, labels: Tensor) -> dict[str, Any]:
    """Agreement of the pixels, mean IoU with the teacher's maps, and both against the masks where there are any."""
    found = {
        "agreement": pixel_agreement(teacher, student),
        "mean_iou": mean_iou(teacher, student),
        "comparison": compare(teacher, student, labels),
        "teacher_accuracy": pixel_accuracy(teacher, labels),
        "student_accuracy": pixel_accuracy(student, labels),
        "teacher_mean_iou": mean_iou(labels, teacher) if _masks(labels) else None,
        "student_mean_iou": mean_iou(labels, student) if _masks(labels) else None,
    }
    return {name: value and value.model_dump() for name, value in found.items()}


def variant_facts(teacher: Tensor, fp32: Tensor, answers: Tensor, labels: Tensor) -> dict[str, Any]:
    """What one artefact costs, under the same names."""
    found = {
        "agreement": pixel_agreement(teacher, answers),
        "agreement_with_fp32": pixel_agreement(fp32, answers),
        "mean_iou": mean_iou(teacher, answers),
        "student_accuracy": pixel_accuracy(answers, labels),
        "student_mean_iou": mean_iou(labels, answers) if _masks(labels) else None,
        "accuracy_difference": pixel_accuracy_difference(teacher, answers, labels),
    }
    return {name: value and value.model_dump() for name, value in found.items()}


def draw(images: Images, teacher: Tensor, student: Tensor, card: TeacherCard, path: Path) -> bool:
    """Images, both maps over them, and where they differ."""
    overlays(images, teacher, student, card.class_names, path)
    return True


def same(reference: Tensor, answers: Tensor) -> Proportion | None:
    """Of the pixels."""
    return pixel_agreement(reference, answers)


def right(answers: Tensor, labels: Tensor) -> Proportion | None:
    """Of the pixels."""
    return pixel_accuracy(answers, labels)


# --- shares of pixels and overlaps of classes -------------------------------------------------------------------------


def pixel_agreement(reference: Tensor, maps: Tensor) -> Proportion | None:
    """Share of the pixels with the reference's class, of those that have one in it; None where none has.

    On a single image nothing is known of others, so that its interval is all of 0 to 1.
    """
    known = reference != VOID
    hits = ((reference == maps) & known).flatten(1).sum(dim=1)
    sums = torch.stack([hits, known.flatten(1).sum(dim=1)], dim=1).double()
    sums = sums[sums[:, 1] > 0]
    if len(sums) == 0:
        return None
    if len(sums) == 1:
        return _of_one_image(float(sums[0, 0] / sums[0, 1]), "pixels")
    return _proportion(bootstrap(sums, lambda total: total[:, 0] / total[:, 1]), len(sums), "pixels")


def pixel_accuracy(maps: Tensor, labels: Tensor) -> Proportion | None:
    """Agreement with the masks; None without."""
    return pixel_agreement(labels, maps) if _masks(labels) else None


def pixel_accuracy_difference(reference: Tensor, maps: Tensor, labels: Tensor) -> Difference | None:
    """Pixel accuracy minus that of a reference on the same images, by a bootstrap over them; None without masks.

    Where fewer than ten images say it, or all are alike, the interval reaches at least as far as that of two judges who
    are both right on every image: `intervals.paired_difference`.
    """
    if not _masks(labels):
        return None
    known = labels != VOID
    ahead = ((maps == labels) & known).flatten(1).sum(dim=1) - ((reference == labels) & known).flatten(1).sum(dim=1)
    sums = torch.stack([ahead, known.flatten(1).sum(dim=1)], dim=1).double()
    sums = sums[sums[:, 1] > 0]
    n = len(sums)
    if n == 0:
        return None
    if n == 1:
        return Difference(value=float(sums[0, 0] / sums[0, 1]), low=-1.0, high=1.0, n=1)
    value, low, high = bootstrap(sums, lambda total: total[:, 0] / total[:, 1])
    if n < FEW or high - low < NO_WIDTH:
        _, least, most = paired_difference(n, 0, 0, 0)
        low, high = max(-1.0, min(low, value + least)), min(1.0, max(high, value + most))
    return Difference(value=value, low=low, high=high, n=n)


def mean_iou(reference: Tensor, maps: Tensor) -> Proportion | None:
    """Intersection over union of each class that either gives to some pixel, over all images, then the mean of these.

    Pixels without a class in the reference count for neither.
    """
    both, either = overlaps(reference, maps)
    kept = either.sum(dim=1) > 0
    both, either = both[kept], either[kept]
    if len(both) == 0:
        return None
    if len(both) == 1:
        return _of_one_image(float((both / either).nanmean()), "overlap")
    return _proportion(mean_of_shares(both, either), len(both), "overlap")


def overlaps(reference: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
    """float64 (N, K) each, for every image and class: the pixels that both give to it, and those that either does."""
    known = reference != VOID
    num_classes = 1 + int(torch.stack([reference[known].max(), maps.max()]).max()) if known.any() else 1
    both, either = torch.zeros(2, len(maps), num_classes, dtype=torch.float64)
    for index, (wanted, found, valid) in enumerate(zip(reference, maps, known, strict=True)):
        wanted, found = wanted[valid].long(), found[valid].long()
        hits, areas = torch.bincount(found[wanted == found], minlength=num_classes), torch.cat([wanted, found])
        both[index] = hits
        either[index] = torch.bincount(areas, minlength=num_classes) - hits
    return both, either


def compare(teacher: Tensor, student: Tensor, labels: Tensor) -> SegmentationComparison | None:
    """Class by class; None without images."""
    if len(teacher) == 0:
        return None
    both, either = (sums.sum(dim=0) for sums in overlaps(teacher, student))
    shares = torch.bincount(teacher.flatten().long(), minlength=len(both)) / teacher.numel()
    against = [_class_ious(labels, maps) if _masks(labels) else {} for maps in (teacher, student)]
    return SegmentationComparison(
        num_images=len(teacher),
        lowest_image=float((teacher == student).double().flatten(1).mean(dim=1).min()),
        classes=tuple(
            ClassOverlap(
                class_index=index,
                teacher_share=float(shares[index]),
                iou=float(both[index] / either[index]),
                teacher_iou=against[0].get(index),
                student_iou=against[1].get(index),
            )
            for index in range(len(both))
            if either[index]
        ),
    )


def _class_ious(labels: Tensor, maps: Tensor) -> dict[int, float]:
    both, either = (sums.sum(dim=0) for sums in overlaps(labels, maps))
    return {index: float(both[index] / either[index]) for index in range(len(both)) if either[index]}


def _masks(labels: Tensor) -> bool:
    """Whether the labels are masks; a run without any has -1 for each image."""
    return labels.dim() == 3


def _proportion(found: tuple[float, float, float], n: int, of: Literal["pixels", "overlap"]) -> Proportion:
    low, high = widened(*found, n)
    return Proportion(value=found[0], low=low, high=high, n=n, of=of)


def _of_one_image(value: float, of: Literal["pixels", "overlap"]) -> Proportion:
    """From which nothing follows for others."""
    return Proportion(value=value, low=0.0, high=1.0, n=1, of=of)
