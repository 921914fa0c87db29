"""Reports of several releases side by side: `compress compare OLD NEW ...`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from compressor.gates.metrics import METRICS, UNITS, Found, Metric, incomparable, judged_artefact
from compressor.gates.wording import with_interval
from compressor.layout import columns
from compressor.report.schema import Report
from compressor.report.text import ABSENT, significant
from compressor.report.untrusted import NAME_LIMIT, printable

# What two runs of the same seed and inputs differ in: when and where they ran, and how long it took.
TIMES = ("created", "time", "run_name", "command", "stages", "layers")
TIMED = ("latency_host", "latency_target", "seconds", "memory", "points")  # points: the summary's, of latencies too


@dataclass(frozen=True)
class Row:
    """One metric of what each release ships, and what changed from the first to the last.

    Attributes:
        change: last minus first, in the metric's unit; None where one is not known, or they cannot be compared.
        verdict: better, worse, equal; `within the interval` where the first's interval holds the last value.
    """

    metric: Metric
    found: tuple[Found | None, ...]
    change: float | None
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        values = [None if one is None else {**vars(one), "conditions": list(one.conditions)} for one in self.found]
        return {"metric": self.metric.name, "values": values, "change": self.change, "verdict": self.verdict}


@dataclass(frozen=True)
class Releases:
    """The table, what each report is of, and what keeps them from being compared."""

    names: tuple[str, ...]
    shipped: tuple[str, ...]
    decisions: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "reports": [
                {"name": name, "ships": ships, "decision": decision}
                for name, ships, decision in zip(self.names, self.shipped, self.decisions, strict=True)
            ],
            "metrics": [row.to_dict() for row in self.rows],
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """A table with a column for each report, and the notes below."""
        short = [printable(name, NAME_LIMIT) for name in self.names]
        lines = [
            ("", *short, "change", ""),
            ("ships", *self.shipped, "", ""),
            ("decision", *self.decisions, "", ""),
            *(
                (
                    row.metric.name,
                    *(ABSENT if one is None else with_interval(row.metric, one) for one in row.found),
                    _changed(row),
                    row.verdict,
                )
                for row in self.rows
            ),
        ]
        return "\n".join([*columns(lines), *(("", *self.notes) if self.notes else ())])


def side_by_side(reports: Sequence[Report], names: Sequence[str]) -> Releases:
    """Every metric that some report has, of what each ships."""
    shipped = [judged_artefact(report, None) for report in reports]
    rows = []
    for metric in METRICS.values():
        found = [
            None
            if (variant := judged_artefact(report, metric.artefact)) is None
            else metric.find(report, variant, None)
            for report in reports
        ]
        if any(one is not None for one in found):
            rows.append(_row(metric, found, reports))
    return Releases(
        names=tuple(names),
        shipped=tuple("nothing" if variant is None else variant.label for variant in shipped),
        decisions=tuple(report.summary.decision for report in reports),
        rows=tuple(rows),
        notes=tuple(_notes(reports)),
    )


def differences(one: Report, other: Report) -> tuple[str, ...]:
    """Dotted names of what differs between two reports apart from times: none, where one run repeats the other."""
    left, right = (_without_times(report.model_dump(mode="json", exclude=set(TIMES))) for report in (one, other))
    return differing(left, right)


def differing(left: Any, right: Any) -> tuple[str, ...]:
    """Dotted names of what differs between two values as JSON has them."""
    return tuple(_different(left, right))


def _row(metric: Metric, found: Sequence[Found | None], reports: Sequence[Report]) -> Row:
    first, last = found[0], found[-1]
    if first is None or last is None:
        return Row(metric, tuple(found), None, "")
    if first.origin != last.origin:
        return Row(metric, tuple(found), None, f"{first.origin} before, {last.origin} now")
    if (reason := incomparable(metric, (reports[0], first), (reports[-1], last))) is not None:
        return Row(metric, tuple(found), None, f"the first is {reason}")
    change = last.value - first.value
    if change == 0:
        verdict = "equal"
    elif first.low is not None and first.high is not None and first.low <= last.value <= first.high:
        verdict = "within the interval"
    else:
        verdict = "better" if (change > 0) == (metric.better == "higher") else "worse"
    return Row(metric, tuple(found), change, verdict)


def _changed(row: Row) -> str:
    if row.change is None:
        return ABSENT
    scaled = round(100 * row.change if row.metric.unit == "share" else row.change, 9)
    unit = " points" if row.metric.unit == "share" else UNITS[row.metric.unit]
    return f"{'+' if scaled > 0 else '-' if scaled < 0 else ''}{significant(abs(scaled))}{unit}"


def _notes(reports: Sequence[Report]) -> Iterator[str]:
    first, last = reports[0], reports[-1]
    if first.teacher_source.sha256 != last.teacher_source.sha256:
        yield "The first and the last have different teachers, so their agreements are with different networks."
    if first.target.profile != last.target.profile:
        yield f"The first is for {first.target.title}, the last for {last.target.title}."
    if first.task != last.task:
        yield f"The first is of {first.task}, the last of {last.task}."
    words = [{gate.name: gate.outcome for gate in report.gates} for report in (first, last)]
    for name in words[0]:
        if name in words[1] and words[0][name] != words[1][name]:
            yield f"The gate {printable(name, NAME_LIMIT)} was {words[0][name]} and is {words[1][name]}."
    if not differences(first, last):
        yield "The first and the last are the same apart from times."


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_times(inner) for key, inner in value.items() if key not in TIMED}
    return [_without_times(inner) for inner in value] if isinstance(value, list) else value


def _different(left: Any, right: Any, name: str = "") -> Iterator[str]:
    if isinstance(left, dict) and isinstance(right, dict):
        for key in dict.fromkeys((*left, *right)):
            yield from _different(left.get(key), right.get(key), f"{name}.{key}".lstrip("."))
    elif isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        for number, (one, other) in enumerate(zip(left, right, strict=True)):
            yield from _different(one, other, f"{name}.{number}")
    elif left != right:
        yield name
