"""Log a run folder to MLflow: python log_to_mlflow.py compress-run [experiment]

Everything comes from report.json; compress itself need not be installed where this runs, only mlflow. Where to, and as
whom, MLFLOW_TRACKING_URI and MLflow's other variables say. The run is named like the run folder and tagged with the
hash of the teacher and with the decision; it ends as FAILED where a gate or limit failed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow

EVIDENCE = (
    *("report.json", "report.md", "report.html", "junit.xml", "metrics.txt"),
    *("model-card.md", "manifest.json", "sbom.json"),
)
VALUE_LIMIT = 500  # characters of a parameter, in the oldest servers that are still about


def main(folder: Path, experiment: str | None = None) -> None:
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    if experiment is not None:
        mlflow.set_experiment(experiment)
    with mlflow.start_run(run_name=report["run_name"]):
        mlflow.set_tags(
            {
                "compress.decision": report["summary"]["decision"],
                "compress.teacher_sha256": report["teacher_source"]["sha256"],
                "compress.student_sha256": report["onnx"]["sha256"],
                "compress.schema_version": report["schema_version"],
            }
        )
        mlflow.log_params({name: str(value)[:VALUE_LIMIT] for name, value in parameters(report)})
        mlflow.log_metrics(dict(metrics(report)))
        for name in EVIDENCE:
            if (folder / name).exists():
                mlflow.log_artifact(str(folder / name))
        recommended = (report["recommendation"] or {}).get("path")
        if recommended:
            mlflow.log_artifact(str(folder / recommended), artifact_path="student")
        if report["summary"]["decision"] == "fail":
            mlflow.end_run("FAILED")


def parameters(report: dict[str, Any]) -> Iterator[tuple[str, object]]:
    """What the run was asked for."""
    making = report["distillation"]
    yield "tool_version", report["tool_version"]
    yield "target", report["target"]["profile"]
    yield "teacher", report["teacher_source"]["architecture"]
    yield "student", report["student"]["architecture"]
    for name in ("method", "effort", "seed", "device", "precision"):
        yield name, making[name]
    for name in ("num_train", "num_select", "num_evidence"):
        yield name, report["samples"][name]


def metrics(report: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """Shares with the low end of their interval, sizes, latencies by their origin, and gates as 1 or 0."""
    for variant in report["variants"]:
        name = f"{variant['model']}.{variant['precision']}.{variant['format']}"
        for quality in ("agreement", "accuracy", "mean_iou", "mean_iou_masks"):
            for images, share in variant[quality].items():
                if share is not None:
                    yield f"{name}.{quality}.{images}", share["value"]
                    yield f"{name}.{quality}.{images}.low", share["low"]
        if variant["size_mib"] is not None:
            yield f"{name}.size_mib", variant["size_mib"]
        for place in ("host", "target", "predicted"):
            latency = variant[f"latency_{place}"]
            if latency is not None:
                yield f"{name}.latency_p50_ms.{place}", latency["latency_p50_ms"]
    for index, gate in enumerate(report.get("gates", ())):  # before schema 1.5 there were none
        yield f"gate.{index}.held", float(gate["state"] == "held")
    yield "student.params_m", report["student"]["params_m"]
    yield "seconds", sum(stage["seconds"] for stage in report["stages"])


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
