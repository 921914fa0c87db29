"""Writes the soaks of docs/faults.md from their results.

python docs/soak_table.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the benchmarks are

from benchmarks.rows import write_between
from benchmarks.soak_disk import RESULTS as DISK
from benchmarks.soak_kill import RESULTS as KILLS

PAGE = Path(__file__).parent / "faults.md"
START, END = "<!-- soak -->", "<!-- /soak -->"


def lines() -> Iterator[str]:
    kills, disk = (json.loads(path.read_text(encoding="utf-8")) for path in (KILLS, DISK))
    count = kills["SIGKILL"] + kills["SIGTERM"]
    wrong = kills["different"] or kills["half_committed"]
    yield (
        f"**Signals.** {count} signals to runs on the demo's digits, {kills['SIGKILL']} SIGKILL and {kills['SIGTERM']} "
        f"SIGTERM, at random moments of every stage in turn; {kills['ends']} runs reached their end after them. "
        + (
            f"Wrong: {wrong}. "
            if wrong
            else "Every file and, but for times, every report was that of a run left alone. "
        )
        + f"The slowest end after SIGTERM took {kills['slowest_end_after_sigterm_s']:.1f} s of the ten that schedulers "
        f"give; exit codes then: {_counts(kills['ended_with_after_sigterm'])}. Where the signals struck: "
        f"{_counts(kills['hit'])}; of the training: {_counts(kills['phases'])}."
    )
    yield ""
    yield (
        f"**Disk.** {disk['attempts']} disks too small for the run, from {disk['first_kib']:,} KiB to "
        f"{disk['enough_kib']:,} KiB, which was enough; each ended with code 2 or 5 and the sentence about room"
        + (f", except {disk['wrong']}. " if disk["wrong"] else ". ")
        + ("The last run's files were those of one that had room." if disk["well"] else "")
        + f" Where it was full: {_counts(disk['ended_in'])}."
    )
    yield ""
    yield "Made by " + " and ".join(_made(result) for result in (kills, disk)) + "."


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


def _made(result: dict[str, Any]) -> str:
    return f"revision {result['revision']} on {result['device']}, torch {result['torch']}, Python {result['python']}"


if __name__ == "__main__":
    write_between(PAGE, START, END, "\n".join(lines()))
