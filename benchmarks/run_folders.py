"""What two run folders have in common, and what must never lie in one, whatever happened to its run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from compressor.gates.releases import differences
from compressor.report.schema import read_report
from compressor.stages import MANIFEST, TEMPORARY, edited_outputs

STAGES = ("teacher", "samples", "student", "distill", "onnx", "precision", "engine", "kit", "latency", "report")
COMPARED = (
    *("teacher/weights.safetensors", "samples/images.safetensors", "samples/split.json"),
    *("student/backbone.safetensors", "distill/student.safetensors", "distill/generator.safetensors"),
    *("onnx/student.onnx", "precision/student.int8.onnx", "precision/student.fp16.onnx"),
)


def half_committed(run: Path) -> str:
    """Stages that claim to be finished and are not, and a report that cannot be read; nothing where all is well."""
    found = [
        f"{stage}: {edited}"
        for stage in STAGES
        if (run / stage / MANIFEST).exists() and (edited := edited_outputs(run / stage))
    ]
    if (run / "report.json").exists():
        try:
            read_report(run / "report.json")
        except ValueError as error:
            found.append(f"report.json: {error}")
    return "; ".join(found)


def different(reference: Path, run: Path, compared: Sequence[str] = COMPARED) -> Iterator[str]:
    """What is not as in the reference: files, and numbers of the report that are no times; and what was left behind.

    A file that neither has is no difference.
    """
    for name in compared:
        one, other = (_digest(folder / name) for folder in (reference, run))
        if one != other:
            yield name
    for leftover in run.rglob(f"{TEMPORARY}*"):
        yield f"left behind: {leftover.relative_to(run).parent}"
    if (reference / "report.json").exists():
        reports = [read_report(folder / "report.json") for folder in (reference, run)]
        yield from (f"report.json: {name}" for name in differences(*reports))


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else "absent"
