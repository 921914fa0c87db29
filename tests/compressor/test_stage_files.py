"""The files that stages hand to each other: what is written is what is read, however large it is."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path

import pytest
import tiny
import torch

from compressor.stage_files import load_tensors, map_tensors, save_tensors


def test_samples_are_mapped_as_they_were_saved(tmp_path: Path) -> None:
    tensors = {"images": tiny.images(5), "labels": torch.tensor([2, -1, 0, 1, 2]), "select": torch.empty(0).long()}
    save_tensors(tensors, tmp_path / "images.safetensors")
    found = map_tensors(tmp_path / "images.safetensors")
    assert found.keys() == tensors.keys() == load_tensors(tmp_path / "images.safetensors").keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_tensors_that_share_memory_are_saved_whole(tmp_path: Path) -> None:
    images = tiny.images(5)
    save_tensors({"one": images, "other": images, "part": images[:2]}, tmp_path / "t.safetensors")
    found = load_tensors(tmp_path / "t.safetensors")
    assert torch.equal(found["one"], images)
    assert torch.equal(found["other"], images)
    assert torch.equal(found["part"], images[:2])


def test_a_file_may_be_larger_than_the_memory(tmp_path: Path) -> None:
    """A file of holes, twice as large as the machine's memory: it takes no room on the disk."""
    path = tmp_path / "images.safetensors"
    count = 2 * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 192
    entry = {"dtype": "U8", "shape": [count, 3, 8, 8], "data_offsets": [0, count * 192]}
    header = json.dumps({"images": entry}).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        try:
            file.truncate(8 + len(header) + count * 192)
        except OSError as error:
            pytest.skip(f"the file system takes no file of that size: {error}")
    images = map_tensors(path)["images"]
    assert len(images) == count
    assert images[torch.tensor([0, count - 1])].sum() == 0
