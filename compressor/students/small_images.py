"""Networks for images of 8 to 64 px, which keep the first stages at the image's resolution.

All end in a map of non-negative numbers, an average pool and one linear layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016); the shortcut is a 1x1 convolution where shapes differ."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample: nn.Module | None = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + shortcut)


class CifarResNet(nn.Module):
    """ResNet for 8 to 64 px: 3x3 stem with stride 1, no max-pool, stride 2 at the start of every later stage."""

    def __init__(self, depths: tuple[int, ...], widths: tuple[int, ...], num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        stages: list[nn.Module] = []
        previous = widths[0]
        for index, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            strides = [1 if index == 0 else 2] + [1] * (depth - 1)
            blocks: list[nn.Module] = []
            for stride in strides:
                blocks.append(BasicBlock(previous, width, stride))
                previous = width
            stages.append(nn.Sequential(*blocks))
        self.layers = nn.Sequential(*stages)
        self.fc = nn.Linear(previous, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layers(self.relu(self.bn1(self.conv1(x))))
        return self.fc(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


class WideBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions, and a shortcut (Zagoruyko & Komodakis 2016).

    Where the number of channels changes, the shortcut is a 1x1 convolution of the activations, not of the input.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.convShortcut: nn.Module | None = None
        if in_channels != channels or stride != 1:
            self.convShortcut = nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = torch.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        return self.conv2(torch.relu(self.bn2(self.conv1(activated)))) + shortcut  # type: ignore[no-any-return]


class WideStage(nn.Module):
    """Blocks at one resolution."""

    def __init__(self, depth: int, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        later = (WideBlock(channels, channels, 1) for _ in range(depth - 1))
        self.layer = nn.Sequential(WideBlock(in_channels, channels, stride), *later)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Wide residual network: a 3x3 stem, three stages of `depth` blocks, and the batch norm and ReLU that they lack.

    The parts have the names of the port that the distillation literature trains (xternalz/WideResNet-pytorch), so that
    its checkpoints are recognised. There is no dropout.
    """

    def __init__(self, depth: int, stem: int, widths: tuple[int, int, int], num_classes: int, in_channels: int) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.block1 = WideStage(depth, stem, first, stride=1)
        self.block2 = WideStage(depth, first, second, stride=2)
        self.block3 = WideStage(depth, second, third, stride=2)
        self.bn1 = nn.BatchNorm2d(third)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(third, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(self.relu(self.bn1(x)).mean(dim=(2, 3)))  # type: ignore[no-any-return]


class CifarMobileNetV2(nn.Module):
    """Torchvision's MobileNetV2 (Sandler et al. 2018) with 8 instead of 32 pixels to a position of the last map.

    Stride 1 in the stem and in the stage of 24 channels, as networks for CIFAR have it; without dropout. The last
    convolution keeps its 1,280 channels. Its tensors have other names than torchvision's, whose shapes are the same.
    """

    # Expansion, channels, blocks, stride of the first block.
    STAGES = (
        (1, 16, 1, 1),
        (6, 24, 2, 1),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )

    def __init__(self, num_classes: int, in_channels: int, width: float) -> None:
        from torchvision.models import MobileNetV2

        super().__init__()
        published = MobileNetV2(num_classes, width, [list(stage) for stage in self.STAGES])
        self.layers: nn.Sequential = published.features
        stem = nn.Conv2d(in_channels, published.features[0][0].out_channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out")
        published.features[0][0] = stem
        self.fc = nn.Linear(published.last_channel, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layers(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]


class _PadTo(nn.Module):
    """Images (B, C, H, W) with a border of zeros up to `side` x `side`; larger images as they are."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = (max(0, self.side - length) for length in x.shape[-2:])
        return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


class LeNet5(nn.Module):
    """LeCun et al. 1998 in DFAD's form (ReLU, max-pool), whose first linear layers are written as convolutions.

    At 32 px the two are the same numbers; smaller images are padded to that. It has no batch norm, and is here because
    DFAD's first table is about it.
    """

    def __init__(self, widths: tuple[int, int, int, int], num_classes: int, in_channels: int) -> None:
        super().__init__()
        first, second, third, fourth = widths
        self.features = nn.Sequential(
            _PadTo(32),
            nn.Conv2d(in_channels, first, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(second, third, 5),
            nn.ReLU(),
            nn.Conv2d(third, fourth, 1),
            nn.ReLU(),
        )
        self.fc = nn.Linear(fourth, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]
