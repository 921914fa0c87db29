"""A disk that is full at every size up to what a run takes: each time a clear end, and at last the same student.

    OMP_NUM_THREADS=1 python -m benchmarks.soak_disk --step-kib 64

A run writes to a small disk of its own (tmpfs, which needs the right to mount). Full, it must end with exit code 2 or 5
and the three sentences about room, with nothing half-written. Then the disk grows by a step and the same command goes
on, until it reaches its end; its files must be those of a run that was left alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from benchmarks.rows import provenance
from benchmarks.run_folders import STAGES, different, half_committed
from compressor.demo import demo_settings, prepare_demo
from compressor.progress import Reporter
from compressor.stages import TEMPORARY

RESULTS = Path(__file__).parent / "results" / "soak_disk.json"
ROOMY_KIB = 64 * 1024


class RoomyDisk:
    """A disk in memory, mounted at a folder, that grows, shrinks and becomes read-only.

    Raises:
        OSError: it may not be mounted; see `no_mounts`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> RoomyDisk:
        self.folder.mkdir()
        _mount("-t", "tmpfs", "-o", f"size={ROOMY_KIB}k", "tmpfs", f"{self.folder}")
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        subprocess.run(["umount", "--lazy", f"{self.folder}"], check=True)

    def resize(self, kib: int) -> None:
        """Its room, used and free."""
        _mount("-o", f"remount,size={kib}k", f"{self.folder}")

    def read_only(self) -> None:
        """From now on."""
        _mount("-o", "remount,ro", f"{self.folder}")


def no_mounts() -> str:
    """Why this process may not mount a disk; nothing where it may."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "only root of a Linux may mount a disk of its own"
    with tempfile.TemporaryDirectory() as name:
        try:
            with RoomyDisk(Path(name) / "disk"):
                return ""
        except OSError as error:
            return f"no disk may be mounted here: {error}"


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode != 0:
        raise OSError(done.stderr.strip())


class Ended(NamedTuple):
    """A process's exit code and what it said on stderr."""

    code: int
    said: str


def fill(
    start: Callable[[Path], Ended], disk: RoomyDisk, reference: Path, *, first_kib: int, step_kib: int
) -> dict[str, Any]:
    """Run with ever more room.

    Args:
        start: makes the run in a folder.
        reference: the folder of the same run, left alone.

    Returns:
        how each attempt ended, its size in KiB beside; the size that was enough; what differs at the end.
    """
    attempts: list[dict[str, Any]] = []
    kib, run = first_kib, disk.folder / "run"
    while kib <= ROOMY_KIB:
        disk.resize(kib)
        code, said = start(run)
        if code == 0:
            break
        attempts.append({"kib": kib, "code": code, "stage": _stage(said), "wrong": _wrong(code, said, run)})
        kib += step_kib
    return {"attempts": attempts, "enough_kib": kib, "different": sorted(different(reference, run))}


def _stage(said: str) -> str:
    return next((name for name in STAGES if f"Stage {name} " in said), "the run folder")


def _wrong(code: int, said: str, run: Path) -> str:
    """What must not be, of a run whose disk was full; nothing where all is well."""
    expected = {2: "cannot be written", 5: "no space is left"}.get(code, "exit code 2 or 5")
    if expected not in " ".join(said.split()) or "Traceback" in said:
        return f"exit code {code} and: {said[-500:]}"
    if any(run.rglob(f"{TEMPORARY}*")):
        return "a half-written file is left"
    return half_committed(run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first-kib", type=int, default=4)
    parser.add_argument("--step-kib", type=int, default=64)
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    if reason := no_mounts():
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_demo(folder / "demo", seed=0, reporter=Reporter())
        settings = demo_settings(folder / "demo")
        line = [sys.executable, "-m", "compressor", "run", "--quiet", "--target", "jetson", "--student", "width:0.5"]
        line += ["--teacher", f"{settings['teacher.file']}", "--samples", f"{settings['samples.folder']}"]
        line += ["--effort", "quick", "--method", "hidfd", "--calibration-images", "32", "--skip-robustness"]
        line += ["--latency-max-s", "0.2", "--latency-window-s", "0.02", "--latency-threads", "1"]
        line += ["--option", "generator_steps=60", "--option", "student_steps=100"]

        def start(out: Path) -> Ended:
            done = subprocess.run([*line, "--out", f"{out}"], capture_output=True, text=True)
            return Ended(done.returncode, done.stderr)

        assert start(folder / "reference").code == 0
        with RoomyDisk(folder / "disk") as disk:
            result = fill(start, disk, folder / "reference", first_kib=arguments.first_kib, step_kib=arguments.step_kib)
    wrong = [attempt for attempt in result["attempts"] if attempt["wrong"]]
    said = {
        "well": not wrong and not result["different"],
        "attempts": len(result["attempts"]),
        "first_kib": arguments.first_kib,
        "ended_in": dict(Counter(attempt["stage"] for attempt in result["attempts"])),
        "enough_kib": result["enough_kib"],
        "wrong": wrong,
    }
    arguments.results.write_text(
        json.dumps({**said, **provenance(), "rows": result["attempts"], "different": result["different"]}, indent=1)
        + "\n"
    )
    print(json.dumps(said))
    sys.exit(0 if said["well"] else 1)


if __name__ == "__main__":
    main()
