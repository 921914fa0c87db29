"""Writes the table of metrics in docs/gates.md.

python docs/gates_table.py
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # where the benchmarks are

from benchmarks.rows import write_between
from compressor.gates.metrics import METRICS

PAGE = Path(__file__).parent / "gates.md"
START, END = "<!-- metrics -->", "<!-- /metrics -->"
UNITS = {"share": "share", "M": "millions", "G": "billions"}


def table() -> str:
    rows = [
        f"| `{metric.name}` | {metric.title} | {UNITS.get(metric.unit, metric.unit)} "
        f"| {'yes' if metric.reference is not None else 'no'} |"
        for metric in METRICS.values()
    ]
    return "\n".join(("| metric | what it is | unit | teacher to compare with |", "| --- | --- | --- | --- |", *rows))


if __name__ == "__main__":
    write_between(PAGE, START, END, table())
