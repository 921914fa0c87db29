"""What a target device is: a frozen model whose figures have a unit in their name and a source beside them.

Peaks are dense (no sparsity) and of the GPU alone (no other accelerator on the chip), because advertised
TOPS are neither. From Ampere on, TensorRT computes fp32 networks in TF32 unless it is told not to:
`tf32_tflops` is then what "fp32" means. A figure that nobody has re-read at its source says so
(`unverified: ...`) and is marked wherever it is shown, never hidden.

A profile file may say `extends: <another profile>`; the loader (`catalogue`) resolves that first and keeps the shipped
device at its root, whose measurements are the profile's own for as long as it is as fast.

A figure holds in one power mode, which `peaks.power_mode` names; `DeviceProfile.in_power_mode` scales to another one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

UNVERIFIED = "unverified:"
NO_SOURCE = f"{UNVERIFIED} no source given"

# No figure of a device is outside of these, in any unit; what is computed from them then has an end.
LEAST, MOST = 1e-6, 1e9
LONGEST = 200  # letters of a name that people read

Precision = Literal["fp32", "fp16", "int8"]
Setting = Literal["compute_capability", "precisions", "opset_ceiling", "channel_multiple", "workspace_mib"]

# NVIDIA GPUs without int8 arithmetic, by compute capability (hardware tables of TensorRT's support matrices).
NO_INT8 = ("5.0", "5.2", "5.3", "6.0", "6.2")


def _version(value: object) -> object:
    if not isinstance(value, str) or not re.fullmatch(r"\d+(\.\d+)*", value):
        raise ValueError("must be a version in quotes such as '10.3' (unquoted, YAML reads 10.10 as 10.1)")
    return value


Version = Annotated[str, BeforeValidator(_version)]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _not_tiny(value: float) -> float:
    if value < LEAST:
        raise ValueError(f"should be at least {LEAST:g}")
    return value


def _line(text: str) -> str:
    if len(text) > LONGEST or not text.isprintable():
        raise ValueError(f"must be one line of at most {LONGEST} letters, without control characters")
    return text


Line = Annotated[str, Field(min_length=1), AfterValidator(_line)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Figure(_Frozen):
    """A positive number and where it comes from; the unit is in the name of the field that holds it.

    In a file a bare number is accepted and is marked as having no source.
    """

    value: Annotated[float, AfterValidator(_not_tiny)] = Field(gt=0, le=MOST, allow_inf_nan=False, strict=True)
    source: str = Field(default=NO_SOURCE, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _bare_number(cls, data: object) -> object:
        return data if isinstance(data, dict | Figure) else {"value": data}

    @property
    def verified(self) -> bool:
        return not self.source.startswith(UNVERIFIED)


class VersionRange(_Frozen):
    """Versions of a software from `min` to `max`, both included; a `max` of '4.6' includes every 4.6.x."""

    min: Version
    max: Version
    source: str = Field(default=NO_SOURCE, min_length=1)

    def admits(self, version: str) -> bool:
        low, high, numbers = _numbers(self.min), _numbers(self.max), _numbers(version)
        padded = numbers + (0,) * (len(low) - len(numbers))
        return padded >= low and numbers[: len(high)] <= high

    @model_validator(mode="after")
    def _not_empty(self) -> VersionRange:
        if not self.admits(self.min):
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class Peaks(_Frozen):
    """Highest dense rates of the GPU or CPU alone, in 10^12 operations a second; a multiply-add is two."""

    fp32_tflops: Figure | None = None
    tf32_tflops: Figure | None = Field(default=None, description="what fp32 means to TensorRT from Ampere on")
    fp16_tflops: Figure | None = None
    int8_tops: Figure | None = None
    power_mode: str | None = Field(default=None, description="the mode that these peaks hold in")


class PowerMode(_Frozen):
    """One way to run the device; latency follows its clocks and the units that it leaves on."""

    name: Line = Field(description="as the device itself spells it (`nvpmodel -q`)")
    nvpmodel_id: int | None = Field(default=None, ge=0, description="number for `nvpmodel -m`")
    watts: Figure | None = None
    gpu_mhz: Figure | None = None
    gpu_sms: Figure | None = Field(default=None, description="streaming multiprocessors that are on")
    cpu_mhz: Figure | None = None
    cpu_cores: Figure | None = None
    memory_mhz: Figure | None = None

    @property
    def key(self) -> str:
        """The name as a user may type it: nvpmodel says MODE_30W on some boards and 30W on others."""
        return mode_key(self.name)


def mode_key(name: str) -> str:
    return name.casefold().removeprefix("mode_")


class Budget(_Frozen):
    """Wishes for a student on this device, where the user gives no limit.

    A wish needs no source: it comes from how such devices are used (one camera at 30 frames a second), not from the
    device. A student that misses one is told of, but only a limit of the user's own is a promise.
    """

    max_latency_ms: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_size_mib: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    max_params_m: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class DeviceProfile(_Frozen):
    """One target device.

    `sources` says where the settings that are not figures come from: compute capability, precisions, opset
    ceiling, channel multiple and workspace.
    """

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$", description="the file's name without .yaml")
    title: Line
    extends: str | None = Field(
        default=None, description="of a user's own profile: the shipped device that it builds on"
    )
    aliases: tuple[str, ...] = ()
    kind: Literal["jetson", "gpu", "cpu"]
    runtime: Literal["tensorrt", "onnxruntime"]
    this_host: bool = Field(default=False, description="the device is the machine that runs this program")
    compute_capability: Version | None = None
    peaks: Peaks = Peaks()
    memory_bandwidth_gb_s: Figure | None = Field(default=None, description="10^9 bytes a second")
    memory_gib: Figure | None = Field(default=None, description="nominal; shared with the CPU on a Jetson")
    power_modes: tuple[PowerMode, ...] = ()
    jetpack: VersionRange | None = None
    tensorrt: VersionRange | None = None
    cuda: VersionRange | None = None
    precisions: tuple[Precision, ...] = Field(min_length=1)
    opset_ceiling: int = Field(ge=9, le=1000, strict=True, description="highest that every version in range reads")
    channel_multiple: int = Field(ge=1, le=1024, strict=True, description="fills the hardware's vectors")
    workspace_mib: int | None = Field(default=None, gt=0, strict=True, description="TensorRT's scratch memory")
    sources: dict[Setting, Annotated[str, Field(min_length=1)]] = {}
    budget: Budget | None = None
    notes: tuple[str, ...] = ()

    def figures(self) -> Iterator[tuple[str, Figure]]:
        """Every figure with its dotted name, such as 'peaks.fp16_tflops', in the order of the schema."""
        for name in type(self.peaks).model_fields:
            if isinstance(figure := getattr(self.peaks, name), Figure):
                yield f"peaks.{name}", figure
        for name in ("memory_bandwidth_gb_s", "memory_gib"):
            if figure := getattr(self, name):
                yield name, figure
        for mode in self.power_modes:
            for name in type(mode).model_fields:
                if isinstance(figure := getattr(mode, name), Figure):
                    yield f"power_modes.{mode.name}.{name}", figure

    def in_power_mode(self, name: str) -> DeviceProfile:
        """This device in another of its power modes; the name stays, the title says the mode.

        Raises:
            ProfileError: there is no such mode, or a clock that the peaks are scaled by is not known.
        """
        from profiles.power_modes import in_power_mode  # it builds on this schema

        return in_power_mode(self, name)

    @model_validator(mode="after")
    def _consistent(self) -> DeviceProfile:
        if problems := [*self._problems()]:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterator[str]:
        if self.kind == "jetson" and self.jetpack is None:
            yield "jetpack: a jetson needs its JetPack range"
        if self.kind != "jetson" and self.jetpack is not None:
            yield f"jetpack: only a jetson has one, not a {self.kind}"
        if self.kind == "cpu" and self.runtime == "tensorrt":
            yield "runtime: a cpu cannot run tensorrt"
        if self.kind != "cpu" and self.compute_capability is None:
            yield f"compute_capability: a {self.kind} needs it"
        if self.kind == "cpu" and self.compute_capability is not None:
            yield "compute_capability: a cpu has none"
        if self.runtime == "tensorrt":
            for software in ("tensorrt", "cuda"):
                if getattr(self, software) is None:
                    yield f"{software}: the runtime tensorrt needs its {software} range"
        if "fp32" not in self.precisions or len(set(self.precisions)) != len(self.precisions):
            yield "precisions: must hold fp32, and each precision once"
        if "int8" in self.precisions and self.compute_capability in NO_INT8:
            yield f"precisions: compute capability {self.compute_capability} has no int8 arithmetic"
        if "int8" not in self.precisions and self.peaks.int8_tops is not None:
            yield "peaks.int8_tops: given, but int8 is not among the precisions"
        if self.peaks.tf32_tflops is not None and _numbers(self.compute_capability or "0") < (8,):
            yield "peaks.tf32_tflops: TF32 needs compute capability 8.0 or later"
        modes = [mode.name for mode in self.power_modes]
        if len({mode.key for mode in self.power_modes}) != len(modes):
            yield "power_modes: names must differ from each other"
        if self.peaks.power_mode is not None and self.peaks.power_mode not in modes:
            listed = ", ".join(modes) or "none"
            yield f"peaks.power_mode: '{self.peaks.power_mode}' is not among the power modes ({listed})"
        if self.workspace_mib and self.memory_gib and self.workspace_mib > self.memory_gib.value * 1024:
            memory = f"{self.memory_gib.value:g} GiB of memory"
            yield f"workspace_mib: {self.workspace_mib} MiB does not fit in {memory}"


def known_keys() -> frozenset[str]:
    """Every key that a profile file may hold at any level, for suggestions after a typing error."""
    models: tuple[type[BaseModel], ...] = (DeviceProfile, Peaks, PowerMode, VersionRange, Figure, Budget)
    return frozenset().union(*(model.model_fields for model in models))
