"""manifest.json names every file of a run, and nothing that is none; its schema is the published one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
from pydantic import ValidationError

from compressor.provenance.manifest import read_manifest, run_manifest, write_manifest, write_schema
from compressor.report.gate_record import Baseline
from compressor.report.schema import ImageSet, Report, StageRecord, write_report
from compressor.stages import Stage, create_run_folder, execute

PUBLISHED = Path(__file__).parents[3] / "docs" / "manifest-schema.json"
WRITTEN = ("student.safetensors", "log.jsonl", "checkpoint-7.pt", "error.log", ".tmp-1-x")


def make_run(folder: Path, build_report: Callable[..., Report], given: Path) -> Report:
    """A run of two stages: one reads what the user gave, the other what the first wrote."""
    create_run_folder(folder)
    (given / "few").mkdir(parents=True, exist_ok=True)
    (given / "t.pt").write_bytes(b"weights")
    (given / "few" / "0.png").write_bytes(b"pixels")

    def write(where: Path) -> None:
        for name in WRITTEN:
            (where / name).write_text(name)

    first, second = (
        Stage(name, inputs, ("student.safetensors",), {"seed": 7}, {"torch": "2.15.0"}, 3, write)
        for name, inputs in (
            ("teacher", (given / "t.pt", given / "few")),
            ("distill", (given / "few", folder / "teacher" / "student.safetensors")),
        )
    )
    results = [execute(stage, folder, lambda *_: None) for stage in (first, second)]
    (folder / "config.yaml").write_text("seed: 7  # --seed\nteacher:\n  file: t.pt  # --teacher\n")
    (folder / "target.json").write_text("{}\n")
    (folder / ".lock").write_text("1")
    (folder / "notes.txt").write_text("of someone else")
    (folder / "distill" / "error.log").write_text("of an attempt that failed")
    stages = tuple(
        StageRecord(name=r.name, cached=False, seconds=r.seconds, fingerprint=r.fingerprint) for r in results
    )
    report = build_report(
        stages=stages,
        image_sets=(ImageSet(name="train", num_images=1, sha256="f" * 64),),
        baseline=Baseline(file="previous/report.json", sha256="e" * 64, run_name="old", created="2026-11-19"),
    )
    write_report(report, folder / "report.json")
    return report


def test_every_file_of_the_run_and_no_other(build_report: Callable[..., Report], tmp_path: Path) -> None:
    report = make_run(tmp_path / "run", build_report, tmp_path)
    (tmp_path / "run" / "merged").mkdir()
    (tmp_path / "run" / "merged" / "jetson.json").write_text("{}")
    (tmp_path / "run" / "manifest.json").write_text("an earlier one")
    manifest = run_manifest(report, tmp_path / "run")
    of_stages = {
        f"{stage}/{name}": kind
        for stage in ("teacher", "distill")
        for name, kind in (("student.safetensors", "output"), ("log.jsonl", "output"), ("manifest.json", "record"))
    }
    others = dict.fromkeys(("CACHEDIR.TAG", "config.yaml", "target.json", "merged/jetson.json"), "record")
    assert {file.path: file.kind for file in manifest.files} == of_stages | others | {"report.json": "report"}
    assert [file.path for file in manifest.files] == sorted(file.path for file in manifest.files)
    for file in manifest.files:
        data = (tmp_path / "run" / file.path).read_bytes()
        assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_what_went_in_is_told_from_what_stages_gave_each_other(
    build_report: Callable[..., Report], tmp_path: Path
) -> None:
    report = make_run(tmp_path / "run", build_report, tmp_path)
    manifest = run_manifest(report, tmp_path / "run")
    assert [(one.name, one.read_by) for one in manifest.inputs] == [
        ("few", ("teacher", "distill")),
        ("t.pt", ("teacher",)),
    ]
    assert manifest.inputs[1].sha256 == hashlib.sha256(b"weights").hexdigest()
    assert manifest.config == {"seed": 7, "teacher": {"file": "t.pt"}}
    assert manifest.versions["torch"] == "2.15.0"
    assert [stage.fingerprint for stage in manifest.stages] == [stage.fingerprint for stage in report.stages]
    assert manifest.stages[1].inputs[1].name == "teacher/student.safetensors"
    assert manifest.stages[0].environment == {"torch": "2.15.0"}
    assert (manifest.seed, manifest.baseline, manifest.image_sets) == (7, report.baseline, report.image_sets)


def test_two_equal_runs_differ_in_times_and_in_files_that_hold_them(
    build_report: Callable[..., Report], tmp_path: Path
) -> None:
    first, second = (
        run_manifest(make_run(tmp_path / name, build_report, tmp_path), tmp_path / name).model_dump(mode="json")
        for name in ("a", "b")
    )
    for manifest in (first, second):
        del manifest["times"]
        manifest["files"] = [one for one in manifest["files"] if one["kind"] == "output" or "json" not in one["path"]]
    assert first == second
    assert len(first["files"]) == 6


def test_written_read_and_of_the_published_schema(build_report: Callable[..., Report], tmp_path: Path) -> None:
    report = make_run(tmp_path / "run", build_report, tmp_path)
    path = tmp_path / "run" / "manifest.json"
    write_manifest(run_manifest(report, tmp_path / "run"), path)
    written = json.loads(path.read_text())
    jsonschema.validate(written, json.loads(PUBLISHED.read_text()))
    assert read_manifest(path) == run_manifest(report, tmp_path / "run")
    path.write_text(json.dumps({**written, "schema_version": "2.0"}))
    with pytest.raises(ValidationError, match="schema_version"):
        read_manifest(path)


def test_the_published_schema_is_that_of_the_models(tmp_path: Path) -> None:
    write_schema(tmp_path / "schema.json")
    assert json.loads(PUBLISHED.read_text()) == json.loads((tmp_path / "schema.json").read_text()), (
        "raise schema_version if needed, then: python -c "
        "'from pathlib import Path; from compressor.provenance.manifest import write_schema; "
        'write_schema(Path("docs/manifest-schema.json"))\''
    )
