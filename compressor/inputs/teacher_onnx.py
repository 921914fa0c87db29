"""The teacher as an ONNX file of our form, and its size: whatever it is run from.

layers that are known   exported by torch, like a student
TorchScript, .pt2       exported by torch, from what the file holds
ONNX                    the file itself, its normalisation put inside, its tensors called as ours are
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from compressor.inputs.onnx_network import OnnxNetwork
from compressor.inputs.teacher import Classifier, Teacher, pixel_statistics
from compressor.inputs.torch_network import TorchNetwork
from compressor.students.footprint import Footprint, footprint
from exporters.errors import ExportError
from exporters.onnx_counts import count_onnx
from exporters.onnx_files import OnnxFile, opset_of, save_onnx
from exporters.onnx_normalisation import give_our_interface, normalise_inside
from exporters.quiet import quiet
from exporters.torch_to_onnx import MAX_OPSET, onnx_from_torch


def onnx_from_teacher(teacher: Teacher, path: Path, *, opset_ceiling: int, metadata: Mapping[str, str]) -> OnnxFile:
    """Write images in [0, 1] to logits as one file, whole or not at all.

    Raises:
        ExportError: torch.onnx refused the network, or an ONNX file is written in a later opset than the ceiling.
        OSError: the file could not be written.
    """
    shape, network = teacher.card.input_shape, teacher.network
    if isinstance(network, OnnxNetwork):
        return _with_its_normalisation(teacher, network, path, opset_ceiling, metadata)
    model: nn.Module = Classifier(teacher)
    if isinstance(network, TorchNetwork):
        model = _exportable(teacher, network)
    return onnx_from_torch(model, shape, path, opset_ceiling=opset_ceiling, metadata=metadata)


def teacher_footprint(teacher: Teacher) -> Footprint:
    """Parameters, MACs and memory; of a network without known layers, those of its ONNX file.

    Raises:
        ExportError: it has none.
    """
    if teacher.has_layers:
        return footprint(Classifier(teacher), teacher.card.input_shape)
    with TemporaryDirectory() as folder:
        file = onnx_from_teacher(teacher, Path(folder, "teacher.onnx"), opset_ceiling=_ANY_OPSET, metadata={})
        counts = count_onnx(file.path)
    if counts.macs == 0:
        raise ExportError(
            "The teacher has no convolution and no linear layer with weights of its own.",
            "A network was expected whose arithmetic can be counted, since a student is sized by it.",
            "Export it without If, Loop and Scan around its layers, and with its weights as constants.",
        )
    return Footprint(counts.params, counts.macs, counts.largest_step)


_ANY_OPSET = 1000  # of a file that is only counted


def _with_its_normalisation(
    teacher: Teacher, network: OnnxNetwork, path: Path, opset_ceiling: int, metadata: Mapping[str, str]
) -> OnnxFile:
    proto = onnx.load_from_string(network.content)
    if opset_of(proto) > opset_ceiling:
        raise ExportError(
            f"The teacher's ONNX file is written in opset {opset_of(proto)}.",
            f"The target reads opset {opset_ceiling} at most, and the teacher is compared there with its student.",
            f"Export it again with opset_version={min(opset_ceiling, MAX_OPSET)}, or choose another --target.",
        )
    card = teacher.card
    interface = network.interface(card.input_shape, card.num_classes, dense=card.task == "segmentation")
    mean, std = pixel_statistics(card)
    flip = card.channel_order == "BGR"
    if flip or any(mean) or any(value != 1.0 for value in std):
        normalise_inside(proto, interface.input_name, mean=mean, std=std, flip_channels=flip)
    give_our_interface(proto, interface)
    return save_onnx(proto, path, metadata=metadata)


class _Whole(nn.Module):
    """Normalisation and network as submodules of one module, as exporters need them; `both` as of `TorchNetwork`."""

    def __init__(self, normalise: nn.Module, network: Any, both: Tensor | None) -> None:
        super().__init__()
        self.normalise = normalise
        self.network = network
        self.both: Tensor | None
        self.register_buffer("both", both)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(self.normalise(images))
        return logits if self.both is None else logits * self.both


def _exportable(teacher: Teacher, network: TorchNetwork) -> nn.Module:
    module, both = network.module, network.both
    if network.kind == "torchscript":
        images = torch.zeros(2, *teacher.card.input_shape, device=teacher.normalise.mean.device)
        with torch.no_grad(), quiet():
            # Checking the trace would only run it once more; a program of TorchScript stays one within it.
            traced: nn.Module = torch.jit.trace(_Whole(teacher.normalise, module, both), images, check_trace=False)
        return traced
    # A program refuses to change its mode, which exporters ask of every module; it has one only.
    object.__setattr__(module, "train", lambda _mode=True: module)
    return _Whole(teacher.normalise, module, both).eval()
