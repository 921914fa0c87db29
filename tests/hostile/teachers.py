"""Teachers that mean harm: pickles that run, archives that unfold, tensors that lie, and damage of every part."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hostile.corpus import INPUT, TAKEN, Entry, Place
from safetensors.torch import save_file

# --- pickles that run -------------------------------------------------------------------------------------------------


class Calls:
    """Unpickling this calls a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: object = None) -> None:
        self.call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.call


def _touch(place: Place) -> str:
    return f"touch {place.canary}"


def _unfolding(field: str, depth: int, twice: bool) -> Callable[[Place], bytes]:
    """A checkpoint whose card has a field of lists in lists, each of them once or twice; the outermost is filled last,
    when it lies in the others already.
    """

    def program(place: Place) -> bytes:
        names = b"".join(
            b"j"
            + struct.pack("<I", 10 + k)
            + b"]r"
            + struct.pack("<I", 11 + k)
            + b"a"
            + (b"j" + struct.pack("<I", 10 + k) + b"j" + struct.pack("<I", 11 + k) + b"a") * twice
            for k in range(depth)
        )
        weight = _tensor_program([4], [1])
        card = _text(field) + b"j" + struct.pack("<I", 10)
        return (
            b"\x80\x02]r"
            + struct.pack("<I", 10)
            + names
            + b"}("
            + _text("state_dict")
            + b"}"
            + weight
            + b"s"
            + _text("card")
            + b"}"
            + card
            + b"su."
        )

    return program


def _saved(make: Callable[[Place], object], *, legacy: bool = False, protocol: int = 2) -> Callable[[Place], Path]:
    """A file of torch.save around what `make` gives."""

    def write(place: Place) -> Path:
        path = place.given / "t.pt"
        torch.save(make(place), path, _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)
        return path

    return write


def _weights(place: Place) -> dict[str, Any]:
    return dict(torch.load(place.good / "weights.pt", weights_only=True))


def _executing(place: Place) -> dict[str, Calls]:
    """What a pickle can call to do anything at all."""
    source = f"__import__('os').system({_touch(place)!r})"
    return {
        "os.system": Calls(os.system, _touch(place)),
        "eval": Calls(eval, source),
        "exec": Calls(exec, source),
        "subprocess": Calls(__import__("subprocess").Popen, ["touch", str(place.canary)]),
        "partial": Calls(partial, os.system, _touch(place)),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "runpy": Calls(__import__("runpy").run_path, str(place.canary)),
        "a state that is set": Calls(partial, os.system, state=(os.system, (_touch(place),), {}, {})),
        "torch.load within": Calls(torch.load, str(place.given / "t.pt")),
        "open": Calls(open, str(place.canary), "w"),
    }


def _raw(program: Callable[[Place], bytes]) -> Callable[[Place], Path]:
    """An archive of torch's whose pickle is written by hand."""

    def write(place: Place) -> Path:
        return archive(place.given / "t.pt", {"archive/data.pkl": program(place), "archive/data/0": bytes(16)})

    return write


def archive(path: Path, records: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """A zip file with these records, and those that torch wants."""
    others = {"archive/version": b"3\n", "archive/byteorder": b"little"}
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in {**records, **others}.items():
            file.writestr(name, data)
    return path


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _built_name(place: Place) -> bytes:
    """STACK_GLOBAL takes its names from the stack, where they were put together through the memo."""
    return b"\x80\x04" + _text("posix") + b"\x94" + _text("system") + b"\x940h\x00h\x01\x93" + _call(_touch(place))


def _call(text: str) -> bytes:
    return _text(text) + b"\x85R."


def _protocol_0(place: Place) -> bytes:
    return f"cposix\nsystem\n(V{_touch(place)}\ntR.".encode()


def _instance(place: Place) -> bytes:
    """INST imports and calls in one instruction."""
    return f"(V{_touch(place)}\niposix\nsystem\n.".encode()


def _lying_array(_: Place) -> bytes:
    """A numpy number whose type says afterwards that it is one object: its eight bytes become an address."""
    kind = b"cnumpy\ndtype\n" + _text("f8") + b"\x89\x88\x87R"
    of_objects = b"cnumpy\ndtype\n" + _text("O") + b"\x89\x88\x87R"
    state = b"(K\x03" + _text("<") + of_objects + b"K\x01\x85\x86NNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    number = b"cnumpy.core.multiarray\nscalar\n" + kind + state + b"U\x08AAAAAAAA\x86R"
    return b"\x80\x02cbuiltins\nstr\n" + number + b"\x85R."


def _memo_tuples(depth: int = 70) -> bytes:
    """A tuple that holds twice the one before it."""
    return b")q\x00" + b"".join(b"h" + bytes([k]) + b"h" + bytes([k]) + b"\x86q" + bytes([k + 1]) for k in range(depth))


def _doubled_text(_: Place) -> bytes:
    """`str` of a list that holds the text before it twice, forty times over."""
    step = b"cbuiltins\nstr\n](h\x00h\x00e\x85Rq\x00"
    return b"\x80\x02" + _text("xxxxxxxx") + b"q\x00" + step * 40 + b"."


def _doubled_bytes(_: Place) -> bytes:
    """The codec `hex` doubles what it is given."""
    step = b"c_codecs\nencode\nh\x00" + _text("hex") + b"\x86Rq\x00"
    return b"\x80\x02U\x08xxxxxxxxq\x00" + step * 40 + b"."


def _many_bytes(_: Place) -> bytes:
    return b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + (40 * 2**30).to_bytes(5, "little") + b"\x85R."


def _tuples_as_key(_: Place) -> bytes:
    return b"\x80\x02" + _memo_tuples() + b"}h" + bytes([70]) + b"K\x01s."


def _shared_dicts(_: Place) -> bytes:
    """Dicts in which 3,000 names mean the same dict of 3,000 names, three levels deep."""
    many = [_text(f"n{k}") for k in range(3_000)]
    level = [b"}q\x00(" + b"".join(name + b"K\x01" for name in many) + b"u"]
    for below in range(2):
        inner = b"h" + bytes([below])
        level.append(b"}q" + bytes([below + 1]) + b"(" + b"".join(name + inner for name in many) + b"u")
    return b"\x80\x02" + b"".join(level) + b"."


def _nested(opening: bytes, closing: bytes, depth: int = 20_000) -> Callable[[Place], bytes]:
    return lambda _: b"\x80\x02" + opening * depth + closing * (depth - 1) + b"."


def _card(value: object) -> Callable[[Place], object]:
    """A checkpoint like our own with something as its card."""
    return lambda place: {"state_dict": _weights(place), "card": value}


def _deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _good_card(place: Place, **changes: object) -> dict[str, Any]:
    return {**torch.load(place.good / "t.pt", weights_only=True)["card"], **changes}


def _pickles() -> list[Entry]:
    made = []
    for name in ("os.system", "eval", "exec", "subprocess", "partial", "getattr", "runpy", "a state that is set"):
        made.append(
            Entry(
                f"{name} in place of the weights",
                "code in a pickle",
                "--teacher",
                INPUT,
                _saved(lambda place, name=name: _executing(place)[name]),
            )
        )
    for name in ("os.system", "eval", "torch.load within", "open"):
        for legacy in (False, True):
            made.append(
                Entry(
                    f"{name} in a training checkpoint, {'old' if legacy else 'new'} format",
                    "code in a pickle",
                    "--teacher",
                    INPUT,
                    _saved(
                        lambda place, name=name: {"state_dict": _weights(place), "opt": _executing(place)[name]},
                        legacy=legacy,
                    ),
                    says="would run code while it is read",
                )
            )
    for protocol in (0, 1, 2, 3, 4, 5):
        made.append(
            Entry(
                f"os.system in protocol {protocol}",
                "code in a pickle",
                "--teacher",
                INPUT,
                _saved(lambda place: {"x": _executing(place)["os.system"]}, protocol=protocol),
            )
        )
    programs: dict[str, Callable[[Place], bytes]] = {
        "names composed on the stack": _built_name,
        "a text of protocol 0": _protocol_0,
        "an instance": _instance,
        "a numpy type whose state lies": _lying_array,
        "texts that double": _doubled_text,
        "bytes that double": _doubled_bytes,
        "bytes that are not there": _many_bytes,
        "tuples that double, as a key": _tuples_as_key,
        "dicts that are shared": _shared_dicts,
        "lists in lists": _nested(b"]", b"a"),
        "tuples in tuples": lambda _: b"\x80\x02)" + b"\x85" * 20_000 + b".",
        "a list that holds itself": lambda _: b"\x80\x02]q\x00h\x00a.",
        "a dict that holds itself": lambda _: b"\x80\x02}q\x00" + _text("a") + b"h\x00s.",
        "a card that doubles": _unfolding("num_classes", 60, True),
        "a card in lists": _unfolding("num_classes", 10_000, False),
        "a name that doubles": _unfolding("architecture", 60, True),
        "an extension": lambda _: b"\x80\x02\x82\x01)R.",
        "a persistent name": lambda place: b"\x80\x02" + _text(_touch(place)) + b"Q.",
        "an empty stack": lambda _: b"\x80\x02.",
        "a memo that is empty": lambda _: b"\x80\x02h\x05.",
        "a text of 4 GiB": lambda _: b"\x80\x02X\xff\xff\xff\xff.",
        "a number of a million digits": lambda _: b"\x80\x02\x8b\xff\xff\x0f\x00" + b"\x7f" * 0xFFFFF + b".",
    }
    made += [Entry(name, "a pickle by hand", "--teacher", INPUT, _raw(program)) for name, program in programs.items()]
    cards: dict[str, object] = {
        "a card in a few lists": _deep(90),
        "a field in a few lists": {"num_classes": _deep(90)},
        "a field that is a tensor": {"num_classes": torch.zeros(1000)},
        "a field of a million letters": {"architecture": "x" * 1_000_000},
        "a field nobody knows, of a million letters": {"x" * 1_000_000: 1},
        "a number without end": {"num_classes": 16**40_000},
    }
    made += [Entry(name, "a card", "--teacher", INPUT, _saved(_card(card))) for name, card in cards.items()]
    changed: dict[str, dict[str, object]] = {
        "a size of 2^62": {"input_shape": [3, 2**62, 2**62]},
        "a mean of 1e308": {"mean": [1e308] * 3, "std": [1e308] * 3, "value_range": [-1e308, 1e308]},
        "a mean that is none": {"mean": [float("nan")] * 3},
        "2^40 classes": {"num_classes": 2**40},
        "a width that is none": {"width": float("nan")},
        "a name with half a letter": {"class_names": ["\ud800", "b", "c", "d"]},
    }
    return made + [
        Entry(
            name,
            "a card",
            "--teacher",
            INPUT,
            _saved(lambda place, change=change: {"state_dict": _weights(place), "card": _good_card(place, **change)}),
        )
        for name, change in changed.items()
    ]


# --- tensors that lie -------------------------------------------------------------------------------------------------


def _tensor_program(
    size: Sequence[int], stride: Sequence[int], *, offset: int = 0, numel: int = 4, key: str = "0"
) -> bytes:
    """The name and the instructions of a tensor over a storage that claims `numel` numbers."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values: Sequence[int]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text(key) + _text("cpu") + number(numel) + b"tQ"
    tensor = storage + number(offset) + numbers(size) + numbers(stride) + b"\x89ccollections\nOrderedDict\n)R"
    return _text("fc.weight") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + tensor + b"tR"


def _tensor(size: Sequence[int], stride: Sequence[int], *, offset: int = 0, numel: int = 4) -> Callable[[Place], Path]:
    """A state dict of one tensor, whose storage has four numbers and claims `numel`."""
    program = b"\x80\x02}" + _tensor_program(size, stride, offset=offset, numel=numel) + b"s."
    return lambda place: archive(place.given / "t.pt", {"archive/data.pkl": program, "archive/data/0": bytes(16)})


def _tensors() -> list[Entry]:
    lies: dict[str, Any] = {
        "a stride of nothing, expanded to terabytes": _tensor([2**20, 2**20], [0, 0]),
        "a negative size": _tensor([-4, 4], [1, 1]),
        "a negative stride": _tensor([2, 2], [-2, 1]),
        "a negative offset": _tensor([4], [1], offset=-4),
        "an offset beyond its storage": _tensor([4], [1], offset=2**40),
        "a stride beyond its storage": _tensor([2, 2], [2**40, 1]),
        "a storage larger than its record": _tensor([2**30], [1], numel=2**30),
        "a storage of a negative size": _tensor([4], [1], numel=-4),
        "sizes whose product overflows": _tensor([2**32, 2**32, 2**32], [1, 1, 1]),
        "a million dimensions": _tensor([1] * 1000, [1] * 1000),
    }
    made = [Entry(name, "a tensor that lies", "--teacher", INPUT, write) for name, write in lies.items()]
    payloads: dict[str, Callable[[Place], object]] = {
        "weights without numbers": lambda place: {k: v.to("meta") for k, v in _weights(place).items()},
        "sparse weights": lambda place: {k: v.to_sparse() for k, v in _weights(place).items()},
        "complex weights": lambda place: {
            k: v.to(torch.complex64) if v.is_floating_point() else v for k, v in _weights(place).items()
        },
        "integer weights": lambda place: {
            k: v.to(torch.int32) if v.is_floating_point() else v for k, v in _weights(place).items()
        },
        "weights of truth values": lambda place: {
            k: v.to(torch.bool) if v.is_floating_point() else v for k, v in _weights(place).items()
        },
        "one NaN": lambda place: {
            k: v.index_fill(0, torch.tensor([0]), torch.nan) if v.ndim == 4 else v for k, v in _weights(place).items()
        },
        "names with escapes": lambda place: {f"\x1b[31m{k}\n::error::x": v for k, v in _weights(place).items()},
        "a name of a million letters": lambda place: {**_weights(place), "x" * 1_000_000: torch.zeros(1)},
        "5,000 tensors": lambda _: dict.fromkeys((f"t{k}" for k in range(5_000)), torch.zeros(1)),
    }
    return made + [
        Entry(name, "a tensor that lies", "--teacher", INPUT, _saved(make)) for name, make in payloads.items()
    ]


# --- archives ---------------------------------------------------------------------------------------------------------


def _good_records(place: Place) -> dict[str, bytes]:
    with zipfile.ZipFile(place.good / "t.pt") as file:
        return {entry.filename: file.read(entry) for entry in file.infolist()}


def _with(more: Mapping[str, bytes]) -> Callable[[Place], Path]:
    """Our own checkpoint with more records."""
    return lambda place: archive(place.given / "t.pt", {**_good_records(place), **more})


def _ratio(place: Place) -> Path:
    """A gigabyte of zeros, in a megabyte."""
    path = place.given / "t.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("archive/data.pkl", "w") as record:
        record.write(b"\x80\x02")
        for _ in range(1024):
            record.write(bytes(2**20))
    return path


def _claims(place: Place) -> Path:
    """A record that says it unfolds to 4 GiB, in both places that say so."""
    path = archive(place.given / "t.pt", {"archive/data.pkl": pickle.dumps({}, 2)})
    data = path.read_bytes()
    length = len(pickle.dumps({}, 2))
    data = data.replace(struct.pack("<II", length, length), struct.pack("<II", length, 0xFFFFFFF0))
    path.write_bytes(data)
    return path


def _duplicated(place: Place) -> Path:
    """Two records of one name: one that is read, one that is looked at."""
    path = place.given / "t.pt"
    records = _good_records(place)
    evil = pickle.dumps({"x": Calls(os.system, _touch(place))}, 2)
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as file:
        warnings.simplefilter("ignore")
        for name, data in records.items():
            if name.endswith("data.pkl"):
                file.writestr(name, evil)
            file.writestr(name, data)
    return path


def _linked(place: Place) -> Path:
    """A record that says it is a link to a file outside."""
    path = archive(place.given / "t.pt", _good_records(place))
    with zipfile.ZipFile(path, "a") as file:
        entry = zipfile.ZipInfo("archive/data/link")
        entry.external_attr = 0o120777 << 16
        file.writestr(entry, "/etc/passwd")
    return path


def _pt2(place: Place) -> Path:
    """A file of torch.export by its records, with entries that lead outside."""
    more = {f"{up}escaped": b"x" for up in ("../" * 3, "/", "a/../../../")}
    path = place.given / "t.pt2"
    with zipfile.ZipFile(path, "w") as file:
        for name, data in {"archive/archive_format": b"pt2", "archive/models/model.json": b"{", **more}.items():
            file.writestr(name, data)
    return path


def _end_lies(place: Place) -> Path:
    """A directory that is said to begin beyond the end."""
    path = archive(place.given / "t.pt", _good_records(place))
    data = bytearray(path.read_bytes())
    end = data.rindex(b"PK\x05\x06")
    data[end + 16 : end + 20] = b"\xff\xff\xff\x7f"
    path.write_bytes(data)
    return path


ARCHIVES = [
    Entry("a gigabyte of zeros", "a bomb of zip", "--teacher", INPUT, _ratio),
    Entry("a size that lies", "a bomb of zip", "--teacher", INPUT, _claims),
    Entry(
        "5,000 records", "a bomb of zip", "--teacher", TAKEN, _with({f"archive/data/x{k}": b"" for k in range(5_000)})
    ),
    Entry(
        "records that lead outside",
        "a path of an archive",
        "--teacher",
        INPUT,
        _with({f"{up}escaped": b"x" for up in ("../" * 5, "/tmp/../", "archive/../../../")}),
    ),
    Entry("a record twice", "a path of an archive", "--teacher", INPUT, _duplicated),
    Entry("a record that is a link", "a path of an archive", "--teacher", TAKEN, _linked),
    Entry("a .pt2 that leads outside", "a path of an archive", "--teacher", INPUT, _pt2),
    Entry("a directory beyond the end", "a bomb of zip", "--teacher", INPUT, _end_lies),
]


# --- safetensors ------------------------------------------------------------------------------------------------------


def _safetensors(header: object, data: bytes = bytes(16), length: int | None = None) -> Callable[[Place], Path]:
    def write(place: Place) -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path = place.given / "t.safetensors"
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
        return path

    return write


def _one(dtype: str, shape: Sequence[int], start: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def _with_metadata(metadata: Mapping[str, str]) -> Callable[[Place], Path]:
    def write(place: Place) -> Path:
        save_file(_weights(place), place.given / "t.safetensors", metadata=dict(metadata))
        return place.given / "t.safetensors"

    return write


SAFETENSORS = [
    Entry(f"safetensors: {name}", "safetensors", "--teacher", INPUT, write)
    for name, write in {
        "a header of 2^63 bytes": _safetensors({}, length=2**63),
        "a header longer than the file": _safetensors({}, length=1000),
        "a header that is no JSON": _safetensors(b"{" + b"x" * 100),
        "a header in lists": _safetensors(b'{"a":' + b"[" * 100_000),
        "offsets that overlap": _safetensors({"a": _one("F32", [4], 0, 16), "b": _one("F32", [2], 8, 16)}),
        "offsets beyond the end": _safetensors({"a": _one("F32", [400], 0, 1600)}),
        "offsets that go back": _safetensors({"a": _one("F32", [4], 16, 0)}),
        "a shape of 2^80": _safetensors({"a": _one("F32", [2**40, 2**40], 0, 16)}),
        "a negative shape": _safetensors({"a": _one("F32", [-4], 0, 16)}),
        "a type that lies": _safetensors({"a": _one("F64", [4], 0, 16)}),
        "a type nobody knows": _safetensors({"a": _one("Q7", [4], 0, 16)}),
        "complex numbers": _safetensors({"fc.weight": _one("C64", [2], 0, 16)}),
        "a key twice": _safetensors(
            b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'
        ),
        "a card in lists": _with_metadata({"card": "[" * 100_000}),
        "a card with a number without end": _with_metadata({"card": '{"num_classes": ' + "9" * 100_000 + "}"}),
        "a card with half a letter": _with_metadata({"card": '{"architecture": "\\ud800"}'}),
        "an architecture with escapes": _with_metadata({"architecture": "\x1b[2J\x1b[31m\n::error::x\u202e"}),
        "an architecture that is a path": _with_metadata({"architecture": "../../etc/passwd"}),
        "an architecture of timm's hub": _with_metadata({"architecture": "timm:hf_hub:someone/network"}),
    }.items()
]


# --- damage -----------------------------------------------------------------------------------------------------------

CUTS = {"header": 0.001, "beginning": 0.1, "middle": 0.5, "tail": 0.999}


def cut(data: bytes, share: float) -> bytes:
    """A file that ends early."""
    return data[: max(1, int(len(data) * share))]


def flipped(data: bytes, place: int) -> bytes:
    """A file with one byte turned over."""
    changed = bytearray(data)
    changed[place % len(data)] ^= 0xFF
    return bytes(changed)


def zip_places(data: bytes) -> dict[str, int]:
    """One offset in each part of an archive of torch's."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        records = {entry.filename.partition("/")[2]: entry for entry in file.infolist()}
        largest = max((entry for name, entry in records.items() if name.startswith("data/")), key=lambda e: e.file_size)
        pickled = records["data.pkl"].header_offset
        tensor = largest.header_offset
    return {
        "header": 0,
        "pickle": data.index(b"\x80\x02", pickled) + 20,
        "tensor data": tensor + 200 + largest.file_size // 2,
        "zip directory": data.rindex(b"PK\x01\x02") + 1,
        "tail": len(data) - 20,
    }


def _turned(data: bytes, part: str) -> bytes:
    return flipped(data, zip_places(data)[part])


def _damaged(file: str, name: str, change: Callable[[bytes], bytes]) -> Callable[[Place], Path]:
    def write(place: Place) -> Path:
        path = place.given / name
        path.write_bytes(change((place.good / file).read_bytes()))
        return path

    return write


def _damage() -> list[Entry]:
    made = []
    for part, share in CUTS.items():
        made.append(
            Entry(
                f"our checkpoint, cut in its {part}",
                "damage",
                "--teacher",
                INPUT,
                _damaged("t.pt", "t.pt", partial(cut, share=share)),
            )
        )
    for part in ("header", "pickle", "tensor data", "zip directory"):
        made.append(
            Entry(
                f"our checkpoint, one byte of its {part} turned",
                "damage",
                "--teacher",
                INPUT,
                _damaged("t.pt", "t.pt", partial(_turned, part=part)),
            )
        )

    def of_safetensors(change: Callable[[bytes], bytes]) -> Callable[[Place], Path]:
        def write(place: Place) -> Path:
            path = _with_metadata({"architecture": "cifar_resnet8"})(place)
            path.write_bytes(change(path.read_bytes()))
            return path

        return write

    for part, share in CUTS.items():
        made.append(
            Entry(
                f"safetensors, cut in its {part}",
                "damage",
                "--teacher",
                INPUT,
                of_safetensors(partial(cut, share=share)),
            )
        )
    for where in (0, 9, 60):
        made.append(
            Entry(
                f"safetensors, byte {where} turned",
                "damage",
                "--teacher",
                INPUT,
                of_safetensors(partial(flipped, place=where)),
            )
        )
    return made


# --- what is no file --------------------------------------------------------------------------------------------------


def _fifo(place: Place) -> Path:
    os.mkfifo(place.given / "t.pt")
    return place.given / "t.pt"


def _loop(place: Place) -> Path:
    (place.given / "t.pt").symlink_to(place.given / "t.pt")
    return place.given / "t.pt"


def _dash(place: Place) -> list[str]:
    return ["inspect", "--", "-oProxyCommand=touch x.pt"]


FILES = [
    Entry("a teacher that is a FIFO", "what is no file", "--teacher", (2, 4), _fifo),
    Entry("a teacher that links to itself", "what is no file", "--teacher", (2, 4), _loop),
    Entry("a teacher that is a device", "what is no file", "--teacher", INPUT, lambda _: "/dev/zero"),
    Entry("a teacher that is a folder", "what is no file", "--teacher", INPUT, lambda place: place.given),
    Entry("a teacher with a name of 5,000 letters", "names", "--teacher", (2, 4), lambda _: "x" * 5_000),
    Entry(
        "a teacher with escapes in its name",
        "names",
        "--teacher",
        INPUT,
        lambda place: place.given / "\x1b[31m\n::error::x\u202e.pt",
    ),
    Entry("a teacher with a dash before its name", "names", "words", INPUT, _dash),
    Entry("a teacher with a NUL in its name", "names", "--teacher", (2, 4), lambda place: f"{place.given}/a\0b.pt"),
    Entry(
        "a teacher whose name is no text",
        "names",
        "--teacher",
        INPUT,
        lambda place: f"{place.given}/" + os.fsdecode(b"\xff\xfe.pt"),
    ),
]

# `inspect` of these is refused as a run is; for all others it says what it found.
ENTRIES = (*_pickles(), *_tensors(), *ARCHIVES, *SAFETENSORS, *_damage(), *FILES)
