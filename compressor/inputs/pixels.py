"""Pixels in a file instead of in memory: written one image at a time, then mapped, so that the system may drop pages.

    decoded image ──append──> a file without a name ──map──> uint8 (N, ...), read-only
                                                         rows ──> a batch

A mapped file is no memory of the process's own: what was read of it stays only as long as nothing else needs the room.
"""

from __future__ import annotations

import mmap
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Protocol, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK = 256  # images that are copied at once


class Images(Protocol):
    """uint8 (N, C, H, W), indexed by rows: a tensor, or `StoredImages`."""

    @property
    def shape(self) -> torch.Size: ...
    @property
    def device(self) -> torch.device: ...
    def __len__(self) -> int: ...
    def __getitem__(self, rows: Tensor | slice | int, /) -> Tensor: ...
    def split(self, size: int, /) -> Iterable[Tensor]: ...


class StoredImages:
    """Some of the rows of mapped tensors, one tensor after the other; what is asked for comes to a device.

    Args:
        parts: (images, rows) each: uint8 (M, C, H, W), and int64 (N,), the rows of it that are here.
        device: where the answers go. A pass over the images holds one batch at a time, wherever that is.
    """

    def __init__(self, *parts: tuple[Tensor, Tensor], device: torch.device | str = "cpu") -> None:
        self.parts = parts
        self.device = torch.device(device)

    @property
    def shape(self) -> torch.Size:
        """(N, C, H, W) of all parts together."""
        return torch.Size([sum(len(rows) for _, rows in self.parts), *self.parts[0][0].shape[1:]])

    @property
    def nbytes(self) -> int:
        """Of their pixels."""
        return self.shape.numel()

    def __len__(self) -> int:
        return self.shape[0]

    def __add__(self, other: StoredImages) -> StoredImages:
        return StoredImages(*self.parts, *other.parts, device=self.device)

    def to(self, device: torch.device | str) -> StoredImages:
        """The same images, for another device."""
        return StoredImages(*self.parts, device=device)

    @overload
    def __getitem__(self, rows: Tensor | slice) -> Tensor: ...
    @overload
    def __getitem__(self, rows: int) -> Tensor: ...
    def __getitem__(self, rows: Tensor | slice | int) -> Tensor:
        """Rows (B,), or one, as uint8 on the device.

        Beside a GPU that costs one wait, for the index; the pixels come from pinned memory, without another.
        """
        if isinstance(rows, int):
            return self[torch.tensor([rows])][0]
        wanted = torch.arange(*rows.indices(len(self))) if isinstance(rows, slice) else rows.cpu()
        batch = torch.empty(
            len(wanted), *self.shape[1:], dtype=torch.uint8, pin_memory=self.device.type == "cuda" and len(wanted) > 0
        )
        first = 0
        for images, kept in self.parts:
            here = ((wanted >= first) & (wanted < first + len(kept))).nonzero()[:, 0]
            if len(here) == len(wanted):
                torch.index_select(images, 0, kept[wanted - first], out=batch)
            else:
                batch[here] = images[kept[wanted[here] - first]]
            first += len(kept)
        return batch.to(self.device, non_blocking=True)

    def split(self, size: int) -> Iterator[Tensor]:
        """All of them, at most `size` at once; of none one empty batch, as tensors have it."""
        return (self[slice(first, first + size)] for first in range(0, max(1, len(self)), size))


def whole(images: Tensor) -> StoredImages:
    """All rows of a mapped tensor."""
    return StoredImages((images, torch.arange(len(images))))


@contextmanager
def pixel_file(shape: tuple[int, ...], folder: Path | None) -> Iterator[PixelFile]:
    """A file that nobody else sees and that is gone with its last reader.

    Args:
        shape: of one array in it.
        folder: where there is room for all of them; None: the system's folder for temporary files, which may be memory.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        yield PixelFile(shape, file)


class PixelFile:
    """Arrays uint8 of one shape, written as they come."""

    def __init__(self, shape: tuple[int, ...], file: IO[bytes]) -> None:
        self._shape, self._file = shape, file
        self._num_bytes = 0

    def append(self, arrays: NDArray[np.uint8]) -> None:
        """One array, or several in a batch.

        Raises:
            OSError: there is no room left.
        """
        self._file.write(np.ascontiguousarray(arrays).data)
        self._num_bytes += arrays.size

    def mapped(self) -> Tensor:
        """uint8 (N, ...) of all that was written, read-only, also after the file was closed."""
        self._file.flush()
        if self._num_bytes == 0:
            return torch.empty(0, *self._shape, dtype=torch.uint8)
        mapping = mmap.mmap(self._file.fileno(), self._num_bytes, access=mmap.ACCESS_READ)
        return mapped_tensor(mapping, torch.uint8, self._num_bytes, 0).reshape(-1, *self._shape)


def mapped_tensor(mapping: mmap.mmap, dtype: torch.dtype, count: int, offset: int) -> Tensor:
    """(count,) numbers of a mapped file. A write into it is refused by the processor."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable", category=UserWarning)
        return torch.frombuffer(mapping, dtype=dtype, count=count, offset=offset)


def kept_rows(images: Tensor, keep: Tensor, folder: Path | None) -> Tensor:
    """The images that mask (N,) keeps: the same tensor if it keeps all, else another file."""
    if bool(keep.all()):
        return images
    with pixel_file(tuple(images.shape[1:]), folder) as file:
        for some, kept in zip(images.split(CHUNK), keep.split(CHUNK), strict=True):
            file.append(some[kept].numpy())
        return file.mapped()
