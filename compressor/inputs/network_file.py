"""A teacher that is run from its own file, because nothing but the file knows its layers: ONNX, TorchScript, `.pt2`.

    t.onnx ──> what it takes and gives, found out by running it ──> NetworkFile ──> a run's folder ──> open_network

Of such a teacher logits are to be had, and from torch's two formats gradients to the image as well. It has no layers
that a method could compare maps of, share or prune. The file's bytes are the teacher's only tensor, so that a run
keeps and reads it as it does the weights of any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NoReturn, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.errors import InputRefused
from compressor.inputs.card import MAX_SIDE, MIN_SIDE, VOID, Task, shape_problem

NetworkKind = Literal["onnx", "torchscript", "pt2"]
"""What stands in the card for an architecture."""

NETWORK_KINDS: tuple[NetworkKind, ...] = get_args(NetworkKind)
RUN_CODE: tuple[NetworkKind, ...] = ("torchscript", "pt2")  # of the file, when they are opened
FILE = "file"  # the name of the bytes among a teacher's tensors
ONE_LOGIT = "one_logit"  # a tensor beside them: the network in the file gives z, and what is opened gives (0, z)

# One line each that writes such a file as it is wanted; `images` are two or more, as the network takes them.
EXPORT_LINES: Mapping[NetworkKind, str] = {
    "onnx": "torch.onnx.export(model.eval(), (images,), 't.onnx', dynamo=True, external_data=False, "
    "dynamic_shapes=({0: 'batch'},))",
    "torchscript": "torch.jit.trace(model.eval(), images).save('t.pt')",
    "pt2": "torch.export.save(torch.export.export(model.eval(), (images,), "
    "dynamic_shapes=({0: torch.export.Dim('batch')},)), 't.pt2')",
}
NUM_PROBES = 3  # images that a file is tried on
SAME = 1e-3  # of the largest output: between one image alone and in a batch
ANSWERS = "logits (batch, classes), or (batch, classes, height, width) with a class for each pixel"


@dataclass(frozen=True)
class NetworkFile:
    """A network in a file, and what was found out by running it.

    Attributes:
        content: the file, with everything that it needs.
        image_shape: (C, H, W).
        size_from: who says so, as an origin of `Facts`: the file, a flag, a card, or an assumption.
        num_classes: K, numbers for each image or each pixel.
        dense: whether each pixel has its own.
        notes: what a reader must know, in sentences.
        open_sides: whether the file takes any height, and any width.
        one_logit: whether the network in the content gives one logit, before which `open_network` is to put 0.
    """

    kind: NetworkKind
    content: bytes
    image_shape: tuple[int, int, int]
    size_from: str
    num_classes: int
    dense: bool
    notes: tuple[str, ...] = ()
    open_sides: tuple[bool, bool] = (False, False)
    one_logit: bool = False

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What its output can mean; the first where nobody says."""
        return ("segmentation",) if self.dense else ("classification", "regression")

    def state_dict(self) -> dict[str, Tensor]:
        """The bytes, and what has to be known to open them, as `open_kept` reads it."""
        tensors = {FILE: torch.frombuffer(bytearray(self.content), dtype=torch.uint8)}
        return {**tensors, ONE_LOGIT: torch.ones(1, dtype=torch.uint8)} if self.one_logit else tensors


def open_kept(kind: NetworkKind, state_dict: Mapping[str, Tensor]) -> nn.Module:
    """The network that `NetworkFile.state_dict` holds, as `open_network`."""
    return open_network(kind, state_dict[FILE].numpy().tobytes(), one_logit=ONE_LOGIT in state_dict)


def open_network(kind: NetworkKind, content: bytes, *, one_logit: bool = False) -> nn.Module:
    """The network in evaluation mode: normalised images (B, C, H, W) to logits. Those of RUN_CODE run code here.

    Args:
        one_logit: the file gives the logit z of a yes-or-no question, and (0, z) is wanted. An ONNX file has that
            inside already (`one_logit.answering_both`).
    """
    from compressor.inputs.onnx_network import OnnxNetwork
    from compressor.inputs.torch_network import TorchNetwork

    return OnnxNetwork(content) if kind == "onnx" else TorchNetwork(kind, content, one_logit=one_logit)


def checked_answers(name: str, kind: NetworkKind, network: nn.Module, image_shape: tuple[int, int, int]) -> Tensor:
    """The network's logits of NUM_PROBES random images, which are what they have to be.

    Raises:
        InputRefused: it gives something else, NaN, other answers when asked again, or an image's answer depends on the
            others of its batch.
    """
    images = torch.rand(NUM_PROBES, *image_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers: Tensor = network(images)
        check_output(name, kind, answers, image_shape)
        again, alone = network(images), torch.cat([network(image[None]) for image in images])
    if not torch.isfinite(answers).all():
        raise InputRefused(
            f"The teacher {name} answers random images with NaN or infinity.",
            "Finite logits were expected of any image.",
            "Export an earlier checkpoint of this training, from before it diverged.",
        )
    most = answers.abs().max().clamp_min(1e-6)
    for others, how in ((again, "the same images differently each time"), (alone, "an image by the others with it")):
        if others.shape != answers.shape or float((others - answers).abs().max() / most) > SAME:
            refuse_form(name, kind, f"answers {how}, as a network in training mode does")
    return answers


def check_output(name: str, kind: NetworkKind, answers: object, image_shape: tuple[int, int, int]) -> None:
    """Refuse what is no float tensor of logits for NUM_PROBES images."""
    if not isinstance(answers, Tensor):
        several = f" of {len(answers)}" if isinstance(answers, tuple | list | dict) else ""
        refuse_output(name, kind, f"a {type(answers).__name__}{several}")
    if not answers.is_floating_point():
        refuse_output(name, kind, f"{str(answers.dtype).removeprefix('torch.')} numbers")
    usable = answers.ndim in (2, 4) and answers.shape[1] > 0  # none of no classes
    if not usable or (answers.ndim == 4 and answers.shape[2:] != image_shape[1:]):
        shape = "x".join(map(str, answers.shape[1:]))
        refuse_output(name, kind, f"{shape or 'one'} numbers for an image of {image_shape[1]}x{image_shape[2]} pixels")
    if len(answers) != NUM_PROBES:
        refuse_form(name, kind, f"gives {len(answers)} answers to {NUM_PROBES} images")


def refuse_output(name: str, kind: NetworkKind, gives: str) -> NoReturn:
    raise InputRefused(
        f"The teacher {name} gives {gives}.",
        f"One output of {ANSWERS} was expected.",
        f"Export only the part from the image to the logits: `{line_for(name, kind)}`.",
    )


def refuse_form(name: str, kind: NetworkKind, what: str) -> NoReturn:
    """It is such a network, and was exported in a form that cannot be used."""
    raise InputRefused(
        f"The teacher {name} {what}.",
        "A network in evaluation mode was expected that takes any number of images and answers each by itself.",
        f"Export it again from its PyTorch model, with two or more images: `{line_for(name, kind)}`.",
    )


def line_for(name: str, kind: NetworkKind) -> str:
    """The line that writes it as it is wanted, under its own name."""
    return EXPORT_LINES[kind].replace(f"'t.{_SUFFIX[kind]}'", repr(name))


_SUFFIX: Mapping[NetworkKind, str] = {"onnx": "onnx", "torchscript": "pt", "pt2": "pt2"}


def check_image_shape(name: str, image_shape: tuple[int, int, int]) -> None:
    """Refuse images that no folder holds."""
    channels, *sides = image_shape
    if shape_problem(image_shape) is not None:
        raise InputRefused(
            f"The teacher {name} takes images of {channels} channels and {sides[0]}x{sides[1]} pixels.",
            f"Images of 1, 3 or 4 channels with sides of {MIN_SIDE} to {MAX_SIDE} pixels were expected.",
            "Give a teacher for such images; where the file has (batch, height, width, channels), export it in the "
            "order (batch, channels, height, width).",
        )


def check_classes(name: str, num_classes: int, task: Task) -> None:
    """Refuse one class, and more than a mask can tell apart."""
    if num_classes < 2 and task != "regression":
        raise InputRefused(
            f"The teacher {name} has 1 output{' for each pixel' if task == 'segmentation' else ''}.",
            f"A {task} of at least 2 classes was expected.",
            "Give a teacher with one output per class, and two for a yes-or-no question"
            + ("; a teacher of one number is one of --task regression." if task == "classification" else "."),
        )
    if num_classes > VOID and task == "segmentation":
        raise InputRefused(
            f"The teacher {name} gives {num_classes} classes to each pixel.",
            f"At most {VOID} were expected: class maps are kept as bytes.",
            "Give a teacher of fewer classes.",
        )


def as_images(array: NDArray[np.float32]) -> Tensor:
    """Numbers that a runtime may go on using, as a tensor of our own."""
    return torch.from_numpy(np.array(array, np.float32))
