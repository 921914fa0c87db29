"""A latency that nobody measured, as report.json holds it: the fields of a prediction of `profiles.predict`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from compressor.report.measured import Record
from profiles.schema import Precision


class Prediction(Record):
    """p50 of one batch on a device that is not attached, and what carries it."""

    origin: Literal["predicted"] = "predicted"
    device: str = Field(description="its title")
    precision: Precision
    batch_size: PositiveInt
    latency_p50_ms: PositiveFloat
    latency_p50_interval_ms: tuple[PositiveFloat, PositiveFloat]
    interval_confidence: Annotated[float, Field(gt=0, lt=1)]
    basis: Literal["calibrated", "transferred", "roofline"]
    anchors: tuple[str, ...] = Field(description="the measurements that carry it, in words")
    num_measurements: NonNegativeInt = Field(description="of the device, at any precision")
    doubts: tuple[str, ...] = Field(description="where it extrapolates, in sentences")
