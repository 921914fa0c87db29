"""Names that training checkpoints import beside torch's own, and that are data: metrics, options, paths.

Torch's restricted reader runs nothing but what is on its list, which has no numpy number, no `argparse.Namespace` and
no path, so that most checkpoints of a training loop would be refused for a learning rate. These names are added to the
list while a file is read. Where the real thing can do more than hold data, a stand-in takes its place: nothing of
Lightning is imported, a `defaultdict` becomes a plain dict, and an array begins empty whatever size the file asks for.
"""

from __future__ import annotations

import argparse
import pathlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch

Global = Callable[..., Any] | tuple[Callable[..., Any], str]

_NUMBERS = (
    "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
    "float16",
    "float32",
    "float64",
)
_PATHS = {
    "Path": pathlib.PurePosixPath,
    "PosixPath": pathlib.PurePosixPath,
    "PurePosixPath": pathlib.PurePosixPath,
    "WindowsPath": pathlib.PureWindowsPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}
_ATTRIBUTE_DICTS = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)


def _numpy_number(*arguments: Any) -> Any:
    """A numpy scalar from its type and its bytes."""
    dtype, data = arguments
    return np.frombuffer(data, dtype, count=1)[0]


def _numpy_array(*_arguments: Any) -> Any:
    """An empty array, which the file then fills; pickles of arrays ask for no other."""
    return np.empty(0, np.int8)


def _plain_dict(*_factory: Any) -> dict[Any, Any]:
    return {}


def _globals() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {
        "argparse.Namespace": argparse.Namespace,
        "collections.defaultdict": _plain_dict,
        "numpy.dtype": np.dtype,
        "numpy.ndarray": np.ndarray,
    }
    for core in ("numpy._core", "numpy.core"):
        found[f"{core}.multiarray.scalar"] = _numpy_number
        found[f"{core}.multiarray._reconstruct"] = _numpy_array
    for module in ("pathlib", "pathlib._local"):
        found |= {f"{module}.{name}": kind for name, kind in _PATHS.items()}
    found |= {name: OrderedDict for name in _ATTRIBUTE_DICTS}
    found |= {f"builtins.{kind.__name__}": kind for kind in (dict, float, int, list, str, tuple)}
    for name in _NUMBERS:
        kind = type(np.dtype(name))
        found[f"numpy.dtypes.{kind.__name__}"] = cast(Callable[..., Any], kind)
    return found


HARMLESS = _globals()
"""What reading a checkpoint may call beyond torch's own list, by the name that stands in the file."""


def reading_harmless() -> torch.serialization.safe_globals:
    """A context in which torch's restricted reader knows these names as well."""
    return torch.serialization.safe_globals([(kind, name) for name, kind in HARMLESS.items()])
