"""What each stage depends on: what a change reruns, and what it leaves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_run
import torch
from tiny_run import STAGES, Compress, failing, refused

from compressor import pipeline
from compressor.config import resolve
from compressor.errors import StageFailed, UsageFault
from compressor.pipeline import declare
from compressor.pipeline.run import Run, prepare
from compressor.running import _as_stage_errors
from compressor.stages import fingerprint
from exporters.errors import ExportError
from profiles.catalogue import DEVICES


def run_of(inputs: Path, out: Path, **settings: Any) -> Run:
    flags = {"teacher.file": inputs / "t.pt", "samples.folder": inputs / "few", "out": out, "device": "cpu"}
    named = {name.replace("__", "."): value for name, value in settings.items()}
    return prepare(resolve({**flags, **named}, None))


@pytest.fixture
def stage_files(inputs: Path, tmp_path: Path) -> Path:
    """A run folder with something in the place of every file that a stage reads."""
    folder = tmp_path / "run"
    for stage in declare(run_of(inputs, folder)):
        for name in stage.outputs:
            (folder / stage.name / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / stage.name / name).write_text(name)
    return folder


def prints(run: Run) -> dict[str, str]:
    return {stage.name: fingerprint(stage) for stage in declare(run)}


@pytest.mark.parametrize(
    ("changed", "stages"),
    [
        ({}, ""),
        ({"seed": 1}, "samples student distill precision"),
        ({"student__spec": "width:0.25"}, "student"),
        ({"distill__method": "vanilla"}, "distill"),
        ({"distill__effort": "quick"}, "distill"),
        ({"distill__precision": "fp32"}, "distill"),
        ({"distill__options": {"student_lr": 0.1}}, "distill"),
        ({"report__synthetic_sheet": True}, "report"),
        ({"report__skip_robustness": True}, "report"),
        ({"samples__evidence_fraction": 0.3}, "samples"),
        ({"teacher__mean": "0.5,0.5,0.5", "teacher__std": "0.5,0.5,0.5"}, "teacher"),
        ({"onnx__opset": 18}, "onnx"),
        ({"latency__threads": 1}, "latency"),
        # The target's name stands in the ONNX file, and only on the target itself is a latency the target's.
        ({"target": "t4"}, "student onnx precision engine kit latency"),
        ({"target": "jetson"}, "student onnx precision engine kit latency"),
        ({"precision__precisions": "fp32,int8"}, "precision"),
        ({"precision__calibration_images": 64}, "precision"),
        ({"limits__max_drop": 0.5}, "precision"),
        ({"limits__max_latency_ms": 5.0}, "student"),
        ({"limits__accept_predicted": True}, ""),
        ({"engine__max_batch": 8}, "engine"),
        ({"kit__images": True}, "kit"),
        ({"board": "user@board"}, ""),
        ({"budget": "30m"}, "distill"),
        ({"samples__max_pool_images": 100}, "samples"),
    ],
)
def test_what_a_setting_changes_by_itself(
    changed: dict[str, Any], stages: str, inputs: Path, stage_files: Path
) -> None:
    before, after = prints(run_of(inputs, stage_files)), prints(run_of(inputs, stage_files, **changed))
    assert tuple(before) == STAGES
    assert {name for name in STAGES if before[name] != after[name]} == set(stages.split())


def test_limits_do_not_concern_a_student_that_the_user_names(inputs: Path, stage_files: Path) -> None:
    named = {"student__spec": "width:0.5"}
    before = prints(run_of(inputs, stage_files, **named))
    assert prints(run_of(inputs, stage_files, **named, limits__max_latency_ms=5.0)) == before


def test_an_evaluation_set_concerns_the_report_alone(inputs: Path, stage_files: Path) -> None:
    before = prints(run_of(inputs, stage_files))
    after = prints(run_of(inputs, stage_files, report__eval=inputs / "val"))
    assert {name for name in STAGES if before[name] != after[name]} == {"report"}


def test_a_pool_concerns_whoever_reads_images(inputs: Path, stage_files: Path) -> None:
    before = prints(run_of(inputs, stage_files))
    (stage_files / "samples" / "pool.safetensors").write_text("pool.safetensors")
    after = prints(run_of(inputs, stage_files, samples__pool=inputs / "val"))
    assert {name for name in STAGES if before[name] != after[name]} == {"samples", "distill", "precision"}
    # What the report must know of the pool is in `known.safetensors` and `split.json`.
    (stage_files / "samples" / "known.safetensors").write_text("of a pool")
    assert {name for name in STAGES if prints(run_of(inputs, stage_files))[name] != before[name]} == {"report"}


def test_a_card_beside_the_teacher_and_the_class_names_are_inputs(
    inputs: Path, stage_files: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.pt").write_bytes((inputs / "t.pt").read_bytes())
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\n")
    settings = {"teacher__file": tmp_path / "t.pt", "teacher__class_names": names}
    before = prints(run_of(inputs, stage_files, **settings))
    (tmp_path / "t.yaml").write_text("mean: [0.5]\n")
    with_card = prints(run_of(inputs, stage_files, **settings))
    names.write_text("one\nthree\n")
    with_names = prints(run_of(inputs, stage_files, **settings))
    assert len({before["teacher"], with_card["teacher"], with_names["teacher"]}) == 3


def test_the_code_of_an_own_network_concerns_whoever_asks_the_teacher(
    inputs: Path, stage_files: Path, tmp_path: Path
) -> None:
    code = tmp_path / "net_of_a_user.py"
    code.write_text("")
    settings = {"teacher__architecture": "net_of_a_user:Net", "teacher__code": code}
    (stage_files / "teacher" / "code.zip").write_text("one")
    before = prints(run_of(inputs, stage_files, **settings))
    (stage_files / "teacher" / "code.zip").write_text("another")
    after = prints(run_of(inputs, stage_files, **settings))
    assert {name for name in STAGES if before[name] != after[name]} == {
        *("samples", "student", "distill", "onnx", "report")
    }


def test_training_and_timing_depend_on_the_machine(inputs: Path, tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in declare(run_of(inputs, tmp_path / "run"))}
    assert set(stages["distill"].environment) == {"device", "torch"}
    assert set(stages["latency"].environment) == {"machine", "cores", "onnxruntime"}
    assert set(stages["engine"].environment) == {"tensorrt", "gpu"}
    assert set(stages["student"].environment) == {"torch", "torch-pruning"}  # a choice is kept, wherever it was timed
    dependent = {"student", "distill", "onnx", "precision", "engine", "latency", "report"}
    assert {name for name, stage in stages.items() if stage.environment} == dependent


# --- settings of the method -------------------------------------------------------------------------------------------


def test_the_users_options_win_over_what_fits(inputs: Path, tmp_path: Path) -> None:
    options = {"student_steps": 7, "student_lr": 0.5}
    run = run_of(inputs, tmp_path / "run", distill__effort="quick", distill__options=options)
    settings = run.method_settings("hidfd", tiny.card()).model_dump()
    fitting = run.fitting_settings("hidfd", tiny.card())
    assert settings["student_steps"] == 7 != fitting["student_steps"]
    assert settings["student_lr"] == 0.5
    assert settings["generator_steps"] == fitting["generator_steps"]
    full = run_of(inputs, tmp_path / "run", distill__effort="full")
    assert full.fitting_settings("hidfd", tiny.card()) != fitting


def test_an_opset_above_the_targets_ceiling(inputs: Path, tmp_path: Path) -> None:
    assert run_of(inputs, tmp_path / "run", target="jetson-nano").opset_ceiling() == 13
    assert run_of(inputs, tmp_path / "run", target="t4", onnx__opset=17).opset_ceiling() == 17
    with pytest.raises(UsageFault, match="--opset 21"):
        run_of(inputs, tmp_path / "run", target="t4", onnx__opset=21)


# --- what the user is warned of ---------------------------------------------------------------------------------------


def test_a_normalisation_that_nobody_states_is_a_warning(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = torch.load(inputs / "t.pt", weights_only=True)
    torch.save(contents["state_dict"], tmp_path / "bare.pt")
    monkeypatch.setattr(pipeline, "make_the_student", failing(RuntimeError("enough")))
    line = tiny_run.line(inputs, tmp_path / "run", "--teacher", f"{tmp_path}/bare.pt", "--arch", "cifar_resnet8")
    outcome = compress(*line, "--input-size", "8")
    assert "normalisation chosen on the samples: " in outcome.err
    assert "  ! The teacher's normalisation is stated nowhere;" in outcome.err
    facts = json.loads((tmp_path / "run/teacher/facts.json").read_text())
    assert any("State --mean and --std if you know them." in warning for warning in facts["warnings"])


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("layers.1", "the output of layers.1 is no map that fc takes"),
        ("layers.2.0.bn2", "the logits differ from fc(mean of layers.2.0.bn2) by"),
    ],
)
def test_a_classifier_that_cannot_be_shared(
    layer: str, words: str, inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run", "--feature-layer", layer))
    refused(outcome, 4, words, "--feature-layer and --classifier-layer")


# --- what ends a stage ------------------------------------------------------------------------------------------------


def failure(error: Exception, folder: Path) -> StageFailed:
    with pytest.raises(StageFailed) as caught, _as_stage_errors("distill", folder):
        raise error
    assert caught.value.exit_code == 5
    return caught.value


def test_every_end_of_a_stage_has_its_sentences(tmp_path: Path) -> None:
    export = failure(ExportError("No such operator.", "Another was expected.", "Choose another."), tmp_path)
    assert (export.received, export.action) == ("Stage distill failed: No such operator.", "Choose another.")
    memory = failure(torch.OutOfMemoryError("CUDA out of memory"), tmp_path)
    assert "--option student_batch_size=64" in memory.action
    full = failure(OSError(28, "No space left on device"), tmp_path)
    assert "no space is left" in full.received
    chained = RuntimeError("writer failed")
    chained.__cause__ = OSError(28, "No space left on device")
    assert "no space is left" in failure(chained, tmp_path).received
    assert not (tmp_path / "distill").exists()
    other = failure(OSError(13, "Permission denied"), tmp_path)
    assert "PermissionError" in other.received
    assert "Permission denied" in (tmp_path / "distill/error.log").read_text()


def test_a_traceback_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "distill").write_text("in the way")
    assert "could not be written" in failure(ValueError("several\nlines."), tmp_path).expected


def test_every_shipped_target_can_be_planned_for(inputs: Path, tmp_path: Path) -> None:
    for path in sorted(DEVICES.glob("*.yaml")):
        assert len(declare(run_of(inputs, tmp_path / path.stem, target=path.stem))) == len(STAGES)
