"""Bars on a terminal, lines elsewhere, nothing when quiet; never on stdout, and never a stranger's escape sequence."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from compressor import progress
from compressor.distill.training import Forecast, Observer
from compressor.progress import Reporter

TERMS = {f"a_loss_term_with_a_long_name_{index}": 0.5 + index for index in range(6)}
FORECAST = Forecast("student", num_steps=4_000, step_seconds=0.09, seconds=360.0, memory_mib=1_234.5, disk_mib=3.25)


def reporter(*, terminal: bool, quiet: bool = False, width: int = 80) -> tuple[Reporter, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=width, highlight=False, soft_wrap=not terminal)
    return Reporter(quiet=quiet, console=console), stream


def train(shown: Reporter, *, first_step: int = 0) -> None:
    observer: Observer = shown  # it is one
    with shown.phases():
        observer.phase_started("student", 10, first_step)
        observer.forecast(FORECAST)
        for step in range(first_step + 1, 11):
            observer.progress("student", step, 10, TERMS)


def test_lines_are_plain_and_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, stream = reporter(terminal=False)
    train(shown)
    assert stream.getvalue() == (
        "    student: 4,000 steps of 90 ms, about 6 min 00 s to go; "
        "memory 1,234 MiB so far, checkpoint 3.25 MiB on disk\n"
    )
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    shown, stream = reporter(terminal=False)
    train(shown)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 11
    assert lines[1].startswith("    student: step 1 of 10: a_loss_term_with_a_long_name_0 0.5, a_loss_term")
    assert "\x1b" not in stream.getvalue()


def test_a_terminal_of_80_columns_shows_steps_time_and_all_losses() -> None:
    shown, stream = reporter(terminal=True)
    with shown.phases():
        shown.phase_started("student", 10, 0)
        shown.progress("student", 5, 10, TERMS)
        assert shown._bar is not None
        shown._bar.live.refresh()
    text = stream.getvalue()
    assert " 5/10" in text
    assert "━" in text
    assert all(name in text for name in TERMS)
    assert shown._bar is None
    assert text.endswith("\x1b[2K")  # its last line is wiped


def test_a_resumed_phase_says_from_where_and_a_finished_one_nothing() -> None:
    shown, stream = reporter(terminal=False)
    train(shown, first_step=4)
    assert stream.getvalue().startswith("    student: goes on from step 4 of 10\n")
    shown, stream = reporter(terminal=True)
    shown.phase_started("student", 10, 10)
    assert stream.getvalue() == ""


def test_quiet_is_warnings_only() -> None:
    for terminal in (True, False):
        shown, stream = reporter(terminal=terminal, quiet=True)
        shown.stage("distill", "run", "config changed: seed")
        train(shown)
        shown.note("nobody reads this")
        assert stream.getvalue() == ""
        shown.warn("mind this")
        assert "  ! mind this" in stream.getvalue()


@pytest.mark.parametrize(
    ("state", "reason", "line"),
    [
        ("cached", "unchanged", "distill  cached\n"),
        ("run", "never ran", "distill  runs\n"),
        ("run", "config changed: seed", "distill  runs (config changed: seed)\n"),
        ("resume", "stopped before it finished", "distill  resumes (stopped before it finished)\n"),
    ],
)
def test_stages(state: str, reason: str, line: str) -> None:
    shown, stream = reporter(terminal=False)
    shown.stage("distill", state, reason)
    assert stream.getvalue() == line


def test_names_from_outside_are_text() -> None:
    for terminal in (True, False):
        shown, stream = reporter(terminal=terminal)
        shown.note("Folder '[bold]x[/bold]\x1b[2J\x1b]0;owned\x07' names no class.")
        assert "\x1b[2J" not in stream.getvalue()
        assert "\x1b]0" not in stream.getvalue()
        assert "[bold]x[/bold]" in stream.getvalue()


def test_nothing_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Reporter()
    shown.note("a note")
    train(shown)
    out, err = capsys.readouterr()
    assert out == ""
    assert "    a note\n" in err


def two_stages(shown: Reporter) -> None:
    with shown.folds():
        shown.stage("teacher", "cached", "unchanged")
        shown.stage("distill", "run", "never ran")
        shown.note("a note")
    shown.warn("after them")


def test_each_stage_is_a_group_of_githubs_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITLAB_CI", raising=False)
    shown, stream = reporter(terminal=False)
    two_stages(shown)
    assert stream.getvalue().splitlines() == [
        *("::group::teacher", "teacher  cached", "::endgroup::"),
        *("::group::distill", "distill  runs", "    a note", "::endgroup::"),
        "  ! after them",
    ]


def test_each_stage_is_a_section_of_gitlabs_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITLAB_CI", "true")
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    monkeypatch.setattr(progress.time, "time", lambda: 1_700_000_000.4)
    shown, stream = reporter(terminal=False)
    two_stages(shown)
    starts = [f"\x1b[0Ksection_start:1700000000:{name}\r\x1b[0K{name}\n" for name in ("teacher", "distill")]
    ends = [f"\x1b[0Ksection_end:1700000000:{name}\r\x1b[0K\n" for name in ("teacher", "distill")]
    assert stream.getvalue() == (
        f"{starts[0]}teacher  cached\n{ends[0]}{starts[1]}distill  runs\n    a note\n{ends[1]}  ! after them\n"
    )


def test_a_failing_stage_leaves_no_fold_open_and_quiet_opens_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    shown, stream = reporter(terminal=False)
    shown.stage("distill", "run", "never ran")
    with pytest.raises(ValueError, match="broken"), shown.folds():
        raise ValueError("broken")
    assert stream.getvalue().endswith("::endgroup::\n")
    shown, stream = reporter(terminal=False, quiet=True)
    two_stages(shown)
    assert stream.getvalue() == "  ! after them\n"


def test_a_name_from_outside_gives_githubs_runner_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    shown, stream = reporter(terminal=False)
    for name in ("::add-mask::a", " \u00a0::stop-commands::x", "x\n::error::y", "few/##[group]z", "##vso[task.x]z"):
        shown.note(name)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5
    for line in lines:
        assert not line.strip().startswith("::")
        assert "##[" not in line
        assert "##vso[" not in line
