"""What to say of a file that cannot be a teacher, and how to make one of it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from compressor.errors import InputRefused
from compressor.inputs.checkpoint_file import Contents, Kind
from compressor.inputs.nearest import did_you_mean
from compressor.students.architectures import ARCHITECTURES

OUR_FAMILIES = ("cifar_", "lenet", "unet", "deeplab", "lraspp")
KNOWN = (
    "Known are torchvision's classifiers by their names there, such as resnet18, efficientnet_b0 or vit_b_16, and "
    f"{', '.join(name for name in ARCHITECTURES if name.startswith(OUR_FAMILIES))}; your own network is named as "
    "module:factory, such as mynet:build."
)

SHOWN = 3  # names that a message gives
SHOWN_IMPORTS = 20

# One line each that turns another kind of file into a state dict; {name} is the file's.
CONVERSIONS: Mapping[Kind, str] = {
    "training checkpoint": "torch.save(torch.load({name!r}, weights_only=False)['state_dict'], 'weights.pt')",
    "pickled module": "torch.save(torch.load({name!r}, weights_only=False).state_dict(), 'weights.pt')",
    "TorchScript": "torch.save(torch.jit.load({name!r}).state_dict(), 'weights.pt')",
    "pt2 (torch.export)": "torch.save(dict(torch.export.load({name!r}).state_dict), 'weights.pt')",
}


def existing_file(path: Path) -> Path:
    """The path, if a file is there and may be read.

    Raises:
        InputRefused: it is missing, a folder or locked; names its neighbours.
    """
    if path.is_file():
        if os.access(path, os.R_OK):
            return path
        raise InputRefused(
            f"The teacher {path} may not be read by this user.",
            "A readable checkpoint file was expected.",
            f"Change its permissions, for example with `chmod u+r {path}`.",
        )
    if path.is_dir():
        raise InputRefused(
            f"The teacher {path} is a folder.",
            "A checkpoint file such as t.pt was expected.",
            "Name the file inside the folder.",
        )
    folder = path.parent
    if not folder.is_dir():
        raise InputRefused(
            f"There is no teacher {path}: the folder {folder} does not exist.",
            "An existing checkpoint file was expected.",
            "Check the path given to --teacher.",
        )
    files = sorted(entry.name for entry in folder.iterdir() if entry.is_file() and not entry.name.startswith("."))
    shown = f"The folder holds {listed(files)}." if files else "The folder holds no files."
    raise InputRefused(
        f"There is no teacher {path}.",
        shown,
        did_you_mean(path.name, files) or "Check the path given to --teacher.",
    )


def refuse_kind(path: Path, contents: Contents) -> NoReturn:
    if contents.kind in ("unreadable", "not a checkpoint"):
        what = "cannot be read" if contents.kind == "unreadable" else "is not a checkpoint"
        received = f"The teacher {path.name} {what}: {contents.reason}."
    elif contents.imports:
        received = (
            f"The teacher {path.name} is a {contents.kind} that would run code while it is read: "
            f"it imports {listed(contents.imports, SHOWN_IMPORTS)}."
        )
    else:
        received = f"The teacher {path.name} is of the kind {contents.kind}."
    raise InputRefused(
        received,
        "A checkpoint made by compress was expected, or a state dict: torch.save(model.state_dict(), 'weights.pt').",
        way_forward(path, contents, ()),
    )


def way_forward(path: Path, contents: Contents, architectures: tuple[str, ...]) -> str:
    """What the user can do with a file of this kind, in one sentence."""
    fits = f" --arch {architectures[0]}" if architectures else ""
    match contents.kind:
        case "compress checkpoint":
            return f"Use it with --teacher {path}."
        case "unreadable" | "not a checkpoint":
            return "Copy the file again from where it was made, or save the weights once more as a state dict."
        case _ if contents.tensors and fits:
            return f"Use it with --teacher {path}{fits}."
        case _ if contents.tensors:
            return (
                f"It fits none of the known architectures, so its own has to be named with --arch. {KNOWN} Of any "
                "other network an ONNX file is a teacher, of which logits are used."
            )
        case kind:
            return (
                f"Where you trust this file, add --trust-pickle, or save the weights with "
                f"`{CONVERSIONS[kind].format(name=path.name)}` and give --teacher weights.pt --arch NAME."
            )


def listed(names: Sequence[str], limit: int = SHOWN) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown
