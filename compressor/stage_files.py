"""The files that stages hand to each other. Each appears whole or not at all, also on a disk that fills up."""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from compressor.inputs.pixels import mapped_tensor
from compressor.stages import atomic_path, atomic_write_text

FACTS = "facts.json"
MAPPED_TYPES = {"U8": torch.uint8, "I64": torch.int64}  # of samples: pixels and masks, labels and indices


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name as safetensors, from where they are: neither those on the CPU nor mapped ones are copied.

    Raises:
        OSError: the file could not be written.
    """
    values: dict[str, Tensor] = {}
    stored: set[int] = set()
    for name, value in tensors.items():
        values[name] = value.detach().cpu().contiguous()
        place = values[name].untyped_storage().data_ptr()
        if place in stored:  # safetensors takes every tensor once
            values[name] = values[name].clone()
        stored.add(place)
    with atomic_path(path) as temporary:
        temporary.touch()  # with the mode that the user's files have; safetensors makes them for their owner alone
        mode = temporary.stat().st_mode
        try:
            save_file(values, temporary)
        except SafetensorError as error:  # it wraps what the system said
            raise OSError(str(error)) from error
        temporary.chmod(mode)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote."""
    return load_file(path)


def map_tensors(path: Path) -> dict[str, Tensor]:
    """The samples that `save_tensors` wrote, as read-only views of the file, which may be larger than the memory.

    `load_tensors` maps too, but as memory that could be written: Linux refuses that for more than the machine has.

    Raises:
        KeyError: a tensor is neither of bytes nor of 64-bit integers.
    """
    with path.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    (length,) = struct.unpack("<Q", mapping[:8])
    tensors = {}
    for name, entry in json.loads(mapping[8 : 8 + length]).items():
        dtype, (start, end) = MAPPED_TYPES[entry["dtype"]], entry["data_offsets"]
        count = (end - start) // dtype.itemsize
        flat = mapped_tensor(mapping, dtype, count, 8 + length + start) if count else torch.empty(0, dtype=dtype)
        tensors[name] = flat.reshape(entry["shape"])
    return tensors


def save_facts(folder: Path, **facts: Any) -> None:
    """Write what a stage found out for the report; JSON values only, neither NaN nor infinity."""
    atomic_write_text(folder / FACTS, json.dumps(facts, indent=2, allow_nan=False) + "\n")


def read_facts(folder: Path) -> dict[str, Any]:
    """Read what `save_facts` wrote."""
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return facts
