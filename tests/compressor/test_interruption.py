"""A run that is stopped or killed, whenever and however, goes on with the same command to the same student."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_run
from tiny_run import Compress, failing, refused

from benchmarks.soak_kill import MOMENTS, Started, soak, summary, well
from compressor import pipeline
from compressor.errors import Interrupted
from compressor.interruption import StopRequest, interruptible
from compressor.pipeline.run import Run
from compressor.progress import Reporter
from exporters.errors import ExportError

SIGNALS = (signal.SIGINT, signal.SIGTERM)


# --- the request ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_at_once_what_cannot_be_resumed_in_its_middle(number: int) -> None:
    passed = []

    def work() -> None:
        with interruptible():
            passed.append("before")
            os.kill(os.getpid(), number)
            passed.append("after")

    with pytest.raises(Interrupted) as caught:
        work()
    assert passed == ["before"]
    assert caught.value.exit_code == 130
    assert caught.value.action == "Run the same command again to go on from there."


@pytest.mark.parametrize("number", SIGNALS)
def test_between_steps_the_first_signal_asks_and_the_second_stops(
    number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def work() -> None:
        with interruptible() as stop, stop.between_steps():
            for _ in range(3):
                asked.append(stop.asked())
                os.kill(os.getpid(), number)

    with pytest.raises(Interrupted):
        work()
    assert asked == [False, True]
    assert "stopping after this step; once more to stop at once" in capfd.readouterr().err


def test_an_interrupt_that_a_library_made_its_own_is_one() -> None:
    def imported() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt as interrupt:  # what a module in C++ does
            raise ImportError("initialization failed") from interrupt

    def used() -> None:
        try:
            imported()
        except ImportError as error:
            raise ExportError("ONNX Runtime cannot be imported.", "One was expected.", "Install it.") from error

    with pytest.raises(Interrupted, match="The run was stopped"), interruptible():
        used()
    with pytest.raises(ImportError, match="really"), interruptible():
        raise ImportError("really")


def test_handlers_are_restored_and_other_threads_have_none() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with interruptible():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before
    seen: list[StopRequest] = []

    def work() -> None:
        with interruptible() as stop:
            seen.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not seen[0].asked()


# --- stopping a run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("phase", "number"), [("generator", signal.SIGINT), ("student", signal.SIGTERM)])
def test_a_stopped_training_goes_on_to_the_same_student(
    phase: str, number: int, inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "export_the_student", failing(RuntimeError("enough")))
    assert compress(*tiny_run.line(inputs, tmp_path / "whole")).code == 5

    def press(_reporter: Reporter, forecast: object) -> None:
        if getattr(forecast, "phase", "") == phase:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "forecast", press)
        outcome = compress(*tiny_run.line(inputs, tmp_path / "stopped"))
    refused(outcome, 130, f"The run was stopped in phase {phase} after step 4 of 6.", "Run the same command again")
    assert not (tmp_path / "stopped/distill/student.safetensors").exists()
    assert not (tmp_path / "stopped/report.json").exists()

    outcome = compress(*tiny_run.line(inputs, tmp_path / "stopped"))
    assert outcome.states() == {
        **dict.fromkeys(("teacher", "samples", "student"), "cached"),
        "distill": "resumes",
        "onnx": "runs",
    }
    assert f"    {phase}: goes on from step 4 of 6" in outcome.err
    weights = [tmp_path / name / "distill/student.safetensors" for name in ("whole", "stopped")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_signal_outside_of_training_keeps_finished_stages(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("this line is not reached")

    monkeypatch.setattr(pipeline, "make_the_student", work)
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run"))
    refused(outcome, 130, "The run was stopped. Finished stages, and the training up to its last saved step, are kept.")
    assert (tmp_path / "run/samples/manifest.json").exists()
    assert not (tmp_path / "run/student/manifest.json").exists()


def test_a_request_that_came_too_late_for_the_last_step_ends_the_run_before_the_next_stage(
    inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch
) -> None:
    def distilled(run: Run, folder: Path) -> None:
        with run.stop.between_steps():
            os.kill(os.getpid(), signal.SIGINT)
        for name in ("student.safetensors", "student.json", "log.jsonl", "facts.json"):
            (folder / name).write_text("{}")

    monkeypatch.setattr(pipeline, "distill_the_student", distilled)
    outcome = compress(*tiny_run.line(inputs, tmp_path / "run"))
    refused(outcome, 130, "The run was stopped before stage onnx.")


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_that_is_no_run_is_interrupted_too(number: int) -> None:
    code = f"""
import signal
from compressor import cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background inherit that it is ignored

def app(*_arguments, **_more):
    try:
        signal.raise_signal({int(number)})
    except KeyboardInterrupt as interrupt:
        raise ImportError("initialization failed") from interrupt

cli.app = app
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_ctrl_c_in_a_real_process(inputs: Path, tmp_path: Path) -> None:
    line = tiny_run.line(inputs, tmp_path / "run", generator_steps=2_000)
    process = subprocess.Popen([sys.executable, "-m", "compressor", *line], stderr=subprocess.PIPE, text=True)
    log = tmp_path / "run/distill/log.jsonl"
    while process.poll() is None and not log.exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "stopping after this step" in err
    assert "error: The run was stopped in phase generator after step" in err
    assert (tmp_path / "run/distill/checkpoint-generator.pt").exists()


# --- killing a run ----------------------------------------------------------------------------------------------------


FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["compressor.cli", "compressor.running", "torch._dynamo"])


def forked(work: Callable[[list[str]], None], line: list[str]) -> Started:
    """A run in a process forked from a server that has imported everything: imports take longer than the training."""
    process = FORKS.Process(target=work, args=(line,))
    process.start()
    return process


@pytest.mark.slow
def test_whole_runs_that_are_killed_and_stopped_in_every_stage(inputs: Path, tmp_path: Path) -> None:
    """`benchmarks/soak_kill.py` does the same to runs on real digits, hundreds of times."""

    def start(out: Path) -> Started:
        words = ("--target", "jetson", "--eval", f"{inputs}/val")
        return forked(tiny_run.whole_run, tiny_run.line(inputs, out, *words, generator_steps=30, student_steps=30))

    start(tmp_path / "warm").join()
    result = soak(start, tmp_path, signals=len(MOMENTS), seed=1)
    assert well(result), summary(result)
    assert len({one["hit"] for one in result["signals"]}) >= 8
