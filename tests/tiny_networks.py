"""Networks of no known architecture in files that run them: ONNX, TorchScript, `.pt2`; 8x8 pixels, random weights."""

from __future__ import annotations

import copy
import warnings
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import tiny
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from compressor.inputs.card import TeacherCard
from compressor.inputs.network_file import EXPORT_LINES, NetworkKind, open_network
from compressor.inputs.teacher import LogitsTeacher

NAMES: dict[NetworkKind, str] = {"onnx": "t.onnx", "torchscript": "t.pt", "pt2": "t.pt2"}


class Unknown(nn.Module):
    """Large enough that there are smaller students; its answers differ between images."""

    def __init__(self, *, dense: bool = False, outputs: int = tiny.NUM_CLASSES) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 48, 3, padding=1)
        self.norm = nn.BatchNorm2d(48)
        self.second = nn.Conv2d(48, 64, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(64, outputs, 1)
        self.dense = dense

    def forward(self, images: Tensor) -> Tensor:
        maps = self.drop(self.second(self.norm(self.first(images)).relu()).relu())
        logits: Tensor = self.last(maps)
        return logits if self.dense else 4.0 * logits.mean(dim=(2, 3))


def network(*, dense: bool = False, outputs: int = tiny.NUM_CLASSES, seed: int = 0) -> Unknown:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Unknown(dense=dense, outputs=outputs).eval()


def write(path: Path, kind: NetworkKind, model: nn.Module | None = None) -> Path:
    """By the very line that messages give; `model.eval()` in it is left out for one in training mode."""
    if model is None:
        path.write_bytes(_usual(kind))
        return path
    line = EXPORT_LINES[kind].replace(f"'{NAMES[kind]}'", "file")
    if model.training:
        line = line.replace("model.eval()", "model")
    file = str(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(line, {"torch": torch, "model": copy.deepcopy(model), "images": torch.rand(2, 3, 8, 8), "file": file})
    return path


@lru_cache
def _usual(kind: NetworkKind) -> bytes:
    """Exporters take seconds, and most tests want the same file."""
    with TemporaryDirectory() as folder:
        return write(Path(folder, NAMES[kind]), kind, network()).read_bytes()


def teacher(path: Path, kind: NetworkKind, card: TeacherCard | None = None) -> LogitsTeacher:
    """The network in a file as a teacher."""
    its_card = card or tiny.card().model_copy(update={"architecture": kind})
    return LogitsTeacher(open_network(kind, path.read_bytes()), its_card)


def endless_onnx(path: Path) -> Path:
    """One that adds for as long as it is let."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Add", ["sum", "sum"], ["more"])],
        "body",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["batch", tiny.NUM_CLASSES]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, ["batch", tiny.NUM_CLASSES]),
        ],
    )
    model = onnx.load(small_onnx(path))
    model.graph.node[-1].output[0] = "first"
    model.graph.node.append(helper.make_node("Loop", ["trips", "", "first"], ["logits"], body=body))
    model.graph.initializer.append(helper.make_tensor("trips", TensorProto.INT64, (), [2**62]))
    onnx.save(model, path)
    return path


def small_onnx(
    path: Path,
    *,
    takes: tuple[int | str | None, ...] = ("batch", 3, 8, 8),
    gives: tuple[int | str | None, ...] = ("batch", tiny.NUM_CLASSES),
    dtype: int = TensorProto.FLOAT,
    nodes: tuple[onnx.NodeProto, ...] = (),
    inputs: int = 1,
    outputs: int = 1,
    number: float = 0.5,
    opset: int = 17,
    domain: str = "",
) -> Path:
    """A mean over all but channels and a linear layer, in the form that a test wants it."""
    channels = takes[1] if isinstance(takes[1], int) else 3
    weight = [number] * (channels * tiny.NUM_CLASSES)
    last = helper.make_node("Gemm", ["flat", "weight"], ["logits"], name="last", domain=domain)
    usual = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        last,
    ]
    more = [helper.make_node("Identity", ["logits"], [f"more{index}"]) for index in range(1, outputs)]
    values = [helper.make_tensor_value_info(name, dtype, gives) for name in ("logits", *(n.output[0] for n in more))]
    graph = helper.make_graph(
        [*(nodes or usual), *more],
        "small",
        [helper.make_tensor_value_info(name, dtype, takes) for name in ("image", "other", "third")[:inputs]],
        values[:outputs],
        [helper.make_tensor("weight", dtype, (channels, tiny.NUM_CLASSES), weight)],
    )
    opsets = [helper.make_opsetid("", opset), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path
