"""Packs of random pictures in the form of the real ones, to see that a program runs; nothing can be learned from them.

write_tiny_packs(folder)    # then --data folder
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NUM_TRAIN, NUM_TEST, NUM_POOL = 200, 40, 120
NUM_MASKED = 6  # of CamVid, in each part
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLOTHING = ("dress", "hat", "longsleeve", "outwear", "pants", "shirt", "shoes", "shorts", "skirt", "t-shirt")
ROADS = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")


def write_tiny_packs(folder: Path) -> Path:
    """Write every pack that `benchmarks.packs` reads, a few megabytes in all; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for part, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        np.savez(folder / f"cifar10_{part}_jpeg.npz", **_pictures(random, count, (32, 32), CIFAR10))
    clothing = _pictures(random, 3 * NUM_TEST, (128, 128), CLOTHING)
    np.savez(folder / "clothing_small128.npz", **clothing, split=np.repeat(np.arange(3), NUM_TEST))
    pool = random.integers(256, size=(NUM_POOL, 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "cifarlike_pool32.npz", x=pool, y=_labels(NUM_POOL))
    some = random.integers(256, size=(50, 784), dtype=np.uint8)
    digits = {f"x_{part}": np.resize(some, (count, 784)) for part, count in _MNIST}
    np.savez_compressed(folder / "mnist.npz", **digits, **{f"y_{part}": _labels(count) for part, count in _MNIST})
    _write_roads(random, folder / "camvid_180x240.npz")
    return folder


_MNIST = (("train", 10_200), ("test", 8_040))  # both are cut far into the real ones


def _labels(count: int) -> NDArray[np.uint8]:
    return (np.arange(count) % 10).astype(np.uint8)


def _pictures(
    random: np.random.Generator, count: int, sides: tuple[int, int], names: tuple[str, ...]
) -> dict[str, NDArray[np.generic]]:
    """A pack of encoded pictures, as `benchmarks.packs` decodes it."""
    blob, offsets = _encoded(random.integers(256, size=(count, *sides, 3), dtype=np.uint8), "JPEG")
    return {"blob": blob, "off": offsets, "y": _labels(count), "classes": np.array(names)}


def _write_roads(random: np.random.Generator, path: Path) -> None:
    arrays: dict[str, NDArray[np.generic]] = {"classes": np.array([*ROADS, "void"])}
    for part in ("train", "val", "test"):
        colours = random.integers(256, size=(NUM_MASKED, 180, 240, 3), dtype=np.uint8)
        masks = random.integers(len(ROADS) + 1, size=(NUM_MASKED, 180, 240), dtype=np.uint8)
        for kind, pictures in (("img", colours), ("lab", masks)):
            arrays[f"{kind}_blob_{part}"], arrays[f"{kind}_off_{part}"] = _encoded(pictures, "PNG")
    np.savez(path, **arrays)


def _encoded(pictures: NDArray[np.uint8], form: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The pictures one after the other as files of `form`, and where each begins and the last one ends."""
    files = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, form)
        files.append(buffer.getvalue())
    return np.frombuffer(b"".join(files), np.uint8), np.cumsum([0, *map(len, files)])
