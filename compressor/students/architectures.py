"""Network architectures by name, for teachers and for students.

Every entry knows where its last feature map ends and which layer classifies it, so that nobody has to name layers:

    image (B, C, H, W) -> body -> feature map (B, D, h, w) -> global average pool -> classifier -> logits (B, K)

Networks for 8 to 64 px are in `small_images`; others are torchvision's. Those that classify every pixel (`dense`) have
a 1x1 convolution on the map in its place, and logits (B, K, H, W).

`build_network` makes the whole network. `split_backbone` keeps the body, which is what a student contributes when it
shares its teacher's classifier. `match_shapes` rebuilds a pruned network from the shapes in its state dict, which is
why a pruned student needs no pickle.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from compressor.students import dense
from compressor.students.architecture import Architecture
from compressor.students.own_networks import own_architecture
from compressor.students.small_images import CifarMobileNetV2, CifarResNet, LeNet5, WideResNet
from compressor.students.timm_networks import timm_architecture
from compressor.students.torchvision_classifiers import torchvision_classifiers

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "build_network",
    "feature_shape",
    "is_architecture",
    "match_shapes",
    "split_backbone",
    "teacher_architectures",
]


def _scaled(channels: int, width: float) -> int:
    """Channels times width, as a multiple of 8 (and at least 8)."""
    return max(8, int(channels * width + 4) // 8 * 8)


def _cifar_resnet(depths: tuple[int, ...], widths: tuple[int, ...]) -> Architecture:
    def build(num_classes: int, in_channels: int, width: float) -> nn.Module:
        return CifarResNet(depths, tuple(_scaled(w, width) for w in widths), num_classes, in_channels)

    return Architecture(build, "layers", "fc", ("conv1", "bn1", "relu", "layers"), "cifar_resnet")


def _wide_resnet(depth: int, factor: int) -> Architecture:
    def build(num_classes: int, in_channels: int, width: float) -> nn.Module:
        stem, *stages = (_scaled(channels, width) for channels in (16, 16 * factor, 32 * factor, 64 * factor))
        return WideResNet((depth - 4) // 6, stem, (stages[0], stages[1], stages[2]), num_classes, in_channels)

    body = ("conv1", "block1", "block2", "block3", "bn1", "relu")
    return Architecture(build, "relu", "fc", body, "cifar_wrn")


def _cifar_mobilenet() -> Architecture:
    return Architecture(CifarMobileNetV2, "layers", "fc", ("layers",), "cifar_mobilenet")


def _lenet5() -> Architecture:
    def build(num_classes: int, in_channels: int, width: float) -> nn.Module:
        # Half the width is DFAD's student, 3/8/60/42: multiples of 8 would not be it.
        first, second, third, fourth = (max(1, round(channels * width)) for channels in (6, 16, 120, 84))
        return LeNet5((first, second, third, fourth), num_classes, in_channels)

    return Architecture(build, "features", "fc", ("features",), "lenet")


def _torchvision_resnet(name: str) -> Architecture:
    def build(num_classes: int, in_channels: int, width: float) -> nn.Module:
        from torchvision import models

        network = getattr(models, name)(weights=None, num_classes=num_classes)
        if width != 1.0:
            depths = [len(getattr(network, f"layer{i}")) for i in range(1, 5)]
            network = _narrow_resnet(depths, num_classes, width)
        if in_channels != 3:
            network.conv1 = nn.Conv2d(in_channels, network.conv1.out_channels, 7, stride=2, padding=3, bias=False)
        return cast(nn.Module, network)

    body = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4")
    return Architecture(build, "layer4", "fc", body, "resnet")


def _narrow_resnet(depths: list[int], num_classes: int, width: float) -> Any:
    """A torchvision ResNet of basic blocks with scaled channels; bottleneck families narrow to basic blocks as well."""
    from torchvision.models import resnet

    network = resnet.ResNet(resnet.BasicBlock, depths, num_classes=num_classes)
    stem = _scaled(64, width)
    network.conv1 = nn.Conv2d(3, stem, 7, stride=2, padding=3, bias=False)
    network.bn1 = nn.BatchNorm2d(stem)
    network.inplanes = stem
    for index, channels in enumerate((64, 128, 256, 512)):
        stride = 1 if index == 0 else 2
        layer = network._make_layer(resnet.BasicBlock, _scaled(channels, width), depths[index], stride=stride)
        setattr(network, f"layer{index + 1}", layer)
    network.fc = nn.Linear(_scaled(512, width), num_classes)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _mobilenet(name: str, feature_layer: str, classifier_layer: str) -> Architecture:
    def build(num_classes: int, in_channels: int, width: float) -> nn.Module:
        from torchvision import models

        # MobileNetV3 takes its width through private settings; only its published widths are offered.
        options = {"width_mult": width} if name == "mobilenet_v2" else {}
        network: nn.Module = getattr(models, name)(weights=None, num_classes=num_classes, **options)
        if in_channels != 3:
            stem: nn.Conv2d = network.get_submodule("features.0.0")  # type: ignore[assignment]
            replacement = nn.Conv2d(in_channels, stem.out_channels, 3, stride=2, padding=1, bias=False)
            _replace_module(network, "features.0.0", replacement)
        return network

    return Architecture(build, feature_layer, classifier_layer, ("features",), "mobilenet")


def _deeplab(name: str) -> Architecture:
    def build(num_classes: int, in_channels: int, _width: float) -> nn.Module:
        return dense.deeplab(name, num_classes, in_channels)

    # The last of the head's five layers is the classifier.
    body = ("backbone", *(f"classifier.{index}" for index in range(4)))
    return Architecture(build, "classifier.3", "classifier.4", body, "deeplab", ("segmentation",), scales=False)


def _lite_raspp() -> Architecture:
    def build(num_classes: int, in_channels: int, _width: float) -> nn.Module:
        return dense.lite_raspp(num_classes, in_channels)

    return Architecture(
        build,
        "classifier.cbr",
        "classifier.high_classifier",
        ("backbone", "head"),
        "lraspp",
        ("segmentation",),
        split=dense.lite_raspp_body,
        scales=False,
    )


def _unet(base: int) -> Architecture:
    def build(num_classes: int, in_channels: int, width: float) -> nn.Module:
        return dense.UNet(in_channels, _scaled(base, width), num_classes)

    return Architecture(build, "body", "classifier", ("body",), "unet", ("segmentation",), full_size=True)


class _Architectures(dict[str, Architecture]):
    """By name; `timm:resnet18` is looked up in timm, and `mynet:build` in the user's own code where it was named."""

    def __missing__(self, name: object) -> Architecture:
        found = _elsewhere(name)
        if found is None:
            raise KeyError(name)
        return found


ARCHITECTURES: Mapping[str, Architecture] = _Architectures(
    {
        "cifar_resnet8": _cifar_resnet((1, 1, 1), (16, 32, 64)),
        "cifar_resnet14": _cifar_resnet((2, 2, 2), (16, 32, 64)),
        "cifar_resnet20": _cifar_resnet((3, 3, 3), (16, 32, 64)),
        "cifar_resnet32": _cifar_resnet((5, 5, 5), (16, 32, 64)),
        "cifar_resnet10": _cifar_resnet((1, 1, 1, 1), (64, 128, 256, 512)),
        "cifar_resnet18": _cifar_resnet((2, 2, 2, 2), (64, 128, 256, 512)),
        "cifar_resnet34": _cifar_resnet((3, 4, 6, 3), (64, 128, 256, 512)),
        "cifar_wrn10_2": _wide_resnet(10, 2),
        "cifar_wrn16_1": _wide_resnet(16, 1),
        "cifar_wrn16_2": _wide_resnet(16, 2),
        "cifar_wrn40_2": _wide_resnet(40, 2),
        "cifar_mobilenet_v2": _cifar_mobilenet(),
        "resnet18": _torchvision_resnet("resnet18"),
        "resnet34": _torchvision_resnet("resnet34"),
        "resnet50": _torchvision_resnet("resnet50"),
        "resnet101": _torchvision_resnet("resnet101"),
        "resnet152": _torchvision_resnet("resnet152"),
        "mobilenet_v2": _mobilenet("mobilenet_v2", "features", "classifier.1"),
        "mobilenet_v3_small": _mobilenet("mobilenet_v3_small", "classifier.3", "classifier.3"),
        "mobilenet_v3_large": _mobilenet("mobilenet_v3_large", "classifier.3", "classifier.3"),
        "lenet5": _lenet5(),
        "deeplabv3_resnet101": _deeplab("deeplabv3_resnet101"),
        "deeplabv3_resnet50": _deeplab("deeplabv3_resnet50"),
        "deeplabv3_mobilenet_v3_large": _deeplab("deeplabv3_mobilenet_v3_large"),
        "lraspp_mobilenet_v3_large": _lite_raspp(),
        "unet": _unet(32),
        "unet16": _unet(16),
        "unet8": _unet(8),
        **dict(torchvision_classifiers()),
    }
)


def teacher_architectures() -> tuple[str, ...]:
    """Names that a teacher may have, beside those of timm."""
    return tuple(ARCHITECTURES)


def is_architecture(name: object) -> bool:
    """Whether networks of this name can be built here."""
    return isinstance(name, str) and (name in ARCHITECTURES or _elsewhere(name) is not None)


def _elsewhere(name: object) -> Architecture | None:
    return (own_architecture(name) or timm_architecture(name)) if isinstance(name, str) else None


def build_network(name: str, num_classes: int, in_channels: int = 3, width: float = 1.0) -> nn.Module:
    """An untrained network.

    Raises:
        KeyError: no architecture has this name.
    """
    return ARCHITECTURES[name].build(num_classes, in_channels, width)


def split_backbone(network: nn.Module, name: str) -> nn.Sequential:
    """The part of `network` that maps images (B, C, H, W) to the last feature map (B, D, h, w); weights are shared."""
    entry = ARCHITECTURES[name]
    if entry.split is not None:
        return entry.split(network)
    return nn.Sequential(OrderedDict((part.replace(".", "_"), network.get_submodule(part)) for part in entry.body))


def feature_shape(backbone: nn.Module, image_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Shape (D, h, w) of the feature map for one image (C, H, W); the backbone's mode and buffers stay as they are."""
    device = next(backbone.parameters()).device
    was_training = backbone.training
    backbone.eval()
    with torch.no_grad():
        _, depth, height, width = backbone(torch.zeros(1, *image_shape, device=device)).shape
    backbone.train(was_training)
    return depth, height, width


def match_shapes(module: nn.Module, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """Resize the convolutions, batch norms and linear layers of `module` in place to the shapes in `state_dict`.

    Pruning changes channel counts and nothing else, so an architecture's name and the shapes of its tensors are all
    that is needed to rebuild it. A depthwise convolution stays depthwise: its groups follow its channels.
    """
    for name, layer in list(module.named_modules()):
        weight = state_dict.get(f"{name}.weight")
        if weight is None or weight.shape == layer.weight.shape:
            continue
        if isinstance(layer, nn.Conv2d):
            depthwise = layer.groups == layer.in_channels and layer.groups > 1
            groups = weight.shape[0] if depthwise else layer.groups
            replacement: nn.Module = nn.Conv2d(
                weight.shape[1] * groups,
                weight.shape[0],
                layer.kernel_size,  # type: ignore[arg-type]
                stride=layer.stride,  # type: ignore[arg-type]
                padding=layer.padding,  # type: ignore[arg-type]
                dilation=layer.dilation,  # type: ignore[arg-type]
                groups=groups,
                bias=layer.bias is not None,
            )
        elif isinstance(layer, nn.BatchNorm2d):
            replacement = nn.BatchNorm2d(weight.shape[0], eps=layer.eps, momentum=layer.momentum)
        elif isinstance(layer, nn.Linear):
            replacement = nn.Linear(weight.shape[1], weight.shape[0], bias=layer.bias is not None)
        else:
            continue
        _replace_module(module, name, replacement)
    return module


def _replace_module(root: nn.Module, name: str, replacement: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(root.get_submodule(parent), child, replacement)
