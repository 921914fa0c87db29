"""Shape skeletons of YOLOv8, YOLO11 and YOLO26: the layers and tensor sizes of their exported graphs, nothing else.

Most published latencies on recent Jetsons are of these detectors, and a latency depends on shapes, not on weights. The
skeletons are written from the published model descriptions (yolov8.yaml, yolo11.yaml, yolo26.yaml and their -seg and
-cls variants in ultralytics/ultralytics, read 2026-11) and are untrained; they are no detectors. Their parameter and
operation counts agree with the published ones (tests/benchmarks/test_yolo_skeletons.py).

A description names layers with channels at full width. A scale (n, s, m, l, x) multiplies the channels, caps them
first, and multiplies the repeats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Task = Literal["detect", "segment", "classify"]
STRIDES = (8, 16, 32)
CLASSES = {"detect": 80, "segment": 80, "classify": 1000}
DFL_BINS = 16
MASKS = 32
MOST_DETECTIONS = 300


@dataclass(frozen=True)
class Scale:
    """How a description is scaled: repeats, channels, and the most channels before scaling."""

    depth: float
    width: float
    most_channels: int

    def channels(self, full: int) -> int:
        """Channels at this scale, a multiple of 8."""
        return math.ceil(min(full, self.most_channels) * self.width / 8) * 8

    def repeats(self, full: int) -> int:
        """Repeats at this scale, at least one."""
        return max(round(full * self.depth), 1)


SCALES_V8 = {
    "n": Scale(0.33, 0.25, 1024),
    "s": Scale(0.33, 0.5, 1024),
    "m": Scale(0.67, 0.75, 768),
    "l": Scale(1.0, 1.0, 512),
    "x": Scale(1.0, 1.25, 512),
}
SCALES_11 = {
    "n": Scale(0.5, 0.25, 1024),
    "s": Scale(0.5, 0.5, 1024),
    "m": Scale(0.5, 1.0, 512),
    "l": Scale(1.0, 1.0, 512),
    "x": Scale(1.0, 1.5, 512),
}


def yolo(version: Literal["v8", "11", "26"], scale: str, task: Task = "detect") -> nn.Module:
    """An untrained skeleton from images (B, 3, H, W), H and W multiples of 32.

    It gives what the exported model gives: boxes and scores (B, 4 + classes, anchors) of YOLOv8 and YOLO11, detections
    (B, 300, 6) of YOLO26, class probabilities of a classifier; a segmenter also mask coefficients and prototypes.

    Raises:
        KeyError: no such scale.
        ValueError: that version has no skeleton for the task.
    """
    if (version, task) not in SKELETONS:
        raise ValueError(f"no skeleton of YOLO {version} for the task {task}")
    sizes = (SCALES_V8 if version == "v8" else SCALES_11)[scale]
    large = scale in "mlx"  # these use the deeper block everywhere
    return _Classifier(sizes, large) if task == "classify" else _Detector(version, sizes, large, task)


SKELETONS = {("v8", "detect"), ("11", "detect"), ("11", "segment"), ("26", "detect"), ("26", "classify")}


def convolution(
    inputs: int, outputs: int, size: int = 1, stride: int = 1, *, groups: int = 1, active: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and, if active, SiLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.SiLU()] if active else []))


class _Residual(nn.Module):
    """The input plus what a body makes of it."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _bottleneck(channels: int, shortcut: bool, ratio: float) -> nn.Module:
    """Two 3x3 convolutions with `ratio` of the channels between them."""
    hidden = int(channels * ratio)
    body = convolution(channels, hidden, 3), convolution(hidden, channels, 3)
    return _Residual(*body) if shortcut else nn.Sequential(*body)


class _Cross(nn.Module):
    """C3k: two 1x1 branches of half the channels, one through bottlenecks, joined by a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.left, self.right = convolution(channels, hidden), convolution(channels, hidden)
        self.blocks = nn.Sequential(*(_bottleneck(hidden, True, 1.0) for _ in range(2)))
        self.join = convolution(2 * hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.join(torch.cat((self.blocks(self.left(x)), self.right(x)), 1))


class _Split(nn.Module):
    """C2f and C3k2: half of the channels goes through a chain of blocks, and all stages are concatenated."""

    def __init__(self, inputs: int, outputs: int, hidden: int, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.enter = convolution(inputs, 2 * hidden)
        self.blocks = nn.ModuleList(blocks)
        self.leave = convolution((2 + len(blocks)) * hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        stages = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            stages.append(block(stages[-1]))
        return self.leave(torch.cat(stages, 1))


def _c2f(inputs: int, outputs: int, repeats: int, shortcut: bool) -> nn.Module:
    hidden = outputs // 2
    return _Split(inputs, outputs, hidden, [_bottleneck(hidden, shortcut, 1.0) for _ in range(repeats)])


def _c3k2(inputs: int, outputs: int, repeats: int, deep: bool, ratio: float = 0.5, attends: bool = False) -> nn.Module:
    hidden = int(outputs * ratio)
    if attends:
        heads = max(hidden // 64, 1)
        blocks: list[nn.Module] = [
            nn.Sequential(_bottleneck(hidden, True, 0.5), _AttentionBlock(hidden, heads)) for _ in range(repeats)
        ]
    else:
        blocks = [_Cross(hidden) if deep else _bottleneck(hidden, True, 0.5) for _ in range(repeats)]
    return _Split(inputs, outputs, hidden, blocks)


class _Attention(nn.Module):
    """Attention between all places of the map; keys have half the channels, places are told by a depthwise 3x3."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads, self.value = heads, channels // heads
        self.key = self.value // 2
        self.project_in = convolution(channels, channels + 2 * heads * self.key, active=False)
        self.project_out = convolution(channels, channels, active=False)
        self.places = convolution(channels, channels, 3, groups=channels, active=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        joint = self.project_in(x).view(batch, self.heads, 2 * self.key + self.value, height * width)
        query, key, value = joint.split([self.key, self.key, self.value], dim=2)
        weights = ((query.transpose(-2, -1) @ key) * self.key**-0.5).softmax(-1)
        mixed = (value @ weights.transpose(-2, -1)).view(batch, channels, height, width)
        return self.project_out(mixed + self.places(value.reshape(batch, channels, height, width)))


class _AttentionBlock(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attention = _Residual(_Attention(channels, heads))
        self.mix = _Residual(convolution(channels, 2 * channels), convolution(2 * channels, channels, active=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.attention(x))


class _HalfAttends(nn.Module):
    """C2PSA: attention blocks on half of the channels."""

    def __init__(self, channels: int, repeats: int) -> None:
        super().__init__()
        half = channels // 2
        self.enter, self.leave = convolution(channels, 2 * half), convolution(2 * half, channels)
        self.blocks = nn.Sequential(*(_AttentionBlock(half, half // 64) for _ in range(repeats)))

    def forward(self, x: Tensor) -> Tensor:
        kept, mixed = self.enter(x).chunk(2, 1)
        return self.leave(torch.cat((kept, self.blocks(mixed)), 1))


class _Pyramid(nn.Module):
    """SPPF: three poolings in a row, concatenated. YOLO26 drops an activation and adds the input."""

    def __init__(self, inputs: int, outputs: int, *, adds: bool) -> None:
        super().__init__()
        hidden = inputs // 2
        self.enter = convolution(inputs, hidden, active=not adds)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = convolution(4 * hidden, outputs)
        self.adds = adds and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        stages = [self.enter(x)]
        for _ in range(3):
            stages.append(self.pool(stages[-1]))
        y = self.leave(torch.cat(stages, 1))
        return x + y if self.adds else y


class _Backbone(nn.ModuleList):
    """From the image to maps at strides 8, 16 and 32."""

    def __init__(self, version: str, sizes: Scale, large: bool, *, pools: bool = True) -> None:
        c, n = sizes.channels, sizes.repeats
        stem = nn.Sequential(convolution(3, c(64), 3, 2), convolution(c(64), c(128), 3, 2))
        if version == "v8":
            third = (
                _c2f(c(128), c(128), n(3), True),
                convolution(c(128), c(256), 3, 2),
                _c2f(c(256), c(256), n(6), True),
            )
            fourth = convolution(c(256), c(512), 3, 2), _c2f(c(512), c(512), n(6), True)
            fifth: list[nn.Module] = [convolution(c(512), c(1024), 3, 2), _c2f(c(1024), c(1024), n(3), True)]
        else:
            third = (
                _c3k2(c(128), c(256), n(2), large, 0.25),
                convolution(c(256), c(256), 3, 2),
                _c3k2(c(256), c(512), n(2), large, 0.25),
            )
            fourth = convolution(c(512), c(512), 3, 2), _c3k2(c(512), c(512), n(2), True)
            fifth = [convolution(c(512), c(1024), 3, 2), _c3k2(c(1024), c(1024), n(2), True)]
        if pools:
            fifth.append(_Pyramid(c(1024), c(1024), adds=version == "26"))
        if version != "v8":
            fifth.append(_HalfAttends(c(1024), n(2)))
        super().__init__((nn.Sequential(stem, *third), nn.Sequential(*fourth), nn.Sequential(*fifth)))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self:
            x = stage(x)
            maps.append(x)
        return maps


class _Neck(nn.Module):
    """Down the pyramid and up again, joining maps of equal size."""

    def __init__(self, version: str, sizes: Scale, large: bool) -> None:
        super().__init__()
        c, n = sizes.channels, sizes.repeats
        p3, p4, p5 = (c(256), c(512), c(1024)) if version == "v8" else (c(512), c(512), c(1024))

        def block(inputs: int, outputs: int, *, last: bool = False) -> nn.Module:
            if version == "v8":
                return _c2f(inputs, outputs, n(3), False)
            if version == "26" and last:
                return _c3k2(inputs, outputs, 1, True, attends=True)
            return _c3k2(inputs, outputs, n(2), large or last or version == "26")

        self.grow = nn.Upsample(scale_factor=2, mode="nearest")
        self.middle, self.fine = block(p5 + p4, c(512)), block(c(512) + p3, c(256))
        self.shrink_fine, self.shrink_middle = convolution(c(256), c(256), 3, 2), convolution(c(512), c(512), 3, 2)
        self.middle_again = block(c(256) + c(512), c(512))
        self.coarse = block(c(512) + p5, c(1024), last=True)
        self.channels = c(256), c(512), c(1024)

    def forward(self, p3: Tensor, p4: Tensor, p5: Tensor) -> list[Tensor]:
        middle = self.middle(torch.cat((self.grow(p5), p4), 1))
        fine = self.fine(torch.cat((self.grow(middle), p3), 1))
        middle = self.middle_again(torch.cat((self.shrink_fine(fine), middle), 1))
        return [fine, middle, self.coarse(torch.cat((self.shrink_middle(middle), p5), 1))]


class _Head(nn.Module):
    """Boxes and class scores at three strides, decoded to pixels as the exported graph does it."""

    def __init__(self, version: str, channels: tuple[int, ...]) -> None:
        super().__init__()
        classes = CLASSES["detect"]
        self.version, self.bins = version, 1 if version == "26" else DFL_BINS
        box, score = max(16, channels[0] // 4, 4 * self.bins), max(channels[0], min(classes, 100))
        self.boxes = nn.ModuleList(
            nn.Sequential(convolution(c, box, 3), convolution(box, box, 3), nn.Conv2d(box, 4 * self.bins, 1))
            for c in channels
        )
        self.scores = nn.ModuleList(
            nn.Sequential(*_score_layers(version, c, score), nn.Conv2d(score, classes, 1)) for c in channels
        )
        self.integral = nn.Conv2d(self.bins, 1, 1, bias=False) if self.bins > 1 else None

    def forward(self, maps: list[Tensor]) -> Tensor:
        batch = maps[0].shape[0]
        boxes = [layer(x) for layer, x in zip(self.boxes, maps, strict=True)]
        scores = [layer(x) for layer, x in zip(self.scores, maps, strict=True)]
        if self.version == "26":
            distances = torch.cat([x.flatten(2) for x in boxes], 2)
            score = torch.cat([x.flatten(2) for x in scores], 2)
        else:
            both = [torch.cat(pair, 1).flatten(2) for pair in zip(boxes, scores, strict=True)]
            joint = torch.cat(both, 2)
            bins, score = joint.split((4 * self.bins, CLASSES["detect"]), 1)
            spread = bins.view(batch, 4, self.bins, -1).transpose(2, 1).softmax(1)
            distances = self.integral(spread).view(batch, 4, -1)
        anchors, strides = _anchors(maps)
        near, far = distances.chunk(2, 1)
        low, high = anchors - near, anchors + far
        if self.version == "26":
            return _best(torch.cat((low, high), 1) * strides, score.sigmoid())
        box = torch.cat(((low + high) / 2, high - low), 1) * strides
        return torch.cat((box, score.sigmoid()), 1)


def _score_layers(version: str, channels: int, hidden: int) -> list[nn.Module]:
    if version == "v8":
        return [convolution(channels, hidden, 3), convolution(hidden, hidden, 3)]
    return [
        convolution(channels, channels, 3, groups=channels),
        convolution(channels, hidden),
        convolution(hidden, hidden, 3, groups=hidden),
        convolution(hidden, hidden),
    ]


def _anchors(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Centres (2, A) in units of their stride, and strides (1, A)."""
    centres, strides = [], []
    for x, stride in zip(maps, STRIDES, strict=True):
        height, width = (int(size) for size in x.shape[2:])
        rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        centres.append(torch.stack((columns, rows)).view(2, -1))
        strides.append(torch.full((1, height * width), float(stride)))
    return torch.cat(centres, 1), torch.cat(strides, 1)


def _best(boxes: Tensor, scores: Tensor) -> Tensor:
    """The 300 best detections (B, 300, 6), chosen inside the graph: this is what makes YOLO26 free of NMS."""
    boxes, scores = boxes.transpose(1, 2), scores.transpose(1, 2)
    classes = scores.shape[2]
    _, anchors = scores.amax(2).topk(MOST_DETECTIONS)
    boxes = boxes.gather(1, anchors.unsqueeze(-1).expand(-1, -1, 4))
    scores = scores.gather(1, anchors.unsqueeze(-1).expand(-1, -1, classes))
    best, index = scores.flatten(1).topk(MOST_DETECTIONS)
    boxes = boxes.gather(1, (index // classes).unsqueeze(-1).expand(-1, -1, 4))
    return torch.cat((boxes, best.unsqueeze(-1), (index % classes).unsqueeze(-1).float()), 2)


class _Masks(nn.Module):
    """A segmenter's addition: mask coefficients of every anchor, and prototypes at stride 4."""

    def __init__(self, channels: tuple[int, ...], prototype: int) -> None:
        super().__init__()
        hidden = max(channels[0] // 4, MASKS)
        self.coefficients = nn.ModuleList(
            nn.Sequential(convolution(c, hidden, 3), convolution(hidden, hidden, 3), nn.Conv2d(hidden, MASKS, 1))
            for c in channels
        )
        self.prototypes = nn.Sequential(
            convolution(channels[0], prototype, 3),
            nn.ConvTranspose2d(prototype, prototype, 2, 2),
            convolution(prototype, prototype, 3),
            convolution(prototype, MASKS),
        )

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        rows = [layer(x).flatten(2) for layer, x in zip(self.coefficients, maps, strict=True)]
        return torch.cat(rows, 2), self.prototypes(maps[0])


class _Detector(nn.Module):
    def __init__(self, version: str, sizes: Scale, large: bool, task: Task) -> None:
        super().__init__()
        self.backbone = _Backbone(version, sizes, large)
        self.neck = _Neck(version, sizes, large)
        self.head = _Head(version, self.neck.channels)
        self.masks = _Masks(self.neck.channels, sizes.channels(256)) if task == "segment" else None

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        maps = self.neck(*self.backbone(images))
        if self.masks is None:
            return self.head(maps)
        coefficients, prototypes = self.masks(maps)
        return torch.cat((self.head(maps), coefficients), 1), prototypes


class _Classifier(nn.Module):
    def __init__(self, sizes: Scale, large: bool) -> None:
        super().__init__()
        self.backbone = _Backbone("26", sizes, large, pools=False)
        self.widen = convolution(sizes.channels(1024), 1280)
        self.classifier = nn.Linear(1280, CLASSES["classify"])

    def forward(self, images: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(self.widen(self.backbone(images)[-1]), 1).flatten(1)
        return self.classifier(pooled).softmax(1)
