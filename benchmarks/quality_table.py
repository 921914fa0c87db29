"""Write the tables of README.md and docs/quality.md from benchmarks/results/, or check that they are there.

    python -m benchmarks.quality_table [--check]

Means over seeds, with their standard deviation; a difference is paired by seed, with the 95 % interval of Student's t.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from benchmarks.quality import CPU_SETTINGS, CUDA_SETTINGS, MAIN_ROWS, ORIGINAL, OURS, REPAIRED, TEACHER

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "quality.json"
EARLIER_RESULTS = ROOT / "benchmarks" / "results" / "cpu_quality.json"
README, PAGE = ROOT / "README.md", ROOT / "docs" / "quality.md"
END = "<!-- end of the table -->"
# Two-sided 97.5 % quantile of Student's t for 1 to 9 degrees of freedom.
T_QUANTILE = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
TITLES = {
    "digits": "digits, 8 px, 50 images",
    "mnist": "MNIST, 16 px, 100 images",
    "cifar10": "CIFAR-10, 32 px, 500 images of another source",
}

Rows = Sequence[Mapping[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if a page differs, write nothing")
    options = parser.parse_args()
    for page, text in pages().items():
        if options.check and text != page.read_text():
            sys.exit(f"A table in {page.name} is not what benchmarks/results says. Run `make table`.")
        if not options.check:
            page.write_text(text)


def pages() -> dict[Path, str]:
    """README.md and docs/quality.md with their tables as the results have them."""
    rows, earlier = (json.loads(path.read_text()) for path in (RESULTS, EARLIER_RESULTS))
    tables = {
        "quality": f"{settings_table(rows)}\n\n{made(rows)}",
        "parts": parts_tables(rows),
        "earlier parts": earlier_table(earlier),
    }
    texts = {}
    for page in (README, PAGE):
        text = page.read_text()
        for name, table in tables.items():
            text = with_table(text, name, table)
        texts[page] = text
    return texts


def with_table(page: str, name: str, table: str) -> str:
    """A page with the part between two marks replaced; without the marks, the page as it is."""
    begin = f"<!-- table: {name}, made by benchmarks/quality_table.py -->"
    before, found, rest = page.partition(begin)
    if not found:
        return page
    return f"{before}{begin}\n{table}\n{END}{rest.partition(END)[2]}"


def settings_table(rows: Rows) -> str:
    """Accuracy on the test labels in %, one line a setting, with what ours has over the two that matter."""
    header = [
        "setting", "seeds", *(name if name != TEACHER else "teacher" for name in MAIN_ROWS), "ours - original",
        "ours - repaired",
    ]  # fmt: skip
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for setting in settings_in(rows):
        found = {name: by_seed(rows, setting, name) for name in MAIN_ROWS}
        if not found[OURS]:
            continue
        differences = [difference(found[OURS], found[name]) for name in (ORIGINAL, REPAIRED)]
        cells = [spread(list(values.values())) for values in found.values()]
        lines.append([setting, str(len(found[OURS])), *cells, *differences])
    return _markdown(lines)


def parts_tables(rows: Rows) -> str:
    """What each part of the recipe is worth, in the settings that take it away."""
    texts = []
    for setting in settings_in(rows):
        names = list(dict.fromkeys(row["configuration"] for row in rows if row["setting"] == setting))
        if not any(name.startswith(f"{OURS} without") for name in names):
            continue
        lines = [
            [setting, "agreement %", "difference to ours", "accuracy %", "difference to ours", "seconds"],
            ["---", *["---:"] * 5],
        ]
        for name in names:
            cells = [name]
            for metric in ("agreement", "accuracy"):
                values = by_seed(rows, setting, name, metric)
                cells.append(spread(list(values.values())))
                alone = name in (OURS, TEACHER)
                cells.append("" if alone else difference(values, by_seed(rows, setting, OURS, metric)))
            seconds = [row["seconds"] for row in rows if (row["setting"], row["configuration"]) == (setting, name)]
            lines.append([*cells, f"{fmean(seconds):.0f}"])
        texts.append(_markdown(lines))
    return "\n\n".join(texts)


def earlier_table(rows: Rows) -> str:
    """The parts of repaired HiDFD at other sizes: one row a configuration, two columns a task."""
    tasks = [task for task in TITLES if any(row["task"] == task for row in rows)]
    header = ["agreement with the teacher, %"]
    for task in tasks:
        seeds = {row["seed"] for row in rows if row["task"] == task}
        header += [f"{TITLES[task]} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})", "difference to HiDFD"]
    lines = [header, ["---", *["---:"] * (2 * len(tasks))]]
    for name in dict.fromkeys(row["configuration"] for row in rows):
        cells = ["teacher's accuracy" if name == "teacher" else name]
        for task in tasks:
            values = by_seed(rows, task, name, "accuracy" if name == "teacher" else "agreement", key="task")
            reference = by_seed(rows, task, "HiDFD", "agreement", key="task")
            cells.append(spread(list(values.values())))
            cells.append("" if name in ("teacher", "HiDFD") else difference(values, reference))
        lines.append(cells)
    return _markdown(lines)


def made(rows: Rows) -> str:
    """Where the rows come from, in a sentence or two."""
    devices = sorted({f"{row['device']}, torch {row['torch']}" for row in rows})
    dates = sorted({row["date"] for row in rows})
    text = (
        f"Accuracy on test labels in %, last weights; mean ± standard deviation over seeds, differences paired by seed "
        f"with 95 % intervals. Measured on {' and '.join(devices)}, {dates[-1]}; every row, with its settings and its "
        "revision, is in `benchmarks/results/quality.json`."
    )
    return textwrap.fill(text, 118)


def settings_in(rows: Rows) -> Iterable[str]:
    """The settings that have rows, in the order of the program."""
    there = {row["setting"] for row in rows}
    return [name for name in (*CPU_SETTINGS, *CUDA_SETTINGS) if name in there]


def by_seed(
    rows: Rows, setting: str, configuration: str, metric: str = "accuracy", *, key: str = "setting"
) -> dict[int, float]:
    """Per cent by seed."""
    return {
        row["seed"]: 100 * row[metric] for row in rows if (row[key], row["configuration"]) == (setting, configuration)
    }


def spread(values: Sequence[float]) -> str:
    """The mean, with the standard deviation where there is more than one."""
    if not values:
        return ""
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def difference(values: Mapping[int, float], reference: Mapping[int, float]) -> str:
    """Mean of the paired differences over the seeds that both have, with its interval where there are at least two."""
    pairs = [values[seed] - reference[seed] for seed in values if seed in reference]
    if not pairs:
        return ""
    if len(pairs) == 1:
        return f"{pairs[0]:+.1f}"
    half = T_QUANTILE[len(pairs) - 2] * stdev(pairs) / math.sqrt(len(pairs))
    return f"{fmean(pairs):+.1f} ({fmean(pairs) - half:+.1f} to {fmean(pairs) + half:+.1f})"


def _markdown(lines: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
