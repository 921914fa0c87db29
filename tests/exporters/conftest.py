"""A small classifier that normalises inside, as every student does, and its exported file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from exporters.onnx_files import OnnxFile
from exporters.torch_to_onnx import onnx_from_torch

IMAGE_SHAPE = (3, 8, 8)


class Classifier(nn.Module):
    """[0, 1] images in RGB to five logits; BGR and normalisation are inside."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1))
        self.mean: Tensor
        self.std: Tensor
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.5)
        )
        self.fc = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.body((images.flip(1) - self.mean) / self.std)
        logits: Tensor = self.fc(features.mean(dim=(2, 3)))
        return logits


@pytest.fixture(scope="package")
def classifier() -> Classifier:
    """In training mode but for one frozen batch norm whose statistics differ from the batch's."""
    torch.manual_seed(0)
    model = Classifier()
    norm: nn.BatchNorm2d = model.get_submodule("body.1")  # type: ignore[assignment]
    assert norm.running_mean is not None
    norm.running_mean.uniform_(-1, 1)
    norm.eval()
    return model


@pytest.fixture(scope="package")
def exported(classifier: Classifier, tmp_path_factory: pytest.TempPathFactory) -> OnnxFile:
    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    return onnx_from_torch(classifier, IMAGE_SHAPE, path, opset_ceiling=20, metadata={"tool": "test"})


@pytest.fixture
def batches() -> list[NDArray[np.float32]]:
    draw = np.random.default_rng(0)
    return [draw.random((count, *IMAGE_SHAPE), dtype=np.float32) for count in (1, 2, 7)]
