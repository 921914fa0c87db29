"""The sidecar of an engine: what it was built from, with what, and where it may run.

An engine runs only on the system, the TensorRT version and the compute capability that it was built for, and cannot
be asked: opening one elsewhere fails late, or ends the process. So every engine `x.engine` has a card,
`x.engine.json`, and nothing is opened before its card fits this machine. The card also holds the preprocessing,
which engines, unlike ONNX files, have no room for. Its digest shows a hand edit; it is no signature.
"""

from __future__ import annotations

import hashlib
import json
import platform
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from exporters.causes import one_line
from exporters.errors import ExportError
from exporters.files import write_atomically
from exporters.tensorrt_backend import TITLES, Backend, BackendName, load_backend, require_gpu
from profiles.schema import Precision

MAX_CARD_BYTES = 1 << 20


class EngineRefused(ExportError):
    """An engine that is not whole, is not the one that its card describes, or was not built for this machine."""


class BatchProfile(BaseModel):
    """How many images one call may hold; the kernels are chosen for `opt`. A static batch has all three equal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min: int = Field(ge=1)
    opt: int
    max: int

    @model_validator(mode="after")
    def _ordered(self) -> BatchProfile:
        if not self.min <= self.opt <= self.max:
            raise ValueError(f"must be min <= opt <= max, not {self}")
        return self

    @property
    def is_static(self) -> bool:
        return self.min == self.max

    def __str__(self) -> str:
        return str(self.opt) if self.is_static else f"{self.min} to {self.max}, best at {self.opt}"


class EngineCard(BaseModel):
    """Everything that decides whether an engine may run here, and how to feed it.

    Attributes:
        backend, version: the package that built it, which alone opens it.
        compute_capability: of the GPU that it is for.
        device: the GPU that it was built on; None where it was built without one.
        cuda: what PyTorch on the building machine was built for; None without a GPU.
        system, machine: as Python's platform says, such as Linux and x86_64.
        precision: what the user asked for; with TensorRT's types, the ONNX file decides.
        tf32: whether fp32 convolutions and matrix products may round their inputs to TF32.
        batch: images of one call.
        preprocessing: what happens before the input, as the caller describes it.
        onnx_sha256, engine_sha256, engine_bytes: of the files.
        rebuild: the command that builds it again.
        digest: SHA-256 of all other fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    card_version: Literal[1] = 1
    backend: BackendName
    version: str
    compute_capability: str
    device: str | None
    cuda: str | None
    system: str
    machine: str
    precision: Precision
    tf32: bool
    batch: BatchProfile
    preprocessing: dict[str, str]
    onnx_sha256: str
    engine_sha256: str
    engine_bytes: int
    rebuild: str
    digest: str = ""

    def computed_digest(self) -> str:
        content = json.dumps(self.model_dump(mode="json", exclude={"digest"}), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def card_path(engine: Path) -> Path:
    return engine.with_name(f"{engine.name}.json")


def write_card(card: EngineCard, engine: Path) -> EngineCard:
    """Write the card beside its engine, with its digest."""
    card = card.model_copy(update={"digest": card.computed_digest()})
    write_atomically((card.model_dump_json(indent=2) + "\n").encode(), card_path(engine))
    return card


def check_engine(path: Path) -> EngineCard:
    """The card of an engine that is whole and was built for this machine.

    Raises:
        EngineRefused: the card is missing, damaged or edited; the engine is missing, cut off or another one; or it
            was built for another system, TensorRT or GPU.
        TensorRTMissing: the package that opens it is not here.
        GpuMissing: there is no GPU.
    """
    card = read_card(path)
    _check_file(path, card)
    here = (platform.system(), platform.machine())
    if here != (card.system, card.machine):
        raise _other_machine(path, card, f"{card.system} on {card.machine}", f"{here[0]} on {here[1]}")
    backend: Backend = load_backend(card.backend)
    if backend.version != card.version:
        raise _other_machine(path, card, f"{TITLES[card.backend]} {card.version}", str(backend))
    gpu = require_gpu(f"Running {path.name}")
    if gpu.compute_capability != card.compute_capability:
        raise _other_machine(
            path,
            card,
            f"compute capability {card.compute_capability}",
            f"{gpu.name} with compute capability {gpu.compute_capability}",
        )
    return card


def read_card(engine: Path) -> EngineCard:
    """The card of an engine, wherever that may run.

    Raises:
        EngineRefused: it is missing, is no card, or was edited.
    """
    path = card_path(engine)
    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            raise _no_card(engine, f"{path.name} is too large for a card")
        card = EngineCard.model_validate_json(path.read_bytes())
    except OSError as error:
        raise _no_card(engine, f"its card {path.name} cannot be read ({error.strerror})") from error
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise _no_card(engine, f"{path.name} is no card of ours ({where or 'file'}: {problem['msg']})") from error
    if card.digest != card.computed_digest():
        raise _no_card(engine, f"{path.name} was edited after it was written")
    return card


def _check_file(path: Path, card: EngineCard) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineRefused(
            f"The engine {path} cannot be read: {one_line(error)}.",
            "The engine file was expected beside its card.",
            f"Build it again: {card.rebuild}.",
        ) from error
    if len(content) != card.engine_bytes or hashlib.sha256(content).hexdigest() != card.engine_sha256:
        raise EngineRefused(
            f"{path.name} has {len(content)} bytes and is not the engine that its card describes.",
            f"{card.engine_bytes} bytes with SHA-256 {card.engine_sha256[:12]}... were expected.",
            f"It was cut off or replaced; build it again: {card.rebuild}.",
        )


def _no_card(engine: Path, reason: str) -> EngineRefused:
    return EngineRefused(
        f"The engine {engine.name} is refused: {reason}.",
        f"A card {card_path(engine).name} as it was written with the engine was expected.",
        "Build the engine again from its ONNX file on this machine, with the command that built it.",
    )


def _other_machine(path: Path, card: EngineCard, built_for: str, here: str) -> EngineRefused:
    return EngineRefused(
        f"{path.name} was built for {built_for}.",
        f"Here is {here}.",
        f"Build it again on this machine: {card.rebuild}.",
    )
