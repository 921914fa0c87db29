"""No image, twenty images, a pool of five thousand: each is enough for a run, and `--method auto` finds its method."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image
from tiny_run import Compress, failing, refused

from compressor import pipeline
from compressor.inputs.intake import save_checkpoint
from compressor.stage_files import load_tensors, read_facts

CLASSES = tiny.NUM_CLASSES
SHORT = (
    *("--student", "width:0.5", "--effort", "quick"),
    *("--latency-warmup-s", "0.01", "--latency-window-s", "0.01", "--latency-max-s", "0.3"),
    *("--calibration-images", "32", "--option", "student_steps=4", "--option", "student_batch_size=8"),
)
DFAD = ("--method", "dfad", "--option", "generator_width=8", "--option", "latent_dim=4")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that is sure of what it sees, as trained ones are."""
    made = tiny.teacher()
    with torch.no_grad():
        made.classifier.weight.mul_(100.0)
    path = tmp_path_factory.mktemp("teacher") / "t.pt"
    save_checkpoint(path, made.network.state_dict(), made.card)
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`few` with 20 images, `val` with 40, `pool` with 5,000 alike, and `grey` with 40 that are all one class."""
    root = tmp_path_factory.mktemp("images")
    for name, count, seed in (("few", 20, 2), ("val", 40, 3), ("pool", 5_000, 4)):
        write(root / name, tiny.images(count, seed=seed))
    write(root / "grey", torch.arange(40, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 8, 8))
    return root


def write(folder: Path, images: torch.Tensor) -> None:
    folder.mkdir()
    for index, image in enumerate(images):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / f"{index:04d}.png")


def test_a_run_without_any_image(teacher: Path, tmp_path: Path, compress: Compress) -> None:
    outcome = compress("run", "--teacher", f"{teacher}", "--out", f"{tmp_path}/run", *SHORT, *DFAD, "--json")
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert (report["distillation"]["method"], report["distillation"]["chosen"]) == ("dfad", "asked")
    assert report["student"]["agreement"] == {"evidence": None, "eval": None}
    assert report["generated"]["agreement"]["n"] == 256
    assert report["summary"]["decision"] == "ungated"
    assert any("nothing says how good it is" in warning for warning in report["warnings"])
    assert not any("interval is wide" in warning for warning in report["warnings"])
    assert any("int8" in warning and "without any real image" in warning for warning in report["warnings"])
    assert not (tmp_path / "run" / "samples" / "sheet.png").exists()
    assert {path.name for path in (tmp_path / "run" / "onnx").glob("*.onnx")} == {"student.onnx", "teacher.onnx"}


def test_without_samples_the_evaluation_images_judge(
    teacher: Path, folders: Path, tmp_path: Path, compress: Compress
) -> None:
    line = ("run", "--teacher", f"{teacher}", "--out", f"{tmp_path}/run", "--eval", f"{folders}/val", *SHORT, *DFAD)
    outcome = compress(*line, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["student"]["agreement"]["eval"]["n"] == 40


@pytest.mark.parametrize(
    ("given", "method", "reason"),
    [
        ((), "fast", "there is no image"),
        (("few",), "hidfd", "17 images of 4 classes"),
        (("few", "pool"), "kd3", "5,017 images are enough"),
        (("pool",), "kd3", "5,000 images are enough"),
        (("few", "grey"), "hidfd", "17 images of 4 classes"),  # the pool is unrelated
    ],
)
def test_auto_chooses_by_what_is_there(
    given: tuple[str, ...],
    method: str,
    reason: str,
    teacher: Path,
    folders: Path,
    tmp_path: Path,
    compress: Compress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "export_the_student", failing(RuntimeError("enough")))
    images = [word for name in given for word in ("--samples" if name == "few" else "--pool", f"{folders}/{name}")]
    chosen = ("generator_steps=4",) if method == "hidfd" else ()
    options = [word for option in chosen for word in ("--option", option)]
    outcome = compress("run", "--teacher", f"{teacher}", "--out", f"{tmp_path}/run", *SHORT, *options, *images)
    assert outcome.code == 5, outcome.err
    facts = read_facts(tmp_path / "run" / "distill")
    assert facts["method"] == method
    assert facts["uses_pool"] == (method == "kd3")
    unused = f"--pool is not used by {method} to train on; kd3 and pool do."
    assert facts["warnings"] == ([unused] if "grey" in given else [])
    assert (unused in outcome.err) == ("grey" in given)
    assert reason in facts["method_reason"]
    assert f"{method} ({facts['method_reason']})" in outcome.err
    if "pool" in given:
        assert len(load_tensors(tmp_path / "run" / "samples" / "pool.safetensors")["images"]) == 5_000


def test_the_choice_is_kept_on_resume(
    teacher: Path, folders: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version of the rule, or another device's rounding, does not change the method half-way."""
    line = ("run", "--teacher", f"{teacher}", "--samples", f"{folders}/few", "--out", f"{tmp_path}/run", *SHORT)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "check_fit", failing(RuntimeError("stopped after the choice")))
        assert compress(*line).code == 5
    monkeypatch.setattr("compressor.pipeline.choices.choose_method", failing(AssertionError("chosen twice")))
    monkeypatch.setattr(pipeline, "export_the_student", failing(RuntimeError("enough")))
    assert compress(*line, "--option", "generator_steps=4").code == 5
    assert read_facts(tmp_path / "run" / "distill")["method"] == "hidfd"
    assert "\nhidfd" not in compress("plan", *line[1:]).out  # its settings, not its sheet
    assert "setting of hidfd" in compress("plan", *line[1:], "--option", "generator_steps=4").out


def test_an_option_of_another_method_is_refused_before_training(
    teacher: Path, folders: Path, tmp_path: Path, compress: Compress
) -> None:
    line = ("run", "--teacher", f"{teacher}", "--samples", f"{folders}/few", "--out", f"{tmp_path}/run", *SHORT)
    refused_now = compress(*line, "--option", "contrast_weight=0.5", "--quiet")
    refused(refused_now, 2, "there is no contrast_weight", "--method auto chose it", "Name with --method")
    assert not (tmp_path / "run" / "distill" / "log.jsonl").exists()


def test_the_plan_says_that_the_method_is_open_yet(
    teacher: Path, folders: Path, tmp_path: Path, compress: Compress
) -> None:
    line = ("plan", "--teacher", f"{teacher}", "--samples", f"{folders}/few", "--out", f"{tmp_path}/run", *SHORT)
    assert "The method is chosen by the images and the teacher when they have been read." in compress(*line).out
    assert json.loads(compress(*line, "--json").out)["method"] == "auto"


def test_a_method_that_needs_images_is_refused_without(teacher: Path, tmp_path: Path, compress: Compress) -> None:
    line = ("run", "--teacher", f"{teacher}", "--out", f"{tmp_path}/run", *SHORT, "--method", "vanilla", "--quiet")
    refused(compress(*line), 4, "There is no image of the task", "The method vanilla needs images of the task")


def test_an_unstated_normalisation_needs_samples(teacher: Path, tmp_path: Path, compress: Compress) -> None:
    torch.save(torch.load(teacher)["state_dict"], tmp_path / "bare.pt")
    line = ("run", "--teacher", f"{tmp_path}/bare.pt", "--arch", tiny.ARCHITECTURE, "--input-size", "8")
    refused(
        compress(*line, "--out", f"{tmp_path}/run", "--quiet"), 4, "normalisation is stated nowhere", "--mean and --std"
    )


def test_a_pool_inside_which_the_samples_lie_is_cleaned_of_them(
    teacher: Path, folders: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "make_the_student", failing(RuntimeError("enough")))
    line = ("run", "--teacher", f"{teacher}", "--samples", f"{folders}/few", "--pool", f"{folders}", *SHORT)
    outcome = compress(*line, "--max-pool-images", "6000", "--out", f"{tmp_path}/run")
    assert outcome.code == 5
    assert "20 images of --pool are also among the samples, as such or as a near copy; left out" in outcome.err
    pool = load_tensors(tmp_path / "run" / "samples" / "pool.safetensors")["images"]
    assert len(pool) == 40 + 5_000 + 40


def test_a_pool_that_holds_the_evaluation_images_leaves_nothing_to_judge_on(
    teacher: Path, folders: Path, tmp_path: Path, compress: Compress
) -> None:
    """Copies in other bytes, with which the student has trained; and int8 calls the pool what it is."""
    (tmp_path / "pool").mkdir()
    for file in (folders / "val").iterdir():
        Image.open(file).save(tmp_path / "pool" / f"{file.stem}.bmp")
    line = ("run", "--teacher", f"{teacher}", "--out", f"{tmp_path}/run", "--pool", f"{tmp_path}/pool", *SHORT)
    outcome = compress(*line, "--eval", f"{folders}/val", "--method", "pool", "--json")
    assert outcome.code == 0, outcome.err
    report = json.loads(outcome.out)
    assert report["student"]["agreement"] == {"evidence": None, "eval": None}
    said = " ".join(report["warnings"])
    assert "40 images of --eval are also in the pool, as such or as a near copy" in said
    assert "No image of --eval is left to judge the student" in said
    assert "on pool images of unknown relation" in said
    (calibration,) = [row for row in report["int8"] if row["model"] == "student"]
    assert (calibration["num_real"], calibration["num_pool"]) == (0, 20)
    assert "of the pool" in (tmp_path / "run" / "report.md").read_text()
