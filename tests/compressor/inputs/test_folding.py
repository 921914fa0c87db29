"""A teacher whose batch norms are folded answers as before."""

from __future__ import annotations

from contextlib import suppress

import pytest
import tiny
import torch
from torch import Tensor, nn

from compressor.distill.stage_maps import recorded_maps
from compressor.inputs.folding import folded_batch_norms
from compressor.inputs.teacher import Teacher


def num_norms(network: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def seen(network: nn.Module, *shape: int) -> nn.Module:
    """The network in evaluation mode, after its batch norms have seen something."""
    torch.manual_seed(0)
    network.train()(torch.randn(16, *shape) * 2.0 + 1.0)
    return network.eval()


@pytest.mark.parametrize("architecture", ["cifar_resnet8", "cifar_wrn16_2", "cifar_mobilenet_v2", "resnet18"])
def test_the_folded_teacher_gives_the_same_answer_and_the_same_gradient_to_the_image(architecture: str) -> None:
    teacher = tiny.teacher(architecture)
    images = (tiny.images(4).float() / 255.0).requires_grad_(True)

    def answer() -> tuple[Tensor, ...]:
        output = teacher(images)
        (gradient,) = torch.autograd.grad(output.logits.square().sum(), images)
        return output.logits, output.features, output.feature_map, gradient

    before = answer()
    with teacher.folded():
        during = answer()
    for one, other in zip(before, during, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * float(one.detach().abs().max()))
    assert all(torch.equal(one, other) for one, other in zip(before, answer(), strict=True))


def test_a_resnet_has_no_batch_norm_left_and_then_has_its_own_again() -> None:
    teacher = tiny.teacher()
    before, own = tiny.snapshot(teacher), list(teacher.modules())
    with suppress(KeyError), teacher.folded():
        assert num_norms(teacher) == 0
        assert not any(parameter.requires_grad for parameter in teacher.parameters())
        raise KeyError
    assert tiny.equal(before, teacher.state_dict())
    assert list(teacher.modules()) == own


def test_hooks_on_stages_see_their_maps() -> None:
    teacher, images = tiny.teacher(), tiny.images(3).float() / 255.0
    stages = [teacher.network.get_submodule(f"layers.{index}") for index in range(3)]
    with recorded_maps(stages) as own:
        teacher(images)
    with teacher.folded(), recorded_maps(stages) as folded:
        teacher(images)
    assert len(own) == 3
    for one, other in zip(own, folded, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_feature_layer_keeps_its_output() -> None:
    made = tiny.teacher()
    # The map is the last convolution's own, before its batch norm.
    teacher = Teacher(made.network, made.card.model_copy(update={"feature_layer": "layers.2.0.conv2"}))
    images = tiny.images(3).float() / 255.0
    before = teacher(images).feature_map
    with teacher.folded():
        torch.testing.assert_close(teacher(images).feature_map, before, rtol=1e-4, atol=1e-5)
        assert num_norms(teacher) == 1


class TwoReaders(nn.Module):
    """The convolution's output is also read past its batch norm, which then must stay."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.norm(x) + x  # type: ignore[no-any-return]


class CalledTwice(TwoReaders):
    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(self.conv(x)))  # type: ignore[no-any-return]


class LooksAtValues(TwoReaders):
    """torch.fx cannot follow it."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x if x.sum() > 0 else -x))  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [TwoReaders, CalledTwice, LooksAtValues])
def test_what_cannot_be_folded_stays(kind: type[nn.Module]) -> None:
    network = seen(kind(), 2, 4, 4)
    images = torch.rand(3, 2, 4, 4)
    before = network(images)
    with folded_batch_norms(network):
        assert num_norms(network) == 1
        assert torch.equal(network(images), before)
