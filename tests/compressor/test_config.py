"""Every setting has one default, one meaning and a known origin; nothing that a user wrote is ignored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from compressor import config
from compressor.config import FIELDS, FLAGS, Resolved, get, resolve, save_resolved
from compressor.errors import UsageFault

REQUIRED: dict[str, object] = {"teacher.file": "t.pt", "samples.folder": "few"}


def refused(flags: dict[str, object], file: Path | None = None) -> UsageFault:
    """The refusal of a configuration, which is three sentences and exit code 2."""
    with pytest.raises(UsageFault) as refusal:
        resolve(flags, file)
    error = refusal.value
    assert all(part.endswith(".") for part in (error.received, error.expected, error.action))
    assert error.exit_code == 2
    return error


def write(folder: Path, text: str) -> Path:
    file = folder / "run.yaml"
    file.write_text(text)
    return file


# --- defaults and layers ------------------------------------------------------------------------------------


def test_defaults_of_the_design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    resolved = resolve({**REQUIRED, "target": None}, None)
    run = resolved.config
    assert (run.target, run.seed, run.device) == ("cpu", 0, "auto")
    assert (run.distill.method, run.distill.effort, run.distill.precision) == ("auto", "standard", "auto")
    assert run.student.spec == "auto"
    assert (run.samples.select_fraction, run.samples.evidence_fraction) == (0.1, 0.15)
    assert run.teacher.file == tmp_path / "t.pt"
    assert run.out == tmp_path / "runs" / "t-cpu"
    assert resolved.origins["teacher.file"] == "--teacher"
    assert {name for name, origin in resolved.origins.items() if origin != "default"} == set(REQUIRED)
    assert set(resolved.origins) == set(FIELDS)


def test_the_run_folder_is_named_after_teacher_and_target() -> None:
    run = resolve({**REQUIRED, "teacher.file": "models/plant.best.pt", "target": "jetson"}, None).config
    assert run.out == Path.cwd() / "runs" / "plant.best-jetson"


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = write(tmp_path, "seed: 3\ndistill:\n  method: vanilla\n  effort: quick\ntarget:\n")
    resolved = resolve({**REQUIRED, "distill.method": "dfad", "target": "t4", "samples.max_images": None}, file)
    values = {name: get(resolved.config, name) for name in ("seed", "distill.method", "distill.effort", "target")}
    assert values == {"seed": 3, "distill.method": "dfad", "distill.effort": "quick", "target": "t4"}
    assert resolved.origins["seed"] == "run.yaml"
    assert resolved.origins["distill.method"] == "--method"
    assert resolved.origins["distill.effort"] == "run.yaml"
    assert resolved.origins["samples.max_images"] == "default"


def test_options_of_the_method_are_layered_one_by_one(tmp_path: Path) -> None:
    file = write(tmp_path, "distill:\n  options: {latent_dim: 32, warmup: true, loss: l1}\n")
    flags = {**REQUIRED, "distill.options": {"latent_dim": 64, "lr": 1e-5}}
    resolved = resolve(flags, file)
    expected = {"latent_dim": 64, "warmup": True, "loss": "l1", "lr": 1e-5}
    assert resolved.config.distill.options == expected
    assert {key: type(value) for key, value in resolved.config.distill.options.items()} == {
        "latent_dim": int,
        "warmup": bool,
        "loss": str,
        "lr": float,
    }
    assert resolved.origins["distill.options.latent_dim"] == "--option"
    assert resolved.origins["distill.options.loss"] == "run.yaml"
    assert "distill.options" not in resolved.origins
    assert get(resolved.config, "distill.options.lr") == 1e-5


def test_paths_start_where_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "job").mkdir()
    (tmp_path / "here").mkdir()
    text = "teacher: {file: t.pt, card: /cards/t.yaml}\nsamples: {folder: ../few}\nreport: {eval: ~/val}\n"
    file = write(tmp_path / "job", text)
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("HOME", "/home/user")
    run = resolve({"out": "runs/a"}, Path("../job/run.yaml")).config
    assert run.teacher.file.resolve() == file.parent / "t.pt"
    assert run.teacher.card == Path("/cards/t.yaml")
    assert run.samples.folder.resolve() == tmp_path / "few"
    assert run.report.eval == Path("/home/user/val")
    assert run.out == tmp_path / "here" / "runs" / "a"
    assert all(path.is_absolute() for path in (run.teacher.file, run.samples.folder))


def test_a_target_is_a_name_or_a_file_of_the_users_own(tmp_path: Path) -> None:
    file = write(tmp_path, "target: boards/plant.yaml")
    run = resolve(REQUIRED, file).config
    assert run.target == str(tmp_path / "boards" / "plant.yaml")
    assert run.out.name == "t-plant"
    run = resolve({**REQUIRED, "target": "./plant.yaml"}, None).config
    assert run.target == str(Path.cwd() / "plant.yaml")
    assert resolve({**REQUIRED, "target": "jetson-nano"}, None).config.target == "jetson-nano"


def test_a_tilde_that_is_no_home_is_a_name() -> None:
    run = resolve({**REQUIRED, "teacher.file": "~no-such-user-at-all/t.pt"}, None).config
    assert run.teacher.file == Path.cwd() / "~no-such-user-at-all" / "t.pt"


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "distill:\n  # method: vanilla\n", "{}"])
def test_an_empty_file_and_an_empty_section_are_fine(tmp_path: Path, text: str) -> None:
    assert resolve(REQUIRED, write(tmp_path, text)).config == resolve(REQUIRED, None).config


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("teacher.input_size", "32", (32, 32)),
        ("teacher.input_size", 32, (32, 32)),
        ("teacher.input_size", "32x48", (32, 48)),
        ("teacher.input_size", "32,48", (32, 48)),
        ("teacher.input_size", [32, 48], (32, 48)),
    ],
)
def test_sizes_as_a_shell_and_as_yaml_give_them(name: str, text: object, value: object) -> None:
    assert get(resolve({**REQUIRED, name: text}, None).config, name) == value


def test_numbers_per_channel_as_a_shell_gives_them() -> None:
    run = resolve({**REQUIRED, "teacher.mean": "0.485, 0.456,0.406", "teacher.std": (0.5, 0.5, 1)}, None).config
    assert run.teacher.mean == (0.485, 0.456, 0.406)
    assert run.teacher.std == (0.5, 0.5, 1.0)


def test_a_configuration_cannot_be_changed() -> None:
    run = resolve(REQUIRED, None).config
    with pytest.raises(ValidationError, match="frozen"):
        run.distill.method = "vanilla"  # type: ignore[misc]


# --- refusals -----------------------------------------------------------------------------------------------


def test_what_a_run_needs_is_named() -> None:
    error = refused({})
    assert "a problem" in error.received
    assert "--teacher is missing" in error.received
    assert "--teacher names the trained teacher" in error.expected
    assert "compress run --help" in error.action


@pytest.mark.parametrize(
    ("text", "key", "suggestion"),
    [
        ("distill: {metod: hidfd}", "distill.metod", "distill.method"),
        ("distil: {method: hidfd}", "distil.method", "distill.method"),
        ("method: hidfd", "method", "distill.method"),
        ("teacher: {arch: resnet18}", "teacher.arch", "teacher.architecture"),
        ("sead: 1", "sead", "seed"),
        ("distill.metod: hidfd", "distill.metod", "distill.method"),
    ],
)
def test_unknown_keys_are_refused_with_the_closest_one(tmp_path: Path, text: str, key: str, suggestion: str) -> None:
    error = refused(REQUIRED, write(tmp_path, text))
    assert f"unknown key {key!r} in run.yaml (did you mean {suggestion!r}?)" in error.received


def test_an_unknown_key_that_resembles_nothing_gets_the_list(tmp_path: Path) -> None:
    error = refused(REQUIRED, write(tmp_path, "zzz: {}\nonnx: {qqqqq: 1}\n"))
    assert "unknown key 'zzz' in run.yaml" in error.received
    assert "did you mean" not in error.received
    assert "the top level holds teacher, samples, student" in error.expected
    assert "onnx holds opset" in error.expected


def test_an_unknown_flag_is_refused_too() -> None:
    assert "unknown key 'distill.metod' in the flags" in refused({**REQUIRED, "distill.metod": "x"}).received


@pytest.mark.parametrize(
    ("name", "value", "received", "expected"),
    [
        ("seed", -1, "--seed is -1", "--seed should be greater than or equal to 0"),
        ("seed", "many", "--seed is 'many'", "--seed should be a valid integer"),
        ("distill.effort", "slow", "--effort is 'slow'", "'quick', 'standard' or 'full'"),
        ("device", "tpu", "--device is 'tpu'", "'auto', 'cpu' or 'cuda'"),
        ("samples.select_fraction", 1.0, "--select-fraction is 1.0", "less than 1"),
        ("samples.max_images", 0, "--max-images is 0", "greater than or equal to 1"),
        ("latency.window_s", float("inf"), "--latency-window-s is inf", "finite number"),
        ("onnx.opset", 9, "--opset is 9", "greater than or equal to 13"),
        ("student.spec", "", "--student is ''", "at least 1 character"),
        ("teacher.input_size", "32x32x3", "--input-size is '32x32x3'", "at most 2 items"),
        ("teacher.input_size", "2", "--input-size is '2'", "greater than or equal to 4"),
        ("teacher.file", 7, "--teacher is 7", "valid path"),
        ("seed", {"value": 1}, "--seed is {'value': 1}", "valid integer"),
        (
            "distill.options",
            {"gan": {"lr": 1}},
            "--option gan is {'lr': 1}",
            "a number, a text, true or false",
        ),
        ("distill.options", {"lr": [1]}, "--option lr is [1]", "a number, a text, true or false"),
    ],
)
def test_values_out_of_range_are_named_by_their_flag(name: str, value: object, received: str, expected: str) -> None:
    error = refused({**REQUIRED, name: value})
    assert "a problem" in error.received
    assert received in error.received
    assert expected in error.expected


def test_values_out_of_range_in_a_file_are_named_by_key_and_file(tmp_path: Path) -> None:
    error = refused(REQUIRED, write(tmp_path, "latency: {threads: 0}"))
    assert "'latency.threads' in run.yaml is 0" in error.received
    assert "'latency.threads' in run.yaml should be greater than or equal to 1" in error.expected


@pytest.mark.parametrize(
    ("flags", "received", "expected"),
    [
        ({"teacher.mean": "0.5"}, "only one of --mean and --std", "go together"),
        (
            {"teacher.mean": "0.5", "teacher.std": "1,1,1"},
            "--mean has 1 and --std has 3",
            "one number per channel",
        ),
        ({"teacher.mean": "0.5", "teacher.std": "0"}, "--std has 0.0", "above 0"),
        (
            {"samples.select_fraction": 0.5, "samples.evidence_fraction": 0.5},
            "--select-fraction 0.5 and --evidence-fraction 0.5",
            "below 1",
        ),
        ({"latency.max_s": 0.05}, "--latency-max-s 0.05", "room for at least one window"),
        ({"out": "few/run"}, "inside --samples", "--out is outside of --samples"),
        ({"out": "val", "report.eval": "val"}, "inside --eval", "--out is outside of --eval"),
        ({"samples.folder": "."}, "inside --samples", "--out is outside of --samples"),
        ({"samples.pool": "."}, "inside --pool", "--out is outside of --pool"),
    ],
)
def test_values_that_do_not_fit_each_other(flags: dict[str, object], received: str, expected: str) -> None:
    error = refused({**REQUIRED, **flags})
    assert received in error.received
    assert expected in error.expected


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    text = "distil: {method: x}\nstudent: width:0.5\nlatency: {threads: 0}\n"
    error = refused({"seed": -1}, write(tmp_path, text))
    for part in (
        "5 problems",
        "unknown key 'distil.method'",
        "'student' in run.yaml is 'width:0.5' and not a section",
        "'latency.threads' in run.yaml is 0",
        "--seed is -1",
        "--teacher is missing",
    ):
        assert part in error.received


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    error = refused(REQUIRED, tmp_path / "absent.yaml")
    assert str(tmp_path / "absent.yaml") in error.received
    assert "No such file" in error.received
    assert "--config" in error.action


@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"- a\n- b\n", "holds a list at its top level"),
        (b"hidfd", "holds a str at its top level"),
        (b"distill: {method: hidfd", "is not readable as YAML in line 1, column 24"),
        (b"seed: 1\nseed: 2\n", "is not readable as YAML in line 2, column 1: 'seed' is given twice"),
        (b"distill: {method: a, method: b}", "'method' is given twice"),
        (b"distill: {method: a}\ndistill.method: b", "'distill.method' in run.yaml is given twice"),
        (b"seed: !!python/object/apply:os.getcwd []", "is not readable as YAML in line 1, column 7"),
        (b"? [a]\n: 1", "is not readable as YAML"),
        (b"seed: \xff", "is not plain YAML in UTF-8"),
        (b"seed: 2026-13-45", "is not plain YAML in UTF-8"),
        (b"a: &a {b: *a}", "is not plain YAML in UTF-8"),
    ],
)
def test_files_that_are_not_a_configuration(tmp_path: Path, content: bytes, received: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_bytes(content)
    assert received in refused(REQUIRED, file).received


# --- the saved configuration --------------------------------------------------------------------------------


def everything(tmp_path: Path) -> Resolved:
    flags: dict[str, object] = {
        **REQUIRED,
        "teacher.mean": "0.5,0.5,0.5",
        "teacher.std": "0.2,1e-5,1",
        "teacher.input_size": "32",
        "teacher.class_names": tmp_path / "a: name # with\nall sorts 'of' \"signs\" – größer 🐈.txt",
        "distill.options": {"lr": 1e-5, "text": "1e-5", "flag": True, "count": 3, "yes": "no", "a.b": "null"},
        "latency.max_s": 1e6,
    }
    return resolve(flags, write(tmp_path, "seed: 5\nreport: {synthetic_sheet: true}\n"))


def test_a_saved_configuration_reads_back_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolved = everything(tmp_path)
    saved = tmp_path / "run" / "config.yaml"
    saved.parent.mkdir()
    save_resolved(resolved, saved)
    monkeypatch.chdir(tmp_path)
    again = resolve({}, saved)
    assert again.config == resolved.config
    assert set(again.origins.values()) == {"config.yaml"}


def test_a_saved_configuration_is_complete_and_says_where_from(tmp_path: Path) -> None:
    resolved = resolve({**REQUIRED, "distill.method": "vanilla"}, write(tmp_path, "seed: 5\n"))
    saved = tmp_path / "config.yaml"
    save_resolved(resolved, saved)
    lines = saved.read_text().splitlines()
    assert "  method: vanilla  # --method" in lines
    assert "seed: 5  # run.yaml" in lines
    assert "  select_fraction: 0.1  # default" in lines
    assert "  max_images: null  # default" in lines
    assert "  options: {}  # default" in lines
    assert f"out: {Path.cwd() / 'runs' / 't-cpu'}  # default" in lines
    values = yaml.safe_load(saved.read_text())
    dotted = {
        f"{section}.{name}" if isinstance(inside, dict) else section
        for section, inside in values.items()
        for name in (inside if isinstance(inside, dict) else [section])
    }
    assert dotted == set(FIELDS)


# --- what the command line builds on ------------------------------------------------------------------------


def test_every_setting_has_a_flag_and_a_help_text_of_its_own() -> None:
    assert set(FLAGS) == set(FIELDS)
    assert len(set(FLAGS.values())) == len(FLAGS)
    descriptions = [field.description for field in FIELDS.values()]
    assert all(descriptions)
    assert len(set(descriptions)) == len(descriptions)


def test_settings_are_read_by_their_dotted_name() -> None:
    run = resolve({**REQUIRED, "distill.options": {"a.b": 1}}, None).config
    assert get(run, "student.spec") == run.student.spec
    assert get(run, "distill.options.a.b") == 1
    assert get(run, "distill.options") == {"a.b": 1}


def test_importing_the_configuration_is_quick() -> None:
    code = "import sys, compressor.config; print({'torch', 'numpy', 'yaml', 'onnx'} & set(sys.modules))"
    root = Path(config.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
