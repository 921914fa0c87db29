"""Stages: declared once, run once, and run again only when something that they depend on has changed.

    <run folder>/
      CACHEDIR.TAG  choices.json  .lock
      <stage>/  outputs, manifest.json                               finished
      <stage>/  partial outputs, checkpoint-*.pt, in-progress.json     interrupted

A stage's fingerprint is the SHA-256 of all that can change its result: name, version, configuration, the
contents of its inputs, and those facts of the environment that it declares. The manifest, written last,
records the fingerprint and the hashes of the outputs: no manifest, not done; same fingerprint and untouched
outputs, cached. Paths take no part in a fingerprint, so a run folder may be moved.

This module knows nothing of machine learning and imports nothing of ours. It needs a POSIX system (`fcntl`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast

JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
State: TypeAlias = Literal["cached", "resume", "run"]
T = TypeVar("T")

MANIFEST = "manifest.json"
IN_PROGRESS = "in-progress.json"
CHECKPOINTS = "checkpoint*.pt"
TAG = "CACHEDIR.TAG"
# The first line is the standard's (bford.info/cachedir); the second keeps `clean` away from others' caches.
TAG_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# This is a run folder of compress.\n"
TEMPORARY = ".tmp-"


class Refusal(Exception):
    """Three sentences: what came, what was expected, what to do. The pipeline gives them their exit code."""

    def __init__(self, received: str, expected: str, action: str) -> None:
        super().__init__(f"{received} {expected} {action}")
        self.received = received
        self.expected = expected
        self.action = action


class MissingInput(Refusal):
    """A stage was started before its inputs exist."""


class MissingOutput(Refusal):
    """A stage ended without an output that it declares."""


class FolderBusy(Refusal):
    """Another process is working in the run folder."""


class NotWritable(Refusal):
    """A folder of ours cannot be written: permissions, a read-only disk, or one without room."""


class NotARunFolder(Refusal):
    """A folder that is not ours to write to or to delete, or whose contents are not as we left them."""


@dataclass(frozen=True)
class Stage:
    """One step of a run.

    Attributes:
        name: also the name of the stage's folder inside the run folder.
        inputs: absolute paths of files or folders; their contents count, their names and places do not. Of
            another stage name the files, because its folder also holds a manifest with a date.
        outputs: files, relative to the stage's folder, that must exist and be non-empty afterwards.
        config: all settings that change the result, under the names that a user knows them by; not paths.
        environment: those facts of the machine that change the result, and no others.
        version: raised when the code changes the result for equal inputs.
        run: does the work, given the stage's folder; continues from what it finds there.
        optional_outputs: files that are recorded and watched like outputs where the stage wrote them.
    """

    name: str
    inputs: tuple[Path, ...]
    outputs: tuple[str, ...]
    config: Mapping[str, JSON]
    environment: Mapping[str, str]
    version: int
    run: Callable[[Path], None]
    optional_outputs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Status:
    """What would happen to a stage now, and why, in words."""

    state: State
    reason: str


@dataclass(frozen=True)
class StageResult:
    """A finished stage; `seconds` is the wall time of the session that finished it, now or earlier."""

    name: str
    state: State
    seconds: float
    fingerprint: str


def fingerprint(stage: Stage) -> str:
    """SHA-256 in hex of everything that can change the stage's result.

    Raises:
        MissingInput: an input does not exist.
    """
    return cast(str, _describe(stage, Path())["fingerprint"])


def status(stage: Stage, run_folder: Path) -> Status:
    """What `execute` would do with the stage as things are; writes nothing."""
    run_folder = run_folder.absolute()
    missing = _missing_input(stage)
    if missing is not None:
        return Status("run", f"waits for {_name(missing, run_folder)}")
    return _compare(stage, _describe(stage, run_folder), run_folder / stage.name)


def plan(stages: Sequence[Stage], run_folder: Path) -> tuple[Status, ...]:
    """The status of every stage; writes nothing. A stage that reads from an unfinished one waits for it."""
    run_folder = run_folder.absolute()
    unfinished: list[Path] = []
    result = []
    for stage in stages:
        found = status(stage, run_folder)
        for path in stage.inputs:
            if any(path.is_relative_to(folder) for folder in unfinished):
                found = Status("run", f"waits for {_name(path, run_folder)}")
                break
        if found.state != "cached":
            unfinished.append(run_folder / stage.name)
        result.append(found)
    return tuple(result)


def execute(stage: Stage, run_folder: Path, on_event: Callable[[str, Status], None]) -> StageResult:
    """Bring the stage to its finished state: from the cache, from where it stopped, or from the start.

    Args:
        on_event: told the stage's name and status once, before any work.

    Raises:
        MissingInput: an input does not exist.
        MissingOutput: the stage ended without a declared output.
        Exception: whatever `stage.run` raises; the folder is left resumable.
    """
    run_folder = run_folder.absolute()
    folder = run_folder / stage.name
    record = _describe(stage, run_folder)
    found = _compare(stage, record, folder)
    on_event(stage.name, found)
    if found.state == "cached":
        manifest = _read_json(folder / MANIFEST) or {}
    else:
        if found.state == "run":
            _clear(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in list(folder.rglob(f"{TEMPORARY}*")):
            _remove(leftover)
        _write_json(folder / IN_PROGRESS, record)
        start = time.perf_counter()
        stage.run(folder)
        seconds = time.perf_counter() - start
        created = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = {**record, "outputs": _hash_outputs(stage, folder), "seconds": seconds, "created": created}
        _write_json(folder / MANIFEST, manifest)
    # Only now: until the manifest is there, these are all that an interrupted stage has. A kill between
    # the manifest and this line leaves them behind, which is why a cached stage passes here as well.
    for leftover in (folder / IN_PROGRESS, *folder.glob(CHECKPOINTS)):
        leftover.unlink(missing_ok=True)
    return StageResult(stage.name, found.state, float(manifest.get("seconds", 0.0)), record["fingerprint"])


def recorded_fingerprint(folder: Path) -> str | None:
    """The fingerprint of the result that a stage's folder holds; None where it holds none that is finished."""
    return (_read_record(folder / MANIFEST) or {}).get("fingerprint")


def edited_outputs(folder: Path) -> str:
    """Which outputs of a finished stage are no longer what it recorded, in words; nothing where all are.

    Raises:
        FileNotFoundError: the folder holds no finished stage.
    """
    manifest = _read_record(folder / MANIFEST)
    if manifest is None:
        raise FileNotFoundError(folder / MANIFEST)
    return _changed((), folder, manifest.get("outputs", {}))


def started_fingerprint(folder: Path) -> str:
    """The fingerprint of what a stage that is running makes in its folder, under which it may keep its choices."""
    return str((_read_json(folder / IN_PROGRESS) or {}).get("fingerprint"))


def _missing_input(stage: Stage) -> Path | None:
    return next((path for path in stage.inputs if not path.exists()), None)


def _describe(stage: Stage, run_folder: Path) -> dict[str, Any]:
    """The stage's fingerprint and its ingredients, as they are recorded."""
    missing = _missing_input(stage)
    if missing is not None:
        raise MissingInput(
            f"Stage {stage.name} cannot start without {missing}.",
            "Every input of a stage must exist before it runs.",
            "Run the whole command again so that earlier stages write their outputs, or restore that file.",
        )
    hashes = [_hash(path) for path in stage.inputs]
    identity = {
        "stage": stage.name,
        "version": stage.version,
        "config": stage.config,
        "inputs": hashes,
        "environment": stage.environment,
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False, default=dict)
    names = [_name(path, run_folder) for path in stage.inputs]
    inputs = [{"name": name, "sha256": sha} for name, sha in zip(names, hashes, strict=True)]
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return {**json.loads(canonical), "inputs": inputs, "fingerprint": digest}


def _name(path: Path, run_folder: Path) -> str:
    return path.relative_to(run_folder).as_posix() if path.is_relative_to(run_folder) else path.name


def _hash(path: Path) -> str:
    if path.is_dir():
        return _hash_folder(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_folder(root: Path) -> str:
    """SHA-256 over the sorted relative names and contents of all files below `root`; links are followed."""
    entries: list[tuple[bytes, str]] = []
    visited: set[str] = set()
    for folder, subfolders, files in os.walk(root, followlinks=True):
        subfolders.sort()
        relative = Path(folder).relative_to(root)
        real = os.path.realpath(folder)
        if real in visited:  # a second way into a folder, or a loop of links: its name counts, its contents did
            entries.append((os.fsencode(relative), "visited"))
            subfolders.clear()
            continue
        visited.add(real)
        for name in files:
            path = Path(folder, name)
            if path.is_file():  # a FIFO would block, a dangling link has no content
                entries.append((os.fsencode(relative / name), _hash_or_unreadable(path)))
    return hashlib.sha256(repr(sorted(entries)).encode()).hexdigest()


def _hash_or_unreadable(path: Path) -> str:
    """One file that may not be read does not stop a run that can do without it."""
    try:
        return _hash(path)
    except PermissionError:
        return "unreadable"


def _compare(stage: Stage, current: Mapping[str, Any], folder: Path) -> Status:
    finished = _read_record(folder / MANIFEST)
    if finished is not None and finished.get("fingerprint") == current["fingerprint"]:
        changed = _changed(stage.outputs, folder, finished.get("outputs", {}))
        return Status("run", changed) if changed else Status("cached", "unchanged")
    started = _read_record(folder / IN_PROGRESS)
    if started is not None and started.get("fingerprint") == current["fingerprint"]:
        return Status("resume", "stopped before it finished")
    earlier = finished or started
    return Status("run", "never ran" if earlier is None else _difference(earlier, current))


def _changed(declared: Sequence[str], folder: Path, recorded: Mapping[str, str]) -> str:
    missing = [name for name in {**dict.fromkeys(declared), **recorded} if not (folder / name).is_file()]
    unrecorded = [name for name in declared if name not in recorded and name not in missing]
    if missing or unrecorded:
        return f"output missing: {', '.join(missing + unrecorded)}"
    edited = [name for name, sha in recorded.items() if _hash(folder / name) != sha]
    return f"output edited: {', '.join(edited)}" if edited else ""


def _difference(earlier: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """What differs between two records, such as "config changed: student.spec; input changed: t.pt"."""
    changes = {
        "config": (_flatten(earlier.get("config", {})), _flatten(current["config"])),
        "input": (_by_name(earlier.get("inputs", [])), _by_name(current["inputs"])),
        "environment": (earlier.get("environment", {}), current["environment"]),
        "stage": ({"version": earlier.get("version")}, {"version": current["version"]}),
    }
    reasons = []
    for kind, (before, after) in changes.items():
        names = [key for key in {**before, **after} if before.get(key, "absent") != after.get(key, "absent")]
        if names:
            reasons.append(f"{kind} changed: {', '.join(names)}")
    return "; ".join(reasons) or "manifest edited"


def _by_name(inputs: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    named: dict[str, list[str]] = {}
    for entry in inputs:
        named.setdefault(entry["name"], []).append(entry["sha256"])
    return named


def _flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _hash_outputs(stage: Stage, folder: Path) -> dict[str, str]:
    absent = [name for name in stage.outputs if not (folder / name).is_file() or (folder / name).stat().st_size == 0]
    if absent:
        raise MissingOutput(
            f"Stage {stage.name} ended without {', '.join(absent)}.",
            f"It should have written {', '.join(stage.outputs)} to {folder}.",
            "Look into that folder's log; the same command continues from there.",
        )
    written = [*stage.outputs, *(name for name in stage.optional_outputs if (folder / name).is_file())]
    return {name: _hash(folder / name) for name in written}


def _clear(folder: Path) -> None:
    """Empty a stage's folder. Its records go first, so that a kill midway leaves nothing that looks whole."""
    for name in (MANIFEST, IN_PROGRESS):
        (folder / name).unlink(missing_ok=True)
    for child in folder.iterdir() if folder.is_dir() else ():
        _remove(child)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


# --- files that are either whole or not there ---------------------------------------------------------------


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` with its suffix: renamed to it on success, removed on any failure."""
    temporary = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with suppress(OSError):  # some network file systems cannot sync a folder; the rename itself is done
        _sync(path.parent)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Write a file that is never seen half-written, not even after a crash or on a full disk."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def atomic_write_text(path: Path, data: str) -> None:
    """`atomic_write_bytes` of text in UTF-8."""
    atomic_write_bytes(path, data.encode())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_json(path: Path, value: JSON) -> None:
    atomic_write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _read_record(path: Path) -> dict[str, Any] | None:
    """What a stage recorded; None where that is not as it was written, so that the stage runs again."""
    record = _read_json(path)
    if record is None:
        return None
    config, inputs, outputs = record.get("config", {}), record.get("inputs", []), record.get("outputs", {})
    whole = (
        isinstance(config, dict)
        and isinstance(record.get("environment", {}), dict)
        and isinstance(record.get("seconds", 0.0), int | float)
        and isinstance(inputs, list)
        and all(
            isinstance(entry, dict) and all(isinstance(entry.get(key), str) for key in ("name", "sha256"))
            for entry in inputs
        )
        and isinstance(outputs, dict)
        and all(isinstance(sha256, str) and _is_inside(name) for name, sha256 in outputs.items())
    )
    return record if whole else None


def _is_inside(name: str) -> bool:
    """Whether a name that a record gives is one below the folder that the record lies in."""
    return bool(name) and "\0" not in name and not name.startswith("/") and ".." not in name.split("/")


def _read_json(path: Path) -> dict[str, Any] | None:
    """The mapping in a JSON file; None where there is no such file or it holds anything else."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


# --- the run folder -----------------------------------------------------------------------------------------


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """What the system refuses inside is said of the folder, unless it names a file elsewhere.

    Raises:
        NotWritable: the folder, something in it or something above it cannot be written.
    """
    try:
        yield
    except OSError as error:
        if not _is_about(folder, error):
            raise
        raise NotWritable(
            f"The folder {folder} cannot be written: {error.strerror or error}.",
            "A folder that may be written to, on a disk with room, was expected; what was finished in it is kept.",
            "Make room or change its permissions, or name another folder with --out.",
        ) from error


def _is_about(folder: Path, error: OSError) -> bool:
    """A write to an open file, such as one that finds no room, names none."""
    if not isinstance(error.filename, str | os.PathLike):
        return True
    named, folder = Path(error.filename).absolute(), folder.absolute()
    return named.is_relative_to(folder) or folder.is_relative_to(named)


def create_run_folder(path: Path) -> None:
    """Make the folder and its CACHEDIR.TAG; an existing run folder stays as it is.

    Raises:
        NotARunFolder: the path is a file, or a folder of other things, which `clean` would later delete.
        NotWritable: it cannot be made.
    """
    taken = path.exists() and not path.is_dir()
    if taken or (path.is_dir() and not _is_run_folder(path) and any(path.iterdir())):
        raise NotARunFolder(
            f"{path} exists and was not made by compress.",
            "A run needs a folder of its own: a new one, an empty one, or that of an earlier run.",
            "Name another folder with --out.",
        )
    with writable(path):
        path.mkdir(parents=True, exist_ok=True)
        if not _is_run_folder(path):
            atomic_write_text(path / TAG, TAG_TEXT)


def clean(run_folder: Path) -> None:
    """Delete a run folder and everything in it.

    Raises:
        NotARunFolder: as `check_deletable`.
        FolderBusy: a run is going on in it.
        NotWritable: something in it cannot be deleted.
    """
    check_deletable(run_folder)
    real = run_folder.resolve()
    with exclusive(real), writable(real):
        # The tag goes last: an interrupted `clean` can be repeated.
        for child in list(real.iterdir()):
            if child.name != TAG:
                _remove(child)
        shutil.rmtree(real)


def check_deletable(run_folder: Path) -> None:
    """Refuse what `clean` must not touch.

    Raises:
        NotARunFolder: a link, a folder without our CACHEDIR.TAG, or one around the current or home directory.
    """
    real = run_folder.resolve()
    reason = ""
    if run_folder.is_symlink():
        reason = "is a symbolic link"
    elif not run_folder.is_dir():
        reason = "is not a folder"
    elif Path.cwd().is_relative_to(real) or Path.home().resolve().is_relative_to(real):
        reason = "holds the current directory or the home directory"
    elif not _is_run_folder(run_folder):
        reason = f"has no {TAG} of compress"
    if reason:
        raise NotARunFolder(
            f"{run_folder} {reason}.",
            "Only a folder that an earlier `compress run` made is deleted.",
            "Give the run folder itself, from outside of it, or delete this one by hand.",
        )


def _is_run_folder(path: Path) -> bool:
    tag = path / TAG
    return tag.is_file() and tag.read_bytes().startswith(TAG_TEXT.encode())


@contextmanager
def exclusive(run_folder: Path) -> Iterator[None]:
    """Hold the run folder for this process; the system lets go of it when the process ends, however it ends.

    Raises:
        FolderBusy: another process holds it.
        NotWritable: nobody can hold it.
    """
    with writable(run_folder):
        lock = os.open(run_folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode(errors="replace")
            raise FolderBusy(
                f"{run_folder} is in use by process {holder or 'unknown'}.",
                "One run folder takes one process at a time.",
                "Wait for that process or stop it, or name another folder with --out.",
            ) from None
        with writable(run_folder):
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
        yield
    finally:
        os.close(lock)


class Choices:
    """What was chosen by looking (`auto`, a micro-batch that fits): chosen once per run, repeated on resume.

    The key of a choice that depends on the configuration carries the stage's fingerprint.
    """

    def __init__(self, run_folder: Path) -> None:
        self._file = run_folder / "choices.json"

    def remember(self, key: str, make: Callable[[], T]) -> T:
        """The stored choice, or what `make` returns, then stored. T is JSON; a tuple comes back as a list.

        Raises:
            NotARunFolder: choices.json is there but cannot be read.
        """
        known = self._read()
        if key not in known:
            _write_json(self._file, {**known, key: cast(JSON, make())})
            known = self._read()
        return cast(T, known[key])

    def _read(self) -> dict[str, Any]:
        known = _read_json(self._file) if self._file.exists() else {}
        if known is None:
            raise NotARunFolder(
                f"{self._file} is not readable as JSON.",
                "It should be as the run left it, because a resumed run repeats the choices of the first.",
                "Restore it, or start again after `compress clean`.",
            )
        return known
