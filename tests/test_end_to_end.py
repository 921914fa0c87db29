"""From a teacher's file and a folder of images to a report: the whole of `compress run`, and what it leaves.

Read this first. A run is the real command line on 8x8 images with a few training steps; `tiny_run` makes its inputs.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny
import tiny_run
import torch
from PIL import Image
from safetensors.torch import load_file
from tiny_run import STAGES, Compress, refused
from torch import Tensor

from compressor import pipeline
from compressor.cli import invoke
from compressor.errors import Interrupted
from compressor.inputs.samples import SampleSet, read_samples
from compressor.methods import TrainingImages, hidfd
from compressor.report.schema import Report, read_report
from compressor.students.student import load_student
from exporters.onnx_files import read_onnx_metadata
from exporters.parity import compare
from exporters.runners import OnnxRunner

FILES = {
    "": "CACHEDIR.TAG .lock choices.json config.yaml gates.json junit.xml manifest.json metrics.txt model-card.md "
    "report.html report.json report.md sbom.json target.json",
    "teacher/": "card.json facts.json manifest.json weights.safetensors",
    "samples/": "facts.json images.safetensors known.safetensors manifest.json sheet.png split.json",
    "student/": "backbone.json backbone.safetensors facts.json manifest.json",
    "distill/": "facts.json generator.json generator.safetensors log.jsonl manifest.json student.json "
    "student.safetensors",
    "onnx/": "facts.json manifest.json student.onnx student.pt2 teacher.onnx",
    "precision/": "facts.json manifest.json student.fp16.onnx student.int8.onnx teacher.fp16.onnx teacher.int8.onnx",
    "engine/": "facts.json manifest.json",
    "kit/": "facts.json kit.tar.gz manifest.json",
    "latency/": "facts.json manifest.json",
    "report/": "curves.png facts.json judged.json manifest.json",
}
EXPECTED = {f"{folder}{name}" for folder, names in FILES.items() for name in names.split()}


def files(folder: Path) -> set[str]:
    """All but what is in the unpacked kit, which has a test of its own."""
    paths = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {path for path in paths if not path.startswith("kit/kit/")}


def logits(onnx_file: Path, images: Tensor) -> np.ndarray[Any, Any]:
    with OnnxRunner(onnx_file) as runner:
        return runner.infer({"image": images.numpy()})["logits"]


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run for a Jetson, with an evaluation set; not to be written to."""
    folder = tmp_path_factory.mktemp("finished") / "t-jetson"
    assert invoke(tiny_run.line(inputs, folder, "--target", "jetson", "--eval", f"{inputs}/val")) == 0
    return folder


@pytest.fixture
def report(finished: Path) -> Report:
    return read_report(finished / "report.json")


# --- what a run leaves ------------------------------------------------------------------------------------------------


def test_exactly_these_files(finished: Path) -> None:
    assert files(finished) == EXPECTED


def test_the_report_says_what_was_made_and_what_is_not_known(finished: Path, report: Report, inputs: Path) -> None:
    assert (report.teacher.name, report.student.name) == ("t.pt", "student.onnx")
    assert report.teacher_source.sha256 == hashlib.sha256((inputs / "t.pt").read_bytes()).hexdigest()
    assert report.student.params_m < report.teacher.params_m
    assert report.student.macs_g < report.teacher.macs_g
    assert report.student.agreement.evidence is not None
    assert report.student.agreement.eval is not None
    assert report.student.agreement.eval.n == tiny_run.NUM_VAL
    assert report.teacher.accuracy.eval is not None
    assert report.teacher.accuracy.eval.value == 1.0  # the folders are named by the teacher's own opinion
    assert [phase.num_steps for phase in report.distillation.phases] == [6, 6]
    for row in (report.teacher, report.student):
        assert row.latency_host is not None
        assert row.latency_host.device
        assert not row.latency_host.is_target
        assert row.latency_target is None
    assert report.target.reason == "No NVIDIA Jetson Orin Nano Super 8 GB is attached to the machine that ran this."
    for artefact in report.artefacts:
        assert artefact.sha256 == hashlib.sha256((finished / artefact.path).read_bytes()).hexdigest()
    assert {picture.path for picture in report.pictures} == {"samples/sheet.png", "report/curves.png"}
    assert [one.artefact for one in report.layers] == ["student fp32", "teacher fp32"]
    assert [len(phase.curve) for phase in report.distillation.phases] == [6, 6]
    assert {(one.images, one.agreement.n) for one in report.robustness} == {("eval", tiny_run.NUM_VAL)}
    assert len(report.robustness) == 5
    for variant in report.variants:
        if variant.path is not None and variant.accuracy.eval is not None:
            difference, teacher = variant.accuracy_difference.eval, report.teacher.accuracy.eval
            assert difference is not None
            assert difference.value == pytest.approx(variant.accuracy.eval.value - teacher.value)
            assert sum(one.num_images for one in variant.class_accuracy) == tiny_run.NUM_VAL


def test_doubts_about_the_timing_are_said_once(finished: Path, report: Report) -> None:
    markdown = (finished / "report.md").read_text()
    for name, row in (("Teacher", report.teacher), ("Student", report.student)):
        assert row.latency_host is not None
        for warning in row.latency_host.warnings:
            assert f"{name}: {warning}" not in report.warnings
            said = [f"{whose}: {warning[:20]}" for whose in (name, "Teacher and student")]
            assert sum(map(markdown.count, said)) == 1


def test_the_onnx_file_takes_images_of_any_number_and_knows_where_it_comes_from(finished: Path) -> None:
    graph = onnx.load(finished / "onnx/student.onnx").graph
    (image,), (output,) = graph.input, graph.output
    sizes = [dimension.dim_param or dimension.dim_value for dimension in image.type.tensor_type.shape.dim]
    assert (image.name, image.type.tensor_type.elem_type, sizes) == (
        "image",
        onnx.TensorProto.FLOAT,
        ["batch", 3, 8, 8],
    )
    assert output.name == "logits"
    for count in (1, 2, 5):
        assert logits(finished / "onnx/student.onnx", torch.rand(count, 3, 8, 8)).shape == (count, 4)
    metadata = read_onnx_metadata(finished / "onnx/student.onnx")
    assert metadata["target"] == "jetson-orin-nano-super"
    assert json.loads(metadata["card"]) == json.loads((finished / "teacher/card.json").read_text())
    assert json.loads(metadata["student"])["architecture"] == "cifar_resnet8"
    assert metadata["teacher_sha256"] == read_report(finished / "report.json").teacher_source.sha256


def test_the_student_is_rebuilt_from_its_card_and_equals_the_onnx_file(finished: Path, report: Report) -> None:
    student = load_student(finished / "distill/student.safetensors", finished / "distill/student.json")
    images = torch.rand(9, 3, 8, 8)
    with torch.no_grad():
        expected = student(images)
    assert compare(expected.numpy(), logits(finished / "onnx/student.onnx", images)).passes()
    program = torch.export.load(finished / "onnx/student.pt2").module()
    torch.testing.assert_close(program(images), expected, atol=1e-5, rtol=1e-5)
    assert [(row.images, row.num_images) for row in report.onnx.parity] == [
        ("batch 1", 1),
        ("batch 7", 7),
        ("held-out images", report.samples.num_evidence),
    ]
    assert all(row.max_rel <= 1e-4 and row.top1_agreement == 1.0 for row in report.onnx.parity)


def test_the_student_ends_in_its_teachers_classifier(finished: Path) -> None:
    teacher = load_file(finished / "teacher/weights.safetensors")
    student = load_file(finished / "distill/student.safetensors")
    assert torch.equal(student["classifier.weight"], teacher["fc.weight"])
    assert torch.equal(student["classifier.bias"], teacher["fc.bias"])


def test_every_row_of_the_log_names_its_losses(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "distill/log.jsonl").read_text().splitlines()]
    assert {(row["phase"], row["step"]) for row in rows} == {(p, s) for p in ("generator", "student") for s in range(6)}
    assert {term for row in rows for term in row["terms"]} == set(hidfd.LOSS_TERMS) - {"knowledge_distillation"}


# --- running again ----------------------------------------------------------------------------------------------------


def test_the_same_command_again_changes_nothing(finished: Path, inputs: Path, compress: Compress) -> None:
    before = {name: (finished / name).read_bytes() for name in files(finished) - {".lock"}}
    outcome = compress(*tiny_run.line(inputs, finished, "--target", "jetson", "--eval", f"{inputs}/val"))
    assert outcome.code == 0
    assert set(outcome.states().values()) == {"cached"}
    assert {name: (finished / name).read_bytes() for name in files(finished) - {".lock"}} == before


def test_other_limits_change_the_recommendation_alone(
    finished: Path, inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    folder = shutil.copytree(finished, tmp_path / "moved")
    line = tiny_run.line(inputs, folder, "--target", "jetson", "--eval", f"{inputs}/val")
    outcome = compress(*line, "--max-size-mib", "0.000001")
    assert outcome.code == 1, outcome.err  # and everything is written
    assert set(outcome.states().values()) == {"cached"}
    report = read_report(folder / "report.json")
    assert report.recommendation is not None
    assert (report.recommendation.model, report.recommendation.path) == (None, None)
    assert compress(*line).code == 0
    again = read_report(folder / "report.json").recommendation
    assert again is not None
    assert again.path is not None


def test_another_student_reruns_what_depends_on_it(
    finished: Path, inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    """A moved run folder keeps its stages, a pruned student needs no pickle, generated images come on request."""
    folder = shutil.copytree(finished, tmp_path / "moved")
    more = ("--student", "prune:0.5", "--synthetic-sheet")
    outcome = compress(*tiny_run.line(inputs, folder, "--target", "jetson", "--eval", f"{inputs}/val", *more))
    assert outcome.code == 0, outcome.err
    assert outcome.states() == {"teacher": "cached", "samples": "cached"} | dict.fromkeys(
        ("student", "distill", "onnx", "precision", "engine", "kit", "latency", "report"), "runs"
    )
    assert "student  runs (config changed: student.spec)" in outcome.err
    assert "This report replaces the earlier one" in outcome.err
    assert files(folder) == EXPECTED | {"report/synthetic.png"}

    report = read_report(folder / "report.json")
    assert report.student.architecture == "prune:0.5 of cifar_resnet8"
    assert "report/synthetic.png" in {picture.path for picture in report.pictures}
    student = load_student(folder / "distill/student.safetensors", folder / "distill/student.json")
    assert student.card.pruned
    images = torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        assert compare(student(images).numpy(), logits(folder / "onnx/student.onnx", images)).passes()


# --- a student that fits ----------------------------------------------------------------------------------------------


def test_the_student_is_chosen_before_anything_is_trained(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    """A plan makes the run's choice without its folder; a predicted latency proves nothing until it is accepted."""
    folder = tmp_path / "run"
    line = tiny_run.line(
        inputs, folder, "--target", "jetson", "--student", "auto", "--max-latency-ms", "50", "--max-params-m", "0.04"
    )
    planned = compress("plan", *line[1:], "--json")
    assert planned.code == 0, planned.err
    assert not folder.exists()
    search = json.loads(planned.out)["student_search"]

    outcome = compress(*line)
    assert outcome.code == 0, outcome.err
    report = read_report(folder / "report.json")
    assert report.student_search is not None
    assert report.student_search.model_dump(mode="json", exclude={"picture"}) == {
        name: value for name, value in search.items() if name != "picture"
    }
    assert report.student_search.picture == "student/candidates.png"
    chosen = next(row for row in report.student_search.candidates if row.spec == search["chosen"])
    assert chosen.params_m == pytest.approx(report.student.params_m, rel=1e-3)
    assert chosen.params_m <= 0.04
    assert any(
        "above the limit of 40.0 k parameters" in miss
        for row in report.student_search.candidates
        for miss in row.misses
    )
    states = {verdict.name: verdict.state for verdict in report.verdicts}
    assert states == {"max_latency_ms": "unproven", "max_params_m": "held"}
    assert report.summary.decision == "warn"
    assert all(variant.latency_target is None for variant in report.variants)
    assert all(variant.latency_predicted is not None for variant in report.variants if variant.format == "onnx")

    accepted = compress(*line, "--accept-predicted")
    assert accepted.code == 0, accepted.err
    assert set(accepted.states().values()) == {"cached"}
    assert read_report(folder / "report.json").summary.decision == "pass"


def test_limits_that_nothing_holds_end_before_the_training(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    folder = tmp_path / "run"
    line = tiny_run.line(inputs, folder, "--target", "jetson", "--student", "auto", "--max-latency-ms", "0.001")
    for words in (["plan", *line[1:]], line):
        refused(
            compress(*words), 4, "No student of cifar_resnet8 fits", "the closest are", "Use --max-latency-ms above"
        )
    assert not (folder / "distill").exists()
    assert (folder / "samples/manifest.json").exists()


def test_a_named_student_that_cannot_fit_ends_before_the_training(
    inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    line = tiny_run.line(inputs, tmp_path / "run", "--student", "prune:0.5", "--max-params-m", "0.001")
    for words in (["plan", *line[1:]], line):
        refused(
            compress(*words), 4, "The student prune:0.5 has", "above the limit of 1.00 k parameters", "--student auto"
        )


def test_anchors_have_to_be_measurements_of_the_target(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    (tmp_path / "earlier").mkdir()
    words = ("--target", "jetson", "--anchors", f"{tmp_path}/earlier")
    line = tiny_run.line(inputs, tmp_path / "run", *words)
    for command in (["plan", *line[1:]], line):
        outcome = compress(*command)
        refused(outcome, 2, "holds no measurement of jetson-orin-nano-super", "compress merge", "leave --anchors out")
    assert not (tmp_path / "run").exists()


# --- never selecting on evidence --------------------------------------------------------------------------------------


def test_held_out_images_are_never_trained_on(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Tensor] = []

    def spy(_teacher: object, _backbone: object, images: TrainingImages, *_: object) -> None:
        seen.append(images.everything)
        raise Interrupted("Enough was seen.", "The images are in the list.", "Look at them.")

    monkeypatch.setattr(hidfd, "distill", spy)
    assert compress(*tiny_run.line(inputs, tmp_path / "run")).code == 130
    (trained,) = seen
    parts: dict[str, set[str]] = {}
    for entry in json.loads((tmp_path / "run/samples/split.json").read_text())["files"]:
        path = inputs / "few" / entry["file"]
        assert entry["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        parts.setdefault(entry["part"], set()).add(np.asarray(Image.open(path)).tobytes())
    assert len(parts["evidence"]) >= 1
    assert {image.permute(1, 2, 0).numpy().tobytes() for image in trained} == parts["train"]
    assert not parts["train"] & parts["evidence"]


def trained_and_judged(inputs: Path, folder: Path) -> None:
    """Nothing was judged on an image that a stage has trained or chosen on, by the bytes of the files themselves."""
    split = json.loads((folder / "samples/split.json").read_text())
    judged = json.loads((folder / "report/judged.json").read_text())
    for entry in judged["evidence"]:
        assert entry["sha256"] == hashlib.sha256((inputs / "few" / entry["file"]).read_bytes()).hexdigest()
    seen = {entry["sha256"] for entry in split["files"] if entry["part"] != "evidence"}
    seen |= {entry["sha256"] for entry in split.get("pool", ())}
    assert seen
    assert not seen & {entry["sha256"] for entries in judged.values() for entry in entries}


def test_no_image_that_judges_was_trained_on_by_the_hashes_of_the_files(
    finished: Path, report: Report, inputs: Path
) -> None:
    trained_and_judged(inputs, finished)
    samples = report.samples
    assert {one.name: one.num_images for one in report.image_sets} == {
        "train": samples.num_train,
        "select": samples.num_select,
        "evidence": samples.num_evidence,
        "eval": tiny_run.NUM_VAL,
    }


def test_a_training_image_in_the_evaluation_set_is_left_out_and_would_be_refused(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation, pool, folder = tmp_path / "val", tmp_path / "pool", tmp_path / "run"
    shutil.copytree(inputs / "val", evaluation)
    pool.mkdir()
    for index, image in enumerate(tiny.images(6, seed=9)):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(pool / f"{index}.png")
    line = tiny_run.line(inputs, folder, "--eval", f"{evaluation}", "--pool", f"{pool}")
    assert compress(*line).code == 0
    trained_and_judged(inputs, folder)
    files = json.loads((folder / "samples/split.json").read_text())["files"]
    trained = next(entry["file"] for entry in files if entry["part"] == "train")
    (evaluation / "holiday.png").write_bytes((inputs / "few" / trained).read_bytes())

    monkeypatch.setattr("compressor.inputs.evaluation.near_copies", lambda of, _: torch.zeros(len(of)).bool())
    refused(compress(*line), 5, "'holiday.png' of the set 'eval'", f"'{trained}' of the set 'train'", "Delete one")
    (evaluation / "holiday.png").write_bytes((pool / "3.png").read_bytes())
    refused(compress(*line), 5, "'holiday.png' of the set 'eval'", "'3.png' of the set 'pool'")

    monkeypatch.undo()
    outcome = compress(*line)
    assert outcome.code == 0
    assert "1 image of --eval is also in the pool" in " ".join(outcome.err.split())
    report = read_report(folder / "report.json")
    assert {one.name: one.num_images for one in report.image_sets} == {
        "train": report.samples.num_train,
        "select": 0,
        "pool": 6,
        "evidence": report.samples.num_evidence,
        "eval": tiny_run.NUM_VAL,
    }
    trained_and_judged(inputs, folder)


def test_no_stage_before_the_report_opens_an_evaluation_image(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Acceptance test 10: with images that nobody can read all but the report works; with good ones only it runs."""
    evaluation, folder = tmp_path / "val", tmp_path / "run"
    shutil.copytree(inputs / "val", evaluation)
    for path in evaluation.rglob("*.png"):
        path.write_bytes(b"not an image, " + path.name.encode())
    line = tiny_run.line(inputs, folder, "--eval", f"{evaluation}")
    opened: list[Path] = []

    def spy(path: Path, *arguments: Any, **options: Any) -> SampleSet:
        opened.append(path)
        return read_samples(path, *arguments, **options)

    monkeypatch.setattr(pipeline, "read_samples", spy)
    monkeypatch.setattr("compressor.inputs.evaluation.read_samples", spy)
    outcome = compress(*line)
    assert outcome.code == 4
    assert f"error: The folder {evaluation} holds 0 images that can be used" in outcome.err
    assert list(outcome.states()) == list(STAGES)
    assert opened == [inputs / "few", inputs / "few", evaluation]  # by teacher, samples and report
    assert files(folder) & {"report.json", "report.md"} == set()

    shutil.copytree(inputs / "val", evaluation, dirs_exist_ok=True)
    outcome = compress(*line)
    assert outcome.code == 0
    assert outcome.states() == {**dict.fromkeys(STAGES, "cached"), "report": "runs"}
    assert files(folder) == EXPECTED - {"kit/kit.tar.gz"}  # this machine needs no kit for itself
