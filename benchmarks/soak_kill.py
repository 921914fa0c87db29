"""Killed and stopped at random moments of every stage, the same command still ends with the same files, bit for bit.

    OMP_NUM_THREADS=1 python -m benchmarks.soak_kill --signals 240

A run on the demo's digits is left alone. Others, with the same command, get a signal at a random moment of each stage
in turn and are started again after it, at last to reach their end; then a new one begins. Three of four signals are
SIGKILL; the fourth is SIGTERM, after which a scheduler gives ten seconds. After each signal no stage may be half
committed, and every run that ends must have the files and, apart from times, the report of the undisturbed one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from benchmarks.rows import provenance
from benchmarks.run_folders import COMPARED, STAGES, different, half_committed
from compressor.demo import demo_settings, prepare_demo
from compressor.distill.training import read_log
from compressor.errors import EXIT_INTERRUPTED
from compressor.progress import Reporter
from compressor.stages import IN_PROGRESS, MANIFEST

RESULTS = Path(__file__).parent / "results" / "soak_kill.json"
START, END = "start", "end"  # before the first stage, and after the last, while the reports are written
# Of a whole life of a run. Training counts twice: it is the one stage that goes on from its middle.
MOMENTS = (START, *STAGES[: STAGES.index("distill")], "distill", *STAGES[STAGES.index("distill") :], END)
OPTIONS = {"generator_steps": 60, "student_steps": 100}
GRACE_S = 10.0
NICE_SIGNAL_EVERY = 4
POLL_S = 0.002
STARTING_S = 0.5  # until a forked process has a handler for SIGTERM

FORKS = multiprocessing.get_context("forkserver")


class Started(Protocol):
    """A process."""

    @property
    def pid(self) -> int | None: ...
    def join(self, timeout: float | None = None) -> None: ...
    @property
    def exitcode(self) -> int | None: ...


@dataclass(frozen=True)
class Disturbance:
    """One signal.

    Attributes:
        aimed: the stage at a random moment of which it was to come.
        after_s: from the start of the process.
        hit: the first stage that had not finished by then.
        phase, step: of the training, where that was hit.
        ended_s: from the signal to the end of the process.
        code: of the process; negative: the signal that ended it.
        half_committed: see `run_folders.half_committed`.
    """

    signal: str
    aimed: str
    after_s: float
    hit: str
    phase: str | None
    step: int | None
    ended_s: float
    code: int
    half_committed: str


def soak(
    start: Callable[[Path], Started],
    folder: Path,
    *,
    signals: int,
    seed: int = 0,
    moments: Sequence[str] = MOMENTS,
    compared: Sequence[str] = COMPARED,
    ends_with: int = 0,
) -> dict[str, Any]:
    """Disturb runs and compare what they end with.

    Args:
        start: starts a run in a given folder below `folder`.
        signals: how many signals are sent.
        moments: the stages of one run that are hit, in this order.
        compared: files in the run folder; where there is a report, it is compared as well.
        ends_with: exit code of a run that reaches its end.

    Returns:
        seconds of the undisturbed run, the disturbances, how many runs ended after some, and what differs in them.
    """
    draw = random.Random(seed)
    reference, disturbed = folder / "reference", folder / "disturbed"
    started = time.monotonic()
    code = _end_of(start(reference))
    assert code == ends_with, f"the undisturbed run ended with {code}"
    seconds = time.monotonic() - started
    absent = [name for name in compared if not (reference / name).exists()]
    assert not absent, f"there is nothing to compare: {absent}"
    lengths = dict(_lengths(reference))
    done: list[Disturbance] = []
    ends, wrong = 0, set[str]()
    while len(done) < signals:
        for aimed in moments[: signals - len(done)]:
            kind = signal.SIGTERM if len(done) % NICE_SIGNAL_EVERY == NICE_SIGNAL_EVERY - 1 else signal.SIGKILL
            wait_s = draw.uniform(0.0, 1.0) * lengths.get(aimed, 0.5)
            process = start(disturbed)
            found = _disturb(process, disturbed, aimed, wait_s, kind)
            if found is None:  # it was faster
                assert process.exitcode == ends_with, f"the run ended with {process.exitcode} after {len(done)} signals"
                break
            done.append(found)
        code = _end_of(start(disturbed))
        assert code == ends_with, f"the run ended with {code} after {len(done)} signals"
        ends += 1
        wrong |= set(different(reference, disturbed, compared))
        shutil.rmtree(disturbed)
    return {
        "undisturbed_s": round(seconds, 1),
        "signals": [asdict(one) for one in done],
        "ends": ends,
        "different": sorted(wrong),
        "ends_with": ends_with,
    }


def well(result: dict[str, Any]) -> bool:
    """Whether nothing was lost: every end is equal, nothing was half committed, and SIGTERM was obeyed in time."""
    return (
        result["ends"] > 0
        and not result["different"]
        and not any(one["half_committed"] for one in result["signals"])
        and all(one["ended_s"] < GRACE_S and _obeyed(one, result["ends_with"]) for one in _asked(result))
    )


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """The result in one line."""
    sent = Counter(one["signal"] for one in result["signals"])
    return {
        "well": well(result),
        **{name: sent[name] for name in ("SIGKILL", "SIGTERM")},
        "hit": dict(Counter(one["hit"] for one in result["signals"])),
        "phases": dict(Counter(one["phase"] or "before its first step" for one in _training(result))),
        "ended_with_after_sigterm": dict(Counter(str(one["code"]) for one in _asked(result))),
        "ends": result["ends"],
        "different": result["different"],
        "half_committed": [one["half_committed"] for one in result["signals"] if one["half_committed"]],
        "slowest_end_after_sigterm_s": max((one["ended_s"] for one in _asked(result)), default=None),
        "undisturbed_s": result["undisturbed_s"],
    }


def _training(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in result["signals"] if one["hit"] == "distill"]


def _obeyed(one: dict[str, Any], ends_with: int) -> bool:
    """SIGTERM ends with its exit code; as ever where it came behind the last step; by itself while Python starts."""
    started = one["after_s"] > STARTING_S
    return one["code"] in (EXIT_INTERRUPTED, ends_with) or (one["code"] == -signal.SIGTERM and not started)


def _asked(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in result["signals"] if one["signal"] == "SIGTERM"]


def _disturb(process: Started, run: Path, aimed: str, wait_s: float, kind: signal.Signals) -> Disturbance | None:
    """Send the signal `wait_s` after the moment began; None where the process ended before."""
    started = time.monotonic()
    while process.exitcode is None and not _begun(run, aimed):
        time.sleep(POLL_S)
    process.join(wait_s)
    if process.exitcode is not None or process.pid is None:
        return None
    os.kill(process.pid, kind)
    sent = time.monotonic()
    process.join(GRACE_S)
    if process.exitcode is None:
        os.kill(process.pid, signal.SIGKILL)
    code = _end_of(process)
    ended_s = round(time.monotonic() - sent, 2)
    hit = next((name for name in STAGES if not (run / name / MANIFEST).exists()), END) if run.exists() else START
    rows = read_log(run / "distill" / "log.jsonl") if hit == "distill" else []
    last = rows[-1] if rows else {"phase": None, "step": None}
    after_s = round(sent - started, 2)
    return Disturbance(kind.name, aimed, after_s, hit, last["phase"], last["step"], ended_s, code, half_committed(run))


def _begun(run: Path, moment: str) -> bool:
    if moment == START:
        return True
    if moment == END:
        return (run / STAGES[-1] / MANIFEST).exists()
    return (run / moment / IN_PROGRESS).exists() or (run / moment / MANIFEST).exists()


def _lengths(reference: Path) -> Iterator[tuple[str, float]]:
    """Seconds of each stage in the undisturbed run."""
    for stage in STAGES:
        manifest = reference / stage / MANIFEST
        if manifest.exists():
            yield stage, json.loads(manifest.read_text())["seconds"]


def _end_of(process: Started) -> int:
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _run(line: list[str]) -> None:
    """One command, silently, in a process that was forked from one that has imported everything."""
    from compressor.cli import main

    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.argv = ["compress", *line]
    main()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--signals", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    FORKS.set_forkserver_preload(["compressor.cli", "compressor.running", "torch._dynamo"])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare_demo(folder / "demo", seed=0, reporter=Reporter())
        settings = demo_settings(folder / "demo")
        line = [
            "run",
            "--quiet",
            "--teacher",
            f"{settings['teacher.file']}",
            "--samples",
            f"{settings['samples.folder']}",
        ]
        line += ["--eval", f"{settings['report.eval']}", "--target", "jetson", "--student", "width:0.5"]
        line += ["--effort", "quick", "--method", "hidfd", "--calibration-images", "32", "--skip-robustness"]
        line += ["--latency-max-s", "0.2", "--latency-window-s", "0.02", "--latency-threads", "1"]
        line += [word for option, value in OPTIONS.items() for word in ("--option", f"{option}={value}")]

        def start(out: Path) -> Started:
            process = FORKS.Process(target=_run, args=([*line, "--out", f"{out}"],))
            process.start()
            return process

        start(folder / "warm").join()  # the server's imports do not belong to the undisturbed run
        result = soak(start, folder, signals=arguments.signals, seed=arguments.seed)
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    whole = {**summary(result), "options": OPTIONS, "compared": COMPARED, **provenance(), **result}
    arguments.results.write_text(json.dumps(whole, indent=1) + "\n")
    print(json.dumps(summary(result)))
    sys.exit(0 if well(result) else 1)


if __name__ == "__main__":
    main()
