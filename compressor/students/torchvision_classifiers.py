"""Torchvision's classifiers beside the ResNets and MobileNets: where their feature maps and classifiers are.

Most end in a map, a global average pool and one linear layer. The others are brought to that form without a change to
what they compute:

    more than a pool between map and last layer     the input of the last linear layer is a map of one position
      (VGG, AlexNet, ConvNeXt, MaxViT, ViT)
    a pool after the last layer (SqueezeNet)        the map is one of class scores, and the classifier the identity

Their pruned copies are students by their bodies alone, which end in a map of more positions wherever there is one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compressor.students.architecture import Architecture

VIT_SIDE = 224


@dataclass(frozen=True)
class _Family:
    """Networks that share the names of their parts; the fields are those of `Architecture`."""

    names: str
    feature_layer: str
    classifier_layer: str
    body: str
    split: Callable[[nn.Module], nn.Sequential] | None = None
    pools_scores: bool = False
    only_size: int | None = None


class _TokenMap(nn.Module):
    """A Vision Transformer's body: normalised images (B, C, H, W) to its patches as a map (B, D, h, w)."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.conv_proj = network.conv_proj
        self.class_token = network.class_token
        self.encoder = network.encoder

    def forward(self, x: Tensor) -> Tensor:
        patches = self.conv_proj(x)
        tokens = patches.flatten(2).transpose(1, 2)
        tokens = self.encoder(torch.cat([self.class_token.expand(len(x), -1, -1), tokens], dim=1))
        return tokens[:, 1:].transpose(1, 2).reshape(patches.shape)  # type: ignore[no-any-return]


class _Blocks(nn.Module):
    """MaxViT's body: a list of blocks, which torchvision runs one after the other."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.stem = network.stem
        self.blocks = network.blocks

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return x


def _split_densenet(network: nn.Module) -> nn.Sequential:
    """Its last batch norm, with the ReLU that torchvision applies outside of any layer."""
    return nn.Sequential(OrderedDict(features=network.get_submodule("features"), relu=nn.ReLU()))


def _split_vit(network: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(tokens=_TokenMap(network)))


def _split_maxvit(network: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(maps=_Blocks(network)))


_RESNET_BODY = "conv1 bn1 relu maxpool layer1 layer2 layer3 layer4"
_GOOGLENET_BODY = (
    "conv1 maxpool1 conv2 conv3 maxpool2 inception3a inception3b maxpool3 inception4a inception4b inception4c "
    "inception4d inception4e maxpool4 inception5a inception5b"
)
_INCEPTION_BODY = (
    "Conv2d_1a_3x3 Conv2d_2a_3x3 Conv2d_2b_3x3 maxpool1 Conv2d_3b_1x1 Conv2d_4a_3x3 maxpool2 Mixed_5b Mixed_5c "
    "Mixed_5d Mixed_6a Mixed_6b Mixed_6c Mixed_6d Mixed_6e Mixed_7a Mixed_7b Mixed_7c"
)

_FAMILIES = {
    "resnext": _Family("resnext50_32x4d resnext101_32x8d resnext101_64x4d", "layer4", "fc", _RESNET_BODY),
    "wide_resnet": _Family("wide_resnet50_2 wide_resnet101_2", "layer4", "fc", _RESNET_BODY),
    # The ReLU after `features` works in place, so that what the layer put out is the map that is pooled.
    "densenet": _Family(
        "densenet121 densenet161 densenet169 densenet201", "features", "classifier", "features", _split_densenet
    ),
    "efficientnet": _Family(
        " ".join([*(f"efficientnet_b{index}" for index in range(8)), *(f"efficientnet_v2_{size}" for size in "sml")]),
        "features",
        "classifier.1",
        "features",
    ),
    "mnasnet": _Family("mnasnet0_5 mnasnet0_75 mnasnet1_0 mnasnet1_3", "layers", "classifier.1", "layers"),
    "regnet": _Family(
        " ".join(
            f"regnet_{kind}_{size}"
            for kind, sizes in (
                ("x", "400mf 800mf 1_6gf 3_2gf 8gf 16gf 32gf"),
                ("y", "400mf 800mf 1_6gf 3_2gf 8gf 16gf 32gf 128gf"),
            )
            for size in sizes.split()
        ),
        "trunk_output",
        "fc",
        "stem trunk_output",
    ),
    "shufflenet_v2": _Family(
        "shufflenet_v2_x0_5 shufflenet_v2_x1_0 shufflenet_v2_x1_5 shufflenet_v2_x2_0",
        "conv5",
        "fc",
        "conv1 maxpool stage2 stage3 stage4 conv5",
    ),
    "googlenet": _Family("googlenet", "inception5b", "fc", _GOOGLENET_BODY),
    "inception": _Family("inception_v3", "Mixed_7c", "fc", _INCEPTION_BODY),
    "swin": _Family("swin_t swin_s swin_b swin_v2_t swin_v2_s swin_v2_b", "permute", "head", "features norm permute"),
    "squeezenet": _Family("squeezenet1_0 squeezenet1_1", "classifier.2", "classifier.1", "features", pools_scores=True),
    "alexnet": _Family("alexnet", "classifier.6", "classifier.6", "features"),
    "vgg": _Family(
        "vgg11 vgg13 vgg16 vgg19 vgg11_bn vgg13_bn vgg16_bn vgg19_bn", "classifier.6", "classifier.6", "features"
    ),
    "convnext": _Family(
        "convnext_tiny convnext_small convnext_base convnext_large", "classifier.2", "classifier.2", "features"
    ),
    "maxvit": _Family("maxvit_t", "classifier.5", "classifier.5", "stem blocks", _split_maxvit, only_size=VIT_SIDE),
    "vit": _Family(
        "vit_b_16 vit_b_32 vit_l_16 vit_l_32 vit_h_14",
        "heads.head",
        "heads.head",
        "conv_proj encoder",
        _split_vit,
        only_size=VIT_SIDE,
    ),
}


def torchvision_classifiers() -> Iterator[tuple[str, Architecture]]:
    """Every classifier of torchvision that is not a ResNet or a MobileNet, by torchvision's name."""
    for name, family in _FAMILIES.items():
        for network in family.names.split():
            yield (
                network,
                Architecture(
                    build=partial(_build, network),
                    feature_layer=family.feature_layer,
                    classifier_layer=family.classifier_layer,
                    body=tuple(family.body.split()),
                    family=name,
                    split=family.split,
                    scales=False,
                    pools_scores=family.pools_scores,
                    only_size=family.only_size,
                    is_candidate=False,
                ),
            )


def _build(name: str, num_classes: int, in_channels: int, _width: float) -> nn.Module:
    from torchvision import models

    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    network: nn.Module = getattr(models, name)(weights=None, num_classes=num_classes, **options)
    if in_channels != 3:
        _replace_stem(network, in_channels)
    return network


def _replace_stem(network: nn.Module, in_channels: int) -> None:
    """Another number of image channels for the first convolution."""
    name, stem = next((name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d))
    replacement = nn.Conv2d(
        in_channels,
        stem.out_channels,
        stem.kernel_size,  # type: ignore[arg-type]
        stride=stem.stride,  # type: ignore[arg-type]
        padding=stem.padding,  # type: ignore[arg-type]
        bias=stem.bias is not None,
    )
    network.set_submodule(name, replacement)
