"""What a board sends back: `result.json`, written by `run_on_board.sh` of a device kit, as a frozen model.

The file is untrusted: it comes from another machine, perhaps by hand. Everything in it is bounded, unknown keys are
refused, and `digest` covers every other byte of it:

    digest = SHA-256 of the file with the 64 hexadecimal digits of `digest` replaced by zeros

so that a number that was changed by hand is noticed. It is a check, not a signature: whoever knows this line can
write a new one. What the run may accept (its own kit, its own models, not simulated) is decided where it is merged.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from profiles.errors import ToolError
from profiles.schema import Precision

SCHEMA_VERSION = "1.0"
MAX_BYTES = 2**20

_DIGEST = re.compile(rb'(?<="digest": ")[0-9a-f]{64}(?=")')

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1, max_length=2000)]
Milliseconds = Annotated[float, Field(gt=0, le=3_600_000)]


class BoardResultError(ToolError):
    """A board's result is unreadable, damaged, edited, or of another version."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Board(_Frozen):
    """The machine; None where it does not say.

    Attributes:
        model: as the device tree names the board, or the GPU where there is no device tree.
        jetpack, l4t: of a Jetson, such as '6.2' and '36.4.3'.
        os, architecture: such as 'Ubuntu 22.04.5 LTS' and 'aarch64'.
        power_mode: as `nvpmodel -q` names it.
        clocks: MHz by name: gpu, gpu_min, gpu_max, cpu, cpu_min, cpu_max.
        clocks_locked: whether the lowest and the highest GPU clock (without a GPU, CPU clock) are the same.
    """

    model: Text | None
    jetpack: Text | None
    l4t: Text | None
    os: Text
    architecture: Text
    cpu: Text | None
    power_mode: Text | None
    clocks: dict[Text, Annotated[float, Field(ge=0, le=1e5)]] = Field(max_length=20)
    clocks_locked: bool | None


class Runtime(_Frozen):
    """What ran the models."""

    name: Literal["tensorrt", "onnxruntime"]
    version: Text


class BoardParity(_Frozen):
    """How far the board's logits are from the golden ones, in the terms of `exporters.parity.Parity`."""

    count: int = Field(ge=1, le=10**6)
    max_abs: float = Field(ge=0)
    max_rel: float = Field(ge=0)
    top1_agreement: float = Field(ge=0, le=1)


class BoardLatency(_Frozen):
    """Times of one call, which takes a batch of `batch_size` images.

    Attributes:
        count: calls that the percentiles are made of, warm-up excluded.
        throughput_ips: images a second.
        what: 'gpu compute' is TensorRT's own time on the GPU without transfers; 'wall clock' is a whole call.
    """

    p50_ms: Milliseconds
    p90_ms: Milliseconds
    p99_ms: Milliseconds
    mean_ms: Milliseconds
    count: int = Field(ge=1, le=10**9)
    batch_size: int = Field(ge=1, le=2**16)
    throughput_ips: float = Field(gt=0, le=1e9)
    what: Literal["gpu compute", "wall clock"]

    @model_validator(mode="after")
    def _ordered(self) -> BoardLatency:
        if not self.p50_ms <= self.p90_ms <= self.p99_ms:
            raise ValueError("p50_ms, p90_ms and p99_ms must not decrease")
        return self


class BoardModel(_Frozen):
    """One model in one precision.

    Attributes:
        name: 'student' or 'teacher'.
        precision: what was built; `file` may hold another one, which TensorRT 8 lowers itself.
        file: within the kit, such as 'models/student.fp16.onnx'.
        sha256: of that file, as it lay on the board.
        status: 'ok' has parity within its bound and a latency; otherwise `reason` says why not.
        build_s, engine_bytes: of the engine; None where none is built.
    """

    name: Literal["student", "teacher"]
    precision: Precision
    file: Text
    sha256: Sha256
    status: Literal["ok", "failed", "skipped"]
    reason: Text | None
    parity: BoardParity | None
    build_s: float | None = Field(ge=0, le=1e6)
    engine_bytes: int | None = Field(ge=0)
    latency: BoardLatency | None
    warnings: tuple[Text, ...] = Field(max_length=50)

    @model_validator(mode="after")
    def _status_holds(self) -> BoardModel:
        if self.status == "ok" and (self.parity is None or self.latency is None or self.reason is not None):
            raise ValueError("status 'ok' needs a parity and a latency, and no reason")
        if self.status != "ok" and self.reason is None:
            raise ValueError(f"status '{self.status}' needs a reason")
        return self


class BoardResult(_Frozen):
    """The whole file.

    Attributes:
        kit_sha256: of the kit's manifest.json.
        target: public name of the profile that the kit was made for.
        simulated: True where `--root` gave the script another file system than the board's own, or in an emulator.
        mismatches: promises of the profile that this board does not keep; not empty only after `--anyway`.
        started: when the script began, with its time zone.
    """

    schema_version: Literal["1.0"]
    kit_sha256: Sha256
    target: Text
    simulated: bool
    mismatches: tuple[Text, ...] = Field(max_length=20)
    started: AwareDatetime
    board: Board
    runtime: Runtime
    models: tuple[BoardModel, ...] = Field(min_length=1, max_length=50)
    digest: Sha256

    @model_validator(mode="after")
    def _each_once(self) -> BoardResult:
        if len({(model.name, model.precision) for model in self.models}) != len(self.models):
            raise ValueError("models must hold each name and precision once")
        return self


def content_digest(content: bytes) -> str:
    """The digest that a result file with this content must carry, whatever it carries."""
    return hashlib.sha256(_DIGEST.sub(b"0" * 64, content)).hexdigest()


def read_board_result(path: Path) -> BoardResult:
    """Read and check a board's result.

    Raises:
        BoardResultError: it is not there, too large, not of this schema, or was changed after it was written.
    """
    content = _read(path)
    try:
        result = BoardResult.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BoardResultError(
            f"{path} is no result of a device kit: {where}: {first['msg'].rstrip('.')}.",
            f"A result.json of schema version {SCHEMA_VERSION}, as run_on_board.sh writes it, was expected.",
            "Copy the file from the board again, or run the kit of this version once more.",
        ) from error
    if result.digest != (expected := content_digest(content)):
        raise BoardResultError(
            f"{path} was changed after the board wrote it: its digest is {result.digest[:12]}....",
            f"Its content has the digest {expected[:12]}....",
            "Copy the file from the board again and leave it as it is, or run the kit once more.",
        )
    return result


def _read(path: Path) -> bytes:
    problem = "it is no file"
    try:
        if path.is_file():
            with path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            if len(content) <= MAX_BYTES:
                return content
            problem = f"it is larger than {MAX_BYTES // 2**20} MiB"
    except OSError as error:
        problem = error.strerror or type(error).__name__
    raise BoardResultError(
        f"{path} cannot be read: {problem}.",
        "The result.json that run_on_board.sh wrote on the board was expected.",
        "Check the path, or copy the file from the board again.",
    )
