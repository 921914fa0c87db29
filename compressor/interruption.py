"""Ctrl-C and SIGTERM: training stops between two steps, anything else at once; the same command goes on from there."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from compressor.errors import Interrupted, came_of_interrupt


class StopRequest:
    """Whether somebody asked the run to stop.

    Args:
        quiet: a signal is not answered on stderr; another process does that.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._asked = threading.Event()
        self._patient = False

    def asked(self) -> bool:
        """True once a signal came; a loop that can save its state asks this between two steps."""
        return self._asked.is_set()

    @contextmanager
    def between_steps(self) -> Iterator[None]:
        """Inside, a first signal is only noted, for `asked`; a second one, and any signal outside, stops at once."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    def on_signal(self, _number: int, _frame: object) -> None:
        """The handler of both signals."""
        at_once = self._asked.is_set() or not self._patient
        self._asked.set()
        if at_once:
            raise KeyboardInterrupt
        if not self.quiet:
            # Not print: the signal may have come in the middle of one.
            os.write(2, b"\nstopping after this step; once more to stop at once\n")


@contextmanager
def interruptible(*, quiet: bool = False) -> Iterator[StopRequest]:
    """Let SIGINT and SIGTERM stop what runs inside.

    Args:
        quiet: see `StopRequest`.

    Raises:
        Interrupted: a signal stopped it.
    """
    stop = StopRequest(quiet=quiet)
    if threading.current_thread() is not threading.main_thread():
        yield stop  # Python gives signals to the main thread only
        return
    previous = {number: signal.signal(number, stop.on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    except BaseException as error:
        if came_of_interrupt(error) and not isinstance(error, Interrupted):
            raise stopped("The run was stopped.") from None
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stopped(received: str) -> Interrupted:
    """The refusal of a run that was stopped, with what happened."""
    return Interrupted(
        received,
        "Finished stages, and the training up to its last saved step, are kept.",
        "Run the same command again to go on from there.",
    )
