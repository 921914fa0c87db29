"""Predictions for every file of a run: one that cannot be had takes no other with it."""

from __future__ import annotations

from pathlib import Path

import tiny_onnx

from compressor.deploy.predictions import predicted_variants
from compressor.deploy.variants import Variant
from profiles.catalogue import load_target

FILES = (
    Variant("student", "fp32", "odd.onnx", "ONNX Runtime"),
    Variant("student", "int8", None, "TensorRT 10", note="refused"),
    Variant("student", "fp16", "fp16.onnx", "TensorRT 10"),
)


def test_a_graph_whose_kernels_cannot_be_counted_is_told_and_the_others_are_predicted(tmp_path: Path) -> None:
    tiny_onnx.write(tmp_path / "odd.onnx", batch=3)  # a prediction is for one image
    tiny_onnx.write(tmp_path / "fp16.onnx", precision="fp16")
    predicted, reason = predicted_variants(FILES, tmp_path, load_target("jetson"), anchors=())
    assert [*predicted] == ["student.fp16"]
    assert predicted["student.fp16"]["origin"] == "predicted"
    assert reason == (
        "The graph's input 'image' is fixed to batches of 3. A dynamic batch, or batches of 1, were expected."
    )
    assert predicted_variants(FILES, tmp_path, load_target("cpu"), anchors=()) == ({}, None)
