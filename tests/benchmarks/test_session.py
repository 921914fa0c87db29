"""The GPU session: jobs in order, stopped in time and continued, what travels back, and every program at tiny size."""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.gpu import session
from benchmarks.gpu.session import BEGIN, END, JOBS, PAGE, Job, Session, hand_over, pack, table, unpack_weights
from benchmarks.packs import cifar10, cifarlike_pool
from benchmarks.quality import CUDA_SETTINGS
from benchmarks.tiny_packs import write_tiny_packs


def job(name: str, code: str, **more: Any) -> Job:
    """A program that is one line of Python."""
    words = f"timeit -n 1 -r 1 -s 'import os, sys, time' {shlex.quote(code)}"
    return Job(name, words, "", 1.0, "", "", **more)


def sitting(tmp_path: Path, minutes: float = float("inf"), only: list[str] | None = None) -> list[tuple[str, str]]:
    """One call; every row so far, as (job, state)."""
    options = argparse.Namespace(
        data=tmp_path, work=tmp_path, out=tmp_path / "out", minutes=minutes, device="cpu", tiny=False
    )
    Session(options).run(only)
    return [(row["job"], row["state"]) for row in json.loads((tmp_path / "results" / "gpu_session.json").read_text())]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "CLOSING_S", 0.0)
    monkeypatch.setattr(session, "GRACE_S", 10.0)
    monkeypatch.setattr(session, "SHORTEST_S", 0.0)


def test_jobs_run_in_order_once_and_a_failed_one_only_if_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = (job("first", "pass"), job("broken", "sys.exit(3)"), job("last", "pass"), job("away", "", packs=("x.npz",)))
    monkeypatch.setattr(session, "JOBS", jobs)
    expected = [("first", "finished"), ("broken", "failed"), ("last", "finished")]
    assert sitting(tmp_path) == expected
    assert "away: left out, x.npz is not there" in capsys.readouterr().out
    assert sitting(tmp_path) == expected
    assert sitting(tmp_path, only=["broken"]) == [*expected, ("broken", "failed")]


@pytest.mark.usefixtures("quick")
def test_a_job_is_stopped_in_time_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first time it waits for longer than there is; the second time it finds what the first one left.
    mark = tmp_path / "mark"
    code = f'there = os.path.exists("{mark}"); open("{mark}", "a").close(); there or time.sleep(600)'
    monkeypatch.setattr(session, "JOBS", (job("long", code), job("last", "pass")))
    started = time.monotonic()
    while not mark.exists():  # a busy machine may need longer than this to start Python
        first = sitting(tmp_path, minutes=0.1 + (time.monotonic() - started) / 30.0)
    assert set(first) == {("long", "stopped")}
    assert sitting(tmp_path)[-2:] == [("long", "finished"), ("last", "finished")]


def test_every_row_says_where_it_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "JOBS", (job("first", "pass"),))
    sitting(tmp_path)
    (row,) = json.loads((tmp_path / "results" / "gpu_session.json").read_text())
    assert {"device", "torch", "python", "revision", "date", "seconds", "exit_code"} <= set(row)


def test_weights_come_back_in_pieces_and_fit_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "PIECE_BYTES", 1_000)
    monkeypatch.setattr(session, "JOBS", (job("first", "pass", weights=("*/teacher.pt", "*/student.safetensors")),))
    work, out, again = tmp_path / "work", tmp_path / "out", tmp_path / "again"
    for folder in (work / "a", work / "results", work / "logs", out):
        folder.mkdir(parents=True)
    (work / "results" / "gpu_quality.json").write_text("[]")
    (out / "weights.pt.77").write_text("of an earlier call")
    weights = {"conv": torch.randn(9, 8, 3, 3), "variance": torch.full((4,), 1e-9), "count": torch.tensor(7)}
    torch.save(weights, work / "a" / "teacher.pt")
    hand_over(work / "results", work / "logs", work, out)
    pieces = sorted(out.glob("weights.pt.*"))
    assert len(pieces) > 1
    assert max(piece.stat().st_size for piece in pieces) == 1_000
    with tarfile.open(out / "results.tar.gz") as archive:
        assert "results/gpu_quality.json" in archive.getnames()
    unpack_weights(out, again)
    found = torch.load(again / "a" / "teacher.pt", weights_only=True)
    torch.testing.assert_close(found["conv"], weights["conv"], atol=2e-3, rtol=1e-3)
    assert torch.equal(found["variance"], weights["variance"])
    assert torch.equal(found["count"], weights["count"])


def test_weights_for_which_there_is_no_room_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "MOST_BYTES", 10)
    monkeypatch.setattr(session, "JOBS", (job("first", "pass", weights=("teacher.pt",)),))
    torch.save({"conv": torch.zeros(9, 9)}, tmp_path / "teacher.pt")
    for folder in (tmp_path / "results", tmp_path / "logs", tmp_path / "out"):
        folder.mkdir()
    hand_over(tmp_path / "results", tmp_path / "logs", tmp_path, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.tar.gz"]


def test_smaller_packs_hold_the_same_pictures(tmp_path: Path) -> None:
    data, folder = write_tiny_packs(tmp_path / "packs"), tmp_path / "carried"
    pack(data, folder)
    for part in ("train", "test"):
        assert torch.equal(cifar10(folder, part).images, cifar10(data, part).images)
        assert torch.equal(cifar10(folder, part).labels, cifar10(data, part).labels)
    assert torch.equal(cifarlike_pool(folder, ()).images, cifarlike_pool(data, ()).images)
    for path in folder.iterdir():
        with np.load(path) as small, np.load(data / path.name) as whole:
            assert set(small.files) == set(whole.files)


def test_the_page_holds_the_table_of_the_jobs() -> None:
    assert f"{BEGIN}\n{table()}\n{END}" in PAGE.read_text()


def test_the_settings_that_jobs_name_exist() -> None:
    words = {word for one in JOBS for word in one.command.split() if word.startswith(("cifar10-", "clothing-"))}
    assert words == set(CUDA_SETTINGS)


@pytest.mark.slow
def test_every_program_runs_to_its_end_at_tiny_size(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu.session", "--tiny", "--device", "cpu", "--work", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = json.loads((tmp_path / "results" / "gpu_session.json").read_text())
    assert [(row["job"], row["state"]) for row in rows] == [
        (one.name, "finished") for one in JOBS if one.tiny is not None
    ], done.stdout
    assert len(list((tmp_path / "out").iterdir())) == 2  # results, and the student of `run`
    for program in ("quality", "methods"):
        assert json.loads((tmp_path / "results" / f"gpu_{program}.json").read_text())
