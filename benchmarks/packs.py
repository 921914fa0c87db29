"""The image packs that the benchmarks read from `--data PATH`, decoded once into uint8 arrays.

None of them is part of this project. CIFAR-10 here is a lossy JPEG copy, so its figures are close to, but not strictly
comparable with, published ones.
"""

from __future__ import annotations

import argparse
import io
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

CIFAR10_MEAN, CIFAR10_STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CLOTHING_MEAN, CLOTHING_STD = (0.537, 0.465, 0.454), (0.257, 0.249, 0.237)


@dataclass(frozen=True)
class Pack:
    """images (N, C, H, W) uint8, labels (N,) int64, class names in index order."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]


def add_data_argument(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    parser.add_argument("--data", type=Path, required=required, help="folder with the image packs (*.npz)")


def cifar10(data: Path, part: str) -> Pack:
    """CIFAR-10 `train` (50,000) or `test` (10,000) at 32 px, from JPEG of quality 75."""
    return _decoded(_pack(data, f"cifar10_{part}_jpeg.npz"))


def clothing(data: Path, part: str) -> Pack:
    """Ten kinds of clothing, `train` (3,068), `val` (341) or `test` (372), photographs of uneven classes at 128 px."""
    path = _pack(data, "clothing_small128.npz")
    whole = _decoded(path)
    with np.load(path) as pack:
        rows = torch.from_numpy(pack["split"] == ("train", "val", "test").index(part))
    return Pack(whole.images[rows], whole.labels[rows], whole.class_names)


def cifarlike_pool(data: Path, class_names: tuple[str, ...]) -> Pack:
    """7,744 natural images at 32 px that are not CIFAR-10, weakly labelled with its classes, unevenly."""
    with np.load(_pack(data, "cifarlike_pool32.npz")) as pack:
        images, labels = torch.from_numpy(pack["x"]), torch.from_numpy(pack["y"].astype(np.int64))
    return Pack(images.permute(0, 3, 1, 2).contiguous(), labels, class_names)


@dataclass(frozen=True)
class MaskPack:
    """images (N, 3, H, W) uint8, masks (N, H, W) uint8 with 255 where nothing is said, class names in index order."""

    images: Tensor
    masks: Tensor
    class_names: tuple[str, ...]


def camvid(data: Path, part: str, height: int, width: int) -> MaskPack:
    """CamVid road scenes, SegNet's split: `train` (367), `val` (101) or `test` (233), 11 classes, from 180x240 px.

    Images are brought to size by area averaging, masks by the nearest pixel.
    """
    with np.load(_pack(data, "camvid_180x240.npz")) as pack:
        images, masks = (_blob(pack[f"{kind}_blob_{part}"], pack[f"{kind}_off_{part}"]) for kind in ("img", "lab"))
        names = tuple(str(name) for name in pack["classes"][:-1])  # the last one is void
    colours = torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in images]))
    colours = resized(colours.permute(0, 3, 1, 2), height, width)
    labels = torch.from_numpy(np.stack([np.asarray(picture) for picture in masks]))
    labels = F.interpolate(labels[:, None].float(), (height, width), mode="nearest")[:, 0].to(torch.uint8)
    return MaskPack(colours, labels.masked_fill(labels >= len(names), 255), names)


def mnist(data: Path, part: str, side: int) -> Pack:
    """MNIST `train` (60,000) or `test` (10,000), brought from 28 px to `side` px by area averaging."""
    with np.load(_pack(data, "mnist.npz")) as pack:
        images, labels = pack[f"x_{part}"], pack[f"y_{part}"].astype(np.int64)
    grey = torch.from_numpy(images.reshape(-1, 1, 28, 28))
    return Pack(resized(grey, side, side), torch.from_numpy(labels), tuple(str(digit) for digit in range(10)))


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) uint8 to (N, C, height, width) uint8, each pixel the mean of those that it covers."""
    if images.shape[-2:] == (height, width):
        return images
    small = [
        F.interpolate(batch.float(), (height, width), mode="bilinear", antialias=True) for batch in images.split(1_000)
    ]
    return torch.cat(small).round().clamp(0, 255).to(torch.uint8)


def write_folder(pack: Pack, rows: Tensor, folder: Path) -> None:
    """Write images as `folder/<class>/<row>.png`, as a user would have them."""
    for row in rows.tolist():
        target = folder / pack.class_names[int(pack.labels[row])]
        target.mkdir(parents=True, exist_ok=True)
        pixels = pack.images[row].permute(1, 2, 0).squeeze(-1).numpy()
        Image.fromarray(pixels).save(target / f"{row:05d}.png")


def _decoded(path: Path) -> Pack:
    """A pack of encoded pictures: one blob, the offsets of the pictures in it, their labels and the class names."""
    with np.load(path) as pack:
        blob, offsets, labels = pack["blob"], pack["off"], pack["y"].astype(np.int64)
        names = tuple(str(name) for name in pack["classes"])
    pictures = [np.asarray(picture.convert("RGB")) for picture in _blob(blob, offsets)]
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return Pack(images, torch.from_numpy(labels), names)


def _blob(blob: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Iterator[Image.Image]:
    for start, end in itertools.pairwise(offsets):
        yield Image.open(io.BytesIO(blob[start:end].tobytes()))


def _pack(data: Path, name: str) -> Path:
    path = data / name
    if not path.is_file():
        sys.exit(f"{path} does not exist. The benchmark reads the pack {name} there. Give its folder with --data.")
    return path
