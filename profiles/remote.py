"""A device kit's way to a board and back over the user's own ssh: copy, run, fetch the result, leave nothing behind.

`board_session` has the protocol, and how the board is cleaned up whatever happens; `ssh` how a board is named and
reached. POSIX only.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path

from profiles.board_result import MAX_BYTES
from profiles.board_session import RESULT, SCRIPT, open_session
from profiles.ssh import (
    Board,
    BoardError,
    BoardUnreachable,
    Deadline,
    KitFailed,
    WrongBoardName,
    board_named,
    last_words,
    scp,
)

__all__ = ["BoardError", "BoardUnreachable", "KitFailed", "WrongBoardName", "run_on_board"]


def run_on_board(
    board: str,
    archive: Path,
    *,
    result: Path,
    timeout_s: float,
    ssh_config: Path | None = None,
    observer: Callable[[str], None] | None = None,
) -> Path:
    """Run a device kit on a board and bring its result back.

    On failure an earlier file at `result` stays as it was. An exception of a signal handler, such as
    KeyboardInterrupt, ends the kit on the board and removes it like any failure.

    Args:
        board: see `board_named`.
        archive: kit.tar.gz, with `run_on_board.sh` directly in its folder.
        result: where the fetched result.json is put. It is not read here.
        timeout_s: limit for all of it, in seconds.
        ssh_config: instead of the user's own.
        observer: gets each line that the board prints, without control characters.

    Returns:
        `result`.

    Raises:
        WrongBoardName: `board` names none.
        BoardUnreachable: ssh is missing or refused, or the board went away.
        KitFailed: the kit does not fit the board, failed there, or was too slow.
        OSError: the folder of `result` could not be made.
    """
    target = board_named(board, ssh_config)
    kit = _kit_folder(archive)
    deadline = Deadline(target, timeout_s)
    with open_session(target, kit, deadline, observer) as session:
        _upload(target, archive, session.folder, deadline)
        if session.unpack() != 0:
            raise _not_unpacked(target, archive, session.folder, session.last_lines)
        status, has_result = session.kit_ended()
        if not has_result:
            raise _no_result(target, status, session.last_lines)
        _download(target, f"{session.folder}/{kit}/{RESULT}", result, deadline)
    return result


def _upload(board: Board, archive: Path, folder: str, deadline: Deadline) -> None:
    said = scp(board, str(archive.absolute()), f"{board.scp_host}:{folder}/kit.tar.gz", deadline)
    if said:
        raise KitFailed(
            f"The kit could not be copied to {board}: {said}.",
            f"Its {archive.stat().st_size / 2**20:.1f} MiB were expected to fit in {folder}; scp calls a full disk "
            "just a failure.",
            f"Look at `{board.by_hand} df -h`, free some space there, and run the same command again.",
        )


def _download(board: Board, source: str, result: Path, deadline: Deadline) -> None:
    result.parent.mkdir(parents=True, exist_ok=True)
    temporary = result.absolute().with_name(f".tmp-{result.name}")
    try:
        said = scp(board, f"{board.scp_host}:{source}", str(temporary), deadline, max_bytes=MAX_BYTES)
        if said and "File too large" in said:
            raise KitFailed(
                f"The result of {board} is larger than {MAX_BYTES // 2**20} MiB: {said}.",
                f"A few kilobytes were expected, as {SCRIPT} writes them to {source}.",
                "Check that this is your board, and run the same command again.",
            )
        if said:
            raise BoardUnreachable(
                f"The result could not be fetched from {board}: {said}.",
                f"The kit had ended and written {source}.",
                "Check the connection and the space on this machine's disk, and run the same command again.",
            )
        temporary.replace(result)
    finally:
        temporary.unlink(missing_ok=True)


def _kit_folder(archive: Path) -> str:
    """The folder in the archive that holds the script."""
    problem = f"it holds no folder with {SCRIPT}"
    try:
        with tarfile.open(archive, "r:gz") as content:
            for member in content:
                folder, _, file = member.name.removeprefix("./").partition("/")
                if file == SCRIPT and re.fullmatch(r"[A-Za-z0-9_][\w.-]*", folder, re.ASCII):
                    return folder
    except (OSError, EOFError, tarfile.TarError) as error:
        problem = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
    raise KitFailed(
        f"{archive} is no device kit: {problem}.",
        "The kit.tar.gz of a run was expected.",
        "Run the command that wrote it again.",
    )


def _not_unpacked(board: Board, archive: Path, folder: str, lines: Sequence[str]) -> KitFailed:
    """A full disk, nearly always, which tar calls by many names."""
    return KitFailed(
        f"The kit could not be unpacked on {board}: {last_words(lines) or 'tar said nothing'}.",
        f"tar with gzip was expected, and room in {folder} for {archive.stat().st_size / 2**20:.1f} MiB twice over.",
        f"Look at `{board.by_hand} df -h`, free some space there, and run the same command again.",
    )


def _no_result(board: Board, status: int, lines: Sequence[str]) -> KitFailed:
    """The kit ended without a result; where it refused the board, its last line says why in three sentences."""
    sentences = re.split(r"(?<=\.) (?=[A-Z])", lines[-1]) if lines else []
    if len(sentences) == 3:
        return KitFailed(f"{board}: {sentences[0]}", sentences[1], sentences[2])
    said = last_words(lines) or "it said nothing"
    if "No space left" in said or "quota exceeded" in said:
        return KitFailed(
            f"The disk of {board} is full: {said}.",
            "Room for the engines that are built from the kit was expected.",
            "Free some space on the board, or name another folder with TMPDIR there, and run the same command again.",
        )
    return KitFailed(
        f"The kit ended on {board} with exit code {status} and no result: {said}.",
        f"{SCRIPT} was expected to write {RESULT}.",
        "Run the kit on the board by hand to see all that it says; the README.md in it tells how.",
    )
