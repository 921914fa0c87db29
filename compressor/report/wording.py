"""What report.md and report.html say in the same words."""

from __future__ import annotations

from compressor.report.schema import Report

EQUAL = {
    "classification": "top-1 equal",
    "segmentation": "pixels with the same class",
    "regression": "variance explained",
}
PREPOSITION = {"classification": "with", "segmentation": "with", "regression": "of"}
NO_EVIDENCE = (
    "No evidence: the images are of the method's own generator, the student may have trained on their like, and "
    "nothing says that real ones are like them. Nothing is decided by this."
)


def has_samples(report: Report) -> bool:
    """Whether the user gave images of the task, be they held out or not."""
    samples = report.samples
    return samples.num_train + samples.num_select + samples.num_evidence > 0
