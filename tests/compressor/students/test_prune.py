"""Pruned copies of a teacher: fewer channels, in the target's multiples, with the teacher's own weights."""

from __future__ import annotations

import pytest
import tiny
import torch
import torch_pruning
from torch import Tensor, nn

from compressor.errors import InputRefused
from compressor.inputs.teacher import Teacher
from compressor.students.architectures import ARCHITECTURES, split_backbone
from compressor.students.prune import NothingPruned, pruned_backbone
from compressor.students.student import own_classifier


def channels(network: nn.Module) -> list[int]:
    return [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def num_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def body(teacher: Teacher) -> nn.Module:
    return split_backbone(teacher.network, teacher.card.architecture)


@pytest.mark.parametrize(
    ("architecture", "side"),
    [
        ("cifar_resnet8", 8),
        ("cifar_resnet20", 8),
        ("cifar_wrn16_2", 8),
        ("cifar_mobilenet_v2", 8),
        ("resnet18", 32),
        ("mobilenet_v2", 32),
        ("unet", 16),
    ],
)
@pytest.mark.parametrize("multiple", [1, 8, 16])
def test_channels_are_multiples_and_about_half(architecture: str, side: int, multiple: int) -> None:
    teacher = tiny.teacher(architecture, image_shape=(3, side, side))
    pruned = pruned_backbone(teacher, 0.5, channel_multiple=multiple)
    before, after = channels(body(teacher)), channels(pruned)
    assert len(before) == len(after)
    for whole, kept in zip(before, after, strict=True):
        # Half, rounded down to a multiple; at least one multiple; a layer that is not wider than one stays whole.
        expected = max(whole // 2 // multiple, 1) * multiple if whole > multiple else whole
        assert kept == expected
    assert num_params(pruned) < num_params(body(teacher))


@pytest.mark.parametrize("ratio", [0.9, 0.97])
def test_a_large_ratio_leaves_one_multiple_in_every_layer(ratio: float) -> None:
    # torch-pruning rounds 16 * 0.1 down to no channel and would then silently leave the layer as it is.
    pruned = pruned_backbone(tiny.teacher(), ratio, channel_multiple=8)
    assert set(channels(pruned)) == {8}


def test_the_weights_that_stay_are_the_teachers() -> None:
    teacher = tiny.teacher()
    pruned = pruned_backbone(teacher, 0.5, channel_multiple=8)
    own = body(teacher).state_dict()
    for name, value in pruned.state_dict().items():
        if value.ndim == 4:
            filters = own[name].flatten(2)
            for kernel in value.flatten(2).flatten(0, 1):
                assert (filters == kernel).all(dim=2).any(), name
        elif value.ndim == 1:
            assert set(value.tolist()) <= set(own[name].tolist()), name


def test_the_strongest_filters_stay() -> None:
    teacher = tiny.teacher()
    conv: nn.Conv2d = teacher.network.get_submodule("layers.0.0.conv1")  # type: ignore[assignment]
    bn: nn.BatchNorm2d = teacher.network.get_submodule("layers.0.0.bn1")  # type: ignore[assignment]
    following: nn.Conv2d = teacher.network.get_submodule("layers.0.0.conv2")  # type: ignore[assignment]
    strong = [1, 2, 3, 5, 8, 11, 13, 14]
    with torch.no_grad():
        for tensor in (conv.weight, bn.weight, following.weight.transpose(0, 1)):
            tensor.mul_(0.01)
            tensor[strong] *= 1000.0
    pruned = pruned_backbone(teacher, 0.5, channel_multiple=8)
    assert torch.equal(pruned.get_submodule("layers.0.0.bn1").weight, bn.weight[strong])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "architecture",
    ["cifar_resnet20", "cifar_wrn10_2", "resnet18", "mobilenet_v2", "unet16", "lraspp_mobilenet_v3_large"],
)
@pytest.mark.parametrize("ratio", [0.3, 0.7])
def test_images_decide_which_channels_stay_but_not_how_many(architecture: str, ratio: float) -> None:
    teacher = tiny.teacher(architecture, image_shape=(3, 32, 32))
    images = tiny.images(8, teacher.card.input_shape).float() / 255.0
    without = pruned_backbone(teacher, ratio, channel_multiple=8)
    with_images = pruned_backbone(teacher, ratio, channel_multiple=8, images=images)
    shapes = {name: value.shape for name, value in without.state_dict().items()}
    assert {name: value.shape for name, value in with_images.state_dict().items()} == shapes
    assert not tiny.equal(tiny.snapshot(with_images), tiny.snapshot(without))
    again = pruned_backbone(teacher, ratio, channel_multiple=8, images=images)
    assert tiny.equal(tiny.snapshot(again), tiny.snapshot(with_images))


def test_a_channel_that_the_images_never_need_leaves_first() -> None:
    teacher = tiny.teacher()
    norm: nn.BatchNorm2d = teacher.network.get_submodule("layers.0.0.bn1")  # type: ignore[assignment]
    idle = [0, 4, 6, 7, 9, 10, 12, 15]
    busy = [channel for channel in range(16) if channel not in idle]
    with torch.no_grad():
        norm.weight[idle], norm.bias[idle] = 0.0, 50.0  # large weights around it, and always the same
    images = tiny.images(24).float() / 255.0
    pruned = pruned_backbone(teacher, 0.5, channel_multiple=8, images=images)
    assert torch.equal(pruned.get_submodule("layers.0.0.bn1").weight, norm.weight[busy])  # type: ignore[arg-type]


def test_with_images_the_batch_norms_are_estimated_anew() -> None:
    teacher = tiny.teacher()
    images = tiny.images(40).float() / 255.0
    pruned = pruned_backbone(teacher, 0.5, channel_multiple=8, images=images)
    norm: nn.BatchNorm2d = pruned.get_submodule("bn1")  # type: ignore[assignment]
    seen = pruned.get_submodule("conv1")(teacher.normalise(images))
    torch.testing.assert_close(norm.running_mean, seen.mean(dim=(0, 2, 3)))


def test_one_image_is_as_good_as_none() -> None:
    teacher = tiny.teacher()
    one = pruned_backbone(teacher, 0.5, channel_multiple=8, images=tiny.images(1).float() / 255.0)
    assert tiny.equal(tiny.snapshot(one), tiny.snapshot(pruned_backbone(teacher, 0.5, channel_multiple=8)))


def test_every_class_of_every_pixel_stays() -> None:
    teacher = tiny.teacher("deeplabv3_mobilenet_v3_large", image_shape=(3, 32, 48))
    student = own_classifier(pruned_backbone(teacher, 0.5, channel_multiple=8), teacher).eval()
    assert student.classifier.weight.shape == (tiny.NUM_CLASSES, 128, 1, 1)
    assert student(torch.rand(2, 3, 32, 48)).shape == (2, tiny.NUM_CLASSES, 32, 48)


def test_how_much_leaves_does_not_depend_on_the_size_of_the_image() -> None:
    small, large = (tiny.teacher("unet16", image_shape=(3, side, side)) for side in (64, 96))
    shapes = [
        [value.shape for value in pruned_backbone(teacher, 0.5, channel_multiple=8).state_dict().values()]
        for teacher in (small, large)
    ]
    assert shapes[0] == shapes[1]


def test_the_teacher_stays_whole() -> None:
    teacher = tiny.teacher()
    before = tiny.snapshot(teacher)
    pruned_backbone(teacher, 0.5, channel_multiple=8)
    assert tiny.equal(tiny.snapshot(teacher), before)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert not any(module.training for module in teacher.modules())


def test_a_pruned_backbone_can_be_trained() -> None:
    pruned = pruned_backbone(tiny.teacher(), 0.5, channel_multiple=8)
    assert all(parameter.requires_grad for parameter in pruned.parameters())
    assert list(dict(pruned.named_children())) == list(ARCHITECTURES["cifar_resnet8"].body)
    assert all(parameter.grad is None for parameter in pruned.parameters())


def test_pruning_that_removes_nothing_is_refused() -> None:
    with pytest.raises(InputRefused) as refused:
        pruned_backbone(tiny.teacher(), 0.5, channel_multiple=64)
    assert isinstance(refused.value, NothingPruned)
    assert refused.value.received == "Pruning cifar_resnet8 by 0.5 removes no channel."
    assert "a multiple of 64" in refused.value.expected
    assert refused.value.action == "Use --student width:0.5, or a larger ratio."


def test_torch_prunings_own_error_becomes_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("dim 3\n  of this group\n\nTraceback of something else. Very long.")

    monkeypatch.setattr(torch_pruning.pruner, "MagnitudePruner", fail)
    with pytest.raises(InputRefused) as refused:
        pruned_backbone(tiny.teacher(), 0.4, channel_multiple=8)
    assert refused.value.received == "Pruning cifar_resnet8 by 0.4 failed: AssertionError: dim 3 of this group."
    assert "channel groups torch-pruning can trace" in refused.value.expected
    assert refused.value.action == "Use --student width:0.5, or name a smaller architecture."
    assert refused.value.exit_code == 4


def test_a_network_that_torch_pruning_cannot_trace_is_refused_too() -> None:
    class Shuffled(nn.Module):
        """Ends in a reshape that fixes its number of channels, as ShuffleNetV2's does."""

        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.inner(x)
            return y.view(len(y), 2, 8, *y.shape[2:]).transpose(1, 2).reshape(len(y), 16, *y.shape[2:])

    teacher = tiny.teacher()
    network = teacher.network
    network.bn1 = Shuffled(network.get_submodule("bn1"))
    with pytest.raises(InputRefused, match=r"Pruning cifar_resnet8 by 0\.5 failed: RuntimeError: "):
        pruned_backbone(teacher, 0.5, channel_multiple=8)
