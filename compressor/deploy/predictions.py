"""The latency that every ONNX file of a run would have on a target that is not here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.deploy.variants import Variant
from exporters.onnx_files import load_onnx
from profiles.errors import ProfileError
from profiles.kernels import fused_kernels
from profiles.predict import Anchor, predict_latency
from profiles.schema import DeviceProfile


def predicted_variants(
    variants: Sequence[Variant], run_folder: Path, target: DeviceProfile, anchors: Sequence[Anchor]
) -> tuple[dict[str, Any], str | None]:
    """A Prediction for one image by the variant's key, as plain data; and why one is missing, in a sentence.

    A variant is looked at through its own file, so that a layer which int8 left in float counts as what it is.
    """
    if target.this_host:  # it is measured
        return {}, None
    predicted: dict[str, Any] = {}
    reason = None
    for variant in variants:
        if variant.file is None:
            continue
        try:
            kernels = fused_kernels(load_onnx(run_folder / variant.file))
            found = predict_latency(kernels, target, variant.precision, anchors=anchors)
        except ProfileError as refused:  # a guess, or a graph whose kernels cannot be counted
            reason = f"{refused.received} {refused.expected}"
            continue
        predicted[variant.key] = found.to_dict()
    return predicted, reason
