"""Networks of the user's own code, by `module:factory`; naming one in --arch is the user's word that it may run.

A factory is called without arguments, but with `num_classes` and `in_channels` where it has parameters of these names.
Where it takes no number of classes, its last layer is made anew with as many outputs as are asked for.

As with timm's networks, what the last layer reads is taken as the feature map, of one position; the map of a 1x1
convolution whose average is the output is one of class scores, as SqueezeNet's.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from compressor.errors import InputRefused, UsageFault
from compressor.inputs.nearest import did_you_mean
from compressor.inputs.own_code import OwnCode
from compressor.students.architecture import Architecture
from compressor.students.last_layer import CHANNELS, described, last_layer
from compressor.students.timm_networks import without_layer

CONTRACT = "A function or a class was expected that gives an untrained network, called without arguments."


@dataclass(frozen=True)
class _Known:
    """A network that was traced, and what it was traced from."""

    traced: tuple[str, str, tuple[int, int]]
    architecture: Architecture


_known: dict[str, _Known] = {}


def own_architecture(name: object) -> Architecture | None:
    """The network of this name, where `know_own_network` has met it in this process."""
    return _known[name].architecture if isinstance(name, str) and name in _known else None


def know_own_network(code: OwnCode, sides: tuple[int, int]) -> Architecture:
    """Import the code, call its factory and find its last layer; from then on it is an architecture like any other.

    Args:
        sides: height and width of its images.

    Raises:
        UsageFault: the module has no such factory.
        InputRefused: the code does not run, or gives no network of images to logits that ends in such a layer.
    """
    traced = (str(code.root), _digest(code), sides)
    if code.name not in _known or _known[code.name].traced != traced:
        _added.pop(code.name, None)
        factory = _factory(code, imported_module(code))
        architecture = _architecture(code, factory, sides)
        _check_found(code)
        _known[code.name] = _Known(traced, architecture)
    return _known[code.name].architecture


# --- the code ---------------------------------------------------------------------------------------------------------


def _digest(code: OwnCode) -> str:
    contents = code.paths() if code.root.is_dir() else (code.root,)
    return hashlib.sha256(b"".join(path.read_bytes() for path in contents)).hexdigest()


def imported_module(code: OwnCode) -> ModuleType:
    """The user's module, imported anew, with its own files before all others of their names.

    Raises:
        UsageFault: one of its files has the name of an installed package.
        InputRefused: it does not run.
    """
    tops = {file.partition("/")[0].removesuffix(".py") for file in code.files}
    if taken := sorted(tops & _IN_USE):
        raise UsageFault(
            f"The architecture {code.name} needs the file {taken[0]}.py, which has the name of an installed package.",
            "A file of another name was expected: both cannot be imported.",
            "Rename the file, for example to mynet.py.",
        )
    for name in [name for name in sys.modules if name.partition(".")[0] in tops]:
        del sys.modules[name]
    importlib.invalidate_caches()
    try:
        with running(code):
            return importlib.import_module(code.module)
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        raise InputRefused(
            f"The code of the teacher, {code.files[0]}, does not run: {described(error)}.",
            "A file was expected that can be imported and defines the network. A run keeps a copy of it and of the "
            "Python files that it imports from beside itself, and of no others.",
            "Correct it, keep training and reading of arguments below `if __name__ == '__main__':`, and read no other "
            "files.",
        ) from error


@contextmanager
def running(code: OwnCode) -> Iterator[None]:
    """Inside, the user's code finds what lies beside it, leaves nothing there, and prints beside our results."""
    before = list(sys.path)
    sys.path.insert(0, str(code.root))
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _added.setdefault(code.name, set()).update(set(sys.path) - {*before, str(code.root)})
        sys.path[:] = before
        sys.dont_write_bytecode = written


# What this program has imported before any code of a user must not be replaced.
_IN_USE = frozenset(name for name in sys.modules if "." not in name)
_added: dict[str, set[str]] = {}
"""By network, the folders that its code has put on Python's path."""


def _check_found(code: OwnCode) -> None:
    """Refuse modules from folders that the code itself puts on the path: no copy has them, and no change is seen."""
    added = [Path(folder).resolve() for folder in _added.get(code.name, ())]
    installed = [Path(folder).resolve() for folder in sys.path if folder]
    own = {path.resolve() for path in code.paths()}
    for name, module in tuple(sys.modules.items()) if added else ():
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or (path := Path(file).resolve()) in own:
            continue
        if any(map(path.is_relative_to, added)) and not any(map(path.is_relative_to, installed)):
            raise InputRefused(
                f"The code of the teacher, {code.files[0]}, imports {name} from a folder that it adds to sys.path: "
                f"{path}.",
                f"Modules were expected that lie beside {code.files[0]}, of which a run keeps a copy, or that are "
                "installed.",
                f"Put {path.name} beside {code.files[0]} and import it there with `import`, or install it.",
            )


def _factory(code: OwnCode, module: ModuleType) -> Callable[..., Any]:
    factory = getattr(module, code.factory, None)
    if callable(factory):
        return factory  # type: ignore[no-any-return]
    own = [name for name, value in vars(module).items() if _is_own(value, module)]
    what = "is no function or class" if hasattr(module, code.factory) else "is not there"
    raise UsageFault(
        f"The factory {code.factory} of the architecture {code.name} {what}: {code.files[0]} was read.",
        f"{CONTRACT} The file has {', '.join(own[:10]) or 'none'}.",
        did_you_mean(code.factory, own) or "Name one of these after the colon, or write one that returns the network.",
    )


def _is_own(value: object, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _network(code: OwnCode, factory: Callable[..., Any], num_classes: int, in_channels: int) -> nn.Module:
    """What the factory gives.

    Raises:
        InputRefused: it raises, or gives something else.
    """
    try:
        takes = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # of some that are written in C
        takes = {}  # type: ignore[assignment]
    offered = {"num_classes": num_classes, "in_channels": in_channels}
    try:
        with running(code):
            network = factory(**{name: value for name, value in offered.items() if name in takes})
    except (Exception, SystemExit) as error:
        raise InputRefused(
            f"The factory {code.name} failed: {described(error)}.",
            "It is called without arguments, but with num_classes and in_channels where it has parameters of these "
            "names.",
            "Give all other parameters a default, or write a function that calls it with yours.",
        ) from error
    if not isinstance(network, nn.Module):
        raise InputRefused(
            f"The factory {code.name} gave a {type(network).__name__}.",
            "A torch.nn.Module was expected.",
            "Return the network itself, untrained; its weights come from --teacher.",
        )
    return network.cpu().float().eval()


# --- the network ------------------------------------------------------------------------------------------------------


def _architecture(code: OwnCode, factory: Callable[..., Any], sides: tuple[int, int]) -> Architecture:
    last = last_layer(code.name, _network(code, factory, 2, CHANNELS[0]), sides)

    def build(num_classes: int, in_channels: int, _width: float) -> nn.Module:
        network = _network(code, factory, num_classes, in_channels)
        layer: Any = network.get_submodule(last.name)
        if layer.weight.shape[0] != num_classes:
            has_bias = layer.bias is not None
            width = layer.weight.shape[1]
            kind: Callable[..., nn.Module] = nn.Linear if last.is_linear else partial(nn.Conv2d, kernel_size=1)
            network.set_submodule(last.name, kind(width, num_classes, bias=has_bias))
        return network

    def split(network: nn.Module) -> nn.Sequential:
        return nn.Sequential(OrderedDict(features=_Features(network, last.name)))

    return Architecture(
        build,
        last.name,
        last.name,
        (),
        family="own",
        split=split,
        scales=False,
        pools_scores=not last.is_linear,
        is_candidate=False,
        only_channels=last.in_channels,
    )


class _Features(nn.Module):
    """Normalised images (B, C, H, W) to what the last layer reads, as a map of one position (B, D, 1, 1)."""

    def __init__(self, network: nn.Module, classifier_layer: str) -> None:
        super().__init__()
        self.network = without_layer(network, classifier_layer)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.network(x)
        return features.flatten(1)[:, :, None, None]
