"""Does the interval of a latency hold minutes later? The same files are measured again and again on this machine.

    python -m benchmarks.latency_repeatability --tries 11 --every 180 model.onnx other.onnx

Each try is a fresh process that measures every file as `compress profile` does. Successive tries are pairs: the
medians of a pair differ by less than half an interval, or they do not. Rows are appended to the results file one by
one, so that an interrupted run goes on where it stopped. The table counts

    within     the second median lies in the first one's interval
    nearer     the medians differ by less than the width of the first one's interval
    quiet      pairs of which neither try was disturbed or overloaded, by the system's accounts; counted alone too

and gives the widths of the intervals, in per cent of the median. `--table` prints it from what is there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from compressor import __version__
from compressor.stages import atomic_write_text
from profiles.host import host_name

RESULTS = Path(__file__).parent / "results" / "latency_repeatability.json"
# Of the warnings of a measurement, those that say that others used the machine.
DISTURBED = ("overloaded", "Other programs", "hypervisor", "left out")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, help="ONNX files")
    parser.add_argument("--tries", type=int, default=11)
    parser.add_argument("--every", type=float, default=180.0, help="seconds from the start of one try to the next")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--table", action="store_true", help="print what is there and measure nothing")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        sys.stdout.write(json.dumps([_measured(model) for model in arguments.models]) + "\n")
        return
    record = _read(arguments.results)
    if not arguments.table:
        _check_models(arguments.models, record)
        for number in range(len(record["tries"]), arguments.tries):
            started = time.monotonic()
            record["tries"].append({"at": datetime.now(UTC).isoformat(), "rows": _in_a_process(arguments.models)})
            arguments.results.parent.mkdir(exist_ok=True)
            atomic_write_text(arguments.results, json.dumps(record, indent=1) + "\n")
            sys.stderr.write(f"try {number + 1} of {arguments.tries}\n")
            if number + 1 < arguments.tries:
                time.sleep(max(0.0, arguments.every - (time.monotonic() - started)))
    sys.stdout.write("\n".join(table(record)) + "\n")


def table(record: Mapping[str, Any]) -> list[str]:
    """Markdown: a row for each file, and one for all of them."""
    lines = [
        f"{len(record['tries'])} tries on {record['host']}, {record['tool']}, from {record['tries'][0]['at'][:16]} to "
        f"{record['tries'][-1]['at'][:16]} UTC",
        "",
        "| file | p50 ms | pairs | within | nearer | quiet pairs | within | nearer | width, median | widest quiet |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    everything: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
    for name in record["models"]:
        rows = [row for found in record["tries"] for row in found["rows"] if row["model"] == name]
        pairs = list(pairwise(rows))
        everything += pairs
        lines.append(_line(name, f"{statistics.median(row['p50_ms'] for row in rows):.4g}", pairs))
    return [*lines, _line("all", "", everything)]


def _line(name: str, p50: str, pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> str:
    quiet = [pair for pair in pairs if not any(_disturbed(row) for row in pair)]
    widths, quiet_widths = ([_width(row) for row, _ in chosen if row["interval_ms"]] for chosen in (pairs, quiet))
    cells = [
        name,
        p50,
        str(len(pairs)),
        *_counts(pairs),
        str(len(quiet)),
        *_counts(quiet),
        f"{statistics.median(widths):.1%}" if widths else "",
        f"{max(quiet_widths):.1%}" if quiet_widths else "",
    ]
    return f"| {' | '.join(cells)} |"


def _counts(pairs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> tuple[str, str]:
    """How many pairs hold, strictly and as a difference below the width."""
    within = nearer = 0
    for first, second in pairs:
        if first["interval_ms"] is None:
            continue  # a single session: nothing was promised, and nothing holds
        low, high = first["interval_ms"]
        within += low <= second["p50_ms"] <= high
        nearer += abs(second["p50_ms"] - first["p50_ms"]) < high - low
    return str(within), str(nearer)


def _width(row: Mapping[str, Any]) -> float:
    low, high = row["interval_ms"]
    return float((high - low) / row["p50_ms"])


def _disturbed(row: Mapping[str, Any]) -> bool:
    return any(word in warning for warning in row["warnings"] for word in DISTURBED)


def _in_a_process(models: Sequence[Path]) -> list[dict[str, Any]]:
    words = [sys.executable, "-m", "benchmarks.latency_repeatability", "--one", *map(str, models)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    rows: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return rows


def _measured(model: Path) -> dict[str, Any]:
    from compressor.deploy.latencies import Timed, measure_files
    from compressor.deploy.profile_sources import sources_of
    from compressor.deploy.profiling import TIMING
    from profiles.catalogue import load_target

    (source,) = sources_of(model, None).sources
    (stats,) = measure_files([Timed(source.variant, source.folder, source.image_shape)], load_target("cpu"), TIMING)
    return {
        "model": model.name,
        "p50_ms": stats.latency_p50_ms,
        "interval_ms": stats.latency_p50_interval_ms,
        "as_timed_ms": stats.latency_p50_as_timed_ms,
        "pace": stats.pace,
        "threads": stats.threads,
        "sessions": stats.num_sessions,
        "stable": stats.stable,
        "load_average": stats.load_average,
        "warnings": stats.warnings,
    }


def _read(results: Path) -> dict[str, Any]:
    if results.exists():
        found: dict[str, Any] = json.loads(results.read_text(encoding="utf-8"))
        return found
    return {"tool": f"compress {__version__}", "host": host_name(), "models": {}, "tries": []}


def _check_models(models: Sequence[Path], record: dict[str, Any]) -> None:
    """One results file is of one machine and of the same files throughout."""
    hashes = {model.name: hashlib.sha256(model.read_bytes()).hexdigest() for model in models}
    if not models or len(hashes) != len(models):
        sys.exit("Name ONNX files with different names.")
    if record["tries"] and (record["models"] != hashes or record["host"] != host_name()):
        sys.exit(f"The results are of {', '.join(record['models'])} on {record['host']}: name another file --results.")
    record["models"] = hashes


if __name__ == "__main__":
    main()
