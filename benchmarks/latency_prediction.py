"""How wrong the latency predictor is on networks that it has not seen, beside two simple baselines.

    python -m benchmarks.latency_prediction            # run, print the tables, write benchmarks/results/
    python -m benchmarks.latency_prediction --table    # the README's table, from the results
    python -m benchmarks.latency_prediction --page [--check]    # the tables of docs/latency-prediction.md

Every published measurement of profiles/measurements.csv is predicted in these ways:

    models       by the product's own calibration, without any row of that network on any device, at any input size.
                 Networks of one origin (all fcn_resnet18) and those that fuse to the same kernels (VGG-16 with and
                 without batch norm) are one network, whatever they are called
    families     without any row of its whole family, by published name
    lines        without any row of its whole design line: successive versions that one publisher develops from its own
                 previous one are one line (YOLOv8, YOLO11 and YOLO26); every other family is a line of its own
    one anchor   without its family, but with one measurement of another network of the family on the same device at the
                 same precision by the same publication, given as a user's `Anchor`: every ordered pair of rows is one
                 row, and `without` is the same row as a user gets it before that measurement
    one anchor, lines    the same pairs without the whole design line
    another size         as one anchor, but with the same network at another image size as the anchor; no aim is about
                         it, and it tells how far sizes alone lead

A network is known by its kernels alone. Without an anchor a row is predicted as its publication would have measured it,
since a harness adds up to a millisecond; what the product says to a user, whose harness nobody knows yet, is compared
with the same rows as `user`. With an anchor both are the user's, and no publication's. The prior was stated
beforehand, but for the harness, and moves by the evidence of the training rows of each fold alone
(`benchmarks.latency_prior`). Intervals are the product's without what doubts add; `conformal_factors` in the results
are what would cover 90 % of each split exactly.

Baselines, fitted on the same training rows: `roofline` is the sum over kernels of the larger of arithmetic and memory
time at the profile's peaks, with one global efficiency (its median), and `tuned roofline` with an efficiency for each
device and precision (the global one where a device has no other row); `FLOPs` is c0 + c1 * FLOPs for each device and
precision, by least squares of relative errors, and over all devices at their peaks where a device has no other row.
With one anchor, all are scaled to go through it, so both rooflines are the same.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.latency_prior import chosen_prior
from profiles.calibration import Calibration, Estimate, Network, Observation, Prior
from profiles.catalogue import load_target
from profiles.host import host_name
from profiles.kernels import total_macs
from profiles.measured_rows import ANCHOR_NOISE_SD, OWN, MeasuredRow, is_cpu, merged, published_row
from profiles.measurements import Measurement, published
from profiles.predict import INTERVAL_CONFIDENCE, INTERVAL_FACTOR
from profiles.roofline import BYTES, bandwidth_gb_s, peak_tflops

Vector = NDArray[np.float64]
Row = Mapping[str, Any]

RESULTS = Path("benchmarks/results/latency_prediction.json")
PAGE = Path("docs/latency-prediction.md")
BEGIN, END = "<!-- tables, made by benchmarks/latency_prediction.py -->", "<!-- end of the tables -->"
README = Path("README.md")
README_BEGIN = "<!-- latency table -->"
README_END = "<!-- end of the latency table -->"
LEFT_OUT = ("models", "families", "lines")
WITH_ANCHOR = ("one anchor", "one anchor, lines", "another size")
SPLITS = (*LEFT_OUT, *WITH_ANCHOR)
README_SPLITS = (*LEFT_OUT, "one anchor", "one anchor, lines")
BASELINES = {"roofline": "roofline", "tuned_roofline": "tuned roofline", "flops": "FLOPs"}
LINES = {"yolov8": "yolo", "yolo11": "yolo", "yolo26": "yolo"}  # families of one publisher, each made from the last
ENOUGH = 8  # networks' rows, from which on a group is compared with the baselines
POOLED = "Jetsons under TensorRT"


@dataclass(frozen=True)
class Case:
    """One published measurement with what the predictor knows of it."""

    row: Measurement
    measured: MeasuredRow
    network: str  # the first of its names
    flops: float
    peak_flops_s: float
    roofline_ms: float

    @property
    def condition(self) -> tuple[str, str]:
        return self.row.device, self.row.precision

    @property
    def family(self) -> str:
        return self.row.family

    @property
    def line(self) -> str:
        return LINES.get(self.row.family, self.row.family)


@dataclass(frozen=True)
class Baselines:
    """The simple predictors, fitted on training rows."""

    efficiency: float
    efficiencies: Mapping[tuple[str, str], float]
    lines: Mapping[tuple[str, str], tuple[float, float]]
    common: tuple[float, float]

    def roofline(self, case: Case) -> float:
        return case.roofline_ms / self.efficiency

    def tuned_roofline(self, case: Case) -> float:
        return case.roofline_ms / self.efficiencies.get(case.condition, self.efficiency)

    def flops(self, case: Case) -> float:
        if line := self.lines.get(case.condition):
            return line[0] + line[1] * case.flops
        return self.common[0] + self.common[1] * case.flops / case.peak_flops_s

    def all(self, case: Case) -> dict[str, float]:
        return {
            "roofline": self.roofline(case),
            "tuned_roofline": self.tuned_roofline(case),
            "flops": self.flops(case),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="print the README's table from the results")
    parser.add_argument("--page", action="store_true", help=f"write the tables of {PAGE} from the results")
    parser.add_argument("--check", action="store_true", help="with --page: fail if the page differs, write nothing")
    options = parser.parse_args()
    if options.table:
        print(f"{README_BEGIN}\n{readme_table(json.loads(RESULTS.read_text()))}\n{README_END}")
        return
    if options.page:
        text = PAGE.read_text()
        updated = with_tables(text, page_tables(json.loads(RESULTS.read_text())))
        if options.check and updated != text:
            sys.exit(f"The tables in {PAGE} are not what {RESULTS} says. Run with --page.")
        if not options.check:
            PAGE.write_text(updated)
        return
    results = run()
    RESULTS.write_text(as_json(results))
    print(page_tables(results))


def run() -> dict[str, Any]:
    """All ways of leaving out, with the rows, their summaries and what could not be predicted."""
    loaded = published()
    rows: list[dict[str, Any]] = []
    everything: dict[str, dict[str, Any]] = {}
    for for_cpu in (False, True):
        cases = cases_of(row for row in loaded.measurements if is_cpu(row.device) == for_cpu)
        prior_without = cache(lambda kept: chosen_prior(observations_of(kept)))  # many a family is a line of its own
        keys = {"models": network_of, "families": family_of, "lines": line_of}
        for split, key in keys.items():
            rows += left_out(cases, split, key, prior_without)
        rows += one_anchor(cases, "one anchor", family_of, is_sibling, prior_without)
        rows += one_anchor(cases, "one anchor, lines", line_of, is_sibling, prior_without)
        rows += one_anchor(cases, "another size", family_of, is_resized, prior_without)
        everything[("gpu", "cpu")[for_cpu]] = asdict(chosen_prior(observations_of(cases)))
    return {
        "provenance": {"device": host_name(), "date": time.strftime("%Y-%m-%d"), "numpy": np.__version__},
        "priors": everything,
        "conformal_factors": {
            split: round(quantile_factor(row for row in rows if row["split"] == split), 3) for split in SPLITS
        },
        "left_out": dict(loaded.left_out),
        "summaries": [summary(name, split, group) for name, split, group in groups_of(rows)],
        "rows": rows,
    }


def cases_of(rows: Iterable[Measurement]) -> list[Case]:
    rows = list(rows)
    names = network_names(rows)
    cases = []
    for row in rows:
        profile = load_target(row.device)
        peak = peak_tflops(profile, row.precision) * 1e12
        bytes_s = bandwidth_gb_s(profile) * 1e9
        roofline = 0.0
        for kernel in row.kernels:
            values = kernel.input_elements + kernel.weight_elements + kernel.output_elements
            roofline += max(2 * kernel.macs / peak, values * BYTES[row.precision] / bytes_s)
        flops = 2.0 * total_macs(row.kernels)
        cases.append(Case(row, published_row(row), names[row.model], flops, peak, roofline * 1e3))
    return cases


def network_names(rows: Sequence[Measurement]) -> dict[str, str]:
    """Published names of networks -> the first name of the same network: of the same origin, or of the same kernels at
    any of their sizes, or both by way of a third.
    """
    first = {row.model: row.model for row in rows}
    for trait in ("origin", "kernels"):
        seen: dict[Any, str] = {}
        for row in rows:
            old, new = first[row.model], first[seen.setdefault(getattr(row, trait), row.model)]
            first = {name: new if network == old else network for name, network in first.items()}
    return first


Key = Callable[[Case], str]
PriorWithout = Callable[[tuple[Case, ...]], Prior]


def network_of(case: Case) -> str:
    return case.network


def family_of(case: Case) -> str:
    return case.family


def line_of(case: Case) -> str:
    return case.line


def left_out(cases: Sequence[Case], split: str, key: Key, prior_without: PriorWithout) -> Iterator[dict[str, Any]]:
    """Predictions of all cases, each without the cases of its own key."""
    for name in sorted({key(case) for case in cases}):
        tests = [case for case in cases if key(case) == name]
        training = tuple(case for case in cases if key(case) != name)
        queries = [(case.measured.observation.network, as_own(case)) for case in tests]
        conditions = [network.condition for pair in queries for network in pair]
        calibration = Calibration(observations_of(training), prior_without(training), also=conditions)
        baselines = fit_baselines(training)
        for case, (published_one, own) in zip(tests, queries, strict=True):
            entry = record(split, case, calibration.estimate(published_one), baselines.all(case), name)
            yield entry | estimated("user", calibration.estimate(own))


def one_anchor(
    cases: Sequence[Case], split: str, key: Key, paired: Callable[[Case, Case], bool], prior_without: PriorWithout
) -> Iterator[dict[str, Any]]:
    """Predictions of every row with each row that it is paired with as a user's anchor, and without it; the other rows
    of its key are left out both times.
    """
    for name in sorted({key(case) for case in cases}):
        training = tuple(case for case in cases if key(case) != name)
        inside = [case for case in cases if key(case) == name]
        if not any(paired(case, anchor) for anchor in inside for case in inside):
            continue
        baselines, prior = fit_baselines(training), prior_without(training)
        conditions = [as_own(case).condition for case in inside]
        before = Calibration(observations_of(training), prior, also=conditions)
        for anchor in inside:
            tests = [case for case in inside if paired(case, anchor)]
            own = Observation(as_own(anchor), anchor.row.latency_ms, ANCHOR_NOISE_SD)
            after = Calibration([*observations_of(training), own], prior) if tests else before
            scales = {method: anchor.row.latency_ms / value for method, value in baselines.all(anchor).items()}
            for case in tests:
                simple = {method: scales[method] * value for method, value in baselines.all(case).items()}
                entry = record(split, case, after.estimate(as_own(case)), simple, name) | {"anchor": anchor.row.model}
                yield entry | estimated("without", before.estimate(as_own(case)))


def is_sibling(case: Case, anchor: Case) -> bool:
    """Another network of the same family, on the same device at the same precision by the same publication."""
    same_place = case.measured.condition == anchor.measured.condition
    return same_place and case.family == anchor.family and case.network != anchor.network


def is_resized(case: Case, anchor: Case) -> bool:
    """The same network at another image size, on the same device at the same precision by the same publication."""
    same_place = case.measured.condition == anchor.measured.condition
    return same_place and case.network == anchor.network and size_of(case) != size_of(anchor)


def size_of(case: Case) -> str:
    return case.row.key.partition("@")[2]


def estimated(who: str, estimate: Estimate) -> dict[str, float]:
    return {f"{who}_ms": float(f"{math.exp(estimate.log_ms):.5g}"), f"{who}_sd": round(estimate.sd, 4)}


def observations_of(cases: Iterable[Case]) -> list[Observation]:
    return [row.observation for row in merged(case.measured for case in cases)]


def as_own(case: Case) -> Network:
    """The network as a user would bring it: measured for no publication."""
    network = case.measured.observation.network
    return replace(network, condition=replace(network.condition, campaign=OWN))


def fit_baselines(training: Sequence[Case]) -> Baselines:
    lines, efficiencies = {}, {}
    for condition in {case.condition for case in training}:
        group = [case for case in training if case.condition == condition]
        efficiencies[condition] = efficiency_of(group)
        lines[condition] = relative_line([case.flops for case in group], [case.row.latency_ms for case in group])
    at_peak = [case.flops / case.peak_flops_s for case in training]
    common = relative_line(at_peak, [case.row.latency_ms for case in training])
    return Baselines(efficiency_of(training), efficiencies, lines, common)


def efficiency_of(cases: Iterable[Case]) -> float:
    return float(np.median([case.roofline_ms / case.row.latency_ms for case in cases]))


def relative_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """c0 and c1, neither negative, that minimise the squared relative errors of c0 + c1 * x; through 0 for one x."""
    slopes = np.asarray(x) / np.asarray(y)
    constants = 1 / np.asarray(y)
    through_zero = (0.0, float(slopes.sum() / (slopes**2).sum()))
    if len(set(x)) == 1:
        return through_zero
    both = np.linalg.lstsq(np.stack([constants, slopes], axis=1), np.ones(len(x)), rcond=None)[0]
    if both[0] < 0:
        return through_zero
    if both[1] < 0:
        return float(constants.sum() / (constants**2).sum()), 0.0
    return float(both[0]), float(both[1])


def record(split: str, case: Case, estimate: Estimate, simple: Mapping[str, float], fold: str) -> dict[str, Any]:
    device, precision = case.condition
    predicted = {"ours": math.exp(estimate.log_ms), **simple}
    return {
        "split": split,
        "fold": fold,
        "device": device,
        "precision": precision,
        "runtime": case.row.runtime,
        "batch": case.row.batch_size,
        "model": case.row.model,
        "measured_ms": case.row.latency_ms,
        **{f"{method}_ms": float(f"{value:.5g}") for method, value in predicted.items()},
        "sd": round(estimate.sd, 4),
    }


def quantile_factor(rows: Iterable[Row]) -> float:
    scores = [abs(math.log(row["ours_ms"] / row["measured_ms"])) / row["sd"] for row in rows]
    return float(np.quantile(scores, INTERVAL_CONFIDENCE))


def groups_of(rows: Sequence[Row]) -> Iterator[tuple[str, str, Sequence[Row]]]:
    """Pooled Jetsons first, then each device and precision."""
    for split in SPLITS:
        inside = [row for row in rows if row["split"] == split]
        yield POOLED, split, [row for row in inside if row["device"].startswith("jetson")]
        yield "all", split, inside
        for device, precision in sorted({(row["device"], row["precision"]) for row in inside}):
            group = [row for row in inside if (row["device"], row["precision"]) == (device, precision)]
            yield f"{device} {precision}", split, group


def summary(name: str, split: str, rows: Sequence[Row]) -> dict[str, Any]:
    measured_ms = np.array([row["measured_ms"] for row in rows])
    entry: dict[str, Any] = {"group": name, "split": split, "n": len(rows)}
    for method in ("ours", *BASELINES):
        predicted = np.array([row[f"{method}_ms"] for row in rows])
        errors = np.abs(predicted / measured_ms - 1)
        entry[method] = {
            "median": round(float(np.median(errors)), 4),
            "p90": round(float(np.quantile(errors, 0.9)), 4),
            "rank_correlation": rank_correlation(predicted, measured_ms),
        }
    entry |= intervals(rows, "ours_ms", "sd")
    who = other_of(split)
    errors = [abs(row[f"{who}_ms"] / row["measured_ms"] - 1) for row in rows]
    entry[who] = {"median": round(float(np.median(errors)), 4), **intervals(rows, f"{who}_ms", f"{who}_sd")}
    return entry


def other_of(split: str) -> str:
    """What else every row of a split was predicted as."""
    return "without" if split in WITH_ANCHOR else "user"


def intervals(rows: Sequence[Row], predicted: str, deviation: str) -> dict[str, float]:
    logs = np.array([abs(math.log(row[predicted] / row["measured_ms"])) for row in rows])
    halves = np.array([INTERVAL_FACTOR * row[deviation] for row in rows])
    width = (np.exp(halves) - np.exp(-halves)).mean()
    return {"coverage": round(float((logs <= halves).mean()), 4), "interval_width": round(float(width), 4)}


def rank_correlation(first: Vector, second: Vector) -> float | None:
    """Spearman's, with the mean rank for equal values; None where one of both does not vary."""
    a, b = ranks(first), ranks(second)
    if a.std() == 0 or b.std() == 0:
        return None
    return round(float(np.corrcoef(a, b)[0, 1]), 4)


def ranks(values: Vector) -> Vector:
    order = np.sort(values)
    return np.asarray((np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")) / 2)


def as_json(results: Mapping[str, Any]) -> str:
    """One line for each row and summary, so that a changed number is one changed line."""
    lines = []
    for key, value in results.items():
        if isinstance(value, list):
            body = ",\n".join(json.dumps(item) for item in value)
            lines.append(f"{json.dumps(key)}: [\n{body}\n]")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def with_tables(page: str, text: str) -> str:
    """The page with the part between the two marks replaced."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def page_tables(results: Mapping[str, Any]) -> str:
    """Markdown: a table for each way of leaving out, and the rows that nothing could be predicted for."""
    parts = []
    for split in SPLITS:
        header = ["device and precision", "n", "median", "90th pct.", "rank corr.", "coverage", "width"]
        header += [text for method in methods_of(split) for text in (f"{BASELINES[method]} median", "90th pct.")]
        header += [f"{other_of(split)} median", "coverage", "width"]
        items = [item for item in results["summaries"] if item["split"] == split]
        parts.append(f"### {TITLES[split]}\n\n{markdown([header, *map(cells, items)])}")
    reasons = "\n".join(f"| {reason} | {count} |" for reason, count in results["left_out"].items())
    parts.append(f"### Rows that are not used\n\n| reason | rows |\n| --- | ---: |\n{reasons}")
    return "\n\n".join(parts)


TITLES = {
    "models": "Whole networks left out",
    "families": "Whole families left out",
    "lines": "Whole design lines left out",
    "one anchor": "Family left out, one measurement of it given",
    "one anchor, lines": "Design line left out, one measurement of it given",
    "another size": "Family left out, the same network at another size given",
}
GROUPS = {
    "Nano, TX2, AGX Xavier": ("jetson-nano", "jetson-tx2", "jetson-agx-xavier"),
    "Orin Nano, Orin NX, AGX Orin": ("jetson-orin-nano", "jetson-orin-nano-super", "jetson-orin-nx", "jetson-agx-orin"),
    "AGX Thor": ("jetson-agx-thor",),
    "T4, A100": ("t4", "a100"),
    "Raspberry Pi 4 and 5": ("raspberry-pi-4", "raspberry-pi-5"),
}


def methods_of(split: str) -> tuple[str, ...]:
    """The baselines of a split: scaled through an anchor, both rooflines are the same."""
    return ("roofline", "flops") if split in WITH_ANCHOR else tuple(BASELINES)


def cells(item: Row) -> list[str]:
    """A row of a table; a baseline that beats us where enough rows are compared is set in bold."""
    ours = item["ours"]
    texts = [item["group"], str(item["n"]), percent(ours["median"]), percent(ours["p90"])]
    texts += [correlation(ours["rank_correlation"]), f"{item['coverage']:.0%}", f"{item['interval_width']:.0%}"]
    texts += [beside(item, method, number) for method in methods_of(item["split"]) for number in ("median", "p90")]
    other = item[other_of(item["split"])]
    return [*texts, percent(other["median"]), f"{other['coverage']:.0%}", f"{other['interval_width']:.0%}"]


def beside(item: Row, method: str, number: str) -> str:
    better = item["n"] >= ENOUGH and item[method][number] < item["ours"][number]
    text = percent(item[method][number])
    return f"**{text}**" if better else text


def percent(value: float) -> str:
    return f"{value:.1%}"


def correlation(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def readme_table(results: Mapping[str, Any]) -> str:
    """Markdown: the pooled Jetson rows for each way of leaving out, then the medians of each group of devices."""
    pooled = [item for item in results["summaries"] if item["group"] == POOLED and item["split"] in README_SPLITS]
    header = ["Jetsons, TensorRT", "n", "median error", "90th pct.", "rank corr.", "in interval"]
    lines = [[*header, *(f"{name}, median" for name in BASELINES.values())]]
    for item in pooled:
        ours = item["ours"]
        numbers = [percent(ours["median"]), percent(ours["p90"]), correlation(ours["rank_correlation"])]
        baselines = [beside(item, method, "median") for method in BASELINES]
        lines.append([TITLES[item["split"]], str(item["n"]), *numbers, f"{item['coverage']:.0%}", *baselines])
    splits = ("models", "lines")
    header = [f"{text}{part}" for part in (", network out", ", line out") for text in ("median", "roofline", "FLOPs")]
    groups = [["device", "n", *header]]
    for name, devices in GROUPS.items():
        inside = [row for row in results["rows"] if row["device"] in devices]
        found = [summary(name, split, [row for row in inside if row["split"] == split]) for split in splits]
        medians = [
            text
            for item in found
            for text in (percent(item["ours"]["median"]), *(beside(item, m, "median") for m in ("roofline", "flops")))
        ]
        groups.append([name, str(found[0]["n"]), *medians])
    without = {item["split"]: percent(item["without"]["median"]) for item in pooled if "without" in item}
    note = (
        "Published latencies, predicted without the network, its family or its design line (all YOLO are one). "
        "Baselines are fitted on the same rows; where one is better it is bold. The pairs with one measurement have "
        f"medians of {' and '.join(without.values())} without it. {results['provenance']['date']}; every row is in "
        f"`{RESULTS}`, every device in [{PAGE}]({PAGE})."
    )
    filled = textwrap.fill(note, 118, break_on_hyphens=False, break_long_words=False)
    return f"{markdown(lines)}\n\n{markdown(groups)}\n\n{filled}"


def markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *rows = lines
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


if __name__ == "__main__":
    main()
