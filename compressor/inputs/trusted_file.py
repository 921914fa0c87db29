"""Files that run code while they are read, for a user who says that they may: `--trust-pickle`, with `--code` perhaps.

Only the weights are taken out of them. From then on the teacher is one of ours, and nothing of the file runs again.
"""

from __future__ import annotations

import importlib.util
import pickle
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import nn

from compressor.errors import CompressError, InputRefused
from compressor.inputs.checkpoint_file import Contents, Kind, classify
from compressor.inputs.own_code import OwnCode
from compressor.students.own_networks import imported_module, running
from exporters.causes import one_line

PICKLED_KINDS: tuple[Kind, ...] = ("training checkpoint", "pickled module")  # these alone name classes of other files
TRUSTED_KINDS: tuple[Kind, ...] = (*PICKLED_KINDS, "TorchScript", "pt2 (torch.export)")


def read_trusted(
    path: Path, kind: Kind, code: Path | OwnCode | None = None, weights_key: str | None = None
) -> Contents:
    """The weights in a file of one of TRUSTED_KINDS, which runs whatever code it or `code` holds.

    Args:
        code: Python file with the classes that were pickled, or a user's own network with those beside it; only files
            of PICKLED_KINDS need it, and for no others does it run.

    Raises:
        InputRefused: the code does not run, or the file holds no weights.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of its own formats is not about the user's file
            contents = classify(_as_tensors(_payload(path, kind, code)), path.stat().st_size, weights_key)
    except CompressError:
        raise
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        needs_code = isinstance(error, AttributeError | ModuleNotFoundError) and code is None
        raise InputRefused(
            f"The teacher {path.name} ({kind}) cannot be read: {type(error).__name__}: {one_line(error)}.",
            "A file was expected that this version of PyTorch reads, with the classes that it was saved from at hand.",
            "Name the Python file that defines them with --code model.py."
            if needs_code
            else "Save the weights where it was made: torch.save(model.state_dict(), 'weights.pt').",
        ) from error
    if contents.kind not in ("state dict", "training checkpoint", "compress checkpoint"):
        raise InputRefused(
            f"The teacher {path.name} ({kind}) was read and is no use: {contents.reason}.",
            "A network, or its weights by name, was expected in it.",
            "Save the weights where it was made: torch.save(model.state_dict(), 'weights.pt').",
        )
    return contents


def _payload(path: Path, kind: Kind, code: Path | OwnCode | None) -> Any:
    if kind == "TorchScript":
        return torch.jit.load(path, map_location="cpu").state_dict()
    if kind == "pt2 (torch.export)":
        return dict(torch.export.load(path).state_dict)
    if isinstance(code, OwnCode):  # a module of a package imports from there, and the pickle names it by its whole name
        reader = _reader(imported_module(code))
        with running(code):
            return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)
    reader = _reader(None if code is None else _imported(code))
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=reader)


def _imported(code: Path) -> ModuleType:
    """The user's Python file as the module of its name.

    Raises:
        InputRefused: there is no such file.
    """
    if not code.is_file():
        raise InputRefused(
            f"There is no file {code} with the code of the teacher.",
            "A Python file was expected that defines the classes that the teacher was saved from.",
            "Check the path given to --code.",
        )
    spec = importlib.util.spec_from_file_location(code.stem, code)
    if spec is None or spec.loader is None:
        raise InputRefused(
            f"The file {code} is no Python file.",
            "A file such as model.py was expected, which defines the classes that the teacher was saved from.",
            "Give the file that holds them with --code.",
        )
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(code.stem, module)
    before = list(sys.path)
    sys.path.insert(0, str(code.parent))  # for what it imports from beside itself
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


def _reader(module: ModuleType | None) -> Any:
    """A pickle module whose reader looks for classes in `module` first: they were saved by the name of a script."""

    class Reader(pickle.Unpickler):
        def find_class(self, module_name: str, name: str, /) -> Any:
            if module is not None and hasattr(module, name) and not module_name.startswith(("torch.", "collections")):
                return getattr(module, name)
            return super().find_class(module_name, name)

    def load(file: Any, **options: Any) -> Any:
        return Reader(file, **options).load()

    return SimpleNamespace(__name__="pickle", Unpickler=Reader, load=load)


def _as_tensors(payload: Any) -> Any:
    """Networks by their state dicts, whether one is all there is or stands under a key."""
    if isinstance(payload, nn.Module):
        return {name: value for name, value in payload.state_dict().items() if isinstance(value, torch.Tensor)}
    if isinstance(payload, Mapping):
        return {key: _as_tensors(value) if isinstance(value, nn.Module) else value for key, value in payload.items()}
    return payload
