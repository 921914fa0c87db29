"""Killed at random moments, the same command still ends with the same student, bit for bit.

    OMP_NUM_THREADS=1 python -m benchmarks.soak_kill --kills 10

A run on the demo's digits is left alone. Others, with the same command, get SIGKILL after a random share of its time
and are started again, until one reaches its end; then a new one begins. Every one that ends must have the same student.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import torch

from compressor.demo import demo_settings, prepare_demo
from compressor.distill.training import read_log
from compressor.progress import Reporter
from profiles.host import host_name

RESULTS = Path(__file__).parent / "results" / "soak_kill.json"
STAGES = ("teacher", "samples", "student", "distill", "onnx", "latency", "report")
COMPARED = ("distill/student.safetensors", "onnx/student.onnx")
# About half a minute on one core, of which most is training.
OPTIONS = {"generator_steps": 150, "student_steps": 250}


@dataclass(frozen=True)
class Kill:
    """One SIGKILL: seconds after the start of its process, and what it hit."""

    after_s: float
    stage: str
    phase: str | None
    step: int | None


class Started(Protocol):
    """A process."""

    def wait(self, timeout: float | None = None) -> int: ...
    def kill(self) -> None: ...


def soak(
    start: Callable[[Path], Started],
    folder: Path,
    *,
    kills: int,
    seed: int = 0,
    span: tuple[float, float] = (0.0, 1.0),
    compared: Sequence[str] = COMPARED,
    ends_with: int = 0,
) -> dict[str, Any]:
    """Kill runs and compare what they end with.

    Args:
        start: starts a run in a given folder below `folder`.
        kills: how many processes get SIGKILL.
        span: shares of the undisturbed run's time between which they get it.
        compared: files in the run folder.
        ends_with: exit code of a run that reaches its end.

    Returns:
        seconds of the undisturbed run, the kills, the number of runs that ended after kills, and whether all are equal.
    """

    def hashes(run: Path) -> list[str]:
        return [hashlib.sha256((run / name).read_bytes()).hexdigest() for name in compared]

    draw = random.Random(seed)
    started = time.monotonic()
    code = start(folder / "reference").wait()
    assert code == ends_with, f"the undisturbed run ended with {code}"
    seconds = time.monotonic() - started
    expected, killed = hashes(folder / "reference"), folder / "killed"
    done: list[Kill] = []
    ends: list[list[str]] = []
    survived = 0  # kills of the run that is going on
    while len(done) < kills or survived:
        started, process = time.monotonic(), start(killed)
        timeout = seconds * draw.uniform(*span) if len(done) < kills else None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            done.append(_moment(killed, timeout or 0.0))
            survived += 1
            continue
        assert code == ends_with, f"the run ended with {code} after {len(done)} kills"
        if survived:
            ends.append(hashes(killed))
        else:  # the machine is less busy than it was; the next moment is drawn from the time that a run takes now
            seconds = time.monotonic() - started
        survived = 0
        shutil.rmtree(killed)
    return {
        "undisturbed_s": round(seconds, 1),
        "kills": [asdict(kill) for kill in done],
        "ends": len(ends),
        "equal": all(found == expected for found in ends),
    }


def _moment(run: Path, after_s: float) -> Kill:
    stage = next((name for name in STAGES if not (run / name / "manifest.json").exists()), "after the stages")
    rows = read_log(run / "distill" / "log.jsonl") if stage == "distill" else []
    last = rows[-1] if rows else {"phase": None, "step": None}
    return Kill(round(after_s, 2), stage if run.exists() else "before the run folder", last["phase"], last["step"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_demo(folder / "demo", seed=0, reporter=Reporter())
        settings = demo_settings(folder / "demo")
        line = [
            sys.executable,
            "-m",
            "compressor",
            "run",
            "--quiet",
            "--teacher",
            str(settings["teacher.file"]),
            "--samples",
            str(settings["samples.folder"]),
        ]
        line += ["--effort", "quick", "--latency-max-s", "2"]
        line += [word for option, value in OPTIONS.items() for word in ("--option", f"{option}={value}")]

        def start(out: Path) -> subprocess.Popen[bytes]:
            return subprocess.Popen([*line, "--out", f"{out}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        result = soak(start, folder, kills=arguments.kills, seed=arguments.seed)
    provenance = {
        "options": OPTIONS,
        "compared": COMPARED,
        "host": host_name(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps({**result, **provenance}, indent=2) + "\n")
    print(
        json.dumps(
            {name: result[name] for name in ("undisturbed_s", "ends", "equal")} | {"kills": len(result["kills"])}
        )
    )
    sys.exit(0 if result["equal"] else 1)


if __name__ == "__main__":
    main()
