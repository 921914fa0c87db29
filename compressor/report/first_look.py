"""What the teacher says of the samples, in the first minute: a wrong folder or normalisation shows here.

N images, K classes or outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressor.report.evidence import accuracy, confidence_summary, summary_of
from compressor.report.measured import Confidence, Proportion
from compressor.report.text import count, percent, significant

LOW_CONFIDENCE = 0.5
CONSTANT = 1e-6  # of the largest output: float32 varies as much by rounding


@dataclass(frozen=True)
class FirstLook:
    """The teacher's opinion of the samples.

    Attributes:
        confidence: None where outputs are no logits.
        accuracy: on the labelled ones; None without labels.
        sentence: both in one line.
        warnings: what speaks against going on, in sentences.
    """

    confidence: Confidence | None
    accuracy: Proportion | None
    sentence: str
    warnings: tuple[str, ...]


def first_look(teacher_logits: Tensor, labels: Tensor) -> FirstLook:
    """teacher_logits: (N, K), N at least 1; labels: int64 (N,), -1 where unknown."""
    labelled = labels >= 0
    share = accuracy(teacher_logits[labelled], labels[labelled])
    return _impression(confidence_summary(teacher_logits), share, len(labels), teacher_logits.shape[1])


def impression(top: Tensor, share: Proportion | None, num_classes: int) -> FirstLook:
    """top: (N,), N at least 1, the teacher's confidence in its own classes; share: of what is labelled, the right."""
    return _impression(summary_of(top), share, len(top), num_classes)


def of_outputs(outputs: Tensor) -> FirstLook:
    """Of a regression: outputs (N, K), N at least 1, of which nothing says how right they are."""
    spread = outputs.double().std(dim=0, correction=0)
    sentence = f"{count(len(outputs), 'image')}; the teacher's outputs deviate from their means by {_range(spread)}"
    warnings = []
    if len(outputs) > 1 and float(spread.max()) <= CONSTANT * float(outputs.abs().max()):
        warnings.append(
            "The teacher's outputs are the same for all samples: check the folder and the normalisation before you "
            "trust this run."
        )
    return FirstLook(None, None, sentence, tuple(warnings))


def _range(spread: Tensor) -> str:
    low, high = significant(float(spread.min())), significant(float(spread.max()))
    return low if low == high else f"{low} to {high}"


def _impression(
    confidence: Confidence | None, share: Proportion | None, num_images: int, num_classes: int
) -> FirstLook:
    assert confidence is not None  # there is an image
    sentence = f"{count(num_images, 'image')}; the teacher's mean confidence is {percent(confidence.mean)}"
    warnings = []
    if confidence.mean < LOW_CONFIDENCE:
        warnings.append(
            f"The teacher is unsure of these samples (mean confidence {percent(confidence.mean)}): "
            "check the folder, the normalisation and the channel order before you trust this run."
        )
    if share is not None:
        sentence += f", its accuracy {percent(share.value)} on {share.n:,} labelled"
        if share.high < min(2.0 / num_classes, 0.5):  # of two classes, half is right by chance
            warnings.append(
                f"The teacher's accuracy on the labelled samples is {percent(share.value)}: "
                "the class names, the normalisation or the folder do not belong to this teacher."
            )
    return FirstLook(confidence, share, sentence, tuple(warnings))
