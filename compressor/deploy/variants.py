"""One network in one precision as one file: what the tables of the report have a row for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from exporters.routes import Build, Route
from exporters.runners import OnnxRunner, TensorRTRunner
from profiles.schema import Precision

Model = Literal["student", "teacher"]


@dataclass(frozen=True)
class Variant:
    """A row.

    Attributes:
        file: relative to the run folder; None where there is none, and `note` says why.
        made_for: what runs it as it is, in words.
        optimise: whether ONNX Runtime may optimise it; int8 with fp16 around it is computed wrongly then.
        judged: False where the device makes another program of the file than this machine can judge.
        note: what a reader has to know of it.
    """

    model: Model
    precision: Precision
    file: str | None
    made_for: str
    size_mib: float | None = None
    sha256: str | None = None
    optimise: bool = True
    judged: bool = True
    note: str | None = None
    format: Literal["onnx", "engine"] = "onnx"

    @property
    def key(self) -> str:
        """`student.int8`, `student.int8.engine`: its name in the facts of the stages."""
        return f"{self.model}.{self.precision}" + ("" if self.format == "onnx" else f".{self.format}")

    @property
    def file_precision(self) -> Precision:
        """The types in the file, which TensorRT 8 may lower: the middle of `student.fp16.onnx`, else fp32."""
        found: dict[str, Precision] = {precision: precision for precision in get_args(Precision)}
        return found.get(Path(self.file or "").suffixes[0][1:] if self.file else "", "fp32")

    def open(self, run_folder: Path, *, threads: int | None = None) -> OnnxRunner | TensorRTRunner:
        """What runs it on this machine.

        Raises:
            ExportError: it cannot run here.
        """
        assert self.file is not None
        if self.format == "engine":
            return TensorRTRunner(run_folder / self.file, cuda_graph=True)
        return OnnxRunner(run_folder / self.file, threads=threads, optimise=self.optimise)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Variant:
        """From a row of `facts.json`, which holds more."""
        return cls(**{name: row[name] for name in cls.__dataclass_fields__})


def made_for(route: Route, build: Build) -> str:
    """What a file of this route is for, as the tables say it."""
    if route.runtime == "onnxruntime":
        return "ONNX Runtime"
    if route.typed:
        return "TensorRT 10 and 11, typed"
    return f"TensorRT 8 with {' '.join(build.flags)}" if build.flags else "TensorRT 8"
