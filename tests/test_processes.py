"""`compress run` in several processes: the real command line under torchrun; one of them stopped, another killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_run
from tiny_run import Compress, refused

from compressor import torchrun
from compressor.report.schema import read_report

LONG = {"student_steps": 1_500}


def environment() -> dict[str, str]:
    """One thread a process; nothing of a torchrun that may have started the tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RANK", "WORLD_", "MASTER_"))}
    return own | {"OMP_NUM_THREADS": "1"}


def start(*words: str) -> subprocess.Popen[str]:
    """A command in a process of its own."""
    command = [sys.executable, "-m", *words]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )


def process_of(launcher: subprocess.Popen[str], rank: int) -> int:
    """The id of one of the processes that it has started."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                given = (folder / "environ").read_bytes().split(b"\0")
            except (OSError, IndexError):
                continue
            if parent == launcher.pid and f"RANK={rank}".encode() in given:
                return int(folder.name)
    raise AssertionError(f"there is no process {rank}")


def wait_for_rows(launcher: subprocess.Popen[str], run: Path, *, phase: str, rows: int) -> None:
    """Until the log has as many rows of a phase."""
    log = run / "distill/log.jsonl"
    while launcher.poll() is None:
        if log.exists() and log.read_text().count(f'"phase": "{phase}"') >= rows:
            return
        time.sleep(0.05)
    raise AssertionError(launcher.communicate()[1])


# --- whole runs -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
def test_a_process_is_stopped_then_another_killed_and_one_alone_finishes(
    inputs: Path, tmp_path: Path, compress: Compress
) -> None:
    folder = tmp_path / "run"
    line = tiny_run.line(inputs, folder, **LONG)

    stopped = start("compressor", *line, "--nproc", "2")
    wait_for_rows(stopped, folder, phase="student", rows=1)
    os.kill(process_of(stopped, 1), signal.SIGTERM)
    out, err = stopped.communicate(timeout=120)
    assert (stopped.returncode, out) == (130, ""), err
    assert "in fp32 on cpu in 2 processes" in err
    assert err.count("error: The run was stopped in phase student after step") == 1
    assert "Traceback" not in err

    killed = start("compressor", *line, "--nproc", "2")
    wait_for_rows(killed, folder, phase="student", rows=3)
    os.kill(process_of(killed, 1), signal.SIGKILL)
    out, err = killed.communicate(timeout=120)
    assert (killed.returncode, out) == (130, ""), err
    assert "student: goes on from step" in err
    assert err.count("error: One of the 2 processes of this training is gone") == 1
    assert "Traceback" not in err

    outcome = compress(*line)
    assert outcome.code == 0, outcome.err
    assert outcome.states()["distill"] == "resumes"
    assert "student: goes on from step" in outcome.err
    assert read_report(folder / "report.json").distillation.phases[1].num_steps == LONG["student_steps"]


@pytest.mark.slow
def test_under_torchrun_there_is_one_report(inputs: Path, tmp_path: Path) -> None:
    line = tiny_run.line(inputs, tmp_path / "run", "--json", student_steps=40)
    launcher = ("torch.distributed.run", "--nproc-per-node", "2", "-m", "compressor")
    run = start(*launcher, *line)
    out, err = run.communicate(timeout=240)
    assert run.returncode == 0, err
    (report,) = out.splitlines()
    assert json.loads(report)["distillation"]["choices"][1] == {
        "name": "processes",
        "value": "2",
        "reason": "each computed its own rows of every batch",
    }
    assert err.count("The teacher is unsure of these samples") == 1
    again = start(*launcher, *line)
    out, err = again.communicate(timeout=240)
    assert (again.returncode, out.splitlines()) == (0, [report]), err


# --- refusals, without starting a process -----------------------------------------------------------------------------


def test_numbers_of_processes_that_make_no_sense(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    line = tiny_run.line(inputs, tmp_path / "run")
    refused(compress(*line, "--nproc", "0"), 2, "--nproc", "0 is not in the range")
    assert not (tmp_path / "run").exists()


def test_torchrun_and_nproc_are_one_too_many(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torchrun, "this_process", lambda: torchrun.Ranks(0, 2, 0, 2))
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run"), "--nproc", "2")
    refused(outcome, 2, "--nproc 2 was given to one of 2 processes that torchrun has started", "Leave --nproc out")


def test_more_processes_than_gpus(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run"), "--nproc", "2")
    refused(outcome, 3, "2 processes are to train on this machine, which has 1 GPU.", "--device cpu")


def test_one_process_is_a_run_as_ever(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run"), "--nproc", "1")
    assert outcome.code == 0, outcome.err
    assert all(choice.name != "processes" for choice in read_report(tmp_path / "run/report.json").distillation.choices)


@pytest.mark.parametrize(
    ("codes", "code"), [({0: 4}, 4), ({0: 5, 1: 5}, 5), ({0: 130, 1: -9}, 130), ({1: -9}, 130), ({1: 4}, 4)]
)
def test_the_exit_code_is_that_of_the_first_process(codes: dict[int, int], code: int) -> None:
    assert torchrun._code_of(codes, 2) == code


def test_a_first_process_that_was_killed_leaves_a_run_that_resumes() -> None:
    with pytest.raises(Exception, match="process 0 was ended by SIGKILL") as lost:
        torchrun._code_of({0: -9}, 2)
    assert getattr(lost.value, "exit_code", None) == 130


def test_torchrun_says_which_process_this_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert torchrun.this_process.__wrapped__() == torchrun.ALONE
    given = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**given, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert torchrun.this_process.__wrapped__() == torchrun.Ranks(3, 4, 1, 2)
