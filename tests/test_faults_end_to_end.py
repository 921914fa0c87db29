"""What a machine does to a run: full and read-only disks, clocks, other processes, moves, edits, names, file modes.

Kills and signals have `compressor/test_interruption.py`; hostile files have `hostile/`.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tiny_run
import torch
from tiny_run import Compress, failing, refused

from benchmarks.run_folders import different, half_committed
from benchmarks.soak_disk import RoomyDisk, no_mounts
from compressor import pipeline
from compressor.cli import invoke
from compressor.inputs import samples
from compressor.pipeline.run import TARGET
from compressor.report.schema import read_report
from compressor.stages import TEMPORARY

BOARD = ("--target", "jetson")


@pytest.fixture(scope="module")
def finished(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder that nobody writes to."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert invoke([*tiny_run.line(inputs, folder, *BOARD), "--quiet"]) == 0
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[RoomyDisk]:
    """A small disk of its own, with room for 64 MiB."""
    if reason := no_mounts():
        pytest.skip(reason)
    with RoomyDisk(tmp_path / "disk") as disk:
        yield disk


# --- the disk ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_disk_that_is_full_again_and_again(inputs: Path, finished: Path, disk: RoomyDisk, compress: Compress) -> None:
    """`benchmarks/soak_disk.py` does the same with every 32 KiB."""
    line = tiny_run.line(inputs, disk.folder / "run", *BOARD)
    stages = set()
    for kib in (8, 60, 300, 700, 1100):
        disk.resize(kib)
        outcome = compress(*line)
        assert outcome.code in (2, 5), outcome.err
        refused(outcome, outcome.code, "no space is left" if outcome.code == 5 else "cannot be written")
        assert not list(disk.folder.rglob(f"{TEMPORARY}*"))
        assert half_committed(disk.folder / "run") == ""
        stages |= {name for name in tiny_run.STAGES if f"Stage {name} " in outcome.err}
    assert len(stages) >= 2
    disk.resize(64 * 1024)
    assert compress(*line).code == 0
    assert not list(different(finished, disk.folder / "run"))


def test_a_run_folder_that_became_read_only(inputs: Path, run: Path, disk: RoomyDisk, compress: Compress) -> None:
    """What only reads goes on working."""
    there = Path(shutil.copytree(run, disk.folder / "run"))
    disk.read_only()
    refused(compress(*tiny_run.line(inputs, there, *BOARD)), 2, "cannot be written: Read-only file system.", "--out")
    refused(compress("merge", f"{there}", f"{inputs}/t.pt"), 2, "cannot be written: Read-only file system.")
    refused(compress("clean", f"{there}", "--yes"), 2, "cannot be written: Read-only file system.")
    assert compress("plan", *tiny_run.line(inputs, there, *BOARD)[1:]).code == 0
    assert compress("compare", f"{there}", f"{there}").code == 0
    assert compress("verify", f"{there}").code == 0
    assert compress("gate", f"{there}", "--gate", "agreement:min=0%").code == 0


# --- the clock --------------------------------------------------------------------------------------------------------


def test_a_clock_that_goes_backwards(
    inputs: Path, finished: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = tiny_run.line(inputs, tmp_path / "run", *BOARD)
    now = time.time()

    def an_hour_earlier_each_time() -> float:
        nonlocal now
        now -= 3600
        return now

    class Backwards(datetime):
        @classmethod
        def now(cls, _zone: object = None) -> datetime:  # type: ignore[override]
            return datetime.fromtimestamp(an_hour_earlier_each_time(), UTC)

    monkeypatch.setattr(time, "time", an_hour_earlier_each_time)
    monkeypatch.setattr("compressor.stages.datetime", Backwards)
    monkeypatch.setattr("compressor.running.datetime", Backwards)
    assert compress(*line).code == 0
    assert not list(different(finished, tmp_path / "run"))
    seconds = [stage.seconds for stage in read_report(tmp_path / "run/report.json").stages]
    assert min(seconds) >= 0
    for file in (tmp_path / "run").rglob("*"):
        os.utime(file, (2**32, 2**32))  # files from the future
    outcome = compress(*line)
    assert outcome.code == 0
    assert set(outcome.states().values()) == {"cached"}


# --- other processes --------------------------------------------------------------------------------------------------


def test_two_processes_on_one_run_folder(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    line = tiny_run.line(inputs, tmp_path / "run", generator_steps=2_000)
    first = subprocess.Popen([sys.executable, "-m", "compressor", *line], stderr=subprocess.DEVNULL)
    try:
        while first.poll() is None and not (tmp_path / "run/teacher").exists():
            time.sleep(0.02)
        outcome = compress(*line)
        refused(outcome, 2, f"{tmp_path}/run is in use by process {first.pid}.", "Wait for that process", "--out")
        outcome = compress("clean", f"{tmp_path}/run", "--yes")
        refused(outcome, 2, f"in use by process {first.pid}.")
    finally:
        first.kill()
        first.wait()


# --- what changes under a run -----------------------------------------------------------------------------------------


def test_a_run_folder_that_was_moved(inputs: Path, run: Path, tmp_path: Path, compress: Compress) -> None:
    moved = run.rename(tmp_path / "elsewhere with spaces")
    outcome = compress(*tiny_run.line(inputs, moved, *BOARD))
    assert outcome.code == 0
    assert set(outcome.states().values()) == {"cached"}
    assert compress("verify", f"{moved}").code == 0
    assert compress("gate", f"{moved}", "--gate", "agreement:min=0%").code == 0


def test_an_artefact_that_was_edited_is_made_again(inputs: Path, run: Path, finished: Path, compress: Compress) -> None:
    file = "distill/student.safetensors"
    content = bytearray((run / file).read_bytes())
    content[len(content) // 2] ^= 1
    (run / file).write_bytes(content)
    assert compress("verify", f"{run}").code == 1
    outcome = compress(*tiny_run.line(inputs, run, *BOARD))
    assert outcome.code == 0
    assert outcome.states()["distill"] == "runs"
    assert "output edited" in outcome.err
    assert not list(different(finished, run))


def test_a_run_folder_without_its_target(run: Path, compress: Compress) -> None:
    (run / TARGET).write_text("{")
    before = (run / "report.json").read_bytes()
    refused(compress("merge", f"{run}", f"{run}/result.json"), 2, f"{run / TARGET} cannot be read", "writes it anew")
    assert (run / "report.json").read_bytes() == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for an engine where none can be built")
def test_an_engine_that_is_required_where_none_can_be_built(inputs: Path, run: Path, compress: Compress) -> None:
    outcome = compress(*tiny_run.line(inputs, run, *BOARD, "--require-engine", "--quiet"))
    refused(
        outcome, 3, "No engine was built: ", "--require-engine asks for one for", "build on the device with the kit"
    )


def copied(inputs: Path, folder: Path) -> Path:
    """Inputs that a test may change."""
    return Path(shutil.copytree(inputs, folder / "inputs"))


def test_samples_that_change_while_the_student_trains(
    inputs: Path, finished: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run goes on with what it has read; the next command sees the change and says so."""
    own = copied(inputs, tmp_path)
    line = tiny_run.line(own, tmp_path / "run", *BOARD)
    real = pipeline.distill_the_student

    def meanwhile(*arguments: object) -> None:
        files = sorted((own / "few").rglob("*.png"))
        files[0].write_bytes(files[1].read_bytes())
        files[2].unlink()
        real(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "distill_the_student", meanwhile)
        assert compress(*line).code == 0
    assert not list(different(finished, tmp_path / "run"))
    outcome = compress("plan", *line[1:])
    assert "input changed: few" in outcome.out + outcome.err


def test_a_sample_that_vanishes_while_it_is_read(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = copied(inputs, tmp_path)
    real, monkeypatch_done = samples.find_images, []

    def found(folder: Path) -> object:
        result = real(folder)
        if not monkeypatch_done:
            monkeypatch_done.append(True)
            (folder / result[0][0]).unlink()
        return result

    monkeypatch.setattr(samples, "find_images", found)
    monkeypatch.setattr(pipeline, "make_the_student", failing(RuntimeError("enough")))
    outcome = compress(*tiny_run.line(own, tmp_path / "run"))
    refused(outcome, 5, "Stage student failed: RuntimeError: enough.")


def test_a_samples_folder_that_is_gone(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    own = copied(inputs, tmp_path)
    line = tiny_run.line(own, tmp_path / "run", *BOARD)
    shutil.rmtree(own / "few")
    refused(compress(*line), 4, f"{own}/few, given to --samples, does not exist.", "Check the path")


# --- names, languages and modes ---------------------------------------------------------------------------------------


def test_paths_with_spaces_and_other_scripts_in_any_locale(inputs: Path, finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mes données 画像 'q\" \u0131"
    own = copied(inputs, folder)
    (own / "t.pt").rename(own / "учитель é.pt")
    # With UTF-8 switched off the system's encoding is ASCII, in which these names cannot be written.
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    line = tiny_run.line(own, folder / "run", *BOARD, "--teacher", f"{own}/учитель é.pt", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "compressor", *line], env=environment, capture_output=True, cwd=Path(__file__).parents[1]
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert done.stdout.count(b"\n") == 1
    assert not [name for name in different(finished, folder / "run") if not name.startswith("report.json")]
    report = read_report(folder / "run/report.json")
    assert report.teacher_source.file == "учитель é.pt"
    assert "учитель é" in (folder / "run/report.html").read_text(encoding="utf-8")


def test_files_have_the_modes_that_the_umask_says(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    """A run that a colleague is to read must not be of the owner alone, and one that is private must not be public."""
    mask, readable = 0o027, 0o640
    earlier = os.umask(mask)
    try:
        assert compress(*tiny_run.line(inputs, tmp_path / "run", *BOARD)).code == 0
    finally:
        os.umask(earlier)
    wrong = {
        f"{path.relative_to(tmp_path)}: {mode:o}"
        for path in (tmp_path / "run").rglob("*")
        if (mode := stat.S_IMODE(path.stat().st_mode)) != readable | (runs(path) * (readable & 0o444)) >> 2
    }
    assert not wrong


def runs(path: Path) -> bool:
    """Whether it is there to be entered or run."""
    return path.is_dir() or path.suffix == ".sh"
