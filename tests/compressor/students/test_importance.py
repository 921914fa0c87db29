"""Importance of channels by the logits that they make."""

from __future__ import annotations

import pytest
import tiny
import torch
import torch_pruning as tp
from torch import Tensor, nn

from compressor.inputs.teacher import Teacher
from compressor.students import importance
from compressor.students.importance import LogitImportance, logit_changes, reestimate_batch_norms


def normalised(teacher: Teacher, count: int = 12) -> Tensor:
    return teacher.normalise(tiny.images(count, teacher.card.input_shape).float() / 255.0)  # type: ignore[no-any-return]


def group_of(network: nn.Module, layer: nn.Module, image: Tensor) -> tp.Group:
    graph = tp.DependencyGraph().build_dependency(network.requires_grad_(True), example_inputs=image)
    channels = range(layer.out_channels)  # type: ignore[arg-type]
    return graph.get_pruning_group(layer, tp.prune_conv_out_channels, idxs=[*channels])


def test_in_a_linear_network_it_is_the_mean_square_of_what_the_logits_lose() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 5)).eval()
    images = torch.rand(20, 3, 8, 8)
    first, second = network[0], network[1]
    changes = logit_changes(network, images)
    activations = first(images)
    lost = []
    for channel in range(6):
        without = activations.clone()
        without[:, channel] = activations[:, channel].mean()  # of all images and positions
        delta = network[1:](activations) - network[1:](without)
        lost.append((delta - delta.mean(1, keepdim=True)).square().sum(1).mean())
    found = LogitImportance(changes, otherwise=lambda _group: None)(group_of(network, first, images[:1]))
    assert changes[second].shape == (importance.NUM_PROBES, 20, 6)
    assert found is not None
    # Each is a mean over 8 random probes of 5 logits.
    torch.testing.assert_close(found, torch.stack(lost), rtol=0.5, atol=0.0)


def test_many_probes_give_the_exact_sum_over_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "NUM_PROBES", 4_000)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(8, 3, bias=False)).eval()
    images = torch.rand(5, 8, 1, 1)
    changes = logit_changes(network, images)[network[1]].square().mean(0)  # (N, C)
    weights = network[1].weight - network[1].weight.mean(0)  # type: ignore[operator]
    exact = (images.flatten(1) - images.flatten(1).mean(0)).square() * weights.square().sum(0)
    torch.testing.assert_close(changes, exact.detach(), rtol=0.1, atol=1e-6)


def test_every_class_of_every_pixel_is_one_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "NUM_PROBES", 4_000)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(4, 3, 1, bias=False)).eval()
    images = torch.rand(3, 4, 2, 5)
    changes = logit_changes(network, images, batch=2)[network[0]].square().mean(0)  # (N, C)
    weights = network.get_parameter("0.weight")[:, :, 0, 0]
    centred = weights - weights.mean(0)
    pixels = (images - images.mean(dim=(0, 2, 3), keepdim=True)).square().sum(dim=(2, 3))
    torch.testing.assert_close(changes, (pixels * centred.square().sum(0)).detach(), rtol=0.1, atol=1e-6)


def test_readers_of_one_channel_add_up_before_the_square() -> None:
    class Cancels(nn.Module):
        """Two readers of the same channels with opposite weights: no channel matters."""

        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 4, 1)
            self.plus, self.minus = nn.Conv2d(4, 2, 1, bias=False), nn.Conv2d(4, 2, 1, bias=False)
            self.minus.load_state_dict({"weight": -self.plus.weight.detach()})

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return (self.plus(x) + self.minus(x)).mean(dim=(2, 3))

    torch.manual_seed(0)
    network, images = Cancels().eval(), torch.rand(6, 3, 4, 4)
    changes = logit_changes(network, images)
    assert changes[network.plus].abs().max() > 1e-3
    found = LogitImportance(changes, lambda _group: None)(group_of(network, network.stem, images[:1]))
    assert found is not None
    assert found.max() < 1e-10


def test_a_channel_that_never_changes_is_worth_nothing() -> None:
    teacher = tiny.teacher()
    conv: nn.Conv2d = teacher.network.get_submodule("layers.0.0.conv1")  # type: ignore[assignment]
    norm: nn.BatchNorm2d = teacher.network.get_submodule("layers.0.0.bn1")  # type: ignore[assignment]
    with torch.no_grad():
        norm.weight[3], norm.bias[3] = 0.0, 5.0  # large, and always the same
    images = normalised(teacher)
    scores = LogitImportance(logit_changes(teacher.network, images), lambda _group: None)
    found = scores(group_of(teacher.network, conv, images[:1]))
    assert found is not None
    assert int(found.argmin()) == 3
    assert found[3] < 1e-6 * found.median()


def test_a_group_that_no_known_layer_reads_is_left_to_the_other_rule() -> None:
    teacher = tiny.teacher()
    conv = teacher.network.get_submodule("layers.0.0.conv1")
    marker = torch.arange(16.0)
    images = normalised(teacher)
    group = group_of(teacher.network, conv, images[:1])
    assert LogitImportance({}, lambda _group: marker)(group) is marker
    changes = logit_changes(teacher.network, images)
    shifted = {layer: tensor[:, :, 1:] for layer, tensor in changes.items()}  # the layer has lost channels since
    assert LogitImportance(shifted, lambda _group: marker)(group) is marker


def test_looking_changes_nothing_and_gives_the_same_again() -> None:
    teacher = tiny.teacher("mobilenet_v2", image_shape=(3, 32, 32))
    before, images = tiny.snapshot(teacher), normalised(teacher, 20)
    first, second = (logit_changes(teacher.network, images) for _ in range(2))
    assert tiny.equal(tiny.snapshot(teacher), before)
    assert not any(layer._forward_pre_hooks for layer in teacher.network.modules())
    assert all(torch.equal(first[layer], second[layer]) for layer in first)
    assert not any(isinstance(layer, nn.Conv2d) and layer.groups > 1 for layer in first)


def test_batch_norms_get_the_statistics_of_the_images() -> None:
    teacher = tiny.teacher()
    images = normalised(teacher)
    norm: nn.BatchNorm2d = teacher.network.get_submodule("bn1")  # type: ignore[assignment]
    momentum = norm.momentum
    reestimate_batch_norms(teacher.network, images)
    seen = teacher.network.get_submodule("conv1")(images)
    torch.testing.assert_close(norm.running_mean, seen.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, seen.transpose(0, 1).flatten(1).var(1))
    assert (norm.momentum, norm.training) == (momentum, False)
