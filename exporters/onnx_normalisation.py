"""Mean and standard deviation as the first two nodes of an ONNX classifier, so that it takes images in [0, 1].

    input ──> Sub mean ──> Div std ──> what read the input before

Everything that comes after then speaks of the same images: calibration, golden outputs, and whoever feeds the file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper, numpy_helper

from exporters.errors import ExportError
from exporters.onnx_files import ClassifierInterface, opset_of
from exporters.onnx_names import fresh_name, names_in, rename
from exporters.runners import INPUT_NAME, OUTPUT_NAME

BROADCAST_OPSET = 7  # before it, Sub and Div say in an attribute how a number per channel is spread
INITIALISERS_STAND_ALONE = 4  # before this version of the format, they are inputs of the graph as well
BATCH = "batch"


def normalise_inside(
    proto: onnx.ModelProto,
    input_name: str,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    flip_channels: bool = False,
) -> None:
    """Let a classifier compute (x - mean) / std itself; its interface, opset and format stay as they are.

    Args:
        input_name: of the images (B, C, H, W).
        mean, std: C numbers each; std above 0.
        flip_channels: the classifier reads the normalised channels in reverse: BGR where images are RGB.

    Raises:
        ExportError: the opset is older than broadcasting.
    """
    if opset_of(proto) < BROADCAST_OPSET:
        raise ExportError(
            f"The model is written in opset {opset_of(proto)}.",
            f"A normalisation can be put before a model of opset {BROADCAST_OPSET} or later.",
            "Export the model again with a later opset, or with its normalisation inside.",
        )
    graph = proto.graph
    taken = set(names_in(graph))
    names = [fresh_name(f"{input_name}_{word}", taken) for word in ("mean", "std", "centred", "normalised")]
    rename(graph, input_name, names[3])
    for name, numbers in zip(names, (mean, std), strict=False):
        add_constant(proto, numpy_helper.from_array(np.asarray(numbers, np.float32).reshape(1, -1, 1, 1), name))
    graph.node.insert(0, helper.make_node("Sub", [input_name, names[0]], [names[2]], name=names[2]))
    divided = fresh_name(f"{input_name}_divided", taken) if flip_channels else names[3]
    graph.node.insert(1, helper.make_node("Div", [names[2], names[1]], [divided], name=divided))
    if flip_channels:
        order = fresh_name(f"{input_name}_order", taken)
        add_constant(proto, numpy_helper.from_array(np.arange(len(mean), dtype=np.int64)[::-1].copy(), order))
        graph.node.insert(2, helper.make_node("Gather", [divided, order], [names[3]], name=names[3], axis=1))


def give_our_interface(proto: onnx.ModelProto, interface: ClassifierInterface) -> None:
    """Call a classifier's input `image` and its output `logits`, and state their sizes, as of the files that we write.

    Args:
        interface: the classifier's own, with every size known, also of those that the file leaves open.
    """
    graph = proto.graph
    batch = interface.batch or BATCH
    kept = [value for value in graph.input if value.name != interface.input_name]
    gives = [batch, interface.num_classes, *interface.output_size]
    ours = {interface.input_name: INPUT_NAME, interface.output_name: OUTPUT_NAME}
    if any(old != new for old, new in ours.items()):
        taken = {*names_in(graph), *ours.values()}
        between = {old: fresh_name(old, taken) for old in ours}  # the input may be called as the output is to be
        within = [name for name in ours.values() if name not in ours]
        for old, new in (*between.items(), *((name, fresh_name(name, taken)) for name in within)):
            rename(graph, old, new, everywhere=True)
        for old, new in ours.items():
            rename(graph, between[old], new, everywhere=True)
    del graph.input[:], graph.output[:]
    takes = helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.FLOAT, [batch, *interface.image_shape])
    graph.input.extend([takes, *kept])
    graph.output.append(helper.make_tensor_value_info(OUTPUT_NAME, onnx.TensorProto.FLOAT, gives))
    del graph.value_info[:]  # sizes of tensors within, which were those of other images perhaps


def add_constant(proto: onnx.ModelProto, tensor: onnx.TensorProto) -> None:
    """As an initialiser, in the form of the file's own version."""
    proto.graph.initializer.append(tensor)
    if proto.ir_version < INITIALISERS_STAND_ALONE:
        proto.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
