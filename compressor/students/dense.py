"""Networks that classify every pixel: torchvision's DeepLabV3 and LR-ASPP, and a small U-Net of ours.

    image (B, C, H, W) -> body -> feature map (B, D, h, w) -> 1x1 convolution -> bilinear upsampling -> (B, K, H, W)

Torchvision's two are taken apart and put together again under the same names, so that their state dicts fit. What they
return is the logits alone, no dictionary, and there is no auxiliary classifier, which serves their training only.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNET_LEVELS = 4
LOW_LAYER = "4"  # of MobileNetV3-Large: the last layer with an eighth of the image's side


def upsample(x: Tensor, size: tuple[int, int]) -> Tensor:
    """A map (B, D, h, w) at another (H, W), bilinearly between the centres of its pixels."""
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


# --- DeepLabV3 --------------------------------------------------------------------------------------------------------


class DeepLabV3(nn.Module):
    """Chen et al. 2017, arXiv 1706.05587: a backbone with dilation, then atrous spatial pyramid pooling."""

    def __init__(self, backbone: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return upsample(self.classifier(self.backbone(x)), (x.shape[-2], x.shape[-1]))


def deeplab(name: str, num_classes: int, in_channels: int) -> nn.Module:
    """Torchvision's `name`, untrained."""
    from torchvision.models import segmentation

    whole = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=False)
    return DeepLabV3(_one_map(whole.backbone, in_channels), whole.classifier)


# --- LR-ASPP ----------------------------------------------------------------------------------------------------------


class TwoMaps(nn.Sequential):
    """Layers one after the other; gives what comes out of the layer LOW_LAYER and out of the last one."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = x
        for name, layer in self.named_children():
            x = layer(x)
            if name == LOW_LAYER:
                low = x
        return low, x


class LiteHead(nn.Module):
    """Torchvision's LRASPPHead: the last map is gated by its own mean, and each map has its classifier."""

    def __init__(self, cbr: nn.Module, scale: nn.Module, low_classifier: nn.Module, high_classifier: nn.Module) -> None:
        super().__init__()
        self.cbr = cbr
        self.scale = scale
        self.low_classifier = low_classifier
        self.high_classifier = high_classifier

    def forward(self, maps: tuple[Tensor, Tensor]) -> Tensor:
        low, refined = _of_one_size(maps, self.cbr, self.scale)
        return self.low_classifier(low) + self.high_classifier(refined)  # type: ignore[no-any-return]


class LiteMap(nn.Module):
    """What the two classifiers of a LiteHead read, as one map.

    The sum of two 1x1 convolutions of two maps is one 1x1 convolution of the maps side by side, so that this head has
    the form of every other: a map and a classifier.
    """

    def __init__(self, head: LiteHead) -> None:
        super().__init__()
        self.cbr = head.cbr
        self.scale = head.scale

    def forward(self, maps: tuple[Tensor, Tensor]) -> Tensor:
        return torch.cat(_of_one_size(maps, self.cbr, self.scale), dim=1)


class LiteRASPP(nn.Module):
    """Howard et al. 2019, arXiv 1905.02244: MobileNetV3-Large with a head for phones."""

    def __init__(self, backbone: TwoMaps, classifier: LiteHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier

    def forward(self, x: Tensor) -> Tensor:
        return upsample(self.classifier(self.backbone(x)), (x.shape[-2], x.shape[-1]))


def _of_one_size(maps: tuple[Tensor, Tensor], cbr: nn.Module, scale: nn.Module) -> tuple[Tensor, Tensor]:
    low, high = maps
    return low, upsample(cbr(high) * scale(high), (low.shape[-2], low.shape[-1]))


def lite_raspp(num_classes: int, in_channels: int) -> nn.Module:
    """Torchvision's `lraspp_mobilenet_v3_large`, untrained."""
    from torchvision.models import segmentation

    whole: Any = segmentation.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes)
    head = whole.classifier
    layers = OrderedDict(_one_map(whole.backbone, in_channels).named_children())
    return LiteRASPP(TwoMaps(layers), LiteHead(head.cbr, head.scale, head.low_classifier, head.high_classifier))


def lite_raspp_body(network: nn.Module) -> nn.Sequential:
    """Images to the map that `LiteMap` describes: (B, 168, h, w) at an eighth of the image's side."""
    assert isinstance(network, LiteRASPP)
    return nn.Sequential(OrderedDict(backbone=network.backbone, head=LiteMap(network.classifier)))


# --- U-Net ------------------------------------------------------------------------------------------------------------


class TwoConvolutions(nn.Sequential):
    """3x3 convolution, batch norm and ReLU, twice."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
        )


class UNetBody(nn.Module):
    """After Ronneberger et al. 2015, arXiv 1505.04597: four levels, each with half the side and twice the channels.

    On the way up a map is brought bilinearly to the side of the one on the way down, and the two are put side by side.
    So any side will do: where it is odd, the pooling rounds it up.
    """

    def __init__(self, in_channels: int, base: int) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(UNET_LEVELS)]
        self.down = nn.ModuleList(
            TwoConvolutions(before, width) for before, width in zip([in_channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            TwoConvolutions(wide + narrow, narrow) for wide, narrow in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        beside = []
        for level in self.down[:-1]:
            x = level(x)
            beside.append(x)
            x = F.max_pool2d(x, 2, ceil_mode=True)
        x = self.down[-1](x)
        for level in self.up:
            same = beside.pop()
            x = level(torch.cat([same, upsample(x, (same.shape[-2], same.shape[-1]))], dim=1))
        return x


class UNet(nn.Module):
    """A `UNetBody` and the classifier of its pixels; the map has the image's size already."""

    def __init__(self, in_channels: int, base: int, num_classes: int) -> None:
        super().__init__()
        self.body = UNetBody(in_channels, base)
        self.classifier = nn.Conv2d(base, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(x))  # type: ignore[no-any-return]


def _one_map(getter: Any, in_channels: int) -> nn.Sequential:
    """The layers of torchvision's IntermediateLayerGetter, which is a ModuleDict up to the last layer that it gets."""
    layers: OrderedDict[str, nn.Module] = OrderedDict(getter.items())
    if in_channels != 3:
        first, module = next(iter(layers.items()))
        stem = module if isinstance(module, nn.Conv2d) else module.get_submodule("0")
        assert isinstance(stem, nn.Conv2d)
        other = nn.Conv2d(
            in_channels,
            stem.out_channels,
            stem.kernel_size,  # type: ignore[arg-type]
            stride=stem.stride,  # type: ignore[arg-type]
            padding=stem.padding,  # type: ignore[arg-type]
            bias=False,
        )
        if stem is module:
            layers[first] = other
        else:
            setattr(module, "0", other)
    return nn.Sequential(layers)
