"""A result from a board is believed only where it is whole, of this schema, and as the board wrote it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiles.board_result import MAX_BYTES, BoardResultError, content_digest, read_board_result

ZEROS = "0" * 64


def document(**changes: Any) -> dict[str, Any]:
    latency = {"p50_ms": 1.5, "p90_ms": 1.6, "p99_ms": 2, "mean_ms": 1.55, "count": 600, "batch_size": 1}
    model = {
        "name": "student",
        "precision": "fp16",
        "file": "models/student.fp16.onnx",
        "sha256": "a" * 64,
        "status": "ok",
        "reason": None,
        "parity": {"count": 8, "max_abs": 0.01, "max_rel": 0.002, "top1_agreement": 1},
        "build_s": 12,
        "engine_bytes": 4096,
        "latency": {**latency, "throughput_ips": 640.0, "what": "gpu compute"},
        "warnings": [],
    }
    board = {
        "model": "NVIDIA Jetson Orin Nano Developer Kit",
        "jetpack": "6.2",
        "l4t": "36.4.3",
        "os": "Ubuntu 22.04.5 LTS",
        "architecture": "aarch64",
        "cpu": None,
        "power_mode": "MAXN_SUPER",
        "clocks": {"gpu": 1020, "gpu_min": 306, "gpu_max": 1020},
        "clocks_locked": False,
    }
    return {
        "schema_version": "1.0",
        "kit_sha256": "b" * 64,
        "target": "jetson-orin-nano-super",
        "simulated": False,
        "mismatches": [],
        "started": "2026-11-20T10:00:00Z",
        "board": board,
        "runtime": {"name": "tensorrt", "version": "10.3.0"},
        "models": [{**model, **changes.pop("model", {})}],
        **changes,
    }


def write(path: Path, **changes: Any) -> Path:
    content = json.dumps({**document(**changes), "digest": ZEROS}).encode()
    path.write_bytes(content.replace(ZEROS.encode(), content_digest(content).encode()))
    return path


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    result = read_board_result(write(tmp_path / "result.json"))
    assert result.target == "jetson-orin-nano-super"
    assert result.started.isoformat() == "2026-11-20T10:00:00+00:00"
    assert result.models[0].latency is not None
    assert result.models[0].latency.p99_ms == 2.0
    assert result.model_dump(mode="json")["board"] == document()["board"]


def test_the_digest_is_of_the_file_with_zeros_in_its_place() -> None:
    empty = b'{"digest": "' + b"0" * 64 + b'"}'
    # printf '{"digest": "000...0"}' | sha256sum
    assert content_digest(empty) == "30c64c265ab85e3199767d8c5e646c2523222c31c9a5fe27c3fa0e5a2d7c27e6"
    assert content_digest(empty.replace(b"0", b"f")) == content_digest(empty)
    assert content_digest(empty + b"\n") != content_digest(empty)


def test_a_digest_inside_a_text_of_the_board_is_not_taken_for_the_files_own(tmp_path: Path) -> None:
    hostile = f'"digest": "{"1" * 64}"'
    board = {**document()["board"], "model": hostile}
    path = write(tmp_path / "result.json", board=board)
    assert read_board_result(path).board.model == hostile
    path.write_bytes(path.read_bytes().replace(b"1" * 64, b"2" * 64))
    with pytest.raises(BoardResultError, match="was changed"):
        read_board_result(path)


@pytest.mark.parametrize(("old", "new"), [(b"1.55", b"1.05"), (b"MAXN_SUPER", b"15W"), (b"}", b"} ")])
def test_a_result_edited_by_hand_is_refused(tmp_path: Path, old: bytes, new: bytes) -> None:
    path = write(tmp_path / "result.json")
    content = path.read_bytes()
    path.write_bytes(content.replace(old, new, 1))
    with pytest.raises(BoardResultError) as caught:
        read_board_result(path)
    assert "was changed after the board wrote it" in caught.value.received
    assert content_digest(path.read_bytes())[:12] in caught.value.expected
    assert "run the kit once more" in caught.value.action


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema_version": "2.0"}, "schema_version"),
        ({"kit_sha256": "short"}, "kit_sha256"),
        ({"surprise": 1}, "surprise"),
        ({"simulated": "no"}, "simulated"),
        ({"started": "2026-11-20T10:00:00"}, "started"),
        ({"models": []}, "models"),
        ({"models": [document()["models"][0]] * 2}, "each name and precision once"),
        ({"model": {"latency": None}}, "'ok' needs a parity and a latency"),
        ({"model": {"status": "failed"}}, "'failed' needs a reason"),
        ({"model": {"precision": "int4"}}, "models.0.precision"),
        ({"model": {"sha256": "A" * 64}}, "models.0.sha256"),
        ({"model": {"engine_bytes": -1}}, "models.0.engine_bytes"),
        ({"model": {"parity": {"count": 8, "max_abs": 0, "max_rel": 0, "top1_agreement": 1.1}}}, "top1_agreement"),
        ({"model": {"parity": {"count": 8, "max_abs": float("nan"), "max_rel": 0, "top1_agreement": 1}}}, "max_abs"),
        ({"model": {"latency": {**document()["models"][0]["latency"], "p90_ms": 1.0}}}, "must not decrease"),
        ({"model": {"latency": {**document()["models"][0]["latency"], "p50_ms": 0}}}, "p50_ms"),
        ({"model": {"latency": {**document()["models"][0]["latency"], "mean_ms": float("inf")}}}, "mean_ms"),
    ],
)
def test_what_is_not_of_the_schema_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = write(tmp_path / "result.json", **changes)
    with pytest.raises(BoardResultError) as caught:
        read_board_result(path)
    assert said in caught.value.received
    assert "version 1.0" in caught.value.expected
    assert "Copy the file" in caught.value.action


@pytest.mark.parametrize("content", [b"", b"not json", b"[]", b'{"digest": "', b"\xff\xfe\x00"])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(BoardResultError, match="no result of a device kit"):
        read_board_result(path)


def test_a_missing_a_huge_and_no_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BoardResultError, match=r"absent\.json cannot be read: it is no file"):
        read_board_result(tmp_path / "absent.json")
    with pytest.raises(BoardResultError, match="it is no file"):
        read_board_result(tmp_path)
    huge = tmp_path / "huge.json"
    huge.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(BoardResultError, match="it is larger than 1 MiB"):
        read_board_result(huge)


def test_failed_and_skipped_models_carry_their_reason(tmp_path: Path) -> None:
    failed = {"status": "failed", "reason": "trtexec failed", "parity": None, "latency": None, "build_s": None}
    model = read_board_result(write(tmp_path / "result.json", model=failed)).models[0]
    assert (model.status, model.reason, model.latency) == ("failed", "trtexec failed", None)
