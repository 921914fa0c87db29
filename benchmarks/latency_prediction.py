"""How wrong the latency predictor is on networks that it has not seen, beside two simple baselines.

    python -m benchmarks.latency_prediction            # run, print the tables, write benchmarks/results/
    python -m benchmarks.latency_prediction --table    # the README's table, from the results
    python -m benchmarks.latency_prediction --page [--check]    # the tables of docs/latency-prediction.md

Every published measurement of profiles/measurements.csv is predicted in three ways:

    models       by the product's own calibration, without any row of that network on any device (at any input size;
                 networks that fuse to the same kernels, such as VGG-16 with and without batch norm, count as one)
    families     without any row of its whole family
    one anchor   without its family, but with one measurement of another network of the family on the same device at the
                 same precision by the same publication, given as a user's `Anchor`: every ordered pair of networks is
                 one row

A network is known by its kernels alone. Without an anchor a row is predicted as its publication would have measured it,
since a harness adds up to a millisecond; what the product says to a user, whose harness nobody knows yet, is compared
with the same rows as `user`. With an anchor both are the user's, and no publication's. The prior was stated
beforehand and moves by the evidence of the training rows of each fold alone (`benchmarks.latency_prior`). Intervals are
those of the product; `conformal_factors` in the results are what would cover 90 % of each split exactly.

Baselines, fitted on the same training rows: `roofline` is the sum over kernels of the larger of arithmetic and memory
time at the profile's peaks, with one global efficiency (its median); `FLOPs` is c0 + c1 * FLOPs for each device and
precision, by least squares of relative errors, and over all devices at their peaks where a device has no other row.
With one anchor, both are scaled to go through it.
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
README_BEGIN = "<!-- latency table, made by benchmarks/latency_prediction.py -->"
README_END = "<!-- end of the latency table -->"
SPLITS = ("models", "families", "one anchor")
METHODS = ("ours", "roofline", "flops")
ENOUGH = 8  # networks' rows, from which on a group is compared with the baselines
POOLED = "Jetsons under TensorRT"


@dataclass(frozen=True)
class Case:
    """One published measurement with what the predictor knows of it."""

    row: Measurement
    measured: MeasuredRow
    network: str  # the first of the models that fuse to the same kernels
    flops: float
    peak_flops_s: float
    roofline_ms: float

    @property
    def condition(self) -> tuple[str, str]:
        return self.row.device, self.row.precision


@dataclass(frozen=True)
class Baselines:
    """The two simple predictors, fitted on training rows."""

    efficiency: float
    lines: Mapping[tuple[str, str], tuple[float, float]]
    common: tuple[float, float]

    def roofline(self, case: Case) -> float:
        return case.roofline_ms / self.efficiency

    def flops(self, case: Case) -> float:
        if line := self.lines.get(case.condition):
            return line[0] + line[1] * case.flops
        return self.common[0] + self.common[1] * case.flops / case.peak_flops_s


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
    """All three ways of leaving out, with the rows, their summaries and what could not be predicted."""
    loaded = published()
    rows: list[dict[str, Any]] = []
    everything: dict[str, dict[str, Any]] = {}
    for for_cpu in (False, True):
        cases = cases_of(row for row in loaded.measurements if is_cpu(row.device) == for_cpu)
        priors: dict[str, Prior] = {}
        rows += left_out(cases, "models", lambda case: case.network, {})
        rows += left_out(cases, "families", lambda case: case.row.family, priors)
        rows += one_anchor(cases, priors)
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
    first: dict[tuple[Any, ...], str] = {}
    cases = []
    for row in rows:
        profile = load_target(row.device)
        peak = peak_tflops(profile, row.precision) * 1e12
        bytes_s = bandwidth_gb_s(profile) * 1e9
        roofline = 0.0
        for kernel in row.kernels:
            values = kernel.input_elements + kernel.weight_elements + kernel.output_elements
            roofline += max(2 * kernel.macs / peak, values * BYTES[row.precision] / bytes_s)
        network = first.setdefault(row.kernels, row.model)
        flops = 2.0 * total_macs(row.kernels)
        cases.append(Case(row, published_row(row), network, flops, peak, roofline * 1e3))
    return cases


def left_out(
    cases: Sequence[Case], split: str, key: Callable[[Case], str], priors: dict[str, Prior]
) -> Iterator[dict[str, Any]]:
    """Predictions of all cases, each without the cases of its own key; `priors` gains the prior of each fold."""
    for name in sorted({key(case) for case in cases}):
        tests = [case for case in cases if key(case) == name]
        training = [case for case in cases if key(case) != name]
        priors[name] = chosen_prior(observations_of(training))
        queries = [(case.measured.observation.network, as_own(case)) for case in tests]
        conditions = [network.condition for pair in queries for network in pair]
        calibration = Calibration(observations_of(training), priors[name], also=conditions)
        baselines = fit_baselines(training)
        for case, (published_one, own) in zip(tests, queries, strict=True):
            simple = {"roofline": baselines.roofline(case), "flops": baselines.flops(case)}
            entry = record(split, case, calibration.estimate(published_one), simple, name)
            user = calibration.estimate(own)
            yield {**entry, "user_ms": float(f"{math.exp(user.log_ms):.5g}"), "user_sd": round(user.sd, 4)}


def one_anchor(cases: Sequence[Case], priors: Mapping[str, Prior]) -> Iterator[dict[str, Any]]:
    """Predictions of every network of a family from the other families and one more row of its own, on its device."""
    for family in sorted({case.row.family for case in cases}):
        training = [case for case in cases if case.row.family != family]
        baselines = fit_baselines(training)
        inside = [case for case in cases if case.row.family == family]
        for condition in sorted({case.condition for case in inside}):
            group = [case for case in inside if case.condition == condition]
            for anchor in group:
                alike = [case for case in group if case.measured.condition == anchor.measured.condition]
                tests = [case for case in alike if case.row.kernels != anchor.row.kernels]
                own = Observation(as_own(anchor), anchor.row.latency_ms, ANCHOR_NOISE_SD)
                calibration = Calibration([*observations_of(training), own], priors[family])
                for case in tests:
                    scale = anchor.row.latency_ms / baselines.roofline(anchor)
                    through = anchor.row.latency_ms / baselines.flops(anchor)
                    simple = {"roofline": scale * baselines.roofline(case), "flops": through * baselines.flops(case)}
                    entry = record("one anchor", case, calibration.estimate(as_own(case)), simple, family)
                    yield {**entry, "anchor": anchor.row.model}


def observations_of(cases: Iterable[Case]) -> list[Observation]:
    return [row.observation for row in merged(case.measured for case in cases)]


def as_own(case: Case) -> Network:
    """The network as a user would bring it: measured for no publication."""
    network = case.measured.observation.network
    return replace(network, condition=replace(network.condition, campaign=OWN))


def fit_baselines(training: Sequence[Case]) -> Baselines:
    ratios = [case.roofline_ms / case.row.latency_ms for case in training]
    lines = {}
    for condition in {case.condition for case in training}:
        group = [case for case in training if case.condition == condition]
        lines[condition] = relative_line([case.flops for case in group], [case.row.latency_ms for case in group])
    at_peak = [case.flops / case.peak_flops_s for case in training]
    common = relative_line(at_peak, [case.row.latency_ms for case in training])
    return Baselines(float(np.median(ratios)), lines, common)


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
    for method in METHODS:
        predicted = np.array([row[f"{method}_ms"] for row in rows])
        errors = np.abs(predicted / measured_ms - 1)
        entry[method] = {
            "median": round(float(np.median(errors)), 4),
            "p90": round(float(np.quantile(errors, 0.9)), 4),
            "rank_correlation": rank_correlation(predicted, measured_ms),
        }
    entry |= intervals(rows, "ours_ms", "sd")
    if split != "one anchor":
        errors = [abs(row["user_ms"] / row["measured_ms"] - 1) for row in rows]
        entry["user"] = {"median": round(float(np.median(errors)), 4), **intervals(rows, "user_ms", "user_sd")}
    return entry


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
        header += ["roofline median", "90th pct.", "FLOPs median", "90th pct."]
        header += [] if split == "one anchor" else ["user median", "coverage", "width"]
        lines = [" | ".join(header), " | ".join(["---"] + ["---:"] * (len(header) - 1))]
        for item in results["summaries"]:
            if item["split"] == split:
                lines.append(" | ".join(cells(item)))
        parts.append(f"### {TITLES[split]}\n\n" + "\n".join(f"| {line} |" for line in lines))
    reasons = "\n".join(f"| {reason} | {count} |" for reason, count in results["left_out"].items())
    parts.append(f"### Rows that are not used\n\n| reason | rows |\n| --- | ---: |\n{reasons}")
    return "\n\n".join(parts)


TITLES = {
    "models": "Whole networks left out",
    "families": "Whole families left out",
    "one anchor": "Family left out, one measurement of it given",
}


def cells(item: Row) -> list[str]:
    """A row of a table; a baseline that beats us where enough rows are compared is set in bold."""
    ours = item["ours"]
    texts = [item["group"], str(item["n"]), percent(ours["median"]), percent(ours["p90"])]
    texts += [correlation(ours["rank_correlation"]), f"{item['coverage']:.0%}", f"{item['interval_width']:.0%}"]
    for method in ("roofline", "flops"):
        for number in ("median", "p90"):
            better = item["n"] >= ENOUGH and item[method][number] < ours[number]
            texts.append(f"**{percent(item[method][number])}**" if better else percent(item[method][number]))
    if user := item.get("user"):
        texts += [percent(user["median"]), f"{user['coverage']:.0%}", f"{user['interval_width']:.0%}"]
    return texts


def percent(value: float) -> str:
    return f"{value:.1%}"


def correlation(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def readme_table(results: Mapping[str, Any]) -> str:
    """Markdown: the pooled Jetson rows, ours beside the baselines, for each way of leaving out."""
    header = ["left out", "n", "median error", "90th percentile", "rank correlation", "in the 90 % interval"]
    header += ["roofline", "FLOPs only"]
    lines = [" | ".join(header), " | ".join(["---"] + ["---:"] * (len(header) - 1))]
    for item in results["summaries"]:
        if item["group"] == POOLED:
            ours = item["ours"]
            numbers = [percent(ours["median"]), percent(ours["p90"]), correlation(ours["rank_correlation"])]
            baselines = [percent(item[method]["median"]) for method in ("roofline", "flops")]
            texts = [TITLES[item["split"]], str(item["n"]), *numbers, percent(item["coverage"]), *baselines]
            lines.append(" | ".join(texts))
    users = " and ".join(
        f"{percent(item['user']['median'])} ({item['user']['coverage']:.0%} in the interval)"
        for item in results["summaries"]
        if item["group"] == POOLED and "user" in item
    )
    devices = sorted({row["device"] for row in results["rows"] if row["device"].startswith("jetson")})
    note = (
        f"Published TensorRT latencies of {len(devices)} Jetsons ({', '.join(devices)}), predicted without the network "
        "or its family; baselines are fitted on the same rows and their columns are median errors. Predicted as for a "
        f"user, of whose way of measuring nothing is known yet, the medians are {users}. "
        f"{results['provenance']['date']}; every row is in `{RESULTS}`, every device in `{PAGE}`."
    )
    return "\n".join(f"| {line} |" for line in lines) + f"\n\n{textwrap.fill(note, 118, break_on_hyphens=False)}"


if __name__ == "__main__":
    main()
