"""The gates of a run: as the user gave them, as they lie in the run folder, and what they make of its report.

A run keeps its gates and its baseline (`gates.json`, `baseline.json`), so that a result from a board is judged by the
same ones weeks later, whatever became of the user's files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from compressor.errors import UsageFault
from compressor.gates.gate import Gate, read_gates
from compressor.gates.judging import decide, judge
from compressor.gates.metrics import METRICS
from compressor.report.gate_record import Baseline
from compressor.report.schema import Report, report_bytes
from compressor.stages import atomic_write_bytes, atomic_write_text

_GATES = TypeAdapter(tuple[Gate, ...])
GATES, BASELINE = "gates.json", "baseline.json"


@dataclass(frozen=True)
class Earlier:
    """The report that regressions are measured against: what it says, and the bytes that said it."""

    report: Report
    record: Baseline
    content: bytes


@dataclass(frozen=True)
class Asked:
    """What a report is judged by."""

    gates: tuple[Gate, ...] = ()
    baseline: Earlier | None = None
    require_measured: bool = False


NOTHING = Asked()


def asked_gates(
    file: Path | None, flags: Sequence[str], baseline: Path | None, *, require_measured: bool = False
) -> Asked:
    """The gates that a user gives.

    Raises:
        UsageFault: a gate or the baseline cannot be read.
    """
    gates = read_gates(file, flags)
    return Asked(gates, None if baseline is None else read_baseline(baseline), require_measured)


def read_baseline(path: Path) -> Earlier:
    """An earlier report: the file, or the run folder that it lies in.

    Raises:
        UsageFault: it is not there, or is no report of a schema that is still read.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        content = report_bytes(file)
        report = Report.model_validate_json(content)
    except OSError as error:
        raise UsageFault(
            f"The baseline {file} cannot be read: {error.strerror or error}.",
            "A baseline is the report.json of an earlier run, or its run folder.",
            "Give the path of one to --baseline; the first release has none, and no gate with max_regression.",
        ) from error
    except ValidationError as error:
        raise UsageFault(
            f"The baseline {file} is no report of this tool: {_first(error)}.",
            "A baseline is a report.json of schema 1, unedited.",
            "Give the report of an earlier run to --baseline, or make it again with this version.",
        ) from error
    record = Baseline(
        file=file.name,
        sha256=hashlib.sha256(content).hexdigest(),
        run_name=report.run_name,
        created=report.created.isoformat(),
    )
    return Earlier(report, record, content)


def with_gates(report: Report, asked: Asked) -> Report:
    """The report with what its gates found, and the decision that follows from limits and gates."""
    earlier = asked.baseline
    results = judge(
        report, asked.gates, None if earlier is None else earlier.report, require_measured=asked.require_measured
    )
    summary = report.summary.model_copy(update={"decision": decide(report, results)})
    return report.model_copy(
        update={"gates": results, "baseline": None if earlier is None else earlier.record, "summary": summary}
    )


def save_asked(asked: Asked, folder: Path) -> None:
    """Write the gates to a run folder, and take those of an earlier command away."""
    content = {
        "schema_version": 1,
        "require_measured": asked.require_measured,
        "gates": [asdict(gate) for gate in asked.gates],
    }
    atomic_write_text(folder / GATES, json.dumps(content, indent=2) + "\n")
    if asked.baseline is None:
        (folder / BASELINE).unlink(missing_ok=True)
    else:
        atomic_write_bytes(folder / BASELINE, asked.baseline.content)


def gates_of(report: Report) -> tuple[Gate, ...]:
    """The gates that a report has been judged by, from what it says of each."""
    return tuple(
        Gate(
            metric=found.metric,
            rule=found.rule,
            limit=found.limit,
            name=found.name,
            severity=found.severity,
            min_samples=found.min_samples,
            artefact=found.artefact,
            images=found.images,
            judge=found.judged,
        )
        for found in report.gates
        if found.metric in METRICS
    )


def load_asked(folder: Path) -> Asked:
    """The gates of a run folder; none where an earlier version made it.

    Raises:
        UsageFault: the files are no longer what the run wrote.
    """
    path = folder / GATES
    if not path.exists():
        return NOTHING
    baseline = folder / BASELINE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        gates = _GATES.validate_python(content["gates"])
        require_measured = bool(content["require_measured"])
        if not all(gate.metric in METRICS and isfinite(gate.limit) for gate in gates):
            raise ValueError("a metric is unknown, or a limit is no number")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        said = _first(error) if isinstance(error, ValidationError) else str(error)
        raise UsageFault(
            f"The gates in {path} cannot be read: {said}.",
            "The file that the run wrote was expected.",
            "Run the run's own command again, which writes it anew.",
        ) from error
    return Asked(gates, read_baseline(baseline) if baseline.exists() else None, require_measured)


def _first(error: ValidationError) -> str:
    found = error.errors()[0]
    where = ".".join(map(str, found["loc"]))
    return f"{where + ': ' if where else ''}{found['msg']}"
