"""Failures that a user can meet, one class per documented exit code (README, "Exit codes")."""

from typing import ClassVar

from compressor.stages import MissingInput, MissingOutput, Refusal
from exporters.errors import ExportError
from profiles.board_result import BoardResultError
from profiles.errors import ProfileError, ToolError
from profiles.ssh import BoardError, WrongBoardName

EXIT_OK = 0
EXIT_GATE_FAILED = 1
EXIT_UNREACHABLE = 6  # the target is not there, or its result is not of this run
EXIT_BUG = 70
EXIT_INTERRUPTED = 130


class CompressError(ToolError):
    """Base of the failures that carry their own exit code."""

    exit_code: ClassVar[int] = EXIT_BUG


class UsageFault(CompressError):
    """Flags or configuration are wrong."""

    exit_code = 2


class EnvironmentFault(CompressError):
    """A GPU, driver or library was demanded and is not there."""

    exit_code = 3


class InputRefused(CompressError):
    """The teacher, the samples or their shapes cannot be used, or no student fits."""

    exit_code = 4


class StageFailed(CompressError):
    """A stage broke; its name and log are in the message."""

    exit_code = 5


class Interrupted(CompressError):
    """The user or the scheduler stopped the run; the same command resumes it."""

    exit_code = EXIT_INTERRUPTED


def came_of_interrupt(error: BaseException) -> bool:
    """Whether a signal is behind it: a module in C++ that is being imported makes the interrupt an error of its own."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__ or cause.__context__
    return cause is not None


def exit_code_of(error: BaseException) -> int:
    """The documented exit code of an exception; anything unforeseen is a bug of ours (70)."""
    if isinstance(error, CompressError):
        return error.exit_code
    if isinstance(error, ExportError | MissingInput | MissingOutput):
        return StageFailed.exit_code
    if isinstance(error, ProfileError | Refusal | WrongBoardName):
        return UsageFault.exit_code
    if isinstance(error, BoardError | BoardResultError):
        return EXIT_UNREACHABLE
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    return EXIT_BUG
