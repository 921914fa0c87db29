"""What a file of weights is, found out without running any of it.

A pickle is a program: reading one the ordinary way runs whatever it imports. So

    first bytes -> container -> imports of the pickle, disassembled -> restricted reader -> contents -> kind

and each arrow can end the journey. Only a pickle that imports nothing beyond torch's own list and a few names of plain
data (`harmless`) is read, and only by torch's restricted reader (`weights_only=True`), which is what keeps us safe; the
disassembly is there to say what a file wanted. Memory stays in proportion to the file: archives are mapped, not copied,
and may claim no more than they hold.
"""

from __future__ import annotations

import json
import pickletools
import re
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import torch
from torch import Tensor
from torch._weights_only_unpickler import _get_allowed_globals

from compressor.inputs.harmless import HARMLESS, reading_harmless
from compressor.inputs.nesting import PickleSizes, Unfolded, check_nesting, is_plain
from compressor.inputs.training_file import NoWeights, find_weights, holds_tensors

Kind = Literal[
    "compress checkpoint",
    "state dict",
    "training checkpoint",
    "pickled module",
    "TorchScript",
    "pt2 (torch.export)",
    "safetensors",
    "ONNX",
    "unreadable",
    "not a checkpoint",
]

MAX_FILE_BYTES = 8 * 2**30
MAX_PICKLE_STEPS = 10_000_000  # about ten seconds of disassembly; a network of 1,000 tensors has 30,000 steps
MAX_SHARING = 16  # tensors may claim this many times the file's size, which admits shared weights and no bombs

NO_CARD = "its card is something else than texts, numbers and lists of them"
MOST_DIMENSIONS = 8
ZIP_START = b"PK\x03\x04"
LEGACY_TORCH_NUMBER = bytes.fromhex("8a 0a 6c fc 9c 46 f9 20 6a a8 50 19")  # pickled first, by any protocol
ONNX_START = re.compile(rb"\x08[\x01-\x1f][\x12\x1a\x22\x3a\x42]")  # protobuf: IR version, then one of its other fields
PT2_RECORDS = {"archive_format", "models/model.json", "serialized_exported_program.json"}
NAMED_STARTS = {
    b"version https://git-lfs": "it is a Git LFS pointer, not the file itself (`git lfs pull` fetches that)",
    b"\x89HDF\r\n\x1a\n": "it is an HDF5 file, such as Keras writes",
    b"\x93NUMPY": "it is a NumPy array",
    b"\x1f\x8b": "it is compressed with gzip",
    b"<": "it is a web page or XML",
}


@dataclass(frozen=True)
class Contents:
    """What is in a file.

    Attributes:
        kind: the file's kind.
        reason: why it is unreadable or not a checkpoint, as a clause without a period.
        imports: names that reading it the ordinary way would import, beyond those that torch allows.
        tensors: by name; of the kinds that hold them.
        card: the unchecked card of a compress checkpoint.
        weights_key: where a training checkpoint keeps its weights, as a path such as `model_ema.module`.
        notes: what was chosen between, in sentences for the report.
    """

    kind: Kind
    reason: str = ""
    imports: tuple[str, ...] = ()
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    card: object = None
    weights_key: str = ""
    notes: tuple[str, ...] = ()


def open_contents(path: Path, weights_key: str | None = None) -> Contents:
    """Tell what the file at `path` is. Whatever the file holds, this returns; it raises only what opening it raises.

    Args:
        weights_key: where the weights are to be looked for in a training checkpoint, such as `model_ema`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    if size == 0:
        return Contents("not a checkpoint", "it is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        return Contents("unreadable", f"it has {size / 2**30:.1f} GiB and the limit is {MAX_FILE_BYTES // 2**30} GiB")
    if head.startswith(ZIP_START):
        return _read_archive(path, weights_key)
    if _begins_safetensors(head, size):
        return _read_safetensors(path)
    if is_onnx(path):
        return Contents("ONNX")
    if head[0] == 0x80:
        return _read_bare_pickle(path, head, weights_key)
    for start, reason in NAMED_STARTS.items():
        if head.startswith(start):
            return Contents("not a checkpoint", reason)
    return Contents("not a checkpoint", f"it begins with the bytes {head[:8].hex(' ')}")


def is_onnx(path: Path) -> bool:
    """Whether `open_contents` calls it ONNX, for whoever asks nothing else: by its first bytes and its name alone."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
    if not 0 < size <= MAX_FILE_BYTES or head.startswith(ZIP_START) or _begins_safetensors(head, size):
        return False
    return path.suffix == ".onnx" or ONNX_START.match(head) is not None


def _begins_safetensors(head: bytes, size: int) -> bool:
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size


def _read_archive(path: Path, weights_key: str | None) -> Contents:
    """A zip file: torch.save, TorchScript, torch.export, or something else."""
    try:
        with zipfile.ZipFile(path) as archive:
            records = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
            if "constants.pkl" in records:
                return Contents("TorchScript")
            if PT2_RECORDS & {*records, *archive.namelist()}:
                return Contents("pt2 (torch.export)")
            if "data.pkl" not in records:
                return Contents("not a checkpoint", "it is a zip archive without torch's data.pkl")
            # torch.save only ever stores. A compressed record could unfold to any size, and so could overlapping ones.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                return Contents("unreadable", "its records are compressed, which torch.save never does")
            if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
                return Contents("unreadable", "its records claim more bytes than the file has")
            with archive.open(records["data.pkl"]) as pickle:
                program = disassemble(pickle)
            if not program.imports and (damaged := _damaged(archive)):
                return Contents("unreadable", f"its record {damaged} is damaged: it has another checksum")
    except (zipfile.BadZipFile, ValueError, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        return Contents("unreadable", f"it is a damaged or truncated archive ({_first_line(error)})")
    return _run_restricted(path, program, weights_key, mapped=True)


def _damaged(archive: zipfile.ZipFile) -> str:
    """The first record whose bytes are not those that were written, which torch's own reader does not look at."""
    for entry in archive.infolist():
        if entry.CRC == 0 or not entry.file_size:  # written without a checksum
            continue
        found = 0
        with archive.open(entry) as record:
            record._expected_crc = None  # type: ignore[attr-defined]  # else the last read raises, without a name
            while chunk := record.read(2**20):
                found = zlib.crc32(chunk, found)
        if found != entry.CRC:
            return entry.filename[:80]
    return ""


def _read_bare_pickle(path: Path, head: bytes, weights_key: str | None) -> Contents:
    """A pickle outside an archive: torch.save before version 1.6, or somebody else's."""
    legacy = LEGACY_TORCH_NUMBER in head
    try:
        with path.open("rb") as file:
            # The old format is a row of pickles: magic number, protocol, machine, the object; then the raw storages.
            programs = [disassemble(file) for _ in range(4 if legacy else 1)]
    except (ValueError, EOFError, IndexError) as error:
        return Contents("unreadable", f"it is a damaged or truncated pickle ({_first_line(error)})")
    program = programs[-1]
    if not legacy and not program.imports:
        return Contents("not a checkpoint", "it is a pickle that torch.save did not write")
    return _run_restricted(path, program, weights_key, mapped=False)


def _read_safetensors(path: Path) -> Contents:
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:  # the latter for types that torch lacks
        return Contents("unreadable", f"it looks like safetensors and is damaged or truncated ({_first_line(error)})")
    if not tensors:
        return Contents("not a checkpoint", "it is a safetensors file without tensors")
    contents = Contents("safetensors", tensors=tensors, card=card_in_metadata(metadata))
    return _within_bounds(contents, path.stat().st_size)


def card_in_metadata(metadata: Mapping[str, str]) -> object:
    """The card of a safetensors file: JSON under `card`, or the architecture alone; None where there is neither."""
    if "card" in metadata:
        try:
            card = json.loads(metadata["card"])
        except (ValueError, RecursionError):
            return metadata["card"]
        return card if is_plain(card) else metadata["card"]
    return {"architecture": metadata["architecture"]} if "architecture" in metadata else None


@dataclass(frozen=True)
class Program:
    """One disassembled pickle: what it would import beyond torch's list, and whether its outermost object is a dict."""

    imports: tuple[str, ...]
    makes_dict: bool


def disassemble(pickle: IO[bytes]) -> Program:
    """Follow a pickle to its end without running it.

    Names may come from the stack (protocol 4), which is followed only as far as plain strings and the memo go; a name
    composed in any other way is reported as such.

    Raises:
        ValueError: the pickle is malformed, truncated, longer than MAX_PICKLE_STEPS, or unfolds without end.
    """
    sizes = PickleSizes()
    imports: set[str] = set()
    memo: dict[int, str | None] = {}
    pushed: deque[str | None] = deque([None, None], maxlen=2)
    outermost: list[str] = []
    for step, (opcode, argument, _) in enumerate(pickletools.genops(pickle)):
        if step > MAX_PICKLE_STEPS:
            raise ValueError(f"more than {MAX_PICKLE_STEPS:,} instructions")
        name = opcode.name
        sizes.follow(name, argument)
        if len(outermost) < 2 and name not in ("PROTO", "FRAME"):
            outermost.append(f"{name} {argument}")
        if "UNICODE" in name or name.endswith("STRING"):
            pushed.append(argument)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            pushed.append(memo.get(int(argument or 0)))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[int(argument or 0)] = pushed[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = pushed[-1]
        elif name in ("GLOBAL", "INST"):
            imports.add(_modern_name(*str(argument).split(" ", 1)))
            pushed.append(None)
        elif name == "STACK_GLOBAL":
            module, attribute = pushed
            imports.add(f"{module}.{attribute}" if module and attribute else "a name composed while reading")
            pushed.append(None)
        elif name.startswith("EXT"):
            imports.add(f"extension {argument}")
        elif opcode.stack_after:
            pushed.append(None)
    makes_dict = outermost[0] in ("EMPTY_DICT None", "GLOBAL collections OrderedDict") or outermost[1:] == ["DICT None"]
    return Program(tuple(sorted(imports - _get_allowed_globals().keys() - HARMLESS.keys())), makes_dict)


def _modern_name(module: str, attribute: str) -> str:
    """Python 2's names, which protocol 2 still writes, as Python 3's."""
    module, attribute = NAME_MAPPING.get((module, attribute), (module, attribute))
    return f"{IMPORT_MAPPING.get(module, module)}.{attribute}"


def _run_restricted(path: Path, program: Program, weights_key: str | None, *, mapped: bool) -> Contents:
    """Read with torch's restricted reader, unless the program imports what that reader does not allow."""
    if program.imports:
        return Contents("training checkpoint" if program.makes_dict else "pickled module", imports=program.imports)
    try:
        with reading_harmless():
            payload = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a damaged file can break the reader anywhere, and the file is the cause
        return Contents("unreadable", f"torch cannot read it ({_first_line(error)})")
    return classify(payload, path.stat().st_size, weights_key)


def classify(payload: Any, file_bytes: int, weights_key: str | None = None) -> Contents:
    """What an object that was in a file of so many bytes is."""
    try:
        check_nesting(payload)
    except Unfolded as error:
        return Contents("unreadable", str(error))
    if not isinstance(payload, Mapping):
        return Contents("not a checkpoint", f"it holds one {type(payload).__name__} instead of named tensors")
    if "card" in payload and holds_tensors(payload.get("state_dict")):
        if not is_plain(payload["card"]):
            return Contents("unreadable", NO_CARD)
        contents = Contents("compress checkpoint", tensors=payload["state_dict"], card=payload["card"])
    elif weights_key is None and holds_tensors(payload):
        contents = Contents("state dict", tensors=payload)
    else:
        try:
            found = find_weights(payload, weights_key)
        except NoWeights as error:
            return Contents("not a checkpoint", str(error))
        kind: Kind = "training checkpoint" if found.key else "state dict"
        contents = Contents(kind, tensors=found.tensors, weights_key=found.key, notes=found.notes)
    return _within_bounds(contents, file_bytes)


def _within_bounds(contents: Contents, file_bytes: int) -> Contents:
    """The contents, if their tensors are plain ones and claim no more than the file can hold."""
    claimed = 0
    for name, tensor in contents.tensors.items():
        if tensor.layout is not torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            return Contents("unreadable", f"its tensor '{name}' is sparse, quantised or without data")
        if tensor.ndim > MOST_DIMENSIONS:
            return Contents("unreadable", f"its tensor '{name}' has {tensor.ndim} dimensions")
        if tensor.is_complex() or tensor.dtype == torch.bool:
            return Contents("unreadable", f"its tensor '{name}' holds {tensor.dtype} values, which weights never are")
        claimed += tensor.numel() * tensor.element_size()
    if claimed > MAX_SHARING * file_bytes:
        return Contents("unreadable", f"its tensors claim {claimed:,} bytes and the file has {file_bytes:,}")
    return contents


def _first_line(error: Exception) -> str:
    """The part of a reader's message that says what is wrong, without its advice to switch the protection off."""
    text = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or type(error).__name__
    return text.splitlines()[0][:160].rstrip(" .")
