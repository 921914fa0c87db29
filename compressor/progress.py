"""What a person sees while a run works: progress bars on a terminal, plain lines elsewhere, nothing when quiet.

Everything here goes to stderr, so that stdout holds the result and nothing else.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from compressor.distill.training import Forecast

SECONDS_BETWEEN_LINES = 10.0


class Reporter:
    """Shows stages, phases, forecasts and warnings; satisfies `compressor.distill.training.Observer`."""

    def __init__(self, *, quiet: bool = False, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        self.quiet = quiet
        self.live = self.console.is_terminal and not quiet
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._line_due = 0.0

    def note(self, message: str) -> None:
        """One line of information, indented below its stage."""
        if not self.quiet:
            self.console.print(f"    {message}", markup=False)

    def warn(self, message: str) -> None:
        """One warning; it also stands in the report. Shown even when quiet."""
        self.console.print(f"  ! {message}", style="yellow", markup=False)

    def stage(self, name: str, state: str, reason: str) -> None:
        """A stage begins, or is taken from the cache."""
        if not self.quiet:
            verb = {"cached": "cached", "resume": "resumes", "run": "runs"}[state]
            self.console.print(
                f"{name:<8} {verb}" + ("" if state == "cached" else f" ({reason})"), markup=False
            )

    def phase_started(self, phase: str, num_steps: int, first_step: int) -> None:
        self.phase_ended()
        if first_step and first_step < num_steps:
            self.note(f"{phase}: goes on from step {first_step} of {num_steps}")
        self._line_due = time.monotonic() + SECONDS_BETWEEN_LINES
        if self.live and first_step < num_steps:
            self._progress = Progress(
                TextColumn("    {task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[terms]}"),
                console=self.console,
                transient=True,
            )
            self._task = self._progress.add_task(phase, total=num_steps, completed=first_step, terms="")
            self._progress.start()

    def forecast(self, forecast: Forecast) -> None:
        self.note(
            f"{forecast.phase}: {forecast.num_steps} steps of {1000 * forecast.step_seconds:.0f} ms, about "
            f"{duration(forecast.seconds)} to go; memory {forecast.memory_mib:.0f} MiB so far, "
            f"checkpoint {forecast.disk_mib:.0f} MiB on disk"
        )

    def progress(self, phase: str, step: int, num_steps: int, terms: Mapping[str, float]) -> None:
        text = " ".join(f"{_initials(name)} {value:.3g}" for name, value in terms.items())
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=step, terms=text)
        elif not self.quiet and time.monotonic() >= self._line_due:
            self._line_due = time.monotonic() + SECONDS_BETWEEN_LINES
            shown = ", ".join(f"{name} {value:.3g}" for name, value in terms.items())
            self.note(f"{phase}: step {step} of {num_steps}: {shown}")
        if step == num_steps:
            self.phase_ended()

    def phase_ended(self) -> None:
        """Take the bar away; also called when a run stops in the middle of a phase."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _initials(term: str) -> str:
    """`category_frequency_smoothing` to `cfs`: a bar has no room for more; the log has the full names."""
    return "".join(word[0] for word in term.split("_"))
