"""profile.json: what `compress profile` found out about the speed of one file or of all files of a run.

A latency stands in the list of its origin: `measured` here, `merged` from the device, or `predicted`. Version 1.1;
keys may be added in 1.x, and none changes its meaning.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, ValidationError

from compressor.deploy.peak_memory import PeakMemory
from compressor.report.measured import Record, RunPath, Sha256
from compressor.report.predicted import Prediction
from compressor.stages import atomic_write_text
from profiles.host_speed import HostSpeed
from profiles.latency import LatencyStats
from profiles.layer_times import LayerTimes
from profiles.schema import Precision

PROFILE = "profile.json"


class KernelShare(Record):
    """How many kernels of one kind a device runs for a network, and how much they compute."""

    kind: str
    count: PositiveInt
    macs: NonNegativeInt
    elements: NonNegativeInt = Field(description="values that they read and write, weights included")


class ProfiledFile(Record):
    """One file, or what would be made of it in one precision."""

    name: str = Field(description="the file's name, or `student.int8` in a run")
    file: str
    format: Literal["onnx", "engine"]
    precision: Precision = Field(description="that the latencies are for")
    sha256: Sha256
    size_mib: PositiveFloat
    input_shape: tuple[PositiveInt, ...] = Field(description="of one image")
    measured: tuple[LatencyStats, ...] = Field(default=(), description="on this machine, by batch size")
    merged: tuple[LatencyStats, ...] = Field(default=(), description="sent back by the device")
    predicted: tuple[Prediction, ...] = Field(default=(), description="for the device, by batch size")
    memory: PeakMemory | None = Field(default=None, description="of a fresh process at the first batch size")
    layers: LayerTimes | None = Field(default=None, description="at the first batch size")
    layers_picture: RunPath | None = None
    kernels: tuple[KernelShare, ...] = Field(
        default=(), description="at the first batch size that is predicted, what that is made of"
    )
    parts_ms: dict[str, float] = Field(
        default={}, description="the prediction at the first batch size, by what the time is expected to go to"
    )
    notes: tuple[str, ...] = Field(default=(), description="what is missing and why")


class ProfileTarget(Record):
    """The device in question."""

    name: str
    title: str
    this_host: bool
    power_mode: str | None = None


class LatencyProfile(Record):
    """The whole of profile.json."""

    schema_version: Literal["1.0", "1.1"] = "1.1"
    tool_version: str
    created: datetime
    source: str = Field(description="as it was named")
    kind: Literal["onnx", "engine", "run"]
    target: ProfileTarget
    host: str = Field(description="the machine that made this")
    host_speed: HostSpeed | None = Field(default=None, description="peaks of this machine, where it is the target")
    files: tuple[ProfiledFile, ...]
    notes: tuple[str, ...] = Field(default=(), description="what to know, and how to get a measurement")


def write_profile(profile: LatencyProfile, folder: Path) -> None:
    """Write profile.json.

    Raises:
        OSError: it could not be written.
    """
    atomic_write_text(folder / PROFILE, profile.model_dump_json(indent=2) + "\n")


def read_profile(path: Path) -> LatencyProfile | None:
    """The profile in a file; None where it is none of ours."""
    try:
        return LatencyProfile.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
