"""export.json: what `compress export` made of one ONNX file. Its parts are those of report.json."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, NonNegativeInt, PositiveInt, model_validator

from compressor.report.measured import Record, Sha256
from compressor.report.schema import SkippedFile, Target
from compressor.report.shipping import Int8Calibration, Kit, LimitsRecord, Recommendation, Variant, Verdict
from compressor.stages import atomic_write_text

SCHEMA_VERSION: Literal["1.2"] = "1.2"
EARLIER_VERSIONS = ("1.0", "1.1")


class Source(Record):
    """The file that came."""

    file: str
    sha256: Sha256 = Field(description="of the file itself, without weights that lie beside it")
    opset: PositiveInt
    input_name: str
    image_shape: tuple[int, int, int] = Field(description="channels, height, width")
    fixed_batch: PositiveInt | None = Field(default=None, description="images of one call; null: any number")
    num_classes: PositiveInt
    output_size: tuple[int, ...] = Field(
        default=(), description="height and width of a class map; empty: one class for each image"
    )
    mean: tuple[float, ...] | None = Field(
        default=None, description="what it is normalised with outside; the files made from it take [0, 1] all the same"
    )
    std: tuple[float, ...] | None = None


class Export(Record):
    """Everything that is known about one export. In `variants` the source is the network called `student`."""

    schema_version: Literal["1.2"] = SCHEMA_VERSION
    tool_version: str
    created: AwareDatetime
    source: Source
    target: Target
    num_calibration: NonNegativeInt = Field(description="images that ranges come from")
    num_evidence: NonNegativeInt = Field(description="images that nothing was calibrated or chosen on")
    skipped: tuple[SkippedFile, ...] = ()
    variants: tuple[Variant, ...]
    variant_notes: tuple[str, ...] = ()
    int8: tuple[Int8Calibration, ...] = ()
    limits: LimitsRecord | None = None
    recommendation: Recommendation | None = None
    verdicts: tuple[Verdict, ...] = ()
    kit: Kit | None = None
    warnings: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_minor_version(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("schema_version") in EARLIER_VERSIONS:
            return {**data, "schema_version": SCHEMA_VERSION}
        return data


def read_export(path: Path) -> Export:
    """Read export.json back.

    Raises:
        OSError: it is not there.
        pydantic.ValidationError: it is of another version, or was edited.
    """
    return Export.model_validate_json(path.read_text(encoding="utf-8"))


def write_export(export: Export, path: Path) -> None:
    """Write export.json whole or not at all."""
    atomic_write_text(path, export.model_dump_json(indent=2) + "\n")
