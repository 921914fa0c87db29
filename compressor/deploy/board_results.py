"""What a device kit measured on its board, brought back into the run that made the kit.

A result counts for the run's target only if it is of this run's kit, of the files that the run holds now, and was
measured on a board that keeps every promise of the profile. Anything else is refused, with what differs, and nothing
changes. What counts is kept whole, byte for byte, as `merged/<target>.json`, and checked again whenever it is read:
a run that went on since has other files.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.errors import CompressError, UsageFault
from compressor.stage_files import read_facts
from compressor.stages import atomic_write_bytes
from profiles.board_result import Board, BoardModel, BoardResult, read_board_result
from profiles.latency import LatencyStats
from profiles.schema import DeviceProfile, mode_key

MERGED = "merged"
ARCHIVE = Path("kit", "kit.tar.gz")
MANIFEST = "manifest.json"

MOST_MANIFEST_BYTES = 16 * 2**20

_RUNTIMES = {"onnxruntime": "ONNX Runtime", "tensorrt": "TensorRT"}


class StaleResult(CompressError):
    """A board's result is not of this run as it is now, or not of its target."""

    exit_code = 6


@dataclass(frozen=True)
class _Held:
    """What a run holds now: its kit's manifest and target, and the SHA-256 of each variant's file."""

    kit_sha256: str
    target: str
    files: Mapping[tuple[str, str], str | None]


def check_result(run_folder: Path, path: Path) -> BoardResult:
    """Read a result and check it against the run; nothing is written.

    Raises:
        StaleResult: it is simulated, of another kit, target or board, of files that the run no longer holds, or
            without any measurement.
        BoardResultError: it is unreadable, damaged or edited.
    """
    result = read_board_result(path)
    _check(result, _held_by(run_folder), path)
    return result


def accept_result(run_folder: Path, path: Path) -> BoardResult:
    """Check a result against the run and keep it; an earlier one of the same target is replaced.

    Raises:
        StaleResult, BoardResultError: see `check_result`.
        OSError: it could not be kept.
    """
    result = check_result(run_folder, path)
    kept = run_folder / MERGED / f"{result.target}.json"
    kept.parent.mkdir(exist_ok=True)
    atomic_write_bytes(kept, path.read_bytes())
    return result


def merged_result(run_folder: Path, target: str) -> BoardResult | None:
    """The result that was accepted for a target; None where there is none.

    Raises:
        StaleResult, BoardResultError: see `accept_result`; the file stays.
    """
    kept = run_folder / MERGED / f"{target}.json"
    if not kept.exists():
        return None
    result = read_board_result(kept)
    _check(result, _held_by(run_folder), kept)
    return result


def check_anchors(run_folder: Path, target: DeviceProfile) -> None:
    """Refuse a run whose target has sent nothing back that still counts: its measurements would be passed over.

    Raises:
        UsageFault: there is no result of this target.
        StaleResult, BoardResultError: see `accept_result`.
    """
    if not (run_folder / MERGED / f"{target.name}.json").exists() or merged_result(run_folder, target.name) is None:
        raise UsageFault(
            f"--anchors {run_folder} holds no measurement of {target.name}.",
            f"The folder of a run into which `compress merge` has brought a result of {target.title} was expected.",
            "Name such a run, or leave --anchors out.",
        )


def latencies_of(result: BoardResult, target: DeviceProfile) -> dict[str, LatencyStats]:
    """What was measured, by variant (`student.int8`); models that failed or were skipped are left out."""
    return {
        f"{model.name}.{model.precision}": _latency(result, model, target)
        for model in result.models
        if model.status == "ok"
    }


def failures_of(result: BoardResult) -> dict[str, str]:
    """Why a model failed on the board, by variant."""
    return {f"{model.name}.{model.precision}": str(model.reason) for model in result.models if model.status == "failed"}


def parities_of(result: BoardResult) -> dict[str, dict[str, Any]]:
    """How far the outputs on the board were from the golden ones, by variant, as the report takes them."""
    return {
        f"{model.name}.{model.precision}": {
            "max_rel": model.parity.max_rel,
            "top1_agreement": model.parity.top1_agreement,
            "num_images": model.parity.count,
        }
        for model in result.models
        if model.status == "ok" and model.parity is not None
    }


def _latency(result: BoardResult, model: BoardModel, target: DeviceProfile) -> LatencyStats:
    board, found = result.board, model.latency
    assert found is not None  # the schema's own check of 'ok'
    named = {"jetpack": board.jetpack, "l4t": board.l4t, "os": board.os, "architecture": board.architecture}
    return LatencyStats(
        origin="merged",
        device=board.model or board.cpu or target.title,
        is_target=True,
        other_power_mode=_other_power_mode(board, target),
        runtime=_RUNTIMES[result.runtime.name],
        versions={
            **{name: version for name, version in named.items() if version is not None},
            result.runtime.name: result.runtime.version,
        },
        what=found.what,
        conditions=_conditions(board),
        batch_size=found.batch_size,
        latency_p50_ms=found.p50_ms,
        latency_p90_ms=found.p90_ms,
        latency_p99_ms=found.p99_ms,
        latency_p50_interval_ms=None,
        interval_confidence=None,
        interval_method=None,
        throughput_ips=found.throughput_ips,
        warmup_count=None,
        count=found.count,
        num_windows=None,
        num_windows_used=None,
        window_s=None,
        cv=None,
        cv_bound=None,
        # Both runtimes' programs say it in a warning when the times varied more than they accept.
        stable=not any("unstable" in warning.lower() for warning in model.warnings),
        cpu_mhz=board.clocks.get("cpu"),
        warnings=(*model.warnings, *_doubts(board, target)),
    )


def _conditions(board: Board) -> tuple[str, ...]:
    """Power mode and clocks, as far as the board tells them."""
    locked = {True: ", locked", False: ", not locked", None: ""}[board.clocks_locked]
    clocks = ", ".join(f"{name.replace('_', ' ')} {mhz:g}" for name, mhz in board.clocks.items())
    return (
        *([f"power mode {board.power_mode}"] if board.power_mode else []),
        *([f"clocks in MHz: {clocks}{locked}"] if clocks else []),
    )


def _other_power_mode(board: Board, target: DeviceProfile) -> str | None:
    """The board's mode, where it is known not to be that of the profile: a Jetson's nvpmodel tells it by name."""
    ours, theirs = target.peaks.power_mode, board.power_mode
    if target.kind != "jetson" or ours is None or theirs is None:
        return None
    return theirs if mode_key(ours) != mode_key(theirs) else None


def _doubts(board: Board, target: DeviceProfile) -> list[str]:
    """A Jetson's latency follows its power mode and clocks."""
    if target.kind != "jetson":
        return []
    doubts = []
    if board.power_mode is None:
        doubts.append("The board did not say its power mode.")
    elif (mode := _other_power_mode(board, target)) is not None:
        doubts.append(f"The board ran in power mode {mode}, not in the profile's {target.peaks.power_mode}.")
    if board.clocks_locked is False:
        doubts.append("The board's clocks were not locked with jetson_clocks, so they may have changed meanwhile.")
    return doubts


def _check(result: BoardResult, held: _Held, path: Path) -> None:
    if result.simulated:
        raise StaleResult(
            f"{path} was measured in a simulation: the kit ran with --root or in an emulator.",
            f"A measurement on {held.target} itself was expected.",
            "Run the kit on that device itself, without --root.",
        )
    if differences := _differences(result, held):
        raise StaleResult(
            f"{path} is not of this run as it is now: {'; '.join(differences)}.",
            "A result of the run's own kit, made from the files that the run holds, was expected.",
            "Finish the run, copy its kit to the device, and run it there.",
        )
    if result.mismatches:
        raise StaleResult(
            f"{path} is of a board that is not the {held.target} of the profile: {_stopped(result.mismatches[0])}",
            "The kit went on with --anyway, but the target's column is for the target alone.",
            "Run the kit on that device, or describe this board in a profile of its own and make a run for it.",
        )
    if not any(model.status == "ok" for model in result.models):
        first = result.models[0]
        raise StaleResult(
            f"{path} holds no measurement: {first.name} {first.precision} {first.status}: {_stopped(first.reason)}",
            "At least one model that was built, checked and timed was expected.",
            "Look at logs/ beside the result on the board, correct the cause, and run the kit again.",
        )


def _differences(result: BoardResult, held: _Held) -> list[str]:
    """What sets a result apart from the run, in phrases."""
    found = []
    if result.target != held.target:
        found.append(f"it is for {result.target}, the run for {held.target}")
    if result.kit_sha256 != held.kit_sha256:
        found.append(f"it is of the kit {result.kit_sha256[:12]}…, the run's is {held.kit_sha256[:12]}…")
    for model in result.models:
        sha256 = held.files.get((model.name, model.precision))
        # A model that failed may have done so because its file was damaged on the way.
        if model.status == "ok" and sha256 != model.sha256:
            now = "the run has none" if sha256 is None else f"the run's is {sha256[:12]}…"
            found.append(f"its {model.name} {model.precision} is the file {model.sha256[:12]}…, {now}")
    return found


def _held_by(run_folder: Path) -> _Held:
    archive = run_folder / ARCHIVE
    try:
        with tarfile.open(archive, "r:gz") as content:
            member = next(member for member in content if member.name.partition("/")[2] == MANIFEST)
            file = content.extractfile(member)
            manifest = file.read(MOST_MANIFEST_BYTES) if file is not None else b""
        variants = read_facts(run_folder / "precision")["variants"]
        files = {(variant["model"], variant["precision"]): variant["sha256"] for variant in variants}
        return _Held(hashlib.sha256(manifest).hexdigest(), json.loads(manifest)["target"], files)
    except (
        OSError,
        EOFError,
        tarfile.TarError,
        StopIteration,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:
        problem = "is damaged" if archive.is_file() else "is not there"
        raise StaleResult(
            f"{run_folder} holds no kit that a result could be of: {archive} {problem}.",
            "A finished run with a kit, as it is made for every device but this one, was expected.",
            "Name the folder of the run that made the kit, or run it again with the same command.",
        ) from error


def _stopped(sentence: str | None) -> str:
    return f"{(sentence or 'no reason given').rstrip('.')}."
