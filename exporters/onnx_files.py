"""ONNX files on disk: read with every refusal, checked before they are written, and their interface as data.

In: any file that claims to be ONNX. Out: a ModelProto that is whole, or an ExportError that says what is wrong.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

from exporters.causes import one_line
from exporters.errors import ExportError
from exporters.files import write_atomically

Exporter = Literal["dynamo", "torchscript"]
MOST_BYTES = 2**31
STANDARD_DOMAINS = ("", "ai.onnx")


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file that we wrote, as it lies on disk.

    Attributes:
        path: where it is.
        opset: read back from the file.
        size_mib: size in MiB (2^20 bytes).
        sha256: of the whole file, hexadecimal.
        exporter: which of torch.onnx's two exporters wrote it; None where it was made from another ONNX file.
    """

    path: Path
    opset: int
    size_mib: float
    sha256: str
    exporter: Exporter | None = None


@dataclass(frozen=True)
class ClassifierInterface:
    """How a classifier is fed, whatever its tensors are called.

    Attributes:
        input_name: its only input, float32.
        batch: the fixed number of images of one call; None where any number goes.
        image_shape: (C, H, W).
        output_name: its only output, float32 (B, K), or (B, K, H, W) with a class for each pixel.
        num_classes: K.
        output_size: (H, W) of the output; empty where it has one answer for each image.
    """

    input_name: str
    batch: int | None
    image_shape: tuple[int, int, int]
    output_name: str
    num_classes: int
    output_size: tuple[int, ...] = ()

    def __str__(self) -> str:
        """For messages: "image (any, 3, 32, 32) to logits (any, 10)"."""
        batch = "any" if self.batch is None else str(self.batch)
        takes, gives = (
            ", ".join([batch, *map(str, shape)]) for shape in (self.image_shape, (self.num_classes, *self.output_size))
        )
        return f"{self.input_name} ({takes}) to {self.output_name} ({gives})"


def load_onnx(path: Path) -> onnx.ModelProto:
    """Read a model with its weights; external data only from files that lie in the model's own folder or below.

    Raises:
        ExportError: the file is not there, is cut off, is no ONNX model, or its weights lie elsewhere.
    """
    proto = _parse(path)
    for tensor in _external_tensors(proto):
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        _check_location(path, tensor.name, location)
    try:
        onnx.load_external_data_for_model(proto, str(path.parent))
    except Exception as error:  # onnx raises several kinds, among them its own without a base class
        raise unreadable(path, f"its external weights are missing or damaged ({one_line(error)})") from error
    return proto


def external_files(path: Path) -> tuple[Path, ...]:
    """The files beside a model in which it keeps weights; of each it is checked that it lies there.

    Raises:
        ExportError: as `load_onnx`.
    """
    locations: dict[str, None] = {}
    for tensor in _external_tensors(_parse(path)):
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        _check_location(path, tensor.name, location)
        locations[location] = None
    return tuple(path.parent / location for location in locations)


def save_onnx(
    proto: onnx.ModelProto,
    path: Path,
    *,
    metadata: Mapping[str, str] | None = None,
    exporter: Exporter | None = None,
) -> OnnxFile:
    """Check a model and write it as one file, whole or not at all. `metadata` replaces its metadata_props.

    Raises:
        ExportError: the model is not valid ONNX, or is larger than the 2 GiB that one file holds.
        OSError: the file could not be written.
    """
    if metadata is not None:
        onnx.helper.set_model_props(proto, dict(sorted(metadata.items())))
    try:
        content = proto.SerializeToString(deterministic=True)
        onnx.checker.check_model(content, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, EncodeError, ValueError) as error:
        raise ExportError(
            f"The graph for {path.name} is not valid ONNX: {one_line(error)}.",
            "A graph that passes onnx.checker, with less than 2 GiB of weights, was expected.",
            "Export the model again; if it was made by this tool, report it with the node named above.",
        ) from error
    write_atomically(content, path)
    return OnnxFile(path, opset_of(proto), len(content) / 2**20, hashlib.sha256(content).hexdigest(), exporter)


def read_onnx_metadata(path: Path) -> dict[str, str]:
    """The metadata_props of an ONNX file; its weights are not looked at.

    Raises:
        ExportError: the file is not there or is no ONNX model.
    """
    return {entry.key: entry.value for entry in _parse(path).metadata_props}


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of the standard operators that a model was written in."""
    return next(int(entry.version) for entry in proto.opset_import if entry.domain in STANDARD_DOMAINS)


def classifier_interface(proto: onnx.ModelProto, name: str = "The model") -> ClassifierInterface:
    """The interface of a model that maps images (B, C, H, W) to logits (B, K) or (B, K, H, W), all float32.

    Raises:
        ExportError: it takes or gives something else.
    """
    weights = {tensor.name for tensor in proto.graph.initializer}  # before IR 4 these were inputs as well
    inputs = [value for value in proto.graph.input if value.name not in weights]
    outputs = list(proto.graph.output)
    takes, gives = [_spelled(value) for value in inputs], [_spelled(value) for value in outputs]
    if len(inputs) == len(outputs) == 1 and all(
        value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for value in (*inputs, *outputs)
    ):
        match _dimensions(inputs[0]), _dimensions(outputs[0]):
            case (
                (batch, int(channels), int(height), int(width)),
                (_, int(classes)) | (_, int(classes), int(), int()),
            ):
                return ClassifierInterface(
                    inputs[0].name,
                    batch if isinstance(batch, int) else None,
                    (channels, height, width),
                    outputs[0].name,
                    classes,
                    tuple(int(size) for size in _dimensions(outputs[0])[2:]),
                )
    raise ExportError(
        f"{name} takes {', '.join(takes) or 'nothing'} and gives {', '.join(gives) or 'nothing'}.",
        "A classifier was expected: one float32 input (batch, channels, height, width) of a fixed image size, and one "
        "float32 output (batch, classes), or (batch, classes, height, width) where each pixel has a class.",
        "Export only the part from the image to the logits, with a fixed image size.",
    )


def unreadable(path: Path, reason: str) -> ExportError:
    """The refusal of a file that is no whole ONNX model."""
    return ExportError(
        f"{path} cannot be read as ONNX: {reason}.",
        "A complete .onnx file was expected.",
        "Check the path, or export the file again.",
    )


def _parse(path: Path) -> onnx.ModelProto:
    if path.exists() and not (path.is_file() and path.stat().st_size <= MOST_BYTES):
        raise unreadable(path, "it is no file of at most 2 GiB, which is what protobuf reads")
    try:
        proto = onnx.load(path, load_external_data=False)
    except (OSError, DecodeError) as error:
        raise unreadable(path, one_line(error)) from error
    # protobuf reads an empty file as an empty message, and a text file now and then as unknown fields.
    if (
        not proto.ir_version
        or not proto.graph.node
        or not any(e.domain in STANDARD_DOMAINS for e in proto.opset_import)
    ):
        raise unreadable(path, "it holds no ONNX model")
    return proto


def _external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Also those in the bodies of If and Loop and in functions, and what sparse tensors are made of."""
    tensors: list[onnx.TensorProto] = []
    sparse: list[onnx.SparseTensorProto] = []
    graphs, nodes = [proto.graph], [node for function in proto.functions for node in function.node]
    while graphs or nodes:
        if graphs:
            graph = graphs.pop()
            tensors += graph.initializer
            sparse += graph.sparse_initializer
            nodes += graph.node
        for attribute in (attribute for node in nodes for attribute in node.attribute):
            tensors += [attribute.t, *attribute.tensors]
            sparse += [attribute.sparse_tensor, *attribute.sparse_tensors]
            graphs += [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs
        nodes = []
    tensors += [part for entry in sparse for part in (entry.values, entry.indices)]
    return [tensor for tensor in tensors if tensor.data_location == onnx.TensorProto.EXTERNAL]


def _check_location(path: Path, tensor: str, location: str) -> None:
    """Weights are read from beside the model and from nowhere else, links included."""
    relative = PurePosixPath(location.replace("\\", "/"))
    folder = path.parent.resolve()
    inside = location and not relative.is_absolute() and (folder / relative).resolve().is_relative_to(folder)
    if not inside:
        raise ExportError(
            f"{path.name} asks for the weights of {tensor!r} in {location!r}.",
            f"External weights must lie in the model's own folder, {path.parent}, or below it.",
            "Do not use this file unless you trust its maker; if you do, save it again with its weights inside.",
        )


def _dimensions(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(
        d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in value.type.tensor_type.shape.dim
    )


def _spelled(value: onnx.ValueInfoProto) -> str:
    kind = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type).lower()
    return f"{value.name} {kind} ({', '.join(map(str, _dimensions(value)))})"
