"""The command line as its users meet it: help, machine-readable output, and a refusal for all that can be wrong."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_run
import torch
from full_disk import file_size_limit
from PIL import Image
from tiny_run import Compress, failing, refused

from compressor import __version__, cli, pipeline, planning
from compressor.config import FLAGS
from compressor.inputs.intake import save_checkpoint
from compressor.report.schema import Report
from compressor.stages import create_run_folder, exclusive

COMMANDS = (
    "run",
    "plan",
    "export",
    "merge",
    "profile",
    "inspect",
    "methods",
    "targets",
    "targets list",
    "targets show",
    "doctor",
    "clean",
    "demo",
)


# --- help -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str, compress: Compress) -> None:
    outcome = compress(*command.split(), "--help")
    assert outcome.code == 0
    assert outcome.out.startswith(f"Usage: compress {command}")


def test_run_has_a_flag_for_every_setting_and_the_important_ones_first(compress: Compress) -> None:
    text = compress("run", "--help").out
    assert all(f"  {flag} " in text for flag in (*FLAGS.values(), "--config", "--json"))
    assert text.index("\n  --samples") < text.index("\n  --target") < text.index("\n  --arch")
    assert "--effort quick|standard|full" in text
    assert "--teacher PATH" in text


def test_no_command_is_help_and_the_exit_code_of_wrong_usage(compress: Compress) -> None:
    outcome = compress()
    assert outcome.code == 2
    assert all(f"\n  {command} " in outcome.out for command in COMMANDS if " " not in command)
    assert compress("--version").out == f"compress {__version__}\n"


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from compressor.cli import invoke; assert invoke(['--help']) == 0 == invoke(['run', '--help']);"
        "print(sorted({'torch', 'numpy', 'onnxruntime', 'matplotlib', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_runs_as_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "compressor", "targets", "show", "nano"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "Unknown target 'nano'" in done.stderr


# --- output -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["methods", "targets list", "targets show t4", "inspect {inputs}/t.pt"])
def test_json_is_one_line(command: str, inputs: Path, compress: Compress) -> None:
    outcome = compress(*command.format(inputs=inputs).split(), "--json")
    assert outcome.code == 0
    assert outcome.out.count("\n") == 1
    assert json.loads(outcome.out)


def test_methods_gives_every_option_with_its_meaning(compress: Compress) -> None:
    text = compress("methods").out
    assert "\nhidfd: Hybrid Data-Free Knowledge Distillation" in text
    assert "  real_fraction         0.5      data inflation: share of real images in a batch" in text
    sheets = {sheet["name"]: sheet for sheet in json.loads(compress("methods", "--json").out)}
    hidfd, vanilla = sheets["hidfd"], sheets["vanilla"]
    assert hidfd["loss_terms"]["feature_integration_matched"] == "discriminator"
    defaults = {option["name"]: option["default"] for option in vanilla["options"]}
    assert defaults["temperature"] == 4.0
    assert defaults["student_steps"] == "fitted"  # by effort, image and device


def test_quiet_and_json_runs(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    line = tiny_run.line(inputs, tmp_path / "run", "--method", "vanilla", "--seed", "7")
    words = [word for word in line if not word.startswith(("generator_", "discriminator_", "latent_"))]
    line = [
        word for word, after in zip(words, [*words[1:], ""], strict=True) if word != "--option" or "student" in after
    ]

    outcome = compress(*line, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("\n") == 1
    report = Report.model_validate_json(outcome.out)
    assert (report.distillation.method, report.distillation.seed) == ("vanilla", 7)
    assert "--method vanilla" in report.command
    assert all(entry.startswith("  ! ") for entry in outcome.err.splitlines())  # warnings only

    quiet = compress(*line, "--quiet")
    assert quiet.code == 0
    assert quiet.err == ""
    assert "student.onnx" in quiet.out


def test_the_command_in_the_report_makes_the_same_run(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    import shlex

    from compressor.cli import _command_line, _method_options
    from compressor.config import resolve

    flags = {
        "teacher.file": str(inputs / "t.pt"),
        "samples.folder": str(inputs / "few"),
        "teacher.mean": "0.5,0.5,0.5",
        "teacher.std": "0.25,0.25,0.25",
        "distill.effort": "quick",
        "distill.options": _method_options(["augment=off", "student_steps=6", "student_lr=1e-3"]),
        "budget": "1h30m",
        "seed": 3,
        "out": str(tmp_path / "a folder"),
    }
    resolved = resolve(flags, None)
    words = shlex.split(_command_line(resolved))
    assert words[:2] == ["compress", "run"]
    outcome = compress("plan", *words[2:], "--json")
    assert outcome.code == 0, outcome.err
    values = {setting["name"]: setting["value"] for setting in json.loads(outcome.out)["settings"]}
    for name, value in flags.items():
        if name not in ("distill.options", "teacher.mean", "teacher.std"):
            assert values[name] == value
    assert values["teacher.std"] == [0.25] * 3
    assert (values["distill.options.augment"], values["distill.options.student_steps"]) == ("off", 6)


# --- plan -------------------------------------------------------------------------------------------------------------


def test_plan_writes_nothing_and_gives_values_with_their_origin(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "run.yaml").write_text("distill: {effort: full}\n")
    line = tiny_run.line(inputs, tmp_path / "run", "--config", f"{tmp_path}/run.yaml", "--target", "jetson")
    outcome = compress("plan", *line[1:])
    assert outcome.code == 0
    rows = [row.split() for row in outcome.out.splitlines()]
    assert ["teacher", "run", "never", "ran"] in rows
    assert ["distill.effort", "full", "run.yaml"] in rows
    assert ["seed", "0", "default"] in rows
    assert ["target", "jetson", "--target"] in rows
    assert "NVIDIA Jetson Orin Nano Super 8 GB (jetson means jetson-orin-nano-super)" in outcome.out
    assert "The settings of hidfd itself follow once the teacher has been read." in outcome.out
    assert not (tmp_path / "run").exists()


def test_plan_resolves_the_methods_settings_once_the_teacher_is_known(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "read_the_samples", failing(RuntimeError("stop here")))
    line = tiny_run.line(inputs, tmp_path / "run", "--effort", "quick")
    line = [word for word in line if word != "latent_dim=4"]
    del line[line.index("--option", line.index("discriminator_width=8"))]
    assert compress(*line).code == 5
    rows = [row.split() for row in compress("plan", *line[1:]).out.splitlines()]
    assert ["teacher", "cached", "unchanged"] in rows
    assert ["samples", "resume", "stopped", "before", "it", "finished"] in rows
    assert ["generator_steps", "6", "--option"] in rows
    assert ["latent_dim", "32", "quick,", "3x8x8,", "cpu"] in rows
    assert ["real_fraction", "0.5", "default"] in rows


# --- wrong usage: exit code 2 -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("rnu", "compress: No such command 'rnu'. Its commands are run, export, profile, merge,"),
        ("targets sho t4", "No such command 'sho'. Its commands are list, show. Did you mean 'show'?"),
        ("run --tracher t.pt", "compress run: No such option: --tracher."),
        ("run --tracher t.pt", "`compress run --help` lists what it takes. Did you mean '--teacher'?"),
        ("run --seed few", "compress run: Invalid value for '--seed'"),
        ("run --seed", "Option '--seed' requires an argument."),
        ("inspect", "Missing argument"),
        ("run", "The configuration has a problem: --teacher is missing."),
        ("run --option latent_dim", "--option got 'latent_dim'. It takes a setting of the method as NAME=VALUE."),
        ("run --option latent_dim=[", "--option got 'latent_dim=['."),
        ("targets show jetsen", "Unknown target 'jetsen'. Available: a100, cpu, h100, "),
        ("targets show jetsen", "If you meant 'jetson', use that name"),
    ],
)  # fmt: skip
def test_wrong_words(command: str, words: str, compress: Compress) -> None:
    refused(compress(*command.split()), 2, words)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--target jetsen", "Unknown target 'jetsen'."),
        ("--method hidf", "Unknown method 'hidf'. Available: auto, dafl, ddad, dfad, dfq, fast, hidfd, "),
        ("--method hidf", "Did you mean 'hidfd'?"),
        ("--option generatr_steps=3", "there is no generatr_steps. Its options are generator_steps, "),
        ("--option generatr_steps=3", "Did you mean 'generator_steps'?"),
        ("--option student_steps=no", "--option does not fit the method hidfd: student_steps is False"),
        ("--method auto --option generatr_steps=3", "--option has generatr_steps, which no method has."),
        ("--method auto --option generatr_steps=3", "Did you mean 'generator_steps'?"),
        ("--method auto --option student_steps=no", "student_steps is False"),
        ("--effort quik", "--effort is 'quik'. What fits: --effort should be 'quick', 'standard' or 'full'."),
        ("--budget 30", "--budget is '30', a number without a unit. What fits: --budget is whole hours, minutes and"),
        ("--budget soon", "--budget is 'soon'."),
        ("--config {tmp}/typo.yaml", "unknown key 'buget' in typo.yaml (did you mean 'budget'?)"),
        ("--student cifar_resnet9", "Unknown student 'cifar_resnet9'."),
        ("--student width:2", "ratio"),
        ("--target jetson-nano --opset 17", "--opset 17 is above what NVIDIA Jetson Nano 4 GB reads."),
        ("--out {inputs}", "exists and was not made by compress."),
        ("--out /proc/nowhere", "The folder /proc/nowhere cannot be written"),
        ("--config {tmp}/none.yaml", "none.yaml cannot be read"),
        ("--config {tmp}/typo.yaml", "unknown key 'distill.efort' in typo.yaml (did you mean 'distill.effort'?)"),
    ],
)  # fmt: skip
def test_wrong_settings(more: str, words: str, inputs: Path, tmp_path: Path, compress: Compress) -> None:
    (tmp_path / "typo.yaml").write_text("distill: {efort: quick}\nbuget: 30m\n")
    line = tiny_run.line(inputs, tmp_path / "run", *more.format(inputs=inputs, tmp=tmp_path).split())
    refused(compress(*line), 2, words)
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_is_in_use(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    create_run_folder(tmp_path / "run")
    with exclusive(tmp_path / "run"):
        outcome = compress(*tiny_run.line(inputs, tmp_path / "run"))
        refused(outcome, 2, f"is in use by process {os.getpid()}.", "--out")
        refused(compress("clean", f"{tmp_path}/run", "--yes"), 2, "is in use by process")


def test_clean_deletes_runs_and_nothing_else(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = tmp_path / "photos"
    shutil.copytree(inputs / "few", foreign)
    refused(compress("clean", f"{foreign}", "--yes"), 2, "has no CACHEDIR.TAG of compress.")
    refused(compress("clean", f"{tmp_path}/none"), 2, "is not a folder.")
    assert any(foreign.rglob("*.png"))
    monkeypatch.setattr(pipeline, "read_the_teacher", failing(RuntimeError("stop here")))
    assert compress(*tiny_run.line(inputs, tmp_path / "run")).code == 5
    refused(compress("clean", f"{tmp_path}/run"), 2, "nobody can be asked", "--yes")
    assert compress("clean", f"{tmp_path}/run", "--yes").out == f"deleted {tmp_path}/run\n"
    assert not (tmp_path / "run").exists()


# --- a machine without: exit code 3 -----------------------------------------------------------------------------------


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run", "--device", "cuda"))
    refused(outcome, 3, "--device cuda was asked for, but torch finds no CUDA GPU.", "compress doctor")


# --- input refused: exit code 4 ---------------------------------------------------------------------------------------


class Bomb:
    """Writes a file when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.sentinel}",))


def bad_teacher(kind: str, inputs: Path, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """A teacher that must be refused, and further flags."""
    path, good = folder / "bad.pt", (inputs / "t.pt").read_bytes()
    contents = torch.load(inputs / "t.pt", weights_only=True)
    match kind:
        case "missing":
            (folder / "bad.pth").write_bytes(good)
        case "truncated":
            path.write_bytes(good[: len(good) // 2])
        case "pickle bomb":
            path.write_bytes(pickle.dumps({"state_dict": Bomb(folder / "sentinel")}))
        case "other architecture":
            torch.save(tiny.teacher("cifar_resnet14").network.state_dict(), path)
            return path, ("--arch", "cifar_resnet8")
        case "NaN":
            contents["state_dict"]["conv1.weight"][0] = float("nan")
            torch.save(contents, path)
        case "no classes":
            contents["state_dict"]["fc.weight"] = contents["state_dict"]["fc.weight"][:0]
            contents["state_dict"]["fc.bias"] = contents["state_dict"]["fc.bias"][:0]
            torch.save(contents, path)
        case "escape sequence":
            torch.save({"\x1b]0;owned\x07": torch.zeros(1)}, path)
            return path, ("--arch", "cifar_resnet8")
    return path, ()


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", ("There is no teacher", "Did you mean 'bad.pth'?")),
        ("truncated", ("The teacher bad.pt cannot be read",)),
        ("pickle bomb", ("would run code while it is read: it imports posix.system.",)),
        ("other architecture", ("are not those of cifar_resnet8", "layers.0.1.conv1.weight", "--arch cifar_resnet14")),
        ("NaN", ("holds NaN or infinity in conv1.weight",)),
        ("no classes", ("has 0 classes",)),
        ("escape sequence", ("are not those of cifar_resnet8",)),
    ],
)
def test_bad_teachers(kind: str, words: tuple[str, ...], inputs: Path, tmp_path: Path, compress: Compress) -> None:
    path, more = bad_teacher(kind, inputs, tmp_path)
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run", "--teacher", f"{path}", *more))
    refused(outcome, 4, *words)
    assert not (tmp_path / "sentinel").exists()
    assert not (tmp_path / "run/report.json").exists()
    assert "\x1b" not in outcome.err
    if path.exists():
        assert "\x1b" not in compress("inspect", f"{path}").out


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("none", "does not exist. A folder of images, flat or with one folder per class, was expected. Did you mean"),
        ("empty", "holds no images."),
        ("one image", "holds 1 image that can be used"),
        ("a file", "is not a folder."),
        ("text", "holds 0 images that can be used, left out: 3"),
    ],
)  # fmt: skip
def test_bad_samples(kind: str, words: str, inputs: Path, tmp_path: Path, compress: Compress) -> None:
    (tmp_path / "few").mkdir()
    folder = tmp_path / ("feww" if kind == "none" else "given")
    match kind:
        case "empty":
            folder.mkdir()
            (folder / "README.txt").write_text("no images here")
        case "one image":
            folder.mkdir()
            Image.new("RGB", (8, 8), "red").save(folder / "a.png")
        case "a file":
            folder.write_text("")
        case "text":
            folder.mkdir()
            for name in "abc":
                (folder / f"{name}.png").write_text("no image")
    refused(compress(*tiny_run.line(inputs, tmp_path / "run", "--samples", f"{folder}")), 4, words)
    assert not (tmp_path / "run/report.json").exists()


def test_an_evaluation_folder_without_images_is_found_before_hours_are_spent(
    inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    (tmp_path / "val").mkdir()
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run", "--eval", f"{tmp_path}/val"))
    refused(outcome, 4, f"The folder {tmp_path}/val, given to --eval, holds no images.")
    assert not (tmp_path / "run").exists()


def test_a_class_folder_that_names_no_class_is_explained(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(inputs / "few", tmp_path / "few")
    next((tmp_path / "few").iterdir()).rename(tmp_path / "few/clas 0")
    monkeypatch.setattr(pipeline, "make_the_student", failing(RuntimeError("stop here")))
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run", "--samples", f"{tmp_path}/few"))
    assert "  ! Folder 'clas 0' names no class of the teacher" in outcome.err


# --- a stage that breaks: exit code 5; a bug of ours: exit code 70 ----------------------------------------------------


def test_what_nobody_foresaw_in_a_stage(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = tiny_run.line(inputs, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "make_the_student", failing(ZeroDivisionError("surprise")))
        refused(compress(*line), 5, "Stage student failed: ZeroDivisionError: surprise.", "student/error.log")
    log = tmp_path / "run/student/error.log"
    assert "Traceback" in log.read_text()
    assert "ZeroDivisionError: surprise" in log.read_text()
    monkeypatch.setattr(pipeline, "distill_the_student", failing(KeyError("more")))
    outcome = compress(*line)
    refused(outcome, 5, "Stage distill failed: KeyError: 'more'.")
    assert "teacher  cached" in outcome.err
    assert "student  resumes" in outcome.err
    assert not log.exists()


def test_a_failed_run_keeps_the_earlier_report_and_says_so(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_run_folder(tmp_path / "run")
    (tmp_path / "run/report.json").write_text("an earlier one")
    monkeypatch.setattr(pipeline, "read_the_teacher", failing(ZeroDivisionError("surprise")))
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run"))
    refused(outcome, 5, "Stage teacher failed")
    assert f"  ! {tmp_path}/run/report.md is still that of the earlier run." in outcome.err
    assert (tmp_path / "run/report.json").read_text() == "an earlier one"


@pytest.mark.parametrize(("kib", "stage"), [(4, "teacher"), (200, "teacher"), (400, "distill")])
def test_a_disk_that_fills(kib: int, stage: str, inputs: Path, tmp_path: Path, compress: Compress) -> None:
    """The system refuses to write more than so much to one file, which is how a full disk looks from inside."""
    line = tiny_run.line(inputs, tmp_path / "run", generator_width=48)
    with file_size_limit(kib * 1024):
        outcome = compress(*line)
    refused(outcome, 5, f"Stage {stage} could not write its files", "no space is left", "Make room")
    left = {path.name for path in (tmp_path / "run" / stage).iterdir()}
    assert left <= {"in-progress.json", "log.jsonl"}
    assert not list((tmp_path / "run").rglob(".tmp-*"))
    assert not (tmp_path / "run/report.json").exists()


def test_a_bug_outside_any_stage(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "prepare", failing(ZeroDivisionError("surprise")))
    outcome = compress("plan", *tiny_run.line(inputs, tmp_path / "run")[1:])
    assert outcome.code == 70
    assert outcome.out == ""
    assert "Traceback" in outcome.err
    assert "ZeroDivisionError: surprise" in outcome.err
    assert "This is a bug in compress. Nothing was released." in outcome.err


def test_a_terminal_that_has_no_dashes(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding="latin-1", write_through=True))
    monkeypatch.setattr(sys, "argv", ["compress", "plan", *tiny_run.line(inputs, tmp_path / "run")[1:]])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert b"teacher.architecture" in terminal.getvalue()
    assert b"?" in terminal.getvalue()  # where there is no dash


def test_the_exit_code_reaches_the_shell() -> None:
    code = "import compressor.cli as cli; cli.app = lambda *_, **__: 1 / 0; cli.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 70
    assert "ZeroDivisionError" in done.stderr


def test_a_checkpoint_of_ours_is_recognised(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    save_checkpoint(tmp_path / "t.pt", tiny.teacher().network.state_dict(), tiny.card())
    assert (tmp_path / "t.pt").read_bytes() == (inputs / "t.pt").read_bytes()
    text = compress("inspect", f"{tmp_path}/t.pt").out
    assert "t.pt: compress checkpoint" in text
    assert "fits cifar_resnet8" in text
    assert "architecture: cifar_resnet8" in text
