"""A teacher in TorchScript or in a `.pt2` program of torch.export, of no architecture that is known here.

Both run code of the file, so they are opened only for a user who trusts it. TorchScript does not say what images it
takes: usual sizes are tried. A program states its sizes.
"""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compressor.errors import InputRefused, UsageFault
from compressor.inputs.network_file import (
    NUM_PROBES,
    NetworkFile,
    NetworkKind,
    SizeFrom,
    check_image_shape,
    check_output,
    checked_answers,
    line_for,
    refuse_form,
    sides_of,
)
from exporters.causes import one_line

CHANNELS = (3, 1)
# Tried on TorchScript in this order; the first is what any other teacher's is taken to be.
USUAL_SIDES = (224, 32, 28, 64, 96, 128, 256, 299, 384, 16, 8)


class TorchNetwork(nn.Module):
    """Normalised images (B, C, H, W) to logits, by what the file holds.

    Attributes:
        module: the file's own module. It is none of our submodules, because programs refuse to be asked for evaluation
            mode and frozen TorchScript has no mode at all.
    """

    module: Any

    def __init__(self, kind: NetworkKind, content: bytes) -> None:
        super().__init__()
        self.kind = kind
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of its own formats is not about the user's file
            module, self.image_size = _opened(kind, content)
        object.__setattr__(self, "module", module)
        for parameter in module.parameters():
            parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images)  # type: ignore[no-any-return]

    def _apply(self, fn: Any, recurse: bool = True) -> TorchNetwork:
        """Moved to another device with whatever it is a part of."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.module._apply(fn)
        return self


def _opened(kind: NetworkKind, content: bytes) -> tuple[nn.Module, tuple[Any, ...] | None]:
    """The module in evaluation mode, and the size of the images that it says it takes; None where it does not say."""
    if kind == "torchscript":
        module = torch.jit.load(io.BytesIO(content), map_location="cpu")
        if hasattr(module, "training"):
            module.eval()
        return module, None
    program = torch.export.load(io.BytesIO(content))
    inputs = set(program.graph_signature.user_inputs)
    sizes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    size = tuple(side if isinstance(side, int) else None for side in sizes[0]) if len(sizes) == 1 else ()
    return program.module(check_guards=False), size


def read_torch(path: Path, kind: Literal["torchscript", "pt2"], input_size: object = None) -> NetworkFile:
    """The network in a file that the user trusts, if it can be a teacher.

    Args:
        input_size: the flag; pixels, or height and width, or None.

    Raises:
        InputRefused: it cannot be opened or run, or is no network from images to logits.
        UsageFault: the flag states a size that the file does not take.
    """
    name, content = path.name, path.read_bytes()
    try:
        network = TorchNetwork(kind, content)
    except Exception as error:  # foreign code may raise anything
        raise InputRefused(
            f"The teacher {name} ({kind}) cannot be opened: {type(error).__name__}: {one_line(error)}.",
            "A file was expected that this version of PyTorch reads.",
            f"Export it again from its PyTorch model: `{line_for(name, kind)}`.",
        ) from error
    if network.image_size is not None:
        image_shape, size_from = _stated_shape(name, network.image_size, input_size)
    else:
        image_shape, size_from = _tried_shape(name, network, input_size)
    check_image_shape(name, image_shape)
    try:
        answers = network(torch.zeros(NUM_PROBES, *image_shape))
    except Exception as error:
        refuse_form(name, kind, f"fails on {NUM_PROBES} images of {_spelled(image_shape)}: {one_line(error)}")
    check_output(name, kind, answers, image_shape)
    answers = checked_answers(name, kind, network, image_shape)
    return NetworkFile(kind, content, image_shape, size_from, answers.shape[1], answers.ndim == 4)


def _stated_shape(name: str, size: tuple[Any, ...], input_size: object) -> tuple[tuple[int, int, int], SizeFrom]:
    """What a program says, and the flag where it leaves a side open."""
    if len(size) != 4 or size[1] is None:
        raise InputRefused(
            f"The teacher {name} takes {'one tensor of other dimensions' if size else 'another number of inputs'}.",
            "One input of images (batch, channels, height, width) was expected.",
            f"Export only the part from the image to the logits: `{line_for(name, 'pt2')}`.",
        )
    batch, channels, *sides = size
    if batch is not None:
        images = "one image" if batch == 1 else f"{batch} images"
        refuse_form(name, "pt2", f"takes {images} at a time and no other number")
    stated = None if input_size is None else tuple(sides_of(input_size))
    if stated is None and None in sides:
        raise InputRefused(
            f"The teacher {name} leaves the size of its images open.",
            "The height and width that it was trained with were expected.",
            "State them with --input-size, such as --input-size 224.",
        )
    if stated is not None and any(side not in (None, wanted) for side, wanted in zip(sides, stated, strict=True)):
        raise UsageFault(
            f"--input-size states {stated[0]}x{stated[1]} pixels.",
            f"The teacher {name} takes {sides[0]}x{sides[1]}, which its file fixes.",
            "Leave --input-size out, or export the file for another size.",
        )
    height, width = sides if stated is None else stated
    return (channels, height, width), "the file" if None not in sides else "a flag"


def _tried_shape(name: str, network: TorchNetwork, input_size: object) -> tuple[tuple[int, int, int], SizeFrom]:
    """The first of the usual sizes that TorchScript takes, with three channels or one.

    Where it is not the first of all, the network takes few sizes, and this is one of them.
    """
    sizes = [tuple(sides_of(input_size))] if input_size is not None else [(side, side) for side in USUAL_SIDES]
    failure: Exception = RuntimeError("nothing was tried")
    for height, width in sizes:
        for channels in CHANNELS:
            try:
                with torch.no_grad():
                    network(torch.zeros(1, channels, height, width))
            except Exception as error:  # TorchScript raises whatever its operators do
                failure = error if channels == CHANNELS[0] else failure
                continue
            shape = (channels, height, width)
            if input_size is not None:
                return shape, "a flag"
            return shape, "an assumption" if height == USUAL_SIDES[0] else "the file"
    tried = f"{sizes[0][0]}x{sizes[0][1]}" if len(sizes) == 1 else f"{len(sizes)} usual sizes"
    raise InputRefused(
        f"The teacher {name} takes no images of {tried} pixels, with 3 channels or 1: {one_line(failure)}.",
        "A network of images (batch, channels, height, width) was expected.",
        "State the size that it takes with --input-size, or export only the part from the image to the logits: "
        f"`{line_for(name, 'torchscript')}`.",
    )


def _spelled(image_shape: tuple[int, int, int]) -> str:
    return "x".join(str(size) for size in image_shape)
