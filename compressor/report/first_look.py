"""What the teacher says of the samples, in the first minute: a wrong folder or normalisation shows here.

N images, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from compressor.report.evidence import accuracy, confidence_summary
from compressor.report.measured import Confidence, Proportion
from compressor.report.text import count, percent

LOW_CONFIDENCE = 0.5


@dataclass(frozen=True)
class FirstLook:
    """The teacher's opinion of the samples.

    Attributes:
        accuracy: on the labelled ones; None without labels.
        sentence: both in one line.
        warnings: what speaks against going on, in sentences.
    """

    confidence: Confidence
    accuracy: Proportion | None
    sentence: str
    warnings: tuple[str, ...]


def first_look(teacher_logits: Tensor, labels: Tensor) -> FirstLook:
    """teacher_logits: (N, K), N at least 1; labels: int64 (N,), -1 where unknown."""
    labelled = labels >= 0
    confidence = confidence_summary(teacher_logits)
    assert confidence is not None  # there is an image
    share = accuracy(teacher_logits[labelled], labels[labelled])
    sentence = f"{count(len(labels), 'image')}; the teacher's mean confidence is {percent(confidence.mean)}"
    warnings = []
    if confidence.mean < LOW_CONFIDENCE:
        warnings.append(
            f"The teacher is unsure of these samples (mean confidence {percent(confidence.mean)}): "
            "check the folder, the normalisation and the channel order before you trust this run."
        )
    if share is not None:
        sentence += f", its accuracy {percent(share.value)} on {share.n:,} labelled"
        if share.high < 2.0 / teacher_logits.shape[1]:
            warnings.append(
                f"The teacher's accuracy on the labelled samples is {percent(share.value)}: "
                "the class names, the normalisation or the folder do not belong to this teacher."
            )
    return FirstLook(confidence, share, sentence, tuple(warnings))
