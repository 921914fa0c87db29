"""What `compress profile` is given: an ONNX file, an engine with its card, or the folder of a run or an export."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import TensorProto

from compressor.deploy.profile_record import ProfiledFile
from compressor.deploy.variants import Variant
from compressor.errors import EnvironmentFault, InputRefused, UsageFault
from compressor.stage_files import read_facts
from exporters.engine_card import EngineRefused, check_engine, read_card
from exporters.errors import ExportError
from exporters.onnx_files import load_onnx
from exporters.tensorrt_backend import TITLES, GpuMissing, TensorRTMissing
from profiles.schema import DeviceProfile, Precision

Kind = Literal["onnx", "engine", "run"]
ENGINES = (".engine", ".plan", ".trt")
QUANTISED = frozenset(("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger", "MatMulInteger"))


@dataclass(frozen=True)
class Source:
    """One file to profile.

    Attributes:
        name: what it is called in the output.
        folder: that `variant.file` is relative to.
        image_shape: of one input, without the batch.
        batches: the smallest and the largest batch that it takes; the largest is None where any goes.
        graph: without weights' meaning; None of an engine.
    """

    name: str
    variant: Variant
    folder: Path
    image_shape: tuple[int, ...]
    batches: tuple[int, int | None]
    graph: onnx.ModelProto | None

    @property
    def path(self) -> Path:
        return self.folder / str(self.variant.file)

    def batches_of(self, wanted: Sequence[int] | None) -> tuple[int, ...]:
        """Those of the wanted batch sizes that the file takes; without a wish the smallest."""
        fewest, most = self.batches
        return tuple(size for size in wanted or (fewest,) if fewest <= size and (most is None or size <= most))

    def left_out(self, wanted: Sequence[int] | None) -> list[str]:
        """A sentence for each wanted batch size that the file does not take."""
        fewest, most = self.batches
        takes = f"{fewest}" if fewest == most else f"{fewest} to {most or 'any number'}"
        taken = self.batches_of(wanted)
        return [
            f"Batch {size} was left out: the file takes {takes} a call." for size in wanted or () if size not in taken
        ]

    def record(self, **found: Any) -> ProfiledFile:
        """The file as profile.json has it, with what was found out; `found` are fields, and win."""
        content = self.path.read_bytes()
        return ProfiledFile.model_validate(
            {
                "name": self.name,
                "file": str(self.variant.file),
                "format": self.variant.format,
                "precision": self.variant.precision,
                "sha256": hashlib.sha256(content).hexdigest(),
                "size_mib": len(content) / 2**20,
                "input_shape": self.image_shape,
                **found,
            }
        )


@dataclass(frozen=True)
class Found:
    """What was named: the files in it, and sentences on those that are left out."""

    kind: Kind
    sources: tuple[Source, ...]
    left_out: tuple[str, ...] = ()


def sources_of(path: Path, target: DeviceProfile | None) -> Found:
    """The files behind a name on the command line.

    Raises:
        InputRefused: there is nothing that can be profiled, or an engine is damaged or for another machine.
        UsageFault: an engine is for another device than the target.
        EnvironmentFault: there is no GPU or TensorRT here to run an engine.
    """
    if path.is_dir():
        return _of_run(path)
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [entry.name for entry in _siblings(path)], n=1)
        raise InputRefused(
            f"{path} does not exist.",
            "An ONNX file, an engine beside its card, or the folder of a run or an export was expected.",
            f"Did you mean {near[0]}?" if near else "Check the path.",
        )
    if path.suffix in ENGINES:
        return Found("engine", (_of_engine(path, target),))
    return Found("onnx", (_of_onnx(path),))


def precision_of(model: onnx.ModelProto) -> Precision:
    """What a graph computes in: int8 where it quantises, fp16 where it holds fp16 weights, else fp32."""
    if any(node.op_type in QUANTISED for node in model.graph.node):
        return "int8"
    halves = sum(tensor.data_type == TensorProto.FLOAT16 for tensor in model.graph.initializer)
    floats = sum(tensor.data_type == TensorProto.FLOAT for tensor in model.graph.initializer)
    return "fp16" if halves > floats else "fp32"


def _of_onnx(path: Path) -> Source:
    graph = _loaded(path)
    shape, batches = _input_of(path, graph)
    precision = precision_of(graph)
    made_for = "ONNX Runtime" if precision == "fp32" else "its runtime"
    # ONNX Runtime computes int8 with fp16 around it wrongly when it optimises.
    mixed = precision == "int8" and any(value.data_type == TensorProto.FLOAT16 for value in graph.graph.initializer)
    row = Variant("student", precision, path.name, made_for, optimise=not mixed)
    return Source(path.stem, row, path.parent, shape, batches, graph)


def _of_engine(path: Path, target: DeviceProfile | None) -> Source:
    try:
        card = read_card(path)
        if target is not None and target.compute_capability != card.compute_capability:
            raise UsageFault(
                f"{path.name} was built for compute capability {card.compute_capability}, not for {target.title}.",
                "An engine runs on the GPU that it was built for and nowhere else, so nothing else can be said of it.",
                "Give the ONNX file that it was built from, or leave --target out to time the engine here.",
            )
        check_engine(path)
    except (GpuMissing, TensorRTMissing) as error:
        raise EnvironmentFault(error.received, error.expected, error.action) from error
    except EngineRefused as error:
        raise InputRefused(error.received, error.expected, error.action) from error
    built_with = f"{TITLES[card.backend]} {card.version}"
    variant = Variant("student", card.precision, path.name, built_with, format="engine")
    return _engine(path.stem, variant, path.parent)


def _engine(name: str, variant: Variant, folder: Path) -> Source:
    from exporters.runners import TensorRTRunner

    with TensorRTRunner(folder / str(variant.file)) as runner:
        (spec,) = runner.inputs
        shape = tuple(int(size or 1) for size in spec.shape[1:])
        batch = runner.card.batch
    return Source(name, variant, folder, shape, (batch.min, batch.max), None)


def _of_run(folder: Path) -> Found:
    try:
        rows: list[Mapping[str, Any]] = read_facts(folder / "precision")["variants"]
        if (folder / "engine" / "facts.json").exists():
            rows = [*rows, *read_facts(folder / "engine")["variants"]]
        variants = [Variant.from_dict(dict(row)) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputRefused(
            f"{folder} holds no finished run or export of this version: its precision/facts.json cannot be used.",
            "A folder that `compress run` or `compress export` made, with its precisions, was expected.",
            "Name such a folder, one of its .onnx files, or finish the run with the same command.",
        ) from error
    found, left_out = [], []
    for variant in variants:
        if variant.file is None:
            left_out.append(f"{variant.key}: {variant.note or 'not made'}")
        elif variant.format == "engine":
            try:
                found.append(_engine(variant.key, variant, folder))
            except ExportError as error:
                left_out.append(f"{variant.key}: {error.received}")
        else:
            graph = _loaded(folder / variant.file)
            shape, batches = _input_of(folder / variant.file, graph)
            found.append(Source(variant.key, variant, folder, shape, batches, graph))
    return Found("run", tuple(found), tuple(left_out))


def _loaded(path: Path) -> onnx.ModelProto:
    try:
        return load_onnx(path)
    except ExportError as error:
        raise InputRefused(error.received, error.expected, error.action) from error


def _input_of(path: Path, model: onnx.ModelProto) -> tuple[tuple[int, ...], tuple[int, int | None]]:
    """The shape of one image and the batches; any network with one float32 input of a fixed size will do."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    kinds = [value.type.tensor_type for value in inputs]
    if len(inputs) == 1 and kinds[0].elem_type == TensorProto.FLOAT and len(kinds[0].shape.dim) > 1:
        batch, *rest = kinds[0].shape.dim
        if all(size.HasField("dim_value") and size.dim_value > 0 for size in rest):
            shape = tuple(int(size.dim_value) for size in rest)
            fixed = int(batch.dim_value) if batch.HasField("dim_value") and batch.dim_value > 0 else None
            return shape, (1, None) if fixed is None else (fixed, fixed)
    spelled = ", ".join(
        f"{value.name} ({', '.join(size.dim_param or str(size.dim_value) for size in kind.shape.dim)})"
        for value, kind in zip(inputs, kinds, strict=True)
    )
    raise InputRefused(
        f"{path.name} takes {spelled or 'nothing'}.",
        "One float32 input was expected, of which only the first size, the batch, may be open.",
        "Export the model with a fixed image size.",
    )


def _siblings(path: Path) -> list[Path]:
    return [*path.parent.iterdir()] if path.parent.is_dir() else []
