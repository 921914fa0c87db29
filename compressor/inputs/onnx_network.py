"""A teacher in an ONNX file: checked as what it is, a file of unknown origin, and run by ONNX Runtime.

load (weights from its own folder only) -> operators that exist here -> onnx's own checks -> one image in, one
output -> float32 -> numbers, not NaN -> tried on random images
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from compressor.errors import InputRefused
from compressor.inputs.network_file import (
    NUM_PROBES,
    NetworkFile,
    as_images,
    check_image_shape,
    checked_answers,
    line_for,
    refuse_form,
    refuse_output,
)
from compressor.inputs.stated_size import Side, StatedSize, settled_sides
from exporters.causes import one_line
from exporters.errors import ExportError
from exporters.files import sha256_of
from exporters.int8_layers import constants_of
from exporters.logits import logits_of
from exporters.onnx_files import ClassifierInterface, external_files, load_onnx, opset_of
from exporters.onnx_normalisation import BROADCAST_OPSET
from exporters.onnx_to_int8 import PER_CHANNEL_OPSET, check_quantisable
from exporters.runners import OnnxRunner

REDUCED = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
RUNTIME_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.ms.internal.nhwc")  # of ONNX Runtime's own build
NAMED = Path("t.onnx")  # what messages call a file that is in memory
TRIED_WITHIN_S = 60.0  # for a few images, when the file comes
ANSWERS_WITHIN_S = 600.0  # for a batch, later


class OnnxNetwork(nn.Module):
    """Normalised images (B, C, H, W), wherever they are, to logits there; ONNX Runtime computes on the CPU.

    Attributes:
        content: the file.
    """

    def __init__(self, content: bytes, within_s: float = ANSWERS_WITHIN_S) -> None:
        super().__init__()
        self.content = content
        # As many threads as torch may use: of several processes on one machine each has its share.
        self._runner = OnnxRunner(NAMED, threads=torch.get_num_threads(), content=content, within_s=within_s)

    def forward(self, images: Tensor) -> Tensor:
        # Without a graph: nothing of what ONNX Runtime does can be differentiated.
        fed = images.detach().float().cpu().numpy()
        return as_images(logits_of(self._runner, fed)).to(images.device)

    def interface(self, image_shape: tuple[int, int, int], num_classes: int, *, dense: bool) -> ClassifierInterface:
        """How the file is fed, with the sizes that are known of it."""
        proto = onnx.load_from_string(self.content)
        (image,), (logits,) = _inputs(proto), proto.graph.output
        batch = _dimensions(image)[0]
        sides = image_shape[1:] if dense else ()
        fixed = batch if isinstance(batch, int) else None
        return ClassifierInterface(image.name, fixed, image_shape, logits.name, num_classes, sides)


def read_onnx(path: Path, stated: StatedSize | None = None, *, stand_in: int | None = None) -> NetworkFile:
    """The network in an ONNX file, if it can be a teacher.

    Args:
        stated: the size of its images, where the user or a card states one.
        stand_in: pixels of the sides that the file leaves open, where it is only to be described.

    Raises:
        InputRefused: it is unsafe, damaged, or no float32 network of one image input and one output of logits.
        UsageFault: a flag states a size that the file does not take.
    """
    name = path.name
    with as_refusal():
        proto = load_onnx(path)
        is_whole = not external_files(path)
    _check_operators(proto, name)
    content = path.read_bytes() if is_whole else _in_one_piece(proto, name)
    try:
        onnx.checker.check_model(content, full_check=True)
    except Exception as error:  # onnx raises several kinds, among them its own without a base class
        raise InputRefused(
            f"The teacher {name} is not valid ONNX: {one_line(error)}.",
            "A file that passes onnx.checker.check_model was expected.",
            f"Export it again from its PyTorch model: `{line_for(name, 'onnx')}`.",
        ) from error
    batch, channels, *sides = _image_input(proto, name)
    open_sides = tuple(not isinstance(side, int) for side in sides)
    filled = [stand_in if is_open else side for side, is_open in zip(sides, open_sides, strict=True)]
    settled, size_from = settled_sides(name, filled if stand_in is not None else sides, stated)
    image_shape = (int(channels or 0), *settled)
    check_image_shape(name, image_shape)
    _check_output_type(proto, name)
    _check_precision(proto, name)
    _check_numbers(proto, name)
    if isinstance(batch, int) and batch != 1:
        refuse_form(name, "onnx", f"takes {batch} images at a time and no other number")
    with as_refusal():
        network = OnnxNetwork(content, TRIED_WITHIN_S)
        network(torch.zeros(1, *image_shape))
    try:
        network(torch.zeros(NUM_PROBES, *image_shape))
    except ExportError as error:
        refuse_form(name, "onnx", f"is to take any number of images, and fails on {NUM_PROBES}: {error.received[:-1]}")
    answers = checked_answers(name, "onnx", network, image_shape)
    slow = f"{name} takes one image a call, which is slow; `{line_for(name, 'onnx')}` writes one that takes any number."
    notes = [slow] if batch == 1 else []
    for file in external_files(path):
        notes.append(f"{name} keeps weights in {file.name} beside it, SHA-256 {sha256_of(file)}.")
    return NetworkFile(
        kind="onnx",
        content=content,
        image_shape=image_shape,
        size_from=size_from,
        num_classes=answers.shape[1],
        dense=answers.ndim == 4,
        notes=tuple(notes),
        open_sides=(open_sides[0], open_sides[1]),
    )


@contextmanager
def as_refusal() -> Iterator[None]:
    """What an exporter says against the user's own file, as a refusal of that file."""
    try:
        yield
    except ExportError as error:
        raise InputRefused(error.received, error.expected, error.action) from error


def check_fp32(proto: onnx.ModelProto, name: str) -> None:
    """Refuse what is in a lower precision already: everything is judged against the file that came.

    Raises:
        ExportError: it is quantised, or in 16-bit floats.
    """
    nodes = onnx.ModelProto()
    nodes.graph.node.extend(proto.graph.node)
    # An opset that is too old for int8 alone is no refusal: int8 then has a row that says so.
    nodes.opset_import.add(version=max(opset_of(proto), PER_CHANNEL_OPSET))
    check_quantisable(nodes, name)
    reduced = [tensor.name for tensor in constants_of(proto.graph).values() if tensor.data_type in REDUCED]
    if reduced:
        raise ExportError(
            f"{name} holds {len(reduced)} tensors in 16-bit floats, such as {reduced[0] or 'a constant'!r}.",
            "A float32 graph was expected: lower precisions are made from it and judged against it.",
            "Start from the float32 file that it was made from.",
        )


# --- one check each ---------------------------------------------------------------------------------------------------


def _check_operators(proto: onnx.ModelProto, name: str) -> None:
    local = {(function.domain, function.name) for function in proto.functions}
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    foreign = {
        f"{node.domain}::{node.op_type}": None
        for node in nodes
        if node.domain not in RUNTIME_DOMAINS and (node.domain, node.op_type) not in local
    }
    if foreign:
        raise InputRefused(
            f"The teacher {name} uses {len(foreign)} operators that are not ONNX's own, such as {next(iter(foreign))}.",
            "Operators of ONNX and of ONNX Runtime were expected; no others are loaded, since they are foreign code.",
            "Export it without custom operators.",
        )
    if opset_of(proto) < BROADCAST_OPSET:
        raise InputRefused(
            f"The teacher {name} is written in opset {opset_of(proto)}.",
            f"Opset {BROADCAST_OPSET} or later was expected, before which a normalisation cannot be put.",
            f"Export it again from its PyTorch model: `{line_for(name, 'onnx')}`.",
        )


def _in_one_piece(proto: onnx.ModelProto, name: str) -> bytes:
    """With the weights that lay beside it inside."""
    try:
        return bytes(proto.SerializeToString())
    except Exception as error:  # protobuf's own, above 2 GiB
        raise InputRefused(
            f"The teacher {name} and its weights do not fit into one ONNX file: {one_line(error)}.",
            "Less than 2 GiB were expected.",
            "Give the weights of the PyTorch model instead, where its architecture is a known one.",
        ) from error


def _image_input(proto: onnx.ModelProto, name: str) -> tuple[Side, ...]:
    """(B, C, H, W) of the one input; sizes that it leaves open are names or None.

    Raises:
        InputRefused: there is another number of inputs, or the one is no float32 image.
    """
    inputs = _inputs(proto)
    if len(inputs) == 1:
        kind, dimensions = inputs[0].type.tensor_type.elem_type, _dimensions(inputs[0])
        if kind == TensorProto.FLOAT and len(dimensions) == 4 and isinstance(dimensions[1], int):
            return dimensions
    takes = "; ".join(_spelled(value) for value in inputs) or "no input"
    raise InputRefused(
        f"The teacher {name} takes {takes}.",
        "One input of images, float32 (batch, channels, height, width), was expected.",
        f"Export only the part from the image to the logits, in float32: `{line_for(name, 'onnx')}`.",
    )


def _check_output_type(proto: onnx.ModelProto, name: str) -> None:
    outputs = list(proto.graph.output)
    if len(outputs) != 1 or outputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        refuse_output(name, "onnx", "; ".join(_spelled(value) for value in outputs) or "no output")


def _check_precision(proto: onnx.ModelProto, name: str) -> None:
    try:
        check_fp32(proto, name)
    except ExportError as error:
        raise InputRefused(f"The teacher {error.received}", error.expected, error.action) from error


def _check_numbers(proto: onnx.ModelProto, name: str) -> None:
    """Refuse NaN in weights. Infinity is no damage: masks of attention are made of it."""
    floats = [tensor for tensor in constants_of(proto.graph).values() if tensor.data_type == TensorProto.FLOAT]
    bad = [tensor.name or "a constant" for tensor in floats if np.isnan(numpy_helper.to_array(tensor)).any()]
    if bad:
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        raise InputRefused(
            f"The teacher {name} holds NaN in {', '.join(bad[:3])}{more}.",
            "Every weight was expected to be a number.",
            "Export an earlier checkpoint of this training, from before it diverged.",
        )


# --- how a file spells its tensors ------------------------------------------------------------------------------------


def _inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    weights = {tensor.name for tensor in proto.graph.initializer}  # before IR 4 these were inputs as well
    return [value for value in proto.graph.input if value.name not in weights]


def _dimensions(value: onnx.ValueInfoProto) -> tuple[Side, ...]:
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else (d.dim_param or None)
        for d in value.type.tensor_type.shape.dim
    )


def _spelled(value: onnx.ValueInfoProto) -> str:
    kind = TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{value.name} {kind} ({', '.join('?' if d is None else str(d) for d in _dimensions(value))})"
