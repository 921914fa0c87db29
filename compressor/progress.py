"""What a person sees while a run works: progress bars on a terminal, plain lines elsewhere, nothing when quiet.

Everything here goes to stderr, so that stdout holds the result and nothing else. In the log of a build server each
stage is a fold of its own: GitHub's runner and GitLab's read their marks from both streams.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from compressor.report.text import duration, size
from compressor.report.untrusted import ELLIPSIS, without_commands, without_controls

if TYPE_CHECKING:
    from compressor.distill.training import Forecast

SECONDS_BETWEEN_LINES = 10.0
SPEED_WINDOW_S = 600.0  # long runs report once in twenty seconds or so

LONGEST_LINE = 2_000  # letters; a name from outside may have millions


class Reporter:
    """Shows stages, phases, forecasts and warnings; satisfies `compressor.distill.training.Observer`."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        self.quiet = quiet
        self._bar: _Bar | None = None
        self._line_due = 0.0
        self._open_fold: str | None = None

    def note(self, message: str) -> None:
        """One line of information, indented below its stage."""
        if not self.quiet:
            self._print(f"    {message}")

    def warn(self, message: str) -> None:
        """One warning; it also stands in the report. Shown even when quiet."""
        self._print(f"  ! {message}", style="yellow")

    def stage(self, name: str, state: str, reason: str) -> None:
        """A stage begins, or is taken from the cache."""
        if not self.quiet:
            verb = {"cached": "cached", "resume": "resumes", "run": "runs"}[state]
            why = "" if state == "cached" or reason == "never ran" else f" ({reason})"
            self._fold(name)
            self._print(f"{name:<8} {verb}{why}")

    @contextmanager
    def folds(self) -> Iterator[None]:
        """Around all stages: what follows them, a failure's three sentences above all, lies in no fold."""
        try:
            yield
        finally:
            self._end_fold()

    def phase_started(self, phase: str, num_steps: int, first_step: int) -> None:
        """A training loop begins, or goes on."""
        self.phase_ended()
        if first_step >= num_steps:
            return
        if first_step:
            self.note(f"{phase}: goes on from step {first_step:,} of {num_steps:,}")
        self._line_due = time.monotonic() + SECONDS_BETWEEN_LINES
        if self.console.is_terminal and not self.quiet:
            self._bar = _Bar(self.console, phase, num_steps, first_step)

    def forecast(self, forecast: Forecast) -> None:
        """What the phase will take, after its first timed steps."""
        self.note(
            f"{forecast.phase}: {forecast.num_steps:,} steps of {1000 * forecast.step_seconds:.0f} ms, about "
            f"{duration(forecast.seconds)} to go; memory {forecast.memory_mib:,.0f} MiB so far, "
            f"checkpoint {size(forecast.disk_mib)} on disk"
        )

    def progress(self, phase: str, step: int, num_steps: int, terms: Mapping[str, float]) -> None:
        """`step` steps are done; `terms` are the losses, as means since the last time."""
        shown = ", ".join(f"{name} {value:.3g}" for name, value in terms.items())
        if self._bar is not None:
            self._bar.show(step, shown)
        elif time.monotonic() >= self._line_due:
            self._line_due = time.monotonic() + SECONDS_BETWEEN_LINES
            self.note(f"{phase}: step {step:,} of {num_steps:,}: {shown}")
        if step == num_steps:
            self.phase_ended()

    @contextmanager
    def phases(self) -> Iterator[None]:
        """Around training: no bar is left when it stops in the middle of a phase."""
        try:
            yield
        finally:
            self.phase_ended()

    def phase_ended(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.live.stop()
            self._bar = None

    def _fold(self, stage: str) -> None:
        """Begin the fold of a stage, which ends that of the stage before; nothing where no server reads the log."""
        self._end_fold()
        if os.environ.get("GITHUB_ACTIONS") == "true":
            self._mark(f"::group::{stage}")
        elif os.environ.get("GITLAB_CI") == "true":
            self._mark(f"\x1b[0Ksection_start:{time.time():.0f}:{stage}\r\x1b[0K{stage}")
        else:
            return
        self._open_fold = stage

    def _end_fold(self) -> None:
        stage, self._open_fold = self._open_fold, None
        if stage is not None and os.environ.get("GITHUB_ACTIONS") == "true":
            self._mark("::endgroup::")
        elif stage is not None:
            self._mark(f"\x1b[0Ksection_end:{time.time():.0f}:{stage}\r\x1b[0K")

    def _mark(self, line: str) -> None:
        """Written past the console, which would take the control characters out; stage names are ours."""
        self.console.file.write(f"{line}\n")
        self.console.file.flush()

    def _print(self, text: str, style: str = "") -> None:
        # Names of files and classes are the user's: an escape sequence in one would reach the terminal, and a workflow
        # command the server that reads the log.
        line = text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}{ELLIPSIS}"
        self.console.print(Text(without_commands(without_controls(line)), style=style))


class _Bar:
    """Steps and time to go, and below them the losses, which would leave a bar beside them no room."""

    def __init__(self, console: Console, phase: str, num_steps: int, first_step: int) -> None:
        self.steps = Progress(
            TextColumn("    {task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            speed_estimate_period=SPEED_WINDOW_S,
            console=console,
        )
        self.task = self.steps.add_task(phase, total=num_steps, completed=first_step)
        self.live = Live(self.steps, console=console, transient=True, refresh_per_second=4)
        self.live.start()

    def show(self, step: int, losses: str) -> None:
        self.steps.update(self.task, completed=step)
        self.live.update(Group(self.steps, Padding(Text(losses, style="dim"), (0, 0, 0, 4))))
