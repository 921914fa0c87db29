"""The user's own ssh and scp as child processes: how a board is named, with which options, and for how long.

How to reach a board (keys, names, jump hosts, known host keys) is the user's ssh configuration. Nothing here asks for
a password or loosens the checking of host keys. Commands are lists of arguments; no shell reads them on this side.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from profiles.errors import ToolError

CONNECT_S = 15
ALIVE_S, ALIVE_COUNT = 15, 4  # a board that has been silent for a minute is gone
MAX_SAID = 4096  # bytes of what a program said that are kept

# The user's configuration decides who and how; these keep ssh from asking, forwarding, or lingering.
_OPTIONS = (
    "BatchMode=yes",
    f"ConnectTimeout={CONNECT_S}",
    f"ServerAliveInterval={ALIVE_S}",
    f"ServerAliveCountMax={ALIVE_COUNT}",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ControlMaster=no",  # a master that stays would keep our pipes open
    "RequestTTY=no",
    "RemoteCommand=none",
    "LogLevel=ERROR",  # neither silence nor the board's banner
)
_NAME = re.compile(
    r"(?:(?P<user>[a-z0-9_][a-z0-9_.+-]*)@)?"
    r"(?:(?P<host>[a-z0-9_][a-z0-9_.-]*)|\[(?P<v6>[0-9a-f:.]+(?:%[a-z0-9_.-]+)?)\])"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII | re.IGNORECASE,
)
# $0 is the limit in the blocks of 512 bytes that POSIX counts in. Without the trap a larger file would end scp by a
# signal that may leave a core file; with it, scp says that the file is too large.
_LIMITED = 'trap "" XFSZ; ulimit -f "$0" && exec "$@"'
# Escape sequences, control characters, and those that turn the direction of text.
_CONTROLS = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class BoardError(ToolError):
    """A kit did not go to a board and come back with a result."""


class WrongBoardName(BoardError):
    """What should name a board does not."""


class BoardUnreachable(BoardError):
    """There is no way to the board, or it went away."""


class KitFailed(BoardError):
    """The board was reached, and no result came of it."""


@dataclass(frozen=True)
class Board:
    """A board as the user named it, and in the parts that ssh wants; None is left to ssh's configuration."""

    name: str
    host: str
    user: str | None = None
    port: int | None = None
    config: Path | None = None

    @property
    def options(self) -> list[str]:
        """Arguments that ssh and scp share."""
        chosen = {"User": self.user, "Port": self.port}
        pairs = [*_OPTIONS, *(f"{key}={value}" for key, value in chosen.items() if value is not None)]
        config = ["-F", str(self.config)] if self.config else []
        return [*config, *(word for pair in pairs for word in ("-o", pair))]

    @property
    def scp_host(self) -> str:
        """The host as scp wants it before a colon."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def by_hand(self) -> str:
        """The command with which the user would log in."""
        port = f"-p {self.port} " if self.port else ""
        return f"ssh {port}{self.user}@{self.host}" if self.user else f"ssh {port}{self.host}"

    def __str__(self) -> str:
        return self.name


def board_named(name: str, config: Path | None = None) -> Board:
    """Read 'user@host:port', 'user@[IPv6]:port', or an alias of ssh's configuration; user and port may be left out.

    Raises:
        WrongBoardName: it is none of these, or could be taken for an option or a command.
    """
    found = _NAME.fullmatch(name)
    port = int(found["port"]) if found and found["port"] else None
    if found is None or (port is not None and not 0 < port < 65536):
        raise WrongBoardName(
            f"{name[:200]!r} does not name a board.",
            "A name such as 'user@host', 'user@host:2222', 'user@[fe80::1%eth0]' or an alias of your ssh "
            "configuration was expected, of letters, digits, '.', '-' and '_'.",
            "For anything else, write an alias in ~/.ssh/config and give its name.",
        )
    return Board(name, found["host"] or found["v6"], found["user"], port, config)


class Deadline:
    """One time limit, in seconds, for everything that is done with a board."""

    def __init__(self, board: Board, limit_s: float) -> None:
        self._board, self._limit_s = board, limit_s
        self._end = time.monotonic() + limit_s

    def remaining_s(self) -> float:
        """Seconds that are left, at least 0."""
        return max(0.0, self._end - time.monotonic())

    def passed(self, state: str) -> BoardError:
        """The refusal of a board that was in `state` at the end."""
        return KitFailed(
            f"{self._board} was {state} after {self._limit_s:g} s.",
            "All of it, from the connection to the result, was expected within that limit.",
            "Allow more time with --board-timeout-s, or run the kit on the board by hand as the README.md in it says.",
        )


@contextmanager
def child(board: Board, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program with pipes for all its streams, ended with whatever it started when the block ends.

    Raises:
        BoardUnreachable: the program is not on this machine.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C reaches us alone, and we end ssh in good order
        )
    except FileNotFoundError:
        raise BoardUnreachable(
            f"The program '{command[0]}' is not on this machine, so {board} cannot be reached.",
            "ssh and scp of OpenSSH were expected on the PATH.",
            "Install them (package openssh-client), or copy the kit to the board by hand as the README.md in it says.",
        ) from None
    try:
        yield process
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def scp(board: Board, source: str, destination: str, deadline: Deadline, *, max_bytes: int | None = None) -> str | None:
    """Copy one file; what scp said where it failed, else None.

    Args:
        max_bytes: a multiple of 512; scp fails where it would write a larger file on this machine.

    Raises:
        BoardUnreachable: scp is not on this machine.
        KitFailed: the time was up.
    """
    limit = () if max_bytes is None else ("sh", "-c", _LIMITED, str(max_bytes // 512))
    with child(board, *limit, "scp", "-q", *board.options, "--", source, destination) as process:
        said = _last_bytes(process, deadline)
    if process.returncode == 0:
        return None
    return last_words(map(printable_line, said.splitlines())) or f"exit code {process.returncode}"


def _last_bytes(process: subprocess.Popen[bytes], deadline: Deadline) -> bytes:
    """Wait for a program that is given no input; the last of all that it says, which may be without end."""
    pipe(process.stdin).close()
    said = b""
    with pipe(process.stdout) as output, pipe(process.stderr) as errors, selectors.DefaultSelector() as streams:
        for stream in (output, errors):
            streams.register(stream, selectors.EVENT_READ)
        while streams.get_map():
            ready = streams.select(deadline.remaining_s())
            if not deadline.remaining_s():
                raise deadline.passed("still copying")
            for key, _ in ready:
                if chunk := os.read(key.fd, MAX_SAID):
                    said = (said + chunk)[-MAX_SAID:]
                else:
                    streams.unregister(key.fileobj)
    try:
        process.wait(deadline.remaining_s())
    except subprocess.TimeoutExpired:
        raise deadline.passed("still copying") from None
    return said


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    """A stream of a `child`, which has all three."""
    assert stream is not None
    return stream


def unreachable(board: Board, said: str) -> BoardUnreachable:
    """What ssh said on ending with its own exit code, 255, in three sentences."""
    if "Host key" in said:
        return BoardUnreachable(
            f"ssh does not trust the host key of {board}: {said}.",
            "The key in your known_hosts was expected; another one may be a board that was set up anew, or a stranger.",
            f"Find out which, then log in once with `{board.by_hand}`, which says what to change.",
        )
    if "Permission denied" in said:
        return BoardUnreachable(
            f"{board} refused the login: {said}.",
            "A key that works without a question was expected; passwords are not used.",
            f"Give the board your key with ssh-copy-id, and check it with `{board.by_hand} -o BatchMode=yes true`.",
        )
    return BoardUnreachable(
        f"{board} could not be reached: {said}.",
        "A board that is switched on and answers ssh was expected.",
        f"Check the name, the network, and `{board.by_hand}`.",
    )


def printable_line(line: bytes) -> str:
    """One line of a board's, which may hold anything, fit for a terminal."""
    return _CONTROLS.sub("", line.decode("utf-8", "replace")).rstrip()


def last_words(lines: Iterator[str] | Sequence[str], limit: int = 600) -> str:
    """The last three lines in one, without a full stop at the end; empty where nothing was said."""
    said = [stripped for line in lines if (stripped := line.strip(" .\t"))]
    return "; ".join(said[-3:])[-limit:]
