"""Which ONNX file a target takes for each precision, and what its builder must be told.

Precision is a property of the target and of the major version of its TensorRT:

    TensorRT 8.x      weakly typed: the builder lowers an fp32 graph under `--fp16` and `--int8`
    TensorRT 10, 11   strongly typed: what the graph says is what runs; 10 under `--stronglyTyped`, 11 always
    ONNX Runtime      runs the graph as it is written

No file serves both kinds of TensorRT, so a target whose range spans them is refused. The form of int8 follows as well:
symmetric, zero points of 0, for TensorRT; unsigned activations for ONNX Runtime on CPUs, whose fast kernels want them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from exporters.errors import ExportError
from profiles.schema import DeviceProfile, Precision

Int8Form = Literal["tensorrt", "onnxruntime"]

TYPED_SINCE = 10
# QuantizeLinear takes fp16 scales from this opset on, so below it the float part around int8 stays fp32.
FP16_SCALES_OPSET = 19


@dataclass(frozen=True)
class Build:
    """How one precision reaches the runtime.

    Attributes:
        precision: what the user asks for.
        file: which of the ONNX files is built: `student.<file>.onnx`.
        flags: trtexec's precision flags for it; the flag of strong typing depends on the board's own version.
    """

    precision: Precision
    file: Precision
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Route:
    """The files of a target.

    Attributes:
        runtime: what runs them.
        typed: whether the graph alone fixes the precision.
        int8_form: how activations and weights are quantised.
        int8_float: the type of what is not quantised in the int8 file.
        builds: one for each precision of the target, in its order.
        notes: what is not proven about this route.
    """

    runtime: Literal["tensorrt", "onnxruntime"]
    typed: bool
    int8_form: Int8Form
    int8_float: Literal["fp32", "fp16"]
    builds: tuple[Build, ...]
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Precision, ...]:
        """The distinct ONNX files to make, in the order of the precisions."""
        return tuple(dict.fromkeys(build.file for build in self.builds))


def route_for(target: DeviceProfile, opset: int) -> Route:
    """The route of a target for graphs of this opset.

    Raises:
        ExportError: the target's range of TensorRT spans both kinds.
    """
    if target.runtime == "onnxruntime":
        builds = tuple(Build(precision, precision) for precision in target.precisions)
        return Route("onnxruntime", True, "onnxruntime", "fp32", builds)
    assert target.tensorrt is not None  # the profile's own check
    oldest, newest = (int(version.partition(".")[0]) for version in (target.tensorrt.min, target.tensorrt.max))
    if oldest < TYPED_SINCE <= newest:
        raise ExportError(
            f"{target.title} is said to run TensorRT {target.tensorrt.min} to {target.tensorrt.max}.",
            "TensorRT 8 takes fp32 graphs and flags, TensorRT 10 and later take typed graphs; no file serves both.",
            "Narrow the range `tensorrt` of the profile to the version on your device.",
        )
    if newest < TYPED_SINCE:
        return Route("tensorrt", False, "tensorrt", "fp32", tuple(_weak(precision) for precision in target.precisions))
    int8_float: Literal["fp32", "fp16"] = (
        "fp16" if "fp16" in target.precisions and opset >= FP16_SCALES_OPSET else "fp32"
    )
    return Route(
        "tensorrt",
        True,
        "tensorrt",
        int8_float,
        tuple(Build(precision, precision) for precision in target.precisions),
        _unproven(target.tensorrt.min),
    )


def _weak(precision: Precision) -> Build:
    """TensorRT 8: one fp32 graph, and one with Q/DQ nodes whose rest the builder may lower to fp16."""
    match precision:
        case "fp32":
            return Build("fp32", "fp32")
        case "fp16":
            return Build("fp16", "fp32", ("--fp16",))
        case "int8":
            return Build("int8", "int8", ("--int8", "--fp16"))


def _unproven(oldest: str) -> tuple[str, ...]:
    if tuple(int(part) for part in oldest.split(".")[:2]) < (10, 12):
        return (
            f"TensorRT {oldest} with --stronglyTyped on a board is unproven: weak typing was still the rule there "
            "until 10.12.",
        )
    return ()
