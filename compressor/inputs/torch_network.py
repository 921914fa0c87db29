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

from compressor.errors import InputRefused
from compressor.inputs.card_facts import ASSUMED, FROM_FLAG
from compressor.inputs.network_file import (
    NUM_PROBES,
    NetworkFile,
    NetworkKind,
    check_image_shape,
    check_output,
    checked_answers,
    line_for,
    refuse_form,
)
from compressor.inputs.stated_size import StatedSize, settled_sides
from exporters.causes import one_line

# Tried on TorchScript in this order, where no card states them.
TRIED_CHANNELS = (3, 1, 4)
# Tried on TorchScript in this order; the first is what any other teacher's is taken to be.
USUAL_SIDES = (224, 32, 28, 64, 96, 128, 256, 299, 384, 16, 8)


class TorchNetwork(nn.Module):
    """Normalised images (B, C, H, W) to logits, by what the file holds.

    Attributes:
        module: the file's own module. It is none of our submodules, because programs refuse to be asked for evaluation
            mode and frozen TorchScript has no mode at all.
        both: (1, 2), by which the file's one logit z (B, 1) becomes (0, z); None where its logits are the answer.
    """

    module: Any

    def __init__(self, kind: NetworkKind, content: bytes, *, one_logit: bool = False) -> None:
        super().__init__()
        self.kind = kind
        self.both: Tensor | None
        self.register_buffer("both", torch.tensor([[0.0, 1.0]]) if one_logit else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch says of its own formats is not about the user's file
            module, self.image_size = _opened(kind, content)
        object.__setattr__(self, "module", module)
        for parameter in module.parameters():
            parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.module(images)
        return logits if self.both is None else logits * self.both

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


def read_torch(path: Path, kind: Literal["torchscript", "pt2"], stated: StatedSize | None = None) -> NetworkFile:
    """The network in a file that the user trusts, if it can be a teacher.

    Args:
        stated: the size of its images, where the user or a card states one.

    Raises:
        InputRefused: it cannot be opened or run, or is no network from images to logits.
        UsageFault: a flag states a size that the file does not take.
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
        image_shape, size_from = _shape_of_program(name, network.image_size, stated)
    else:
        image_shape, size_from = _tried_shape(name, network, stated)
    check_image_shape(name, image_shape)
    try:
        answers = network(torch.zeros(NUM_PROBES, *image_shape))
    except Exception as error:
        refuse_form(name, kind, f"fails on {NUM_PROBES} images of {_spelled(image_shape)}: {one_line(error)}")
    check_output(name, kind, answers, image_shape)
    answers = checked_answers(name, kind, network, image_shape)
    notes = (_assumed(name, image_shape),) if size_from == ASSUMED else ()
    return NetworkFile(kind, content, image_shape, size_from, answers.shape[1], answers.ndim == 4, notes)


def _assumed(name: str, image_shape: tuple[int, int, int]) -> str:
    size = f"{image_shape[1]}x{image_shape[2]}"
    return (
        f"No input size is stated, and {name} does not say its own: {size} pixels, the first usual size that it takes, "
        "were assumed, which may not be what it was trained on; --input-size or the card states another."
    )


def _shape_of_program(name: str, size: tuple[Any, ...], stated: StatedSize | None) -> tuple[tuple[int, int, int], str]:
    """What a program says, and what is stated where it leaves a side open; and who says the size."""
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
    settled, size_from = settled_sides(name, sides, stated)
    return (channels, *settled), size_from


def _tried_shape(name: str, network: TorchNetwork, stated: StatedSize | None) -> tuple[tuple[int, int, int], str]:
    """The stated size, or else the first of the usual ones that TorchScript takes, and who says it.

    That it is taken does not show that the network was trained on it: a pool may leave the same numbers of another.
    """
    sizes = [(stated.height, stated.width)] if stated is not None else [(side, side) for side in USUAL_SIDES]
    tried = TRIED_CHANNELS if stated is None or stated.channels is None else (stated.channels,)
    failure: Exception = RuntimeError("nothing was tried")
    for height, width in sizes:
        for channels in tried:
            try:
                with torch.no_grad():
                    network(torch.zeros(1, channels, height, width))
            except Exception as error:  # TorchScript raises whatever its operators do
                failure = error if channels == tried[0] else failure
                continue
            return (channels, height, width), ASSUMED if stated is None else stated.source
    size = f"{len(sizes)} usual sizes of" if stated is None else str(stated)
    where = "" if stated is None or stated.source == FROM_FLAG else f", which {stated.source} states"
    raise InputRefused(
        f"The teacher {name} takes no images of {size} pixels with {' or '.join(map(str, tried))} channels{where}: "
        f"{one_line(failure)}.",
        "A network of images (batch, channels, height, width) was expected.",
        "State the size that it takes with --input-size, or export only the part from the image to the logits: "
        f"`{line_for(name, 'torchscript')}`.",
    )


def _spelled(image_shape: tuple[int, int, int]) -> str:
    return "x".join(str(size) for size in image_shape)
