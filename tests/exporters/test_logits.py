"""Logits of many images: batches, bytes, and files that take a fixed number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from exporters.logits import BATCH, filled_up, onnx_logits
from exporters.onnx_files import save_onnx


def means(path: Path, batch: int | str) -> Path:
    """Logits that are the means of the channels."""
    image = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 3, 4, 4])
    logits = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, 3])
    nodes = [
        helper.make_node("GlobalAveragePool", ["pixels"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["scores"]),
    ]
    graph = helper.make_graph(nodes, "means", [image], [logits])
    return save_onnx(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path / "m.onnx"
    ).path


@pytest.mark.parametrize("batch", ["batch", 1, 5])
@pytest.mark.parametrize("count", [1, 5, 2 * BATCH + 3])
def test_every_batch_size_gives_the_same(tmp_path: Path, batch: int | str, count: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 4, 4), dtype=np.uint8)
    expected = (images / 255.0).mean(axis=(2, 3))
    path = means(tmp_path, batch)
    np.testing.assert_allclose(onnx_logits(path, images), expected, rtol=1e-5)
    np.testing.assert_allclose(onnx_logits(path, images.astype(np.float32) / 255), expected, rtol=1e-5)


def test_filling_up() -> None:
    images = np.arange(2, dtype=np.float32).reshape(2, 1, 1, 1)
    assert filled_up(images, 4).ravel().tolist() == [0, 1, 1, 1]
    assert filled_up(images, 2) is images
    assert filled_up(images, None) is images
