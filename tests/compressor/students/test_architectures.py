"""Every architecture by name: its parts, its shapes, and how a pruned one is rebuilt from shapes alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.students.architectures import (
    ARCHITECTURES,
    build_network,
    feature_shape,
    match_shapes,
    split_backbone,
)

# Channels of the last feature map, and by how much the image's side is divided to get its side; LeNet has no padding.
LAST_MAP: dict[str, tuple[int, int | None]] = {
    "cifar_resnet8": (64, 4),
    "cifar_resnet14": (64, 4),
    "cifar_resnet20": (64, 4),
    "cifar_resnet32": (64, 4),
    "cifar_resnet10": (512, 8),
    "cifar_resnet18": (512, 8),
    "cifar_resnet34": (512, 8),
    "cifar_wrn10_2": (128, 4),
    "cifar_wrn16_1": (64, 4),
    "cifar_wrn16_2": (128, 4),
    "cifar_wrn40_2": (128, 4),
    "cifar_mobilenet_v2": (1280, 8),
    "resnet18": (512, 32),
    "resnet34": (512, 32),
    "resnet50": (2048, 32),
    "resnet101": (2048, 32),
    "resnet152": (2048, 32),
    "mobilenet_v2": (1280, 32),
    "mobilenet_v3_small": (576, 32),
    "mobilenet_v3_large": (960, 32),
    "lenet5": (84, None),
    "deeplabv3_resnet101": (256, 8),
    "deeplabv3_resnet50": (256, 8),
    "deeplabv3_mobilenet_v3_large": (256, 16),
    "lraspp_mobilenet_v3_large": (168, 8),
    "unet": (32, 1),
    "unet16": (16, 1),
    "unet8": (8, 1),
}
DENSE = {name for name, entry in ARCHITECTURES.items() if "segmentation" in entry.tasks}

# The others are in test_torchvision_classifiers.
CANDIDATES = [name for name, entry in ARCHITECTURES.items() if entry.is_candidate]
MLP_HEADS = {"mobilenet_v3_small", "mobilenet_v3_large"}
architectures = pytest.mark.parametrize("name", CANDIDATES)


def on_meta(name: str, num_classes: int = 5, in_channels: int = 3, width: float = 1.0) -> nn.Module:
    """The network without its weights, which is fast for any size."""
    with torch.device("meta"):
        return build_network(name, num_classes, in_channels, width)


def last_map(name: str, height: int, width: int) -> tuple[int, int, int]:
    """Shape of the last feature map."""
    depth, divisor = LAST_MAP[name]
    if divisor is None:
        return depth, ((height - 4) // 2 - 4) // 2 - 4, ((width - 4) // 2 - 4) // 2 - 4
    return depth, height // divisor, width // divisor


def num_params(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@architectures
@pytest.mark.parametrize("in_channels", [1, 3])
def test_the_backbone_ends_in_the_last_feature_map(name: str, in_channels: int) -> None:
    network = on_meta(name, in_channels=in_channels)
    assert feature_shape(split_backbone(network, name), (in_channels, 64, 96)) == last_map(name, 64, 96)
    sides = (64, 96) if name in DENSE else ()
    assert network.eval()(torch.zeros(2, in_channels, 64, 96, device="meta")).shape == (2, 5, *sides)


# LR-ASPP has two maps.
@pytest.mark.parametrize("name", sorted(set(CANDIDATES) - {"lraspp_mobilenet_v3_large"} - MLP_HEADS))
def test_the_named_layers_are_where_the_network_says(name: str) -> None:
    entry, network = ARCHITECTURES[name], on_meta(name)
    maps: list[torch.Size] = []
    network.get_submodule(entry.feature_layer).register_forward_hook(lambda _m, _i, output: maps.append(output.shape))
    network.eval()(torch.zeros(1, 3, 64, 64, device="meta"))
    depth, height, width = last_map(name, 64, 64)
    assert maps == [(1, depth, height, width)]
    classifier = network.get_submodule(entry.classifier_layer)
    assert isinstance(classifier, nn.Conv2d if name in DENSE else nn.Linear)
    assert classifier.weight.shape[:2] == (5, depth)


# The two deepest are resnet50's code; building them takes seconds.
@pytest.mark.parametrize("name", sorted(set(CANDIDATES) - {"resnet101", "resnet152"} - DENSE - MLP_HEADS))
def test_a_teachers_logits_are_its_classifier_on_the_pooled_map(name: str) -> None:
    torch.manual_seed(0)
    network, entry = build_network(name, 5).eval(), ARCHITECTURES[name]
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        pooled = split_backbone(network, name)(images).mean(dim=(2, 3))
        rebuilt = network.get_submodule(entry.classifier_layer)(pooled)
        assert torch.allclose(rebuilt, network(images), atol=1e-4)


def test_networks_have_the_published_layers() -> None:
    assert num_params(on_meta("cifar_resnet8", num_classes=10)) == 78_042
    assert num_params(on_meta("cifar_resnet20", num_classes=10)) == 272_474  # He et al. 2016: 0.27 M
    assert num_params(on_meta("cifar_resnet18", num_classes=10)) == 11_173_962
    # Zagoruyko & Komodakis 2016 and the tables of data-free distillation, in millions: 2.2, 0.7, 0.2.
    assert num_params(on_meta("cifar_wrn40_2", num_classes=10)) == 2_243_546
    assert num_params(on_meta("cifar_wrn16_2", num_classes=10)) == 691_674
    assert num_params(on_meta("cifar_wrn16_1", num_classes=10)) == 175_066
    # Strides have no parameters: torchvision's at 10 classes.
    assert num_params(on_meta("cifar_mobilenet_v2", num_classes=10)) == num_params(
        on_meta("mobilenet_v2", num_classes=10)
    )


@pytest.mark.parametrize(
    "name",
    [
        "cifar_resnet8",
        "cifar_resnet18",
        "cifar_wrn16_2",
        "cifar_mobilenet_v2",
        "resnet18",
        "resnet50",
        "mobilenet_v2",
        "unet",
    ],
)
@pytest.mark.parametrize("width", [0.01, 0.3, 0.5, 0.75])
def test_narrow_networks_have_multiples_of_eight_channels_and_fewer_weights(name: str, width: float) -> None:
    narrow = on_meta(name, width=width)
    convolutions = [layer for layer in split_backbone(narrow, name).modules() if isinstance(layer, nn.Conv2d)]
    channels = {layer.out_channels for layer in convolutions}
    assert all(count % 8 == 0 and count > 0 for count in channels)
    assert num_params(narrow) < num_params(on_meta(name))
    assert narrow.eval()(torch.zeros(1, 3, 64, 64, device="meta")).shape[:2] == (1, 5)


@pytest.mark.parametrize("name", ["cifar_wrn10_2", "cifar_wrn40_2"])
def test_a_wide_residual_networks_last_map_is_activated(name: str) -> None:
    torch.manual_seed(0)
    feature_map = split_backbone(build_network(name, 5), name)(torch.rand(4, 3, 16, 16))
    assert feature_map.min() == 0.0
    assert feature_map.max() > 0.0


@pytest.mark.parametrize(("side", "last"), [(8, 1), (16, 2), (32, 4), (64, 8)])
def test_mobilenet_for_small_images_keeps_its_resolution_longer(side: int, last: int) -> None:
    backbone = split_backbone(on_meta("cifar_mobilenet_v2"), "cifar_mobilenet_v2")
    assert feature_shape(backbone, (3, side, side)) == (1280, last, last)


@pytest.mark.parametrize(("width", "widths"), [(1.0, [6, 16, 120, 84]), (0.5, [3, 8, 60, 42])])
def test_lenet_and_its_half_are_those_of_dfad(width: float, widths: list[int]) -> None:
    network = on_meta("lenet5", num_classes=10, in_channels=1, width=width)
    assert [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)] == widths
    assert num_params(on_meta("lenet5", num_classes=10, in_channels=1)) == 61_706  # LeCun et al. 1998, fully connected
    assert feature_shape(split_backbone(network, "lenet5"), (1, 32, 32)) == (widths[-1], 1, 1)


def test_lenet_pads_small_images_and_nothing_else() -> None:
    torch.manual_seed(0)
    network = build_network("lenet5", 10, in_channels=1).eval()
    small = torch.rand(2, 1, 27, 28)
    with torch.no_grad():
        assert torch.equal(network(small), network(nn.functional.pad(small, (2, 2, 2, 3))))


def test_half_of_a_resnet_has_half_of_its_channels() -> None:
    network = on_meta("resnet18", width=0.5)
    widths = [network.get_submodule(f"layer{i}.0.conv1").weight.shape[0] for i in (1, 2, 3, 4)]  # type: ignore[index]
    assert widths == [32, 64, 128, 256]


def test_an_unknown_name_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="lenet"):
        build_network("lenet", 10)


def test_measuring_the_map_changes_nothing() -> None:
    torch.manual_seed(0)
    backbone = split_backbone(build_network("cifar_resnet8", 5), "cifar_resnet8").train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert feature_shape(backbone, (3, 8, 8)) == (64, 2, 2)
    assert all(module.training for module in backbone.modules())
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_shapes_are_matched_and_depthwise_stays_depthwise() -> None:
    def block(channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(3, channels, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(channels, eps=1e-3, momentum=0.2),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels),
            nn.Conv2d(channels, 4, 1, dilation=1),
            nn.Flatten(),
            nn.Linear(4 * 16, channels),
        )

    torch.manual_seed(0)
    small, large = block(5).eval(), block(12)
    assert match_shapes(large, small.state_dict()) is large
    large.load_state_dict(small.state_dict())
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(large.eval()(images), small(images))
    depthwise, norm = large[2], large[1]
    assert isinstance(depthwise, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert depthwise.groups == 5
    assert (norm.eps, norm.momentum) == (1e-3, 0.2)


def test_layers_that_fit_are_left_alone() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4))
    layers = list(network)
    match_shapes(network, network.state_dict())
    assert list(network) == layers
