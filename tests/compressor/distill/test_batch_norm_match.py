"""What batch norms are shown, beside what they remember."""

from __future__ import annotations

import tiny
import torch
from torch import nn

from compressor.distill.batch_norm_match import has_batch_norm, recorded_statistics


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5))


def test_the_statistics_are_those_of_each_layers_input() -> None:
    network = small_network().eval()
    images = torch.rand(6, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    with recorded_statistics(network) as statistics:
        network(images)
    first, second = statistics
    inputs = network[0](images)
    assert torch.allclose(first.mean, inputs.mean(dim=(0, 2, 3)))
    assert torch.allclose(first.var, inputs.var(dim=(0, 2, 3), correction=0))
    vectors = network[:4](images)
    assert torch.allclose(second.mean, vectors.mean(dim=0), atol=1e-6)
    assert torch.allclose(second.var, vectors.var(dim=0, correction=0), atol=1e-6)
    assert torch.equal(second.stored_mean, torch.zeros(5))
    assert torch.equal(second.stored_var, torch.ones(5))


def test_nothing_is_recorded_outside_and_nothing_changes_inside() -> None:
    teacher = tiny.teacher()
    images = tiny.images(4).float() / 255.0
    before, plain = tiny.snapshot(teacher), teacher(images).logits
    with recorded_statistics(teacher.network) as statistics:
        assert torch.equal(teacher(images).logits, plain)
    num_layers = len(statistics)
    assert num_layers == sum(isinstance(layer, nn.BatchNorm2d) for layer in teacher.modules())
    teacher(images)
    assert len(statistics) == num_layers
    assert tiny.equal(tiny.snapshot(teacher), before)


def test_images_of_the_training_set_are_nearer_than_noise() -> None:
    from compressor.distill.losses import batch_norm_distance

    teacher = tiny.teacher()
    distances = []
    for images in (tiny.images(32, seed=1).float() / 255.0, torch.rand(32, *tiny.IMAGE_SHAPE)):
        with recorded_statistics(teacher.network) as statistics:
            teacher(images)
        distances.append(batch_norm_distance(statistics).item())
    assert distances[0] < 0.2 * distances[1]


def test_a_batch_norm_that_keeps_no_statistics_is_none() -> None:
    assert has_batch_norm(small_network())
    assert not has_batch_norm(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)))
    assert not has_batch_norm(tiny.teacher("lenet5"))
