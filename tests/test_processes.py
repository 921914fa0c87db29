"""`compress run` in several processes: the real command line under torchrun; one of them stopped, another killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import tiny_run
from tiny_run import Compress, refused
from torch.distributed import HashStore

from compressor import torchrun
from compressor.config import resolve
from compressor.distill.parallel import ProcessLost
from compressor.errors import EnvironmentFault
from compressor.pipeline import together
from compressor.pipeline.run import Run
from compressor.pipeline.together import follow
from compressor.report.schema import read_report

TIMEOUT_S = 900  # of a machine that other programs share; half a minute on a free one


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
def test_a_process_is_stopped_then_another_killed_and_both_finish_with_one_report(inputs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    line = tiny_run.line(inputs, folder, student_steps=800)

    stopped = start("compressor", *line, "--nproc", "2")
    wait_for_rows(stopped, folder, phase="student", rows=1)
    os.kill(process_of(stopped, 1), signal.SIGTERM)
    out, err = stopped.communicate(timeout=TIMEOUT_S)
    assert (stopped.returncode, out) == (130, ""), err
    assert "in fp32 on cpu in 2 processes" in err
    assert err.count("error: The run was stopped in phase student after step") == 1
    assert "Traceback" not in err

    killed = start("compressor", *line, "--nproc", "2")
    wait_for_rows(killed, folder, phase="student", rows=20)
    os.kill(process_of(killed, 1), signal.SIGKILL)
    out, err = killed.communicate(timeout=TIMEOUT_S)
    assert (killed.returncode, out) == (130, ""), err
    assert "student: goes on from step" in err
    assert err.count("error: One of the 2 processes of this training is gone") == 1
    assert "Traceback" not in err

    finished = start("torch.distributed.run", "--nproc-per-node", "2", "-m", "compressor", *line, "--json")
    out, err = finished.communicate(timeout=TIMEOUT_S)
    assert finished.returncode == 0, err
    (printed,) = out.splitlines()
    report = read_report(folder / "report.json")
    assert json.loads(printed)["created"] == json.loads((folder / "report.json").read_text())["created"]
    assert [phase.num_steps for phase in report.distillation.phases] == [6, 800]
    (processes,) = [choice.value for choice in report.distillation.choices if choice.name == "processes"]
    assert processes == "2"
    assert err.count("Only 2 held-out images judge") == 1


# --- the other processes ----------------------------------------------------------------------------------------------


def other(rank: int = 1) -> torchrun.Ranks:
    """A process that meets the first one in this one's memory."""
    ranks = torchrun.Ranks(rank, 2, rank, 2)
    ranks.__dict__["store"] = HashStore()
    return ranks


def test_where_nothing_is_trained_the_others_hear_the_exit_code(inputs: Path, tmp_path: Path) -> None:
    ranks, resolved = other(), resolve({"teacher.file": inputs / "t.pt", "out": tmp_path / "run"}, None)
    ranks.store.set("exit", "4")
    assert follow(resolved, ranks) == 4


def test_the_first_process_tells_its_exit_code_also_where_it_never_needed_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = HashStore()
    store.set("left/1", "")
    monkeypatch.setattr(torchrun.Ranks, "store", store)
    torchrun.Ranks(0, 2, 0, 2).leave(4)
    assert torchrun.Ranks(1, 2, 1, 2).heard("exit") == "4"


def test_a_run_folder_that_another_machine_does_not_see(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "SEEN_WITHIN_S", 0.0)
    ranks, resolved = other(), resolve({"teacher.file": inputs / "t.pt", "out": tmp_path / "elsewhere"}, None)
    order = together.Order(method="hidfd", settings={}, precision="fp32", device="cpu", stage="a fingerprint")
    ranks.store.set("order", json.dumps(asdict(order)))
    ranks.store.set("exit", "3")
    assert follow(resolved, ranks) == 3
    with pytest.raises(EnvironmentFault, match=r"does not see the run in .*elsewhere.* --out on a file system"):
        together._raise_what_others_said(ranks, tmp_path)


def test_a_process_that_never_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(together, "LOST_AFTER", timedelta(0))
    waiting = SimpleNamespace(ranks=other(0), path=tmp_path.joinpath, stop=SimpleNamespace(asked=lambda: False))
    with pytest.raises(ProcessLost, match="Process 1 of 2 did not come to the training") as lost:
        together._await_the_others(cast(Run, waiting))
    assert "whether all of them were started" in lost.value.action


def test_nobody_keeps_the_place_where_they_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EnvironmentFault, match=r"Process 1 of 2 cannot reach the others: .*MASTER_ADDR") as alone:
        torchrun.Ranks(1, 2, 1, 2).store  # noqa: B018
    assert "--rdzv-endpoint" in alone.value.action


# --- refusals, without starting a process -----------------------------------------------------------------------------


def test_numbers_of_processes_that_make_no_sense(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    line = tiny_run.line(inputs, tmp_path / "run")
    refused(compress(*line, "--nproc", "0"), 2, "--nproc", "run --help")
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


def test_one_process_is_a_run_as_ever() -> None:
    assert not torchrun.starts_processes(None)
    assert not torchrun.starts_processes(1)
    assert torchrun.starts_processes(2)


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
