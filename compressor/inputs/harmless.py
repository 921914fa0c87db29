"""Names that training checkpoints import beside torch's own, and that are data: metrics, options, paths.

Torch's restricted reader runs nothing but what is on its list, which has no numpy number, no `argparse.Namespace` and
no path, so that most checkpoints of a training loop would be refused for a learning rate. These names are added to the
list while a file is read. Nothing of numpy or Lightning is among them, and no type that copies what it is given:
stand-ins take their places, which keep a number and forget the rest. The real ones can do more than hold data: a
numpy type whose state lies takes any eight bytes for the address of an object, and `str` of a list that holds the one
before it twice, forty times over, fills any memory.
"""

from __future__ import annotations

import argparse
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch._weights_only_unpickler import _get_allowed_globals

Global = Callable[..., Any] | tuple[Callable[..., Any], str]

_NUMBERS = frozenset(
    f"{kind}{size}"
    for kind, sizes in {"b": (1,), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "f": (2, 4, 8)}.items()
    for size in sizes
)
_PATHS = ("Path", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
_ATTRIBUTE_DICTS = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
_CODECS = ("latin1", "latin-1", "utf-8", "ascii")


class _Type:
    """A numpy type by its name alone, such as `f8`; what a file then says of its insides is not listened to."""

    def __init__(self, name: object = "", *_copy: object) -> None:
        if name not in _NUMBERS:
            raise ValueError("it holds numpy values that are no plain numbers")
        self.name = str(name)

    def __setstate__(self, _state: object) -> None: ...


class _Array:
    """Some array, of which nothing is kept: none is a weight."""

    def __init__(self, *_arguments: object) -> None: ...

    def __setstate__(self, state: object) -> None:
        if not (isinstance(state, tuple) and len(state) == 5 and isinstance(state[2], _Type)):
            raise ValueError("it holds an array of something else than plain numbers")


class _Path:
    """Some path, of which nothing is kept: a real one is as long as all its parts, and they may be paths."""

    def __init__(self, *_parts: object) -> None: ...


def _number(kind: object, data: object) -> Any:
    """A number from its type and its bytes."""
    if not isinstance(kind, _Type):
        raise ValueError("it holds a number of no type")
    written = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(written, kind.name, count=1)[0].item()  # type: ignore[call-overload]


def _plain_dict(*_factory: Any) -> dict[Any, Any]:
    return {}


def _no_call(*_arguments: Any) -> None:
    raise ValueError("it calls a type of Python's, which data never does")


def _encoded(text: str, encoding: str = "utf-8") -> bytes:
    """Texts as bytes; of Python's other codecs some double what they are given."""
    if encoding not in _CODECS:
        raise ValueError("it encodes text in an unusual way")
    return text.encode(encoding)


def _byte_array(data: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    """Of the bytes that the file holds; given a number, Python's own would fill the memory with so many zeros."""
    if not isinstance(data, bytes | str):
        raise ValueError("it asks for bytes that it does not hold")
    return bytearray(data if isinstance(data, bytes) else _encoded(data, encoding))


def _globals() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {
        "argparse.Namespace": argparse.Namespace,
        "collections.defaultdict": _plain_dict,
        "numpy.dtype": _Type,
        "numpy.ndarray": _Array,
    }
    for core in ("numpy._core", "numpy.core"):
        found[f"{core}.multiarray.scalar"] = _number
        found[f"{core}.multiarray._reconstruct"] = _Array
    for module in ("pathlib", "pathlib._local"):
        found |= {f"{module}.{name}": _Path for name in _PATHS}
    found |= {name: OrderedDict for name in _ATTRIBUTE_DICTS}
    # They stand in a file as what a `defaultdict` makes, or as the type of an option.
    return found | {f"builtins.{kind.__name__}": _no_call for kind in (dict, float, int, list, str, tuple)}


HARMLESS = _globals()
"""What reading a checkpoint may call beyond torch's own list, by the name that stands in the file."""


STRICTER: dict[str, Callable[..., Any]] = {"_codecs.encode": _encoded, "builtins.bytearray": _byte_array}
"""What stands in for names of torch's own list that could make much out of little."""


@contextmanager
def reading_harmless() -> Iterator[None]:
    """A context in which torch's restricted reader knows these names as well."""
    allowed = _get_allowed_globals()  # kept by torch, and asked for at every import of a file
    torchs_own = {name: allowed[name] for name in STRICTER}
    allowed.update(STRICTER)
    try:
        with torch.serialization.safe_globals([(kind, name) for name, kind in HARMLESS.items()]):
            yield
    finally:
        allowed.update(torchs_own)
