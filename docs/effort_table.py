"""Writes the tables of docs/effort.md: the schedules as the methods have them, and their times.

python docs/effort_table.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the benchmarks are

from benchmarks.effort_times import EFFORTS, GPUS, RESULTS, SITUATIONS, estimated_seconds, measured_seconds
from compressor.method_speed import steps_of
from compressor.methods import load_method, method_names
from compressor.report.text import ABSENT, duration
from profiles.catalogue import load_target

PAGE = Path(__file__).parent / "effort.md"
START, END = "<!-- {} -->\n", "<!-- /{} -->\n"
SHAPE = (3, 32, 32)
ON_CPU, COUNTED = "one CPU thread", "counted"


def page(text: str) -> str:
    """The page with current tables between its markers."""
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))
    for name, table in (("schedules", schedules()), ("cpu", cpu_times(rows)), ("gpu", gpu_times(rows))):
        before, _, rest = text.partition(START.format(name))
        _, _, after = rest.partition(END.format(name))
        lines = "".join(f"{line}\n" for line in table)
        text = f"{before}{START.format(name)}\n{lines}\n{END.format(name)}{after}"
    return text


def schedules() -> Iterator[str]:
    """Updates of each phase, from the methods' own defaults."""
    yield from header("method", "phases", *(f"{effort}, {device}" for device in ("CPU", "GPU") for effort in EFFORTS))
    for name in method_names():
        method = load_method(name)
        found = [
            steps_of(method.Config(**method.defaults(effort, SHAPE, device)))
            for device in ("cpu", "cuda")
            for effort in EFFORTS
        ]
        counts = (" + ".join(f"{count:,}" for count in steps.values()) for steps in found)
        yield line(f"`{name}`", " + ".join(found[0]), *counts)


def cpu_times(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Quick, standard and full of every method and size."""
    names = [situation.name for situation in SITUATIONS["cpu"]]
    yield from header("method", *names)
    for method in method_names():
        cells = (efforts(rows, ON_CPU, method, name, measured_seconds) for name in names)
        yield line(f"`{method}`", *cells)
    yield ""
    yield made_by(rows, ON_CPU)


def gpu_times(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The same for every GPU, one table for each size; what was measured on one stands in a column of its own."""
    measured = [on for on in dict.fromkeys(row["on"] for row in rows) if on not in (ON_CPU, COUNTED)]
    for situation in SITUATIONS["cuda"]:
        yield f"{situation.name}:"
        yield ""
        estimated = [f"{load_target(gpu).title}, not measured yet" for gpu in GPUS]
        yield from header("method", *(f"{on}, measured" for on in measured), *estimated)
        for method in method_names():
            cells = [efforts(rows, on, method, situation.name, measured_seconds) for on in measured]
            for gpu in GPUS:
                cells.append(
                    efforts(rows, COUNTED, method, situation.name, lambda row, gpu=gpu: estimated_seconds(row, gpu))
                )
            yield line(f"`{method}`", *cells)
        yield ""
    yield made_by(rows, COUNTED)


def efforts(rows: Sequence[Mapping[str, Any]], on: str, method: str, situation: str, seconds_of: Any) -> str:
    """`1 min 10 s, 3 min 20 s, 11 min 00 s`; a dash where that was not found out."""
    found = {
        row["effort"]: row for row in rows if (row["on"], row["method"], row["situation"]) == (on, method, situation)
    }
    return ", ".join(duration(seconds_of(found[e])) if e in found else ABSENT for e in EFFORTS) if found else ABSENT


def made_by(rows: Sequence[Mapping[str, Any]], on: str) -> str:
    """Where, with what and when."""
    ours = [row for row in rows if row["on"] == on]
    if not ours:
        return "Not made yet."
    devices, torches, revisions, dates = (
        sorted({row[key] for row in ours}) for key in ("device", "torch", "revision", "date")
    )
    return (
        f"Made on {', '.join(devices)} with torch {', '.join(torches)}, revision {', '.join(revisions)}, {dates[-1]}; "
        "every row is in `benchmarks/results/effort_times.json`."
    )


def header(*cells: str) -> Iterator[str]:
    yield line(*cells)
    yield line("---", *("---:" for _ in cells[1:]))


def line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
