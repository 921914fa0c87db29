"""Stages run once, resume where they stopped, and run again for exactly the reasons that they state."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from full_disk import file_size_limit

from compressor import stages
from compressor.stages import Choices, Refusal, Stage, Status


def silent(_name: str, _status: Status) -> None:
    """An observer that does not look."""


def write_student(folder: Path) -> None:
    (folder / "student.safetensors").write_bytes(b"weights")


class Machine:
    """A run folder with one teacher, and a stage that counts how often it really ran."""

    def __init__(self, root: Path) -> None:
        self.run_folder = root / "run"
        self.teacher = root / "t.pt"
        self.teacher.write_bytes(b"teacher")
        self.runs = 0
        self.work: Callable[[Path], None] = write_student
        self.stage = Stage(
            name="distill",
            inputs=(self.teacher,),
            outputs=("student.safetensors",),
            config={"student": {"spec": "width:0.5"}, "seed": 0},
            environment={"torch": "2.11"},
            version=1,
            run=self._run,
            optional_outputs=("generator.safetensors",),
        )
        self.folder = self.run_folder / "distill"

    def _run(self, folder: Path) -> None:
        self.runs += 1
        self.work(folder)

    def execute(self) -> stages.StageResult:
        return stages.execute(self.stage, self.run_folder, silent)

    def status(self) -> Status:
        return stages.status(self.stage, self.run_folder)

    def interrupt(self) -> None:
        """Stop the stage in its middle, with a checkpoint written, as Ctrl-C does."""

        def work(folder: Path) -> None:
            (folder / "checkpoint.pt").write_bytes(b"step 3")
            raise KeyboardInterrupt

        self.work = work
        with pytest.raises(KeyboardInterrupt):
            self.execute()
        self.work = write_student


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def assert_three_sentences(refusal: Refusal, received: str, action: str) -> None:
    assert received in refusal.received
    assert action in refusal.action
    assert str(refusal) == f"{refusal.received} {refusal.expected} {refusal.action}"
    assert all(part.endswith(".") for part in (refusal.received, refusal.expected, refusal.action))


# --- running and caching ---------------------------------------------------------------------------


def test_runs_once_then_is_cached(machine: Machine) -> None:
    assert machine.status() == Status("run", "never ran")
    first = machine.execute()
    second = machine.execute()
    assert machine.runs == 1
    assert (first.state, second.state) == ("run", "cached")
    assert first.fingerprint == second.fingerprint == stages.fingerprint(machine.stage)
    assert second.seconds == first.seconds > 0
    assert files(machine.folder) == {"student.safetensors", "manifest.json"}


def test_the_observer_hears_the_reason_before_any_work(machine: Machine) -> None:
    heard: list[tuple[str, Status, int]] = []
    stages.execute(machine.stage, machine.run_folder, lambda name, found: heard.append((name, found, machine.runs)))
    stages.execute(machine.stage, machine.run_folder, lambda name, found: heard.append((name, found, machine.runs)))
    assert heard == [
        ("distill", Status("run", "never ran"), 0),
        ("distill", Status("cached", "unchanged"), 1),
    ]


def test_status_and_plan_write_nothing(machine: Machine) -> None:
    machine.status()
    stages.plan([machine.stage], machine.run_folder)
    assert not machine.run_folder.exists()


def test_manifest_records_what_went_in_and_came_out(machine: Machine) -> None:
    machine.execute()
    manifest = json.loads((machine.folder / "manifest.json").read_text())
    teacher_sha256 = "1057a9604e04b274da5a4de0c8f4b4868d9b230989f8c8c6a28221143cc5a755"
    assert manifest["inputs"] == [{"name": "t.pt", "sha256": teacher_sha256}]
    assert manifest["config"] == {"student": {"spec": "width:0.5"}, "seed": 0}
    assert manifest["environment"] == {"torch": "2.11"}
    assert set(manifest["outputs"]) == {"student.safetensors"}
    assert manifest["created"].endswith("+00:00")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"config": {"student": {"spec": "prune:0.4"}, "seed": 0}}, "config changed: student.spec"),
        ({"config": {"student": {"spec": "width:0.5"}}}, "config changed: seed"),
        ({"environment": {"torch": "2.15"}}, "environment changed: torch"),
        ({"environment": {}}, "environment changed: torch"),
        ({"version": 2}, "stage changed: version"),
        ({"inputs": ()}, "input changed: t.pt"),
        (
            {"config": {"student": {"spec": "auto"}, "seed": 1}, "version": 2},
            "config changed: seed, student.spec; stage changed: version",
        ),
    ],
)
def test_every_ingredient_changes_the_fingerprint_and_is_named(
    machine: Machine, change: dict[str, object], reason: str
) -> None:
    machine.execute()
    before = stages.fingerprint(machine.stage)
    machine.stage = replace(machine.stage, **change)  # type: ignore[arg-type]
    assert stages.fingerprint(machine.stage) != before
    assert machine.status() == Status("run", reason)
    assert machine.execute().state == "run"
    assert machine.status().state == "cached"


def test_the_name_is_part_of_the_fingerprint(machine: Machine) -> None:
    assert stages.fingerprint(replace(machine.stage, name="other")) != stages.fingerprint(machine.stage)


def test_the_order_of_settings_is_not_part_of_the_fingerprint(machine: Machine) -> None:
    turned = replace(machine.stage, config={key: machine.stage.config[key] for key in ("seed", "student")})
    assert stages.fingerprint(turned) == stages.fingerprint(machine.stage)


def test_nan_has_no_place_in_a_fingerprint(machine: Machine) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        stages.fingerprint(replace(machine.stage, config={"weight": float("nan")}))


def test_a_changed_input_is_named_and_a_renamed_one_is_the_same(machine: Machine) -> None:
    machine.execute()
    renamed = machine.teacher.rename(machine.teacher.with_name("teacher.pt"))
    machine.stage = replace(machine.stage, inputs=(renamed,))
    assert machine.status().state == "cached"
    renamed.write_bytes(b"another")
    assert machine.status().state == "run"
    assert "input changed:" in machine.status().reason


def test_a_changed_input_of_the_same_name(machine: Machine) -> None:
    machine.execute()
    machine.teacher.write_bytes(b"another")
    assert machine.status() == Status("run", "input changed: t.pt")


# --- folders as inputs -----------------------------------------------------------------------------


def samples(machine: Machine) -> Path:
    folder = machine.teacher.with_name("few")
    (folder / "cat").mkdir(parents=True)
    (folder / "cat" / "a.png").write_bytes(b"a")
    (folder / "cat" / "b.png").write_bytes(b"b")
    machine.stage = replace(machine.stage, inputs=(folder,))
    return folder


def test_a_folder_counts_by_relative_names_and_contents(machine: Machine) -> None:
    folder = samples(machine)
    before = stages.fingerprint(machine.stage)
    os.utime(folder / "cat" / "a.png", (0, 0))
    folder = folder.rename(folder.with_name("elsewhere"))
    machine.stage = replace(machine.stage, inputs=(folder,))
    assert stages.fingerprint(machine.stage) == before
    seen = [before]
    (folder / "cat").rename(folder / "dog")
    seen.append(stages.fingerprint(machine.stage))
    (folder / "dog" / "a.png").write_bytes(b"c")
    seen.append(stages.fingerprint(machine.stage))
    (folder / "c.png").write_bytes(b"c")
    seen.append(stages.fingerprint(machine.stage))
    (folder / "dog" / "b.png").unlink()
    seen.append(stages.fingerprint(machine.stage))
    assert len(set(seen)) == len(seen)


def test_links_are_followed_once_and_loops_end(machine: Machine) -> None:
    folder = samples(machine)
    before = stages.fingerprint(machine.stage)
    (folder / "cat" / "loop").symlink_to(folder)
    (folder / "self").symlink_to("self")
    (folder / "gone.png").symlink_to("nowhere")
    with_loop = stages.fingerprint(machine.stage)
    assert with_loop != before
    elsewhere = folder.with_name("more")
    elsewhere.mkdir()
    (elsewhere / "c.png").write_bytes(b"c")
    (folder / "dog").symlink_to(elsewhere)
    linked = stages.fingerprint(machine.stage)
    (elsewhere / "c.png").write_bytes(b"d")
    assert len({before, with_loop, linked, stages.fingerprint(machine.stage)}) == 4


def test_special_and_unreadable_files_do_not_stop_a_run(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = samples(machine)
    before = stages.fingerprint(machine.stage)
    os.mkfifo(folder / "pipe")
    assert stages.fingerprint(machine.stage) == before

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "denied", path)

    monkeypatch.setattr(Path, "open", refuse)
    assert stages.fingerprint(machine.stage) != before


# --- outputs ---------------------------------------------------------------------------------------


def test_an_edited_output_is_detected_and_made_again(machine: Machine) -> None:
    machine.execute()
    (machine.folder / "student.safetensors").write_bytes(b"edited!")
    assert machine.status() == Status("run", "output edited: student.safetensors")
    machine.execute()
    assert (machine.folder / "student.safetensors").read_bytes() == b"weights"
    assert machine.status().state == "cached"


def test_a_deleted_output_is_made_again(machine: Machine) -> None:
    machine.execute()
    (machine.folder / "student.safetensors").unlink()
    assert machine.status() == Status("run", "output missing: student.safetensors")
    machine.execute()
    assert machine.status().state == "cached"


def test_an_optional_output_is_watched_once_it_was_written(machine: Machine) -> None:
    def work(folder: Path) -> None:
        write_student(folder)
        (folder / "generator.safetensors").write_bytes(b"generator")

    machine.work = work
    machine.execute()
    (machine.folder / "generator.safetensors").write_bytes(b"another")
    assert machine.status() == Status("run", "output edited: generator.safetensors")


def test_an_output_that_is_declared_later_is_missing(machine: Machine) -> None:
    machine.execute()
    (machine.folder / "card.json").write_text("{}")
    machine.stage = replace(machine.stage, outputs=("student.safetensors", "card.json"))
    assert machine.status() == Status("run", "output missing: card.json")


@pytest.mark.parametrize("content", [None, b""])
def test_a_stage_that_leaves_no_output_is_not_done(machine: Machine, content: bytes | None) -> None:
    def work(folder: Path) -> None:
        if content is not None:
            (folder / "student.safetensors").write_bytes(content)

    machine.work = work
    with pytest.raises(stages.MissingOutput) as refusal:
        machine.execute()
    assert_three_sentences(refusal.value, "distill ended without student.safetensors", "log")
    assert machine.status() == Status("resume", "stopped before it finished")


# --- interruption ----------------------------------------------------------------------------------


def test_an_interrupted_stage_resumes_with_its_checkpoint(machine: Machine) -> None:
    machine.interrupt()
    assert files(machine.folder) == {"checkpoint.pt", "in-progress.json"}
    assert machine.status() == Status("resume", "stopped before it finished")
    found: list[bytes] = []

    def work(folder: Path) -> None:
        found.append((folder / "checkpoint.pt").read_bytes())
        write_student(folder)

    machine.work = work
    assert machine.execute().state == "resume"
    assert found == [b"step 3"]
    assert files(machine.folder) == {"student.safetensors", "manifest.json"}


def test_another_configuration_starts_over(machine: Machine) -> None:
    machine.interrupt()
    (machine.folder / "images").mkdir()
    machine.stage = replace(machine.stage, config={"student": {"spec": "prune:0.4"}, "seed": 0})
    assert machine.status() == Status("run", "config changed: student.spec")
    seen: list[set[str]] = []

    def work(folder: Path) -> None:
        seen.append(files(folder))
        write_student(folder)

    machine.work = work
    machine.execute()
    assert seen == [{"in-progress.json"}]


def test_a_process_killed_in_a_stage_leaves_it_resumable(machine: Machine) -> None:
    program = f"""
import os, signal
from pathlib import Path
from compressor.stages import Stage, execute

def work(folder):
    (folder / "checkpoint.pt").write_bytes(b"step 3")
    (folder / ".tmp-1-student.safetensors").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)

stage = Stage("distill", (Path({str(machine.teacher)!r}),), ("student.safetensors",),
              {dict(machine.stage.config)!r}, {dict(machine.stage.environment)!r}, 1, work)
execute(stage, Path({str(machine.run_folder)!r}), lambda name, status: None)
"""
    killed = subprocess.run([sys.executable, "-c", program], cwd=Path(stages.__file__).parents[1], check=False)
    assert killed.returncode == -9
    assert machine.status() == Status("resume", "stopped before it finished")
    machine.execute()
    assert files(machine.folder) == {"student.safetensors", "manifest.json"}


def test_a_kill_right_after_the_manifest_is_tidied_up(machine: Machine) -> None:
    machine.execute()
    for name in ("in-progress.json", "checkpoint.pt"):
        (machine.folder / name).write_text("{}")
    assert machine.execute().state == "cached"
    assert files(machine.folder) == {"student.safetensors", "manifest.json"}


def test_the_checkpoint_outlives_a_manifest_that_could_not_be_written(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(folder: Path) -> None:
        (folder / "checkpoint.pt").write_bytes(b"last step")
        write_student(folder)
        monkeypatch.setattr(os, "fsync", disk_full)

    machine.work = work
    with pytest.raises(OSError, match="No space left"):
        machine.execute()
    assert files(machine.folder) == {"checkpoint.pt", "in-progress.json", "student.safetensors"}
    assert machine.status().state == "resume"


@pytest.mark.parametrize("text", ["", "not json", "[]", "{}", '{"fingerprint": "0"}'])
def test_a_damaged_manifest_is_not_done(machine: Machine, text: str) -> None:
    machine.execute()
    (machine.folder / "manifest.json").write_text(text)
    assert machine.status().state == "run"
    machine.execute()
    assert machine.status().state == "cached"


def test_an_edited_fingerprint_is_not_done(machine: Machine) -> None:
    machine.execute()
    path = machine.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": "0"}))
    assert machine.status() == Status("run", "manifest edited")


# --- several stages --------------------------------------------------------------------------------


def onnx_stage(machine: Machine) -> Stage:
    def work(folder: Path) -> None:
        (folder / "student.onnx").write_bytes(b"graph")

    inputs = (machine.folder / "student.safetensors",)
    return Stage("onnx", inputs, ("student.onnx",), {}, {}, 1, work)


def test_a_stage_waits_for_its_input(machine: Machine) -> None:
    later = onnx_stage(machine)
    assert stages.status(later, machine.run_folder) == Status("run", "waits for distill/student.safetensors")
    with pytest.raises(stages.MissingInput) as refusal:
        stages.execute(later, machine.run_folder, silent)
    assert_three_sentences(refusal.value, str(machine.folder / "student.safetensors"), "Run the whole command")
    with pytest.raises(stages.MissingInput):
        stages.fingerprint(later)
    assert not machine.run_folder.exists()


def test_a_plan_knows_that_later_stages_wait(machine: Machine) -> None:
    both = [machine.stage, onnx_stage(machine)]
    for stage in both:
        stages.execute(stage, machine.run_folder, silent)
    assert [found.state for found in stages.plan(both, machine.run_folder)] == ["cached", "cached"]
    both[0] = replace(both[0], version=2)
    assert stages.plan(both, machine.run_folder) == (
        Status("run", "stage changed: version"),
        Status("run", "waits for distill/student.safetensors"),
    )


def test_equal_outputs_keep_later_stages_cached(machine: Machine) -> None:
    later = onnx_stage(machine)
    machine.execute()
    stages.execute(later, machine.run_folder, silent)
    machine.stage = replace(machine.stage, version=2)
    machine.execute()
    assert stages.status(later, machine.run_folder).state == "cached"


def test_a_moved_run_folder_stays_cached(machine: Machine) -> None:
    machine.execute()
    stages.execute(onnx_stage(machine), machine.run_folder, silent)
    moved = machine.run_folder.rename(machine.run_folder.with_name("moved"))
    machine.run_folder, machine.folder = moved, moved / "distill"
    assert machine.status().state == "cached"
    assert stages.status(onnx_stage(machine), moved).state == "cached"
    for path in moved.rglob("*.json"):
        assert str(moved.parent) not in path.read_text()


def test_a_relative_run_folder_is_the_same(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.execute()
    stages.execute(onnx_stage(machine), machine.run_folder, silent)
    monkeypatch.chdir(machine.run_folder.parent)
    assert stages.status(onnx_stage(machine), Path("run")).state == "cached"
    (machine.folder / "student.safetensors").unlink()
    assert stages.status(onnx_stage(machine), Path("run")).reason == "waits for distill/student.safetensors"


# --- whole files -----------------------------------------------------------------------------------


def disk_full(_descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_atomic_writes_replace_whole_files(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    stages.atomic_write_text(path, "größer")
    assert path.read_bytes() == "größer".encode()
    stages.atomic_write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert files(tmp_path) == {"card.json"}


def test_a_write_that_stops_half_way_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "student.onnx"
    stages.atomic_write_bytes(path, b"old")
    with file_size_limit(4096), pytest.raises(OSError, match="File too large"):
        stages.atomic_write_bytes(path, bytes(100_000))
    assert path.read_bytes() == b"old"
    assert files(tmp_path) == {"student.onnx"}


def test_a_full_disk_leaves_no_half_written_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space left") as error:
        stages.atomic_write_bytes(tmp_path / "student.onnx", b"data")
    assert error.value.errno == errno.ENOSPC
    assert files(tmp_path) == set()


def test_atomic_path_keeps_the_suffix_and_removes_failures(tmp_path: Path) -> None:
    with stages.atomic_path(tmp_path / "curves.png") as temporary:
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        temporary.write_bytes(b"picture")
        assert files(tmp_path) == {temporary.name}
    assert files(tmp_path) == {"curves.png"}
    with pytest.raises(KeyboardInterrupt):
        write_half(tmp_path / "other.png")
    assert files(tmp_path) == {"curves.png"}


def write_half(path: Path) -> None:
    with stages.atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt


# --- the run folder --------------------------------------------------------------------------------


def test_a_run_folder_carries_the_standard_tag(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "t-cpu"
    stages.create_run_folder(folder)
    assert (folder / "CACHEDIR.TAG").read_text().startswith("Signature: 8a477f597d28d172789f06886806bc55\n")
    (folder / "report.md").write_text("report")
    stages.create_run_folder(folder)
    assert files(folder) == {"CACHEDIR.TAG", "report.md"}


def test_a_folder_of_other_things_does_not_become_a_run_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("text")
    for path in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(stages.NotARunFolder) as refusal:
            stages.create_run_folder(path)
        assert_three_sentences(refusal.value, str(path), "--out")
    assert files(tmp_path) == {"thesis.tex"}


def test_clean_deletes_the_run_and_nothing_that_it_links_to(tmp_path: Path) -> None:
    folder, images = tmp_path / "run", tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes(b"a")
    stages.create_run_folder(folder)
    (folder / "samples").mkdir()
    (folder / "samples" / "link").symlink_to(images)
    (folder / "few").symlink_to(images)
    stages.clean(folder)
    assert files(tmp_path) == {"images", "images/a.png"}


def test_clean_refuses_what_is_not_a_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    stages.create_run_folder(run)
    (run / "inside").mkdir()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n# of another program\n")
    link = tmp_path / "link"
    link.symlink_to(run)
    home = tmp_path / "home"
    stages.create_run_folder(home)
    (home / "user").mkdir()
    monkeypatch.setenv("HOME", str(home / "user"))
    monkeypatch.chdir(run / "inside")
    before = files(tmp_path)
    for path, reason in [
        (link, "is a symbolic link"),
        (tmp_path / "absent", "is not a folder"),
        (foreign, "has no CACHEDIR.TAG of compress"),
        (run, "holds the current directory or the home directory"),
        (Path(), "holds the current directory or the home directory"),
        (home, "holds the current directory or the home directory"),
        (home / "user", "holds the current directory or the home directory"),
        (Path("/"), "holds the current directory or the home directory"),
    ]:
        with pytest.raises(stages.NotARunFolder) as refusal:
            stages.clean(path)
        assert_three_sentences(refusal.value, f"{path} {reason}", "Give the run folder itself")
    assert files(tmp_path) == before


def test_an_interrupted_clean_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    stages.create_run_folder(folder)
    (folder / "distill").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", interrupt)
        with pytest.raises(KeyboardInterrupt):
            stages.clean(folder)
    stages.clean(folder)
    assert files(tmp_path) == set()


def interrupt(_path: Path) -> None:
    raise KeyboardInterrupt


def enter(folder: Path) -> None:
    with stages.exclusive(folder):
        pass


HOLD = """
import sys, time
from pathlib import Path
from compressor.stages import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_two_processes_do_not_share_a_run_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stages.create_run_folder(folder)
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, cwd=Path(stages.__file__).parents[1], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        try:
            assert other.stdout.readline() == b"held\n"
            for use in (enter, stages.clean):
                with pytest.raises(stages.FolderBusy) as refusal:
                    use(folder)
                assert_three_sentences(refusal.value, f"{folder} is in use by process {other.pid}", "--out")
        finally:
            other.kill()
    with stages.exclusive(folder):
        assert (folder / ".lock").read_text() == str(os.getpid())
    enter(folder)


def test_a_disk_without_room_for_the_lock(tmp_path: Path) -> None:
    stages.create_run_folder(tmp_path / "run")
    with file_size_limit(0), pytest.raises(stages.NotWritable) as refusal:
        enter(tmp_path / "run")
    assert_three_sentences(refusal.value, "cannot be written: File too large", "--out")
    enter(tmp_path / "run")


def test_choices_are_made_once(tmp_path: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, list[int]]:
        made.append(1)
        return {"batches": [64, 32]}

    first = Choices(tmp_path).remember("distill.micro_batch", make)
    again = Choices(tmp_path).remember("distill.micro_batch", make)
    assert first == again == {"batches": [64, 32]}
    assert made == [1]
    assert Choices(tmp_path).remember("other", lambda: None) is None
    assert json.loads((tmp_path / "choices.json").read_text()).keys() == {"distill.micro_batch", "other"}


def test_a_choice_reads_the_same_when_made_and_when_remembered(tmp_path: Path) -> None:
    assert Choices(tmp_path).remember("size", lambda: (1, 2)) == [1, 2]  # type: ignore[comparison-overlap]


def test_choices_that_cannot_be_read_are_not_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "choices.json"
    path.write_text("{")
    with pytest.raises(stages.NotARunFolder) as refusal:
        Choices(tmp_path).remember("size", lambda: 1)
    assert_three_sentences(refusal.value, str(path), "compress clean")
    assert path.read_text() == "{"


@pytest.mark.parametrize(
    ("error", "about"),
    [
        (OSError(28, "No space left on device"), True),
        (PermissionError(13, "Permission denied", "FOLDER/report.json"), True),
        (NotADirectoryError(20, "Not a directory", "FOLDER/.."), True),
        (FileNotFoundError(2, "No such file or directory", "/elsewhere/model.onnx"), False),
    ],
)
def test_what_is_said_of_a_folder_is_about_it(error: OSError, about: bool, tmp_path: Path) -> None:
    if error.filename is not None:
        error.filename = error.filename.replace("FOLDER/..", str(tmp_path.parent)).replace("FOLDER", str(tmp_path))
    with pytest.raises(stages.NotWritable if about else OSError) as raised, stages.writable(tmp_path):
        raise error
    assert isinstance(raised.value, stages.NotWritable) == about
