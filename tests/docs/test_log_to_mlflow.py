"""A run folder in MLflow, whose module is a stand-in here that takes the same arguments by the same names."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from judged import every_outcome

from compressor.report.schema import Report, write_report

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "pipelines" / "log_to_mlflow.py"


class Recorder(ModuleType):
    """What was logged."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.experiment: str | None = None
        self.status = "RUNNING"
        self.run_name = ""
        self.tags: dict[str, str] = {}
        self.params: dict[str, str] = {}
        self.metrics: dict[str, float] = {}
        self.artifacts: list[tuple[str, str | None]] = []

    def set_experiment(self, experiment_name: str) -> None:
        self.experiment = experiment_name

    @contextmanager
    def start_run(self, *, run_name: str) -> Iterator[None]:
        self.run_name = run_name
        yield
        if self.status == "RUNNING":
            self.status = "FINISHED"

    def end_run(self, status: str) -> None:
        self.status = status

    def set_tags(self, tags: Mapping[str, str]) -> None:
        self.tags.update(tags)

    def log_params(self, params: Mapping[str, str]) -> None:
        self.params.update(params)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        self.metrics.update(metrics)

    def log_artifact(self, local_path: str, artifact_path: str | None = None) -> None:
        self.artifacts.append((Path(local_path).name, artifact_path))


def script() -> Any:
    specification = importlib.util.spec_from_file_location("log_to_mlflow", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def write_run(report: Report, folder: Path) -> None:
    (folder / "precision").mkdir()
    write_report(report, folder / "report.json")
    (folder / "junit.xml").write_text("<testsuites/>")
    (folder / "precision" / "student.fp16.onnx").write_bytes(b"student")


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "mlflow", recorder)
    return recorder


def test_what_is_logged_is_what_the_report_says(report: Report, tmp_path: Path, mlflow: Recorder) -> None:
    write_run(report, tmp_path)
    script().main(tmp_path, "edge")
    assert (mlflow.experiment, mlflow.run_name, mlflow.status) == ("edge", report.run_name, "FINISHED")
    assert mlflow.tags["compress.teacher_sha256"] == "a" * 64
    assert mlflow.params["method"] == "hidfd"
    assert mlflow.params["seed"] == "7"
    assert mlflow.metrics["student.int8.onnx.agreement.eval"] == 0.97
    assert mlflow.metrics["student.int8.onnx.agreement.eval.low"] < 0.97
    assert mlflow.metrics["student.fp16.onnx.latency_p50_ms.predicted"] == 0.31
    assert mlflow.artifacts == [("report.json", None), ("junit.xml", None), ("student.fp16.onnx", "student")]


def test_a_run_whose_gates_fail_is_failed(report: Report, tmp_path: Path, mlflow: Recorder) -> None:
    failed = report.model_copy(
        update={
            "gates": every_outcome(),
            "summary": report.summary.model_copy(update={"decision": "fail"}),
            "recommendation": None,
        }
    )
    write_run(failed, tmp_path)
    script().main(tmp_path)
    assert (mlflow.experiment, mlflow.status) == (None, "FAILED")
    assert [mlflow.metrics[f"gate.{index}.held"] for index in range(9)] == [1.0] + [0.0] * 8
