"""A torch network as one ONNX file that its target can read.

In: a module from images (B, C, H, W), float32 in [0, 1], to logits (B, K) or, for every pixel, (B, K, H, W). Out: one
file without external data, with the input `image`, the output `logits` and a first dimension named `batch` in both.

The opset is the lesser of 20 and the target's ceiling: 20 is what JetPack 6 reads, and from 23 on attention
is one operator, with which TensorRT-RTX 1.7 could not build a ViT. torch.onnx has two exporters:

    dynamo       opset 18 and up. Asked for less it writes 18 all the same and only logs a line (torch 2.15).
    torchscript  opset 17 and below; deprecated, and the only one that serves TensorRT 8.5 (17) and 8.2 (13).
                 It traces, so a branch on tensor values would stay as it went for the example: an error here.

So the opset is read back from what was written, whichever exporter wrote it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn
from torch.jit import TracerWarning  # type: ignore[attr-defined]

from exporters.causes import culprit, one_line, root_cause
from exporters.errors import ExportError
from exporters.modules import device_of, evaluation_mode
from exporters.onnx_files import Exporter, OnnxFile, opset_of, save_onnx
from exporters.quiet import quiet
from exporters.runners import INPUT_NAME, OUTPUT_NAME

MAX_OPSET = 20
DYNAMO_MIN_OPSET = 18
BATCH = "batch"


def onnx_from_torch(
    model: nn.Module,
    image_shape: tuple[int, int, int],
    path: Path,
    *,
    opset_ceiling: int,
    metadata: Mapping[str, str],
) -> OnnxFile:
    """Export `model` in evaluation mode; its modes, device and weights stay as they are.

    The file appears under its name when it is complete and checked, or not at all.

    Args:
        model: float32, images (B, C, H, W) to logits (B, K), or (B, K, H, W) with the image's sides.
        image_shape: (C, H, W).
        path: where the file goes; its folder exists.
        opset_ceiling: the highest opset that the target's runtime reads.
        metadata: provenance, written into the file's metadata_props.

    Raises:
        ExportError: torch.onnx refused the model, or what it wrote is not what was asked for.
        OSError: the file could not be written.
    """
    opset = min(MAX_OPSET, opset_ceiling)
    exporter: Exporter = "dynamo" if opset >= DYNAMO_MIN_OPSET else "torchscript"
    if isinstance(model, torch.jit.ScriptModule):  # which only the older one reads
        opset, exporter = min(opset, DYNAMO_MIN_OPSET - 1), "torchscript"
    _check_dtypes(model)
    # Two images: with one, a batch size that the module bakes in could not be told from a dynamic one.
    example = torch.zeros(2, *image_shape, device=device_of(model))
    try:
        with _as_it_answers(model), torch.no_grad(), quiet():
            proto = _EXPORT[exporter](model, example, opset)
            _remove_traces(proto)
            _state_sides(proto, model(example[:1]))
    except Exception as error:  # the exporters raise dozens of kinds
        root = root_cause(error)
        raise ExportError(
            f"torch.onnx ({exporter}) could not export {culprit(model, error)} at opset {opset}: "
            f"{type(root).__name__}: {one_line(root)}.",
            "A model of ONNX operators, without Python branches on tensor values, was expected.",
            "Rewrite that part with tensor operations, or choose another architecture.",
        ) from error
    _check_interface(proto, image_shape, opset_ceiling)
    return save_onnx(proto, path, metadata=metadata, exporter=exporter)


def _export_dynamo(model: nn.Module, example: Tensor, opset: int) -> onnx.ModelProto:
    program = torch.onnx.export(
        model,
        (example,),
        dynamo=True,
        opset_version=opset,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        dynamic_shapes=({0: torch.export.Dim(BATCH, min=1)},),
        verbose=False,
    )
    assert program is not None  # None is for dynamo=False
    return program.model_proto


def _export_torchscript(model: nn.Module, example: Tensor, opset: int) -> onnx.ModelProto:
    warnings.simplefilter("error", TracerWarning)  # inside quiet, which ignores the others
    buffer = io.BytesIO()
    torch.onnx.export(
        model,
        (example,),
        buffer,  # type: ignore[arg-type]  # a file object is documented for this exporter
        dynamo=False,
        opset_version=opset,
        input_names=[INPUT_NAME],
        output_names=[OUTPUT_NAME],
        dynamic_axes={INPUT_NAME: {0: BATCH}, OUTPUT_NAME: {0: BATCH}},
        verbose=False,
    )
    return onnx.load_from_string(buffer.getvalue())


_EXPORT = {"dynamo": _export_dynamo, "torchscript": _export_torchscript}


def _as_it_answers(model: nn.Module) -> AbstractContextManager[Any]:
    """In evaluation mode; a TorchScript module as it is, since of frozen ones not even the mode can be asked."""
    return nullcontext() if isinstance(model, torch.jit.ScriptModule) else evaluation_mode(model)


def _remove_traces(proto: onnx.ModelProto) -> None:
    """Remove dynamo's notes on nodes and values: stack traces with this machine's paths and source lines."""
    graph = proto.graph
    values = (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    noted: tuple[Any, ...] = (graph, *graph.node, *values)
    for item in noted:
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _state_sides(proto: onnx.ModelProto, logits: object) -> None:
    """Give a map of logits its sizes, which torchscript forgets behind a resizing to a size that the graph computes.

    Args:
        logits: what the model gives for one image: (1, K, H, W), or something else, which is left as it is.
    """
    dimensions = proto.graph.output[0].type.tensor_type.shape.dim
    if isinstance(logits, Tensor) and logits.ndim == len(dimensions) == 4 and len(logits) == 1:
        for dimension, size in zip(dimensions[1:], logits.shape[1:], strict=True):
            dimension.dim_value = size


def _check_dtypes(model: nn.Module) -> None:
    """Refuse weights that are not float32: dynamo writes a graph of mixed types for them and says nothing."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise ExportError(
                f"{name} of {type(model).__name__} is {tensor.dtype}.",
                "A float32 model was expected; lower precisions are made from its ONNX file.",
                "Call model.float() before the export.",
            )


def _check_interface(proto: onnx.ModelProto, image_shape: tuple[int, int, int], opset_ceiling: int) -> None:
    opset = opset_of(proto)
    if opset > opset_ceiling:
        raise ExportError(
            f"torch.onnx wrote opset {opset}.",
            f"The target reads opset {opset_ceiling} at most.",
            "Choose a newer runtime for the target, or a student whose operators exist in that opset.",
        )
    takes = [_dimensions(value) for value in proto.graph.input]
    gives = [_dimensions(value) for value in proto.graph.output]
    match takes, gives:
        case [[(str(), *sizes)], [(str(), int(), *sides)]] if tuple(sizes) == image_shape:
            if sides in ([], list(image_shape[1:])):
                return
    raise ExportError(
        f"The exported graph takes {takes} and gives {gives}.",
        f"It should take [{(BATCH, *image_shape)}] and give one tensor, [('{BATCH}', classes)], or one of the "
        f"image's sides, [('{BATCH}', classes, {image_shape[1]}, {image_shape[2]})].",
        "Export a module that returns only logits and works on every batch size.",
    )


def _dimensions(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    return tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim)
