"""What report.json says of each gate: what was asked, what was found, and what follows."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, NonNegativeInt, PositiveInt

from compressor.report.measured import Record, Sha256

Rule = Literal["min", "max", "max_drop", "max_drop_relative", "max_regression", "max_regression_relative"]
Severity = Literal["fail", "warn"]
State = Literal["held", "missed", "unproven", "missing", "too_few", "stale"]
Outcome: TypeAlias = Literal["pass", "warn", "fail"]


class GateResult(Record):
    """One limit on one metric. Shares are fractions of 1, and what may be lost of them is too.

    held        the worse end of the interval is within the limit, or the value where there is no interval
    missed      it is not; the sentence says where the value itself is
    unproven    the latency is only predicted
    missing     the report has no such number
    too_few     it has, on fewer images than the gate asks for
    stale       the baseline is of other images, of another task, or of another device
    """

    name: str = Field(description="unique in this report")
    metric: str
    artefact: str | None = Field(default=None, description="such as `student int8`; null: of the run, or none was made")
    images: Literal["evidence", "eval"] | None = Field(default=None, description="that the metric was found on")
    rule: Rule
    limit: float
    severity: Severity = "fail"
    min_samples: NonNegativeInt = 0
    judged: Literal["interval", "value"] = Field(description="interval: by its worse end")
    value: float | None = Field(default=None, description="of the metric itself, whatever the rule; null: missing")
    low: float | None = None
    high: float | None = None
    n: PositiveInt | None = Field(default=None, description="images; of a latency, timed calls")
    reference: float | None = Field(default=None, description="the teacher's value, or the baseline's")
    change: float | None = Field(
        default=None, description="what is lost against the reference, in the unit of the limit; below 0: gained"
    )
    origin: Literal["measured", "merged", "predicted"] | None = None
    state: State
    outcome: Outcome
    more_images: PositiveInt | None = Field(
        default=None, description="how many more images would make the interval hold, if the share stays as it is"
    )
    sentence: str


class Baseline(Record):
    """The earlier report that regressions are measured against."""

    file: str
    sha256: Sha256
    run_name: str
    created: str
