"""`compress gate`: an existing report, judged again. Nothing in its run folder changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from compressor.gates.asked import GATES, NOTHING, asked_gates, gates_of, load_asked, with_gates
from compressor.report.schema import Report
from compressor.report.user_files import existing_report


def gated_report(
    run: Path, file: Path | None, flags: Sequence[str], baseline: Path | None, *, require_measured: bool
) -> Report:
    """A run's report, judged by the gates that are given, or by the run's own where none is.

    Raises:
        UsageFault: there is no report, or a gate or the baseline cannot be read.
    """
    report, folder = existing_report(run)
    asked = asked_gates(file, flags, baseline, require_measured=require_measured)
    if asked == NOTHING and not (folder / GATES).exists():
        return report  # away from its run folder it still says what its gates found
    own = load_asked(folder)
    if not asked.gates:
        gates = own.gates or gates_of(report)
        asked = replace(asked, gates=gates, require_measured=require_measured or own.require_measured)
    return with_gates(report, asked if asked.baseline is not None else replace(asked, baseline=own.baseline))


def decision_json(report: Report) -> dict[str, Any]:
    """What `--json` prints: the decision, and what it follows from, as report.json has them."""
    whole = report.model_dump(mode="json", include={"run_name", "verdicts", "gates", "baseline"})
    return {"decision": report.summary.decision, **whole}
