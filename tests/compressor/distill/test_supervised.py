"""Ordinary training, as the demo's teacher and the benchmarks' upper anchors have it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from compressor.distill.supervised import train_classifier
from compressor.distill.training import Context, read_log


def test_it_learns_to_tell_dark_from_bright(tmp_path: Path) -> None:
    labels = torch.arange(20) % 2
    images = (labels[:, None, None, None] * 200 + 20).expand(-1, 1, 8, 8).to(torch.uint8)
    context = Context(tmp_path)
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 6, 2))
    trained = train_classifier(network, images, labels, context, num_steps=30, batch_size=8)
    assert trained is network
    assert not trained.training
    assert torch.equal(trained(images.float() / 255.0).argmax(dim=1), labels)
    rows = read_log(tmp_path / "log.jsonl")
    assert rows[-1]["phase"] == "teacher"
    assert rows[-1]["terms"]["cross_entropy"] < 0.1 < rows[0]["terms"]["cross_entropy"]


def test_without_augmentation_the_network_sees_the_images_themselves(tmp_path: Path) -> None:
    images = (torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 255.0).to(torch.uint8)
    known = {image.numpy().tobytes() for image in images.float() / 255.0}
    for augment in (True, False):
        folder = tmp_path / str(augment)
        folder.mkdir()
        seen: list[bytes] = []
        network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
        network.register_forward_pre_hook(
            lambda _network, inputs, seen=seen: seen.extend(image.numpy().tobytes() for image in inputs[0])
        )
        labels = torch.zeros(6, dtype=torch.long)
        train_classifier(network, images, labels, Context(folder), num_steps=2, batch_size=8, augment=augment)
        assert (set(seen) <= known) is not augment
