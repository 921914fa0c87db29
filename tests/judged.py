"""Gates as report.json records them, and words that every file made of a report has to survive."""

from __future__ import annotations

from typing import Any

from compressor.report.gate_record import GateResult
from compressor.report.schema import Report

HOSTILE = "::error::<b>\x1b[2J\x00 ##[x] ]]> & \"q\" '\\' \ufffe | `x` [a](http://b) @all, 100%\r\nsecond:line"


def gate(name: str, state: str = "held", outcome: str = "pass", **changes: Any) -> GateResult:
    """Of the agreement of the student's int8 file with its teacher."""
    values: dict[str, Any] = {
        "name": name,
        "metric": "agreement",
        "artefact": "student int8",
        "images": "eval",
        "rule": "min",
        "limit": 0.95,
        "judged": "interval",
        "value": 0.97,
        "low": 0.957,
        "high": 0.979,
        "n": 1000,
        "origin": "measured",
        "state": state,
        "outcome": outcome,
        "sentence": f"{name}: agreement is 97 %.",
    }
    return GateResult(**{**values, **changes})


def every_outcome() -> tuple[GateResult, ...]:
    """One gate of each state and outcome that occurs."""
    return (
        gate("agreement.min"),
        gate("accuracy.max_drop", "missed", "fail"),
        gate("size.max", "missed", "warn", severity="warn"),
        gate("latency.max", "unproven", "warn"),
        gate("latency.proven", "unproven", "fail"),
        gate("mean_iou.min", "missing", "fail", value=None, low=None, high=None, n=None),
        gate("accuracy.min", "too_few", "fail", min_samples=5_000),
        gate("agreement.max_regression", "stale", "fail"),
        gate("accuracy.max_regression", "stale", "warn", severity="warn"),
    )


def hostile(report: Report) -> Report:
    """The same report with hostile words wherever a name or a sentence comes from outside."""
    words = f"{HOSTILE} {'A' * 3_000}"
    source = report.teacher_source.model_copy(
        update={"class_names": tuple(f"{index}{words}" for index in range(10)), "file": words, "architecture": words}
    )
    return report.model_copy(
        update={
            "run_name": words,
            "command": words,
            "teacher_source": source,
            "gates": (gate(words, "missed", "fail", sentence=words), gate(f"{words}!", "missed", "warn")),
            "verdicts": tuple(one.model_copy(update={"sentence": words}) for one in report.verdicts),
            "warnings": (words,) * 20,
            "summary": report.summary.model_copy(update={"headline": words, "points": (words,) * 20}),
            "target": report.target.model_copy(update={"title": words, "profile": words, "reason": words}),
            "distillation": report.distillation.model_copy(update={"method": words, "departures": (words,) * 20}),
            "environment": report.environment.model_copy(update={"cpu": words, "os": words}),
        }
    )
