"""Gives entries of the corpus to the real command, one after another, in a process that watches itself.

    python -m hostile.child FOLDER RESULTS [NAME...]

Memory is bounded by the system, events of the interpreter that start programs or connect are recorded, the canary
stands beside, and after each command the whole folder is compared with what it was. Each result is one line of JSON,
written at once, so that a crash leaves those before it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

MEMORY = 12 * 2**30  # of addresses: importing torch alone takes 4 GiB of them
SECONDS = 40  # for one command
EVENTS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "socket.connect", "ctypes.dlopen")


class TooLong(BaseException):
    """A command took more than SECONDS."""


def main(folder: Path, results: Path, names: list[str]) -> None:
    """Try every entry, or those that are named."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for name in ("home", "tmp", "decoy", "work"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "decoy" / "file").write_text("not to be touched")
    os.environ |= {"HOME": f"{folder}/home", "TMPDIR": f"{folder}/tmp", "CUDA_VISIBLE_DEVICES": ""}
    os.chdir(folder / "work")

    import torchvision  # noqa: F401 - opens its libraries when it is first imported, which is nobody's attack
    from hostile.corpus import ENOUGH, Place, entries
    from hostile.good import write_good
    from tiny_run import failing

    from compressor import pipeline
    from compressor.errors import StageFailed

    if not (folder / "good").exists():
        write_good(folder / "good")
    # A teacher and images that are taken in are enough: what becomes of them costs half a minute.
    pipeline.make_the_student = failing(StageFailed(ENOUGH, "That", "was all."))
    watched = Watched(folder)
    with results.open("a", encoding="utf-8") as file:
        for entry in entries():
            if names and entry.name not in names:
                continue
            place = Place(folder / "entries" / re.sub(r"[^\w.-]", "_", entry.name), folder / "good", folder / "canary")
            place.given.mkdir(parents=True)
            file.write(json.dumps({"name": entry.name, "begun": True}) + "\n")
            file.flush()
            for record in watched.tried(entry, place):
                file.write(json.dumps(record) + "\n")
                file.flush()
            shutil.rmtree(place.folder)


class Watched:
    """One entry after another, and what became of each of its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[str] = []
        self.listening = False
        self.last = snapshot(folder)
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.listening and event in EVENTS:
            self.events.append(f"{event} {arguments!r:.200}")

    def tried(self, entry: Any, place: Any) -> list[dict[str, Any]]:
        from hostile.corpus import commands

        made = entry.make(place)
        return [self._one(entry, place, command) for command in commands(entry, place, made)]

    def _one(self, entry: Any, place: Any, command: Any) -> dict[str, Any]:
        from compressor.cli import invoke

        own = f"{place.folder.relative_to(self.folder)}"
        rest = {path: about for path, about in self.last.items() if not _below(path, "entries")}
        before = rest | {f"{own}/{path}": about for path, about in snapshot(place.folder).items()}
        before |= {"entries": (), own: ()}
        environment = dict(os.environ)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        start_kib = _peak_kib()
        self.events.clear()
        out, err = io.StringIO(), io.StringIO()
        signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(SECONDS)
        self.listening, started, crash = True, time.perf_counter(), ""
        code = -1
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = invoke(command.words)
        except BaseException:
            crash = traceback.format_exc()
        finally:
            self.listening = False
            signal.alarm(0)
        sang = place.canary.exists()
        if entry.given == "--trust-pickle":
            place.canary.unlink(missing_ok=True)  # it may sing, and not for the next
        after = self.last = snapshot(self.folder)
        allowed = f"{place.out.relative_to(self.folder)}"
        return {
            "name": entry.name,
            "words": list(command.words),
            "codes": list(command.codes),
            "says": entry.says,
            "code": code,
            "out": out.getvalue(),
            "err": err.getvalue(),
            "crash": crash,
            "events": list(self.events),
            "written": sorted(path for path in after if after[path] != before.get(path) and not _below(path, allowed)),
            "removed": sorted(path for path in before if path not in after and not _below(path, allowed)),
            "environment": sorted(name for name in os.environ if os.environ[name] != environment.get(name)),
            "canary": sang,
            "may_run_code": entry.given == "--trust-pickle",
            "peak_mib": (_peak_kib() - start_kib) / 1024,
            "seconds": time.perf_counter() - started,
        }


def snapshot(folder: Path) -> dict[str, tuple[int, ...]]:
    """Every file below a folder, and when it was written; folders and links by being there."""
    found: dict[str, tuple[int, ...]] = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            if name == ".lock":  # written to by whoever holds a run folder
                continue
            path = os.path.join(root, name)  # noqa: PTH118
            about = os.lstat(path)
            is_folder = name in folders and not os.path.islink(path)  # noqa: PTH114
            found[os.fsencode(os.path.relpath(path, folder)).decode("utf-8", "backslashreplace")] = (
                () if is_folder else (about.st_mtime_ns, about.st_size, about.st_mode)
            )
    return found


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _peak_kib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _too_long(*_: object) -> None:
    raise TooLong


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
