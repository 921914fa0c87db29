"""Write the quality table of README.md from benchmarks/results/cpu_quality.json, or check that it is there.

    python -m benchmarks.readme_table [--check]

Agreement is a mean over seeds; a difference to HiDFD is paired by seed, with the 95 % interval of Student's t.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "cpu_quality.json"
README = ROOT / "README.md"
BEGIN, END = "<!-- quality table, made by benchmarks/readme_table.py -->", "<!-- end of the quality table -->"
REFERENCE = "HiDFD"
TITLES = {
    "digits": "digits, 8 px, 50 images",
    "mnist": "MNIST, 16 px, 100 images",
    "cifar10": "CIFAR-10, 32 px, 500 images of another source",
}
# Two-sided 97.5 % quantile of Student's t for 1 to 9 degrees of freedom.
T_QUANTILE = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)

Rows = Sequence[Mapping[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail if the README differs, write nothing")
    options = parser.parse_args()
    readme = README.read_text()
    updated = with_table(readme, table(json.loads(RESULTS.read_text())))
    if options.check and updated != readme:
        sys.exit("The quality table in README.md is not what benchmarks/results says. Run `make table`.")
    if not options.check:
        README.write_text(updated)


def with_table(readme: str, text: str) -> str:
    """The README with the part between the two marks replaced."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def table(rows: Rows) -> str:
    """Markdown: one row a configuration, two columns a task (agreement; paired difference to HiDFD)."""
    rows = complete(rows)
    tasks = [task for task in TITLES if any(row["task"] == task for row in rows)]
    names = list(dict.fromkeys(row["configuration"] for row in rows))
    header = ["agreement with the teacher, %"]
    for task in tasks:
        seeds = {row["seed"] for row in rows if row["task"] == task}
        header += [f"{TITLES[task]} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})", "difference to HiDFD"]
    lines = [" | ".join(header), " | ".join(["---"] + ["---:"] * (2 * len(tasks)))]
    for name in names:
        cells = ["teacher's accuracy" if name == "teacher" else name]
        for task in tasks:
            values = _by_seed(rows, task, name, "accuracy" if name == "teacher" else "agreement")
            cells.append(_mean(list(values.values())))
            cells.append("" if name in ("teacher", REFERENCE) else _difference(values, _by_seed(rows, task, REFERENCE)))
        lines.append(" | ".join(cells))
    dates = sorted({row["date"] for row in rows})
    made = f"{rows[0]['device']}, torch {rows[0]['torch']}, effort `{rows[0]['effort']}`, {dates[-1]}"
    notes = (
        "Mean ± standard deviation over the seeds; differences are paired by seed, with 95 % intervals. Test images: "
        + ", ".join(f"{task} {next(row['num_test'] for row in rows if row['task'] == task):,}" for task in tasks)
        + ". Without data inflation a real image is as rare as in a union with 50,000 synthetic ones, which leaves at "
        "most one in a batch. The benchmark trains on all of the few images (`compress run` holds some out) and judges "
        f"the torch module. Measured on {made}; every row, with its revision, is in `benchmarks/results/`."
    )
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{textwrap.fill(notes, 118)}"


def complete(rows: Rows) -> Rows:
    """Rows of the seeds that have every configuration of their task; where no seed has, of those that have HiDFD.

    Means over different seeds cannot be compared, and a baseline beside an empty cell says nothing.
    """
    kept: list[Mapping[str, Any]] = []
    for task in TITLES:
        names = {row["configuration"] for row in rows if row["task"] == task}
        seeds = {row["seed"]: {r["configuration"] for r in rows if (r["task"], r["seed"]) == (task, row["seed"])}
                 for row in rows if row["task"] == task}  # fmt: skip
        whole = [seed for seed, found in seeds.items() if found == names] if REFERENCE in names else []
        chosen = whole or [seed for seed, found in seeds.items() if REFERENCE in found]
        kept += [row for row in rows if row["task"] == task and row["seed"] in chosen]
    return kept


def _by_seed(rows: Rows, task: str, name: str, metric: str = "agreement") -> dict[int, float]:
    return {row["seed"]: 100 * row[metric] for row in rows if (row["task"], row["configuration"]) == (task, name)}


def _mean(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{fmean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def _difference(values: Mapping[int, float], reference: Mapping[int, float]) -> str:
    """Mean of the paired differences over the seeds that both have, with its interval where there are at least two."""
    pairs = [values[seed] - reference[seed] for seed in values if seed in reference]
    if not pairs:
        return ""
    if len(pairs) == 1:
        return f"{pairs[0]:+.1f}"
    half = T_QUANTILE[len(pairs) - 2] * stdev(pairs) / math.sqrt(len(pairs))
    return f"{fmean(pairs):+.1f} ({fmean(pairs) - half:+.1f} to {fmean(pairs) + half:+.1f})"


if __name__ == "__main__":
    main()
