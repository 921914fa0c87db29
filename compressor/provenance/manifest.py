"""manifest.json of a run: all that went in and all that came out, by hash, for whoever has to trace a student back.

In: report.json and the run folder, after every other file of it is written. Out: one record, published as
docs/manifest-schema.json; a new field raises the minor version, a field that changes or goes the major one.

Two runs of the same inputs, settings, versions and hardware have equal manifests but for `times`, for `command` and
`config` where their paths differ, and for the hashes of those files that hold a time or a measured latency themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import AwareDatetime, Field, JsonValue, NonNegativeFloat, NonNegativeInt

from compressor.gates.asked import BASELINE, GATES
from compressor.report.gate_record import Baseline
from compressor.report.measured import Record, RunPath, Sha256
from compressor.report.schema import ImageSet, Report
from compressor.stages import MANIFEST as STAGE_MANIFEST
from compressor.stages import atomic_write_text
from exporters.files import sha256_of

SCHEMA_VERSION: Literal["1.0"] = "1.0"

MANIFEST, CONFIG = "manifest.json", "config.yaml"
REPORT_FILES = ("report.json", "report.md", "report.html", "junit.xml", "metrics.txt", "model-card.md", "sbom.json")
RUN_FILES = ("CACHEDIR.TAG", "choices.json", CONFIG, "target.json", GATES, BASELINE)
MERGED = "merged"
"""The folder of results that devices sent back."""
UNFINISHED = ("in-progress.json", "error.log", "checkpoint*.pt", ".tmp-*")
"""What a stage leaves while it works or when it fails; no part of a finished run."""

Kind = Literal["output", "report", "record"]


class Hashed(Record):
    name: str = Field(description="inside the run folder its path, outside the name of the file or folder alone")
    sha256: Sha256 = Field(description="of a folder: of the sorted names and hashes of all files in it")


class Input(Hashed):
    """Something that the user gave."""

    read_by: tuple[str, ...] = Field(description="the stages that read it")


class ManifestStage(Record):
    """Equal fingerprints: equal settings, inputs and environment, and so the same result."""

    name: str
    fingerprint: Sha256
    version: NonNegativeInt = Field(description="of the code of the stage")
    environment: dict[str, str] = Field(description="what of the machine can change its result")
    inputs: tuple[Hashed, ...]


class ManifestFile(Record):
    path: RunPath
    kind: Kind = Field(description="output: of a stage; report: made from report.json; record: of the run itself")
    size_bytes: NonNegativeInt
    sha256: Sha256


class Hardware(Record):
    os: str
    cpu: str
    gpu: str | None = None


class StageTime(Record):
    name: str
    finished: AwareDatetime
    seconds: NonNegativeFloat
    cached: bool


class Times(Record):
    """When, and for how long; nothing else in the manifest says that."""

    created: AwareDatetime = Field(description="of report.json")
    stages: tuple[StageTime, ...]


class RunManifest(Record):
    """Everything that is known of where a run came from."""

    schema_version: Literal["1.0"] = SCHEMA_VERSION
    run_name: str
    command: str
    seed: int = Field(description="that all stages draw from")
    teacher_sha256: Sha256 = Field(description="of the file that the user gave")
    image_sets: tuple[ImageSet, ...] = Field(description="by what the run did with them")
    inputs: tuple[Input, ...] = Field(description="files and folders from outside the run folder")
    baseline: Baseline | None = Field(default=None, description="the earlier report that regressions are judged by")
    config: dict[str, JsonValue] = Field(description="every setting; where each came from stands in config.yaml")
    versions: dict[str, str] = Field(description="of this tool and of what computes")
    hardware: Hardware
    stages: tuple[ManifestStage, ...]
    files: tuple[ManifestFile, ...] = Field(description="of the run folder, by path, without this one")
    times: Times


def run_manifest(report: Report, run_folder: Path) -> RunManifest:
    """The manifest of a finished run.

    Raises:
        OSError: a stage of the report, or config.yaml, is not in the folder.
    """
    names = [stage.name for stage in report.stages]
    records = {name: _read(run_folder / name / STAGE_MANIFEST) for name in names}
    environment = report.environment
    versions = {
        "compress": report.tool_version,
        "python": environment.python,
        "torch": environment.torch,
        "onnxruntime": environment.onnxruntime,
        **({} if environment.onnx is None else {"onnx": environment.onnx}),
    }
    return RunManifest(
        run_name=report.run_name,
        command=report.command,
        seed=report.distillation.seed,
        teacher_sha256=report.teacher_source.sha256,
        image_sets=report.image_sets,
        inputs=tuple(_inputs(records)),
        baseline=report.baseline,
        config=yaml.safe_load((run_folder / CONFIG).read_text(encoding="utf-8")),
        versions=versions,
        hardware=Hardware(os=environment.os, cpu=environment.cpu, gpu=environment.gpu),
        stages=tuple(
            ManifestStage(
                name=name, **{key: record[key] for key in ("fingerprint", "version", "environment", "inputs")}
            )
            for name, record in records.items()
        ),
        files=tuple(_files(run_folder, records)),
        times=Times(
            created=report.created,
            stages=tuple(
                StageTime(
                    name=stage.name,
                    finished=records[stage.name]["created"],
                    seconds=stage.seconds,
                    cached=stage.cached,
                )
                for stage in report.stages
            ),
        ),
    )


def write_manifest(manifest: RunManifest, path: Path) -> None:
    """Write manifest.json whole or not at all; last, since it names all other files."""
    atomic_write_text(path, manifest.model_dump_json(indent=2) + "\n")


def read_manifest(path: Path) -> RunManifest:
    """Read manifest.json back.

    Raises:
        OSError: it is not there.
        pydantic.ValidationError: it is of another version, or was edited.
    """
    return RunManifest.model_validate_json(path.read_text(encoding="utf-8"))


def has_settings_of(run_folder: Path) -> bool:
    """Whether its manifest.json has the settings that its config.yaml has now, such as the place of a moved folder."""
    try:
        recorded = read_manifest(run_folder / MANIFEST)
    except (OSError, ValueError):
        return False
    settings: object = yaml.safe_load((run_folder / CONFIG).read_text(encoding="utf-8"))
    return recorded.config == settings


def write_schema(path: Path) -> None:
    """Publish the JSON Schema that manifest.json follows."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **RunManifest.model_json_schema(mode="serialization"),
    }
    atomic_write_text(path, json.dumps(schema, indent=2) + "\n")


def _inputs(records: dict[str, dict[str, Any]]) -> Iterator[Input]:
    """What the stages read from outside; the paths of what they read from each other have a slash in them."""
    read_by: dict[tuple[str, str], list[str]] = {}
    for stage, record in records.items():
        for entry in record["inputs"]:
            if "/" not in entry["name"]:
                read_by.setdefault((entry["name"], entry["sha256"]), []).append(stage)
    for (name, sha256), stages in sorted(read_by.items()):
        yield Input(name=name, sha256=sha256, read_by=tuple(stages))


def _files(run_folder: Path, records: dict[str, dict[str, Any]]) -> Iterator[ManifestFile]:
    """By path. A file that someone laid beside them is not of the run; one inside a stage's folder cannot be told."""
    found = [run_folder / name for name in (*REPORT_FILES, *RUN_FILES)]
    for folder in (*records, MERGED):
        found += (run_folder / folder).rglob("*")
    for path in sorted(found):
        if path.is_symlink() or not path.is_file() or any(map(path.match, UNFINISHED)):
            continue
        name = path.relative_to(run_folder).as_posix()
        yield ManifestFile(path=name, kind=_kind(name, records), size_bytes=path.stat().st_size, sha256=sha256_of(path))


def _kind(name: str, stages: Iterable[str]) -> Kind:
    if name in REPORT_FILES:
        return "report"
    stage, _, file = name.partition("/")
    return "output" if stage in stages and file != MANIFEST else "record"


def _read(path: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record
