"""One ssh session that owns a folder on the board from the first to the last moment; scp copies into and out of it.

    this machine                  board
                              <-  (folder)                      of mktemp -d, such as /tmp/compress-kit.XXXXXXXX
    scp kit.tar.gz            ->
    go                        ->                                in the background, from here on:
                              <-  (folder) unpacked 0           tar's exit code
                              <-  (folder) ended 0 0            run_on_board.sh's; 0 where it left a result.json
    scp result.json           <-
    done                      ->                                removes the folder

Until `done` comes, the session's shell waits for it. The end of its input instead means that this side is gone, by
an error, a time limit, Ctrl-C, `kill -9` or a cut cable: the shell then ends what it started and removes the folder.
So the clean-up needs no second connection. What the kit prints comes on the same stream as the answers, in its order;
the random name of the folder tells them apart.
"""

from __future__ import annotations

import queue
import re
import shlex
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO

from profiles.ssh import (
    Board,
    BoardError,
    BoardUnreachable,
    Deadline,
    KitFailed,
    child,
    last_words,
    pipe,
    printable_line,
    unreachable,
)

SCRIPT = "run_on_board.sh"
RESULT = "result.json"

FAREWELL_S = 10.0  # for the board to end the kit and to remove its folder
MAX_LINE = 4096
MAX_WAITING = 1000  # lines; a kit that talks faster than it is listened to is held up

# One line without a single quote, so that any login shell passes it on to sh. $1 is the kit's folder in the archive.
# `trap :` and not "": children would inherit that a signal is ignored. LC_ALL: a full disk has one name everywhere.
# `kill 0` is the process group of this session, which sshd makes new for each. Answers begin a line of their own.
OWNER = (
    "trap : PIPE HUP; umask 077; "
    'folder=$(LC_ALL=C mktemp -d "${TMPDIR:-/tmp}/compress-kit.XXXXXXXX") || exit 1; printf "\\n%s\\n" "$folder"; '
    "if read -r go; then "
    '{ cd "$folder" && LC_ALL=C tar -xzf kit.tar.gz; status=$?; printf "\\n%s unpacked %s\\n" "$folder" $status; '
    '[ $status = 0 ] && rm kit.tar.gz && cd "$1" && sh ./' + SCRIPT + "; status=$?; "
    'test -f "$folder/$1/' + RESULT + '"; printf "\\n%s ended %s %s\\n" "$folder" $status $?; '
    "} 2>&1 </dev/null & "
    'if read -r done; then rm -rf "$folder"; exit; fi; '
    "fi; "
    'trap "" TERM; kill -TERM 0; sleep 1; rm -rf "$folder"; kill -KILL 0'
)
_FOLDER = r"(?:/[\w.+-]+)*/compress-kit\.\w+"


@contextmanager
def open_session(
    board: Board, kit: str, deadline: Deadline, observer: Callable[[str], None] | None
) -> Iterator[Session]:
    """A session whose folder is there. However the block ends, the board gets time to clean up.

    Args:
        kit: the folder in the archive that holds the script.
        observer: gets the lines that are no answers.

    Raises:
        BoardUnreachable, KitFailed: ssh does not get there, or the board has no room for a folder.
    """
    command = f"sh -c {shlex.quote(OWNER)} sh {shlex.quote(kit)}"
    with child(board, "ssh", *board.options, "--", board.host, command) as process:
        session = Session(process, board, deadline, observer)
        try:
            session.open()
            yield session
        finally:
            session.close()


class Session:
    """The ssh that owns `folder`; `last_lines` of what the kit and ssh have said."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        board: Board,
        deadline: Deadline,
        observer: Callable[[str], None] | None,
    ) -> None:
        self.folder = ""
        self.last_lines: deque[str] = deque(maxlen=20)
        self._process, self._board, self._deadline = process, board, deadline
        self._observer = observer
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING)
        self._is_heard = True
        self._open_streams = 2
        self._kit_is_over = False
        for stream in (process.stdout, process.stderr):
            threading.Thread(target=self._read, args=(pipe(stream),), daemon=True).start()

    def open(self) -> None:
        """Wait for the folder."""
        self.folder = self._answer(_FOLDER)[0]

    def unpack(self) -> int:
        """Let the board unpack the kit and run it; tar's exit code, and the kit is under way where that is 0."""
        self._say("go")
        return int(self._answer(rf"{re.escape(self.folder)} unpacked (\d+)")[1])

    def kit_ended(self) -> tuple[int, bool]:
        """Wait for the kit's exit code, and whether it left a result."""
        status, missing = self._answer(rf"{re.escape(self.folder)} ended (\d+) (\d+)").groups()
        self._kit_is_over = True
        return int(status), missing == "0"

    def close(self) -> None:
        """End the session; it ends on the board when the folder is removed there."""
        if self._kit_is_over:
            self._say("done")
        self._stop_hearing()
        with suppress(OSError):
            pipe(self._process.stdin).close()
        try:
            self._process.wait(FAREWELL_S if self.folder else 0)
        except subprocess.TimeoutExpired:
            if self.folder:
                self._tell(f"{self._board} did not confirm that {self.folder} was removed there")

    def _say(self, word: str) -> None:
        with suppress(OSError):  # a board that is gone is noticed by the next answer
            pipe(self._process.stdin).write(f"{word}\n".encode())
            pipe(self._process.stdin).flush()

    def _answer(self, pattern: str) -> re.Match[str]:
        """The next line that matches; the others, of the kit, of ssh and of a talkative login shell, are shown."""
        while self._open_streams:
            try:
                line = self._lines.get(timeout=self._deadline.remaining_s())
                late = not self._deadline.remaining_s()  # a kit that never stops talking leaves the queue never empty
            except queue.Empty:
                late = True
            if late:
                raise self._deadline.passed("still at work" if self.folder else "not connected")
            if line is None:
                self._open_streams -= 1
            elif found := re.fullmatch(pattern, line, re.ASCII):
                return found
            elif line:
                self.last_lines.append(line)
                self._tell(line)
        if self.folder:
            raise _went_away(self._board, self.last_lines)
        raise _no_folder(self._board, self._process.wait(), self.last_lines)

    def _tell(self, line: str) -> None:
        if self._observer is not None:
            self._observer(line)

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            while line := stream.readline(MAX_LINE):
                if self._is_heard:
                    self._lines.put(printable_line(line))
        if self._is_heard:
            self._lines.put(None)

    def _stop_hearing(self) -> None:
        """Let what still comes go by: ssh ends only when someone takes its last words."""
        self._is_heard = False
        with suppress(queue.Empty):
            while True:
                self._lines.get_nowait()


def _no_folder(board: Board, code: int, lines: Sequence[str]) -> BoardError:
    """ssh ended before the board had made a folder."""
    said = last_words(lines) or f"ssh ended with exit code {code}"
    if code != 255:  # ssh's own failures are 255; this one is the board's
        return KitFailed(
            f"{board} could not make a folder for the kit: {said}.",
            "A POSIX shell, mktemp, and room in its folder for temporary files were expected.",
            f"Check with `{board.by_hand} mktemp -d` and `{board.by_hand} df -h`; TMPDIR there names another folder.",
        )
    return unreachable(board, said)


def _went_away(board: Board, lines: Sequence[str]) -> BoardUnreachable:
    last = last_words([*lines][-1:])
    return BoardUnreachable(
        f"{board} went away before the kit had ended{f'; the last line was: {last}' if last else ''}.",
        "The connection was expected to last until the result is here.",
        "Check the board's power, temperature and network, and run the same command again.",
    )
