"""What a gate asks: from a YAML file, or from `--gate METRIC:RULE=LIMIT,...` on the command line.

    gates:
      - metric: agreement            # of what ships with the teacher, on the larger of --eval and held-out images
        min: 97 %
        min_samples: 200
      - metric: accuracy
        max_drop: 1 point            # against the teacher on the same images
        max_regression: 0.5 points   # against the report of --baseline
      - metric: latency_p50_ms
        max: 5
        severity: warn
      - metric: size_mib
        artefact: student int8       # default: what is recommended
        max_regression_relative: 5 %

The same as a flag: `--gate agreement:min=97%,min_samples=200`. A share is written as `97 %` or 0.97, and what may be
lost of it in points, as `1 point` or 0.01: a bare 97 or 1 is refused, since it could be either.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from compressor.errors import UsageFault
from compressor.gates.metrics import METRICS, UNITS, Metric
from compressor.inputs.nearest import did_you_mean
from compressor.report.gate_record import Rule, Severity
from compressor.yaml_files import brief, read_yaml

RULES: tuple[Rule, ...] = get_args(Rule)
RELATIVE = ("max_drop_relative", "max_regression_relative")
KEYS = ("metric", "name", "artefact", "images", "severity", "min_samples", "judge", *RULES)
GATE_FILE = {
    "kind": "file of gates",
    "expected": "Gates are a YAML file such as `gates: [{metric: agreement, min: 97 %}]`.",
    "flag": "--gates",
}
_NUMBER = re.compile(r"([+-]?\d{1,300}(?:\.\d*)?(?:[eE][+-]?\d{1,3})?|[+-]?\.\d+)\s*(\S*)")

MOST_PROBLEMS = 50  # more than anyone reads
MOST_KEYS = 50

Judge = Literal["interval", "value"]


@dataclass(frozen=True)
class Gate:
    """One limit on one metric.

    Attributes:
        limit: in the metric's unit, shares and what is lost of them as fractions of 1; relative rules: a fraction.
        artefact: such as `student int8`; None: what is recommended.
        images: None: the larger of the two sets.
        judge: None: by the worse end of the interval, a regression by its value.
    """

    metric: str
    rule: Rule
    limit: float
    name: str
    severity: Severity = "fail"
    min_samples: int = 0
    artefact: str | None = None
    images: Literal["evidence", "eval"] | None = None
    judge: Judge | None = None

    @property
    def judged(self) -> Judge:
        """A regression by its value: the worse end of an interval would fail the very artefact of the baseline."""
        return self.judge or ("value" if self.rule.startswith("max_regression") else "interval")


def read_gates(file: Path | None, flags: Sequence[str] = ()) -> tuple[Gate, ...]:
    """The gates of a file and of flags, in their order, each limit one gate; all problems are named at once.

    Raises:
        UsageFault: the file or a flag is no gate.
    """
    problems: list[str] = []
    gates: list[Gate] = []
    if file is not None:
        for where, entry in _entries(file, problems):
            gates += _gates(entry, where, problems)
    for flag in flags:
        if entry := _of_flag(flag, problems):
            gates += _gates(entry, f"--gate {flag}", problems)
    twice = sorted(name for name, count in Counter(gate.name for gate in gates).items() if count > 1)
    problems += [f"two gates are called {name!r}, give one of them a `name`" for name in twice]
    if problems:
        count = "a problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise UsageFault(
            f"The gates have {count}: {'; '.join(problems)}.",
            f"A gate has a metric ({', '.join(METRICS)}) and limits ({', '.join(RULES)}).",
            "Correct this and run the same command again; docs/gates.md has every metric and an example.",
        )
    return tuple(gates)


def _entries(file: Path, problems: list[str]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Each gate of the file, and what a message calls it."""
    values = read_yaml(file, **GATE_FILE)
    problems += [f"unknown key {key!r} in {file.name}" for key in values if key not in ("gates", "schema_version")]
    if values.get("schema_version", 1) != 1:
        problems.append(f"schema_version in {file.name} is {brief(values['schema_version'])} and not 1")
    listed = values.get("gates")
    if not isinstance(listed, list) or not listed:
        problems.append(f"{file.name} has no list `gates` with a gate in it")
        return
    for number, entry in enumerate(listed, start=1):
        where = f"gate {number} in {file.name}"
        if isinstance(entry, Mapping):
            yield where, entry
        else:
            problems.append(f"{where} is {brief(entry)} and not a mapping")


def _of_flag(text: str, problems: list[str]) -> Mapping[str, str]:
    """`agreement:min=97%,min_samples=200` as the mapping that a file would hold."""
    metric, colon, rest = text.partition(":")
    pairs = [pair.partition("=") for pair in rest.split(",")]
    if not colon or not all(equals for _, equals, _ in pairs):
        problems.append(f"--gate got {brief(text)} and takes METRIC:RULE=LIMIT, such as agreement:min=97%")
        return {}
    keys = [key.strip() for key, _, _ in pairs]
    problems += [f"--gate {text} gives {key} twice" for key in dict.fromkeys(keys) if keys.count(key) > 1]
    return {"metric": metric.strip(), **{key.strip(): value.strip() for key, _, value in pairs}}


def _gates(entry: Mapping[Any, Any], where: str, problems: list[str]) -> Iterator[Gate]:
    """One gate for each limit of an entry."""
    before = len(problems)
    if before >= MOST_PROBLEMS:
        return
    for key in list(entry)[:MOST_KEYS]:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS)
            problems.append(f"unknown key {key!r} in {where}{f' ({hint})' if hint else ''}")
    name = entry.get("metric", "")
    metric = METRICS.get(name) if isinstance(name, str) else None
    if metric is None:
        hint = did_you_mean(name, METRICS) if isinstance(name, str) else ""
        problems.append(
            f"{where} has {f'the unknown metric {brief(name)}' if name else 'no metric'}{f'. {hint}' * bool(hint)}"
        )
    rules = [rule for rule in RULES if rule in entry]
    if not rules:
        problems.append(f"{where} has no limit")
    severity: Severity = _one_of(entry, "severity", get_args(Severity), where, problems) or "fail"
    images = _one_of(entry, "images", ("evidence", "eval"), where, problems)
    judge = _one_of(entry, "judge", get_args(Judge), where, problems)
    if metric is not None and images is not None and not metric.on_images:
        problems.append(f"{where} names images, and {metric.name} is not found on any")
    min_samples = _whole(entry.get("min_samples", 0), where, problems)
    if metric is not None and "min_samples" in entry and not (metric.on_images or metric.unit == "ms"):
        problems.append(f"{where} has min_samples, and {metric.name} is not found on any")
    texts = {key: entry.get(key) for key in ("artefact", "name")}
    problems += [
        f"{key} of {where} is {brief(text)} and not a text"
        for key, text in texts.items()
        if text is not None and not (isinstance(text, str) and text)
    ]
    if metric is None:
        return
    limits = {rule: _limit(entry[rule], rule, metric, where, problems) for rule in rules}
    if len(problems) > before:
        return
    for rule, limit in limits.items():
        assert limit is not None
        called = texts["name"] or _called(metric, rule, entry[rule], texts["artefact"], images)
        yield Gate(
            metric=metric.name,
            rule=rule,
            limit=limit,
            name=called if len(limits) == 1 or not texts["name"] else f"{called} {rule}",
            severity=severity,
            min_samples=min_samples,
            artefact=texts["artefact"],
            images=images,
            judge=judge,
        )


def _called(metric: Metric, rule: Rule, limit: object, artefact: str | None, images: str | None) -> str:
    """`accuracy of student int8, max_drop 1 point`: from what was written, so that it stays as long as that does."""
    of = "" if artefact is None else f" of {artefact}"
    return f"{metric.name}{of}{'' if images is None else f' on {images}'}, {rule} {limit}"


def _limit(value: object, rule: Rule, metric: Metric, where: str, problems: list[str]) -> float | None:
    """A limit as a number; shares and relative changes as fractions of 1."""
    share = rule in RELATIVE or metric.unit == "share"
    lost = rule not in ("min", "max")
    unit = "%" if rule in RELATIVE else UNITS[metric.unit].strip()
    example = "5 %" if rule in RELATIVE else ("1 point" if share and lost else "97 %" if share else f"5 {unit}".strip())
    found = _NUMBER.fullmatch(_text(value))
    if found is None or not math.isfinite(number := float(found[1])):
        problems.append(f"{rule} of {where} is {brief(value)} and no limit such as {example}")
        return None
    if metric.reference is None and rule.startswith("max_drop"):
        problems.append(f"{where} has {rule}, and the teacher has no {metric.name} to compare with")
        return None
    if number < 0:
        problems.append(f"{rule} of {where} is {brief(value)} and below 0")
        return None
    given = found[2]
    points = given in ("point", "points")
    if share and (given == "%" if rule in RELATIVE or not lost else points):
        number, most = number / 100, 1.0 if metric.better == "higher" else math.inf
    elif share and lost and rule not in RELATIVE and given == "%":
        problems.append(f"{rule} of {where} is {brief(value)}: write {found[1]} points, or use {rule}_relative")
        return None
    elif not given or given == unit:
        most = 1.0 if share and metric.better == "higher" else math.inf
        # Half a point, or half of all? 0.05 is no likely number of points, and 1 no likely percentage of agreement.
        if metric.unit == "share" and not given and (number >= 0.1 if lost and rule not in RELATIVE else number > 1):
            unit = "%" if not lost else "point" if number == 1 else "points"
            problems.append(f"{rule} of {where} is {brief(value)}: write {found[1]} {unit}")
            return None
    else:
        problems.append(
            f"{rule} of {where} is {brief(value)}, and its unit is {'points' if share and lost else unit or 'none'}"
        )
        return None
    if number > most:
        problems.append(f"{rule} of {where} is {brief(value)} and above all of them")
        return None
    return number


def _one_of(entry: Mapping[Any, Any], key: str, words: Sequence[str], where: str, problems: list[str]) -> Any:
    value = entry.get(key)
    if value is not None and value not in words:
        problems.append(f"{key} of {where} is {brief(value)} and not {' or '.join(words)}")
    return value


def _whole(value: object, where: str, problems: list[str]) -> int:
    text = _text(value)
    if not re.fullmatch(r"\d{1,12}", text):
        problems.append(f"min_samples of {where} is {brief(value)} and no number of images")
        return 0
    return int(text)


def _text(value: object) -> str:
    """A number or a text as it is written; nothing of all else."""
    try:
        return str(value).strip() if isinstance(value, int | float | str) and not isinstance(value, bool) else ""
    except ValueError:  # more digits than Python writes
        return ""
