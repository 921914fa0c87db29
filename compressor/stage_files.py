"""The files that stages hand to each other. Each appears whole or not at all, also on a disk that fills up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from compressor.stages import atomic_path, atomic_write_text

FACTS = "facts.json"


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name as safetensors.

    Raises:
        OSError: the file could not be written.
    """
    values = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(values, temporary)
        except SafetensorError as error:  # it wraps what the system said
            raise OSError(str(error)) from error


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read what `save_tensors` wrote."""
    return load_file(path)


def save_facts(folder: Path, **facts: Any) -> None:
    """Write what a stage found out for the report; JSON values only, neither NaN nor infinity."""
    atomic_write_text(folder / FACTS, json.dumps(facts, indent=2, allow_nan=False) + "\n")


def read_facts(folder: Path) -> dict[str, Any]:
    """Read what `save_facts` wrote."""
    facts: dict[str, Any] = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    return facts
