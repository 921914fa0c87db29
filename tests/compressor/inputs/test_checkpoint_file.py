"""What a file is, and that finding it out runs nothing."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import nn

from compressor.inputs import checkpoint_file
from compressor.inputs.checkpoint_file import disassemble, open_contents

WEIGHTS = {"a.weight": torch.arange(12.0).view(3, 4), "a.bias": torch.zeros(3)}


class Bomb:
    """Unpickling this makes a folder: the sentinel that shows that something ran."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sentinel),)


def saved(path: Path, payload: object, **options: Any) -> Path:
    torch.save(payload, path, **options)
    return path


def rezipped(source: Path, target: Path, compression: int, replace: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", compression) as new:
        for entry in old.infolist():
            content = old.read(entry)
            for name, other in (replace or {}).items():
                if entry.filename.endswith(name):
                    content = other
            new.writestr(entry.filename, content)
    return target


@pytest.mark.parametrize("legacy", [False, True])
def test_a_state_dict_is_read_in_both_formats(tmp_path: Path, legacy: bool) -> None:
    path = saved(tmp_path / "t.pt", WEIGHTS, _use_new_zipfile_serialization=not legacy)
    contents = open_contents(path)
    assert contents.kind == "state dict"
    assert contents.imports == ()
    assert {name: tensor.tolist() for name, tensor in contents.tensors.items()} == {
        name: tensor.tolist() for name, tensor in WEIGHTS.items()
    }


def test_our_checkpoint_gives_its_card(tmp_path: Path) -> None:
    contents = open_contents(saved(tmp_path / "t.pt", {"state_dict": WEIGHTS, "card": {"mean": [0.5]}}))
    assert contents.kind == "compress checkpoint"
    assert contents.card == {"mean": [0.5]}
    assert set(contents.tensors) == set(WEIGHTS)


def test_a_training_checkpoint_says_where_its_weights_are(tmp_path: Path) -> None:
    payload = {"epoch": 3, "ema": {"a": torch.zeros(1)}, "model": WEIGHTS, "optimizer": {"state": {}}}
    contents = open_contents(saved(tmp_path / "t.pt", payload))
    assert (contents.kind, contents.weights_key) == ("training checkpoint", "model")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("in_dict", [False, True])
def test_a_bomb_is_named_and_never_run(tmp_path: Path, protocol: int, legacy: bool, in_dict: bool) -> None:
    sentinel = tmp_path / "it_ran"
    payload: object = {"weights": WEIGHTS, "extra": Bomb(sentinel)} if in_dict else Bomb(sentinel)
    path = saved(tmp_path / "t.pt", payload, pickle_protocol=protocol, _use_new_zipfile_serialization=not legacy)
    contents = open_contents(path)
    assert contents.kind == ("training checkpoint" if in_dict else "pickled module")
    assert contents.imports == (f"{os.mkdir.__module__}.mkdir",)
    assert not contents.tensors
    assert not sentinel.exists()


def test_a_bomb_outside_torchs_formats_is_never_run(tmp_path: Path) -> None:
    sentinel, path = tmp_path / "it_ran", tmp_path / "t.pkl"
    path.write_bytes(pickle.dumps(Bomb(sentinel)))
    assert open_contents(path).imports == (f"{os.mkdir.__module__}.mkdir",)
    assert not sentinel.exists()


def test_a_pickled_network_is_a_pickled_module(tmp_path: Path) -> None:
    contents = open_contents(saved(tmp_path / "t.pt", nn.Sequential(nn.Linear(4, 2))))
    assert contents.kind == "pickled module"
    assert "torch.nn.modules.linear.Linear" in contents.imports


def test_numpy_metrics_are_read_as_the_data_that_they_are(tmp_path: Path) -> None:
    contents = open_contents(saved(tmp_path / "t.pt", {"state_dict": WEIGHTS, "accuracy": np.float64(0.9)}))
    assert (contents.kind, contents.imports, contents.weights_key) == ("training checkpoint", (), "state_dict")
    assert set(contents.tensors) == set(WEIGHTS)


def test_a_plain_pickle_of_data_is_not_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "t.pt"
    path.write_bytes(pickle.dumps({"a": [1, 2]}))
    assert open_contents(path).reason == "it is a pickle that torch.save did not write"


def test_other_containers_are_named(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.ReLU()), tmp_path / "script.pt")
        torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.zeros(1, 3),)), tmp_path / "t.pt2")
    save_file(WEIGHTS, tmp_path / "t.safetensors")
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [value], [value])
    (tmp_path / "model.bin").write_bytes(helper.make_model(graph, producer_name="someone").SerializeToString())
    (tmp_path / "model.onnx").write_bytes(b"anything")
    kinds = {path.name: open_contents(path).kind for path in tmp_path.iterdir()}
    assert kinds == {
        "script.pt": "TorchScript",
        "t.pt2": "pt2 (torch.export)",
        "t.safetensors": "safetensors",
        "model.bin": "ONNX",
        "model.onnx": "ONNX",
    }
    assert set(open_contents(tmp_path / "t.safetensors").tensors) == set(WEIGHTS)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty (0 bytes)"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        (b"hello", "it begins with the bytes 68 65 6c 6c 6f"),
        (b"\x08", "it begins with the bytes 08"),
    ],
)
def test_what_is_not_a_checkpoint_says_what_it_is(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "t.pt"
    path.write_bytes(content)
    contents = open_contents(path)
    assert contents.kind == "not a checkpoint"
    assert reason in contents.reason


def test_archives_and_payloads_without_tensors_are_not_checkpoints(tmp_path: Path) -> None:
    np.savez(tmp_path / "t.npz", a=np.zeros(3))
    assert open_contents(tmp_path / "t.npz").reason == "it is a zip archive without torch's data.pkl"
    assert "one Tensor" in open_contents(saved(tmp_path / "one.pt", torch.zeros(2))).reason
    assert "keys: epoch" in open_contents(saved(tmp_path / "dict.pt", {"epoch": 3})).reason
    assert "keys: none" in open_contents(saved(tmp_path / "empty.pt", {})).reason


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.97])
def test_a_truncated_file_is_unreadable(tmp_path: Path, legacy: bool, share: float) -> None:
    path = saved(tmp_path / "t.pt", WEIGHTS, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    path.write_bytes(whole[: max(20, int(len(whole) * share))])
    contents = open_contents(path)
    assert contents.kind == "unreadable"
    assert "weights_only" not in contents.reason


def test_a_damaged_safetensors_file_is_unreadable(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "t.safetensors")
    whole = (tmp_path / "t.safetensors").read_bytes()
    (tmp_path / "t.safetensors").write_bytes(whole[:-8])
    assert open_contents(tmp_path / "t.safetensors").kind == "unreadable"


def test_random_damage_never_raises(tmp_path: Path) -> None:
    whole = saved(tmp_path / "t.pt", WEIGHTS).read_bytes()
    random = np.random.default_rng(0)
    path = tmp_path / "damaged.pt"
    for _ in range(150):
        damaged = bytearray(whole)
        for position in random.integers(0, len(whole), size=3):
            damaged[position] = random.integers(256)
        path.write_bytes(damaged)
        assert open_contents(path).kind in ("state dict", "unreadable", "not a checkpoint", "pickled module")


def test_compressed_records_are_refused_before_they_unfold(tmp_path: Path) -> None:
    source = saved(tmp_path / "t.pt", {"a": torch.zeros(1_000_000)})
    bomb = rezipped(source, tmp_path / "bomb.pt", zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 20_000
    assert open_contents(bomb).reason == "its records are compressed, which torch.save never does"


def test_records_may_not_share_bytes(tmp_path: Path) -> None:
    path = saved(tmp_path / "t.pt", {"a": torch.zeros(10_000)})
    with zipfile.ZipFile(path, "a") as archive:
        record = next(entry for entry in archive.infolist() if entry.filename.endswith("data/0"))
        archive.filelist.append(record)  # the directory lists the same bytes twice
        archive._didModify = True  # type: ignore[attr-defined]
    assert open_contents(path).reason == "its records claim more bytes than the file has"


def test_tensors_may_not_claim_more_than_the_file_has(tmp_path: Path) -> None:
    contents = open_contents(saved(tmp_path / "t.pt", {"a": torch.zeros(1).expand(100_000, 100_000)}))
    assert contents.kind == "unreadable"
    assert "claim 40,000,000,000 bytes" in contents.reason


def test_a_storage_may_not_claim_more_than_its_record_has(tmp_path: Path) -> None:
    source = saved(tmp_path / "t.pt", {"a": torch.zeros(20)})
    with zipfile.ZipFile(source) as archive:
        program = archive.read("t/data.pkl")
    lie = program.replace(b"K\x14", b"M\xff\xff")
    assert lie != program
    path = rezipped(source, tmp_path / "lie.pt", zipfile.ZIP_STORED, {"data.pkl": lie})
    assert open_contents(path).kind == "unreadable"


def test_tensors_without_plain_data_are_refused(tmp_path: Path) -> None:
    odd = {"sparse": torch.eye(3).to_sparse(), "meta": torch.zeros(3, device="meta")}
    for name, tensor in odd.items():
        reason = open_contents(saved(tmp_path / f"{name}.pt", {name: tensor})).reason
        assert reason == f"its tensor '{name}' is sparse, quantised or without data"


def test_large_files_and_long_pickles_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "t.pt", WEIGHTS)
    monkeypatch.setattr(checkpoint_file, "MAX_PICKLE_STEPS", 10)
    assert "more than 10 instructions" in open_contents(path).reason
    monkeypatch.setattr(checkpoint_file, "MAX_FILE_BYTES", 2**10)
    assert "the limit is" in open_contents(path).reason


@pytest.mark.parametrize(
    ("program", "imports"),
    [
        (b"cposix\nsystem\n.", ("posix.system",)),
        (b"(iposix\nsystem\n.", ("posix.system",)),
        (b"c__builtin__\neval\n.", ("builtins.eval",)),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x93.", ("os.system",)),
        (b"\x80\x04\x8c\x02os\x94\x8c\x06system\x94\x8c\x01x0h\x00h\x01\x93.", ("os.system",)),
        (b"\x80\x04N\x8c\x06system\x93.", ("a name composed while reading",)),
        (b"\x80\x02\x82\x07.", ("extension 7",)),
        (b"\x80\x02ccollections\nOrderedDict\n)R.", ()),
    ],
)
def test_every_way_to_import_is_seen(program: bytes, imports: tuple[str, ...]) -> None:
    assert disassemble(io.BytesIO(program)).imports == imports
