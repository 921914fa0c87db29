"""Run folders and results of boards that were damaged, edited or made up."""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hostile.corpus import UNREACHABLE, USAGE, Entry, Place
from hostile.teachers import CUTS, cut, flipped

from profiles.board_result import content_digest

DEEP = b"[" * 100_000 + b"]" * 100_000


# --- results of boards ------------------------------------------------------------------------------------------------


def result_of(run: Path) -> dict[str, Any]:
    """A result that a run takes, but for its digest."""
    with tarfile.open(run / "kit" / "kit.tar.gz") as kit:
        member = next(member for member in kit if member.name.endswith("/manifest.json"))
        file = kit.extractfile(member)
        assert file is not None
        content = file.read()
    manifest = json.loads(content)
    rows = [(row["name"], row["precision"], row["file"], row["sha256"]) for row in manifest["models"]]
    return a_result(hashlib.sha256(content).hexdigest(), manifest["target"], rows)


def a_result(kit_sha256: str, target: str, rows: Sequence[tuple[str, str, str, str]]) -> dict[str, Any]:
    """Every field of it; rows are name, precision, file and hash of a model."""
    latency = {
        "p50_ms": 1.0,
        "p90_ms": 1.1,
        "p99_ms": 1.2,
        "mean_ms": 1.0,
        "count": 100,
        "batch_size": 1,
        "throughput_ips": 1000.0,
        "what": "gpu compute",
    }
    parity = {"count": 4, "max_abs": 1e-6, "max_rel": 1e-6, "top1_agreement": 1.0}
    models = [
        {
            "name": name,
            "precision": precision,
            "file": file,
            "sha256": sha256,
            "status": "ok",
            "reason": None,
            "parity": parity,
            "build_s": 1.0,
            "engine_bytes": 1000,
            "latency": latency,
            "warnings": [],
        }
        for name, precision, file, sha256 in rows
    ]
    board = {
        "model": "NVIDIA Jetson Orin Nano",
        "jetpack": "6.2",
        "l4t": "36.4.3",
        "os": "Ubuntu 22.04",
        "architecture": "aarch64",
        "cpu": "x",
        "power_mode": None,
        "clocks": {},
        "clocks_locked": None,
    }
    return {
        "schema_version": "1.0",
        "kit_sha256": kit_sha256,
        "target": target,
        "simulated": False,
        "mismatches": [],
        "started": "2026-01-01T00:00:00Z",
        "board": board,
        "runtime": {"name": "tensorrt", "version": "10.3"},
        "models": models,
        "digest": "0" * 64,
    }


def signed(content: bytes) -> bytes:
    """With the digest that belongs to it."""
    return content.replace(b'"digest": "' + b"0" * 64, b'"digest": "' + content_digest(content).encode())


def _result(change: Callable[[dict[str, Any]], object]) -> Callable[[Place], list[str]]:
    """A result with something changed, whose digest fits."""

    def write(place: Place) -> list[str]:
        result = result_of(place.good / "run")
        changed = change(result)
        path = place.given / "result.json"
        content = changed if isinstance(changed, bytes) else json.dumps(result).encode()
        path.write_bytes(signed(content))
        return ["merge", f"{place.good}/run", str(path)]

    return write


def _set(*where: Any, to: object) -> Callable[[Place], list[str]]:
    def change(result: dict[str, Any]) -> None:
        part: Any = result
        for step in where[:-1]:
            part = part[step]
        part[where[-1]] = to

    return _result(change)


RESULTS: dict[str, Callable[[Place], list[str]]] = {
    "of another kit": _set("kit_sha256", to="0" * 64),
    "of another target": _set("target", to="t4"),
    "of a target that is a path": _set("target", to="../../../escaped"),
    "of another file": _set("models", 0, "sha256", to="f" * 64),
    "simulated": _set("simulated", to=True),
    "of infinite time": _set("models", 0, "latency", "p50_ms", to=float("inf")),
    "of no time": _set("models", 0, "latency", "p50_ms", to=0.0),
    "of negative time": _set("models", 0, "latency", "p50_ms", to=-1.0),
    "of time that is no number": _set("models", 0, "latency", "p50_ms", to=float("nan")),
    "of 10^400 runs": _set("models", 0, "latency", "count", to=10**400),
    "of 51 models": _result(lambda result: result["models"].extend(result["models"] * 51)),
    "with an agreement above all": _set("models", 0, "parity", "top1_agreement", to=1.5),
    "with a text of a million letters": _set("board", "os", to="x" * 1_000_000),
    "with half a letter": _set("board", "os", to="\ud800"),
    "with a key that nobody knows": _set("\x1b[31m\n::error::x", to=1),
    "with a key of a million letters": _set("x" * 900_000, to=1),
    "in lists": _result(lambda _: DEEP),
    "of a megabyte and more": _result(lambda _: b'"' + b"x" * 2**20 + b'"'),
    "of 10,000 digits": _result(lambda _: b"9" * 10_000),
    "no JSON": _result(lambda _: b"\xff\xfe\x00"),
    "empty": _result(lambda _: b""),
    "a list": _result(lambda _: b"[]"),
}


# --- run folders ------------------------------------------------------------------------------------------------------


def _copy(place: Place) -> Path:
    """A run folder of the entry's own, at its place to be written to."""
    shutil.copytree(place.good / "run", place.out)
    return place.out


def _damaged(file: str, change: Callable[[bytes], bytes], *words: str) -> Callable[[Place], list[str]]:
    """A command on a run folder one of whose files was changed."""

    def write(place: Place) -> list[str]:
        run = _copy(place)
        path = run / file
        path.write_bytes(change(path.read_bytes()) if path.exists() else change(b"{}"))
        (place.given / "result.json").write_bytes(signed(json.dumps(result_of(place.good / "run")).encode()))
        named = {"{run}": str(run), "{result}": f"{place.given}/result.json"}
        return [named.get(word, word) for word in words]

    return write


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    **{f"cut in its {part}": partial(cut, share=share) for part, share in CUTS.items()},
    "one byte turned": lambda data: flipped(data, len(data) // 2),
    "in lists": lambda _: DEEP,
    "a number of 10,000 digits": lambda _: b'{"a": ' + b"9" * 10_000 + b"}",
    "another shape": lambda _: b'{"outputs": [1], "inputs": {"a": 1}, "config": 3, "fingerprint": [], "seconds": "x"}',
    "empty": lambda _: b"",
}
SOME = ("cut in its middle", "one byte turned", "another shape", "empty")
FILES = {
    "report.json": (("gate", "{run}"), USAGE),
    "gates.json": (("gate", "{run}", "--gate", "size_mib:max=5"), (0, 1, 2)),
    "manifest.json": (("verify", "{run}"), (0, 1, 2)),
    "config.yaml": (("merge", "{run}", "{result}"), (0, 1, 2, 6)),
    "target.json": (("merge", "{run}", "{result}"), (0, 1, 2, 6)),
    "distill/manifest.json": (("merge", "{run}", "{result}"), (2, 6)),
    "distill/facts.json": (("merge", "{run}", "{result}"), (2, 6)),
    "teacher/card.json": (("merge", "{run}", "{result}"), (2, 6)),
    "precision/facts.json": (("merge", "{run}", "{result}"), (2, 6)),
    "kit/kit.tar.gz": (("merge", "{run}", "{result}"), (2, 6)),
    "samples/images.safetensors": (("verify", "{run}"), (1, 2)),
    "distill/student.safetensors": (("verify", "{run}"), (1, 2)),
    "onnx/student.onnx": (("verify", "{run}"), (1, 2)),
    "report/judged.json": (("verify", "{run}"), (1, 2)),
}


def _reports() -> list[Entry]:
    """A report.json by itself."""
    made = []
    for name, change in CHANGES.items():

        def write(place: Place, change: Callable[[bytes], bytes] = change) -> Path:
            path = place.given / "report.json"
            path.write_bytes(change((place.good / "run" / "report.json").read_bytes()))
            return path

        made.append(Entry(f"a report alone, {name}", "damage", "report.json", (0, 1, 2), write))
        made.append(Entry(f"baseline, {name}", "damage", "--baseline", (0, 1, 2), write))
    return made


def _clean_elsewhere(place: Place) -> list[str]:
    """A run folder in which a link leads outside: what lies there stays."""
    run = _copy(place)
    (run / "distill" / "outside").symlink_to(place.folder.parent.parent / "decoy")
    return ["clean", str(run), "--yes"]


ENTRIES = (
    *(Entry(f"result {name}", "result.json", "words", UNREACHABLE, write) for name, write in RESULTS.items()),
    *(
        Entry(f"{file}, {name}", "damage", "words", codes, _damaged(file, change, *words))
        for file, (words, codes) in FILES.items()
        for name, change in CHANGES.items()
        if name in SOME or file in ("distill/manifest.json", "gates.json", "config.yaml")
    ),
    *_reports(),
    Entry("clean where a link leads outside", "damage", "words", (0,), _clean_elsewhere),
)
