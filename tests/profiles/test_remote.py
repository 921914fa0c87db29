"""A device kit over real ssh to an sshd on loopback: there and back, and every way in which it can go wrong."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from loopback import MISSING, Loopback, start_loopback

from profiles.board_result import MAX_BYTES
from profiles.board_session import OWNER
from profiles.errors import ToolError
from profiles.remote import BoardUnreachable, KitFailed, WrongBoardName, run_on_board
from profiles.ssh import board_named

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (package openssh-server)")

RESULT = '{"whole": true}\n'
WRITE_RESULT = f"printf '%s' '{RESULT}' > result.json\n"
# Says where it is and what it runs, then outlasts every test; the sleep is another process than the shell's.
ENDLESS = 'echo "pid $$"\nsleep 300\n'


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    loopback = start_loopback(tmp_path_factory.mktemp("sshd"))
    yield loopback
    loopback.stop()


def kit(folder: Path, script: str, extra: bytes = b"") -> Path:
    """A kit.tar.gz whose script has these lines."""
    archive = folder / "kit.tar.gz"
    with tarfile.open(archive, "w:gz") as content:
        for name, data in (("kit/run_on_board.sh", script.encode()), ("kit/extra.bin", extra)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            content.addfile(member, io.BytesIO(data))
    return archive


def run(
    board: Loopback,
    folder: Path,
    script: str,
    *,
    name: str = "board",
    timeout_s: float = 60,
    observer: Callable[[str], None] | None = None,
    extra: bytes = b"",
) -> Path:
    return run_on_board(
        name,
        kit(folder, script, extra),
        result=folder / "merged" / "result.json",
        timeout_s=timeout_s,
        ssh_config=board.config,
        observer=observer,
    )


def nothing_left(board: Loopback, folder: Path) -> None:
    """Neither on the board nor here, but for an earlier result."""
    assert list(board.tmp.iterdir()) == []
    assert [path for path in folder.rglob(".tmp-*")] == []


def three_sentences(error: ToolError, *words: str) -> None:
    for sentence in (error.received, error.expected, error.action):
        assert sentence.endswith("."), sentence
        assert "\n" not in sentence
    for word in words:
        assert word in str(error)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


# ---- there and back ---------------------------------------------------------------------------------------------


def test_the_result_comes_back_and_nothing_stays(board: Loopback, tmp_path: Path) -> None:
    lines: list[str] = []
    script = 'echo "in $(pwd)"\nprintf "\\033[31mred\\033[0m\\007\\n" >&2\nprintf "no newline"\n' + WRITE_RESULT
    path = run(board, tmp_path, script, observer=lines.append)
    assert path == tmp_path / "merged" / "result.json"
    assert path.read_text() == RESULT
    assert lines[0].startswith(f"in {board.tmp}/compress-kit.")
    assert lines[0].endswith("/kit")
    assert lines[1:] == ["red", "no newline"]
    nothing_left(board, tmp_path)


def test_user_and_port_come_from_the_name(board: Loopback, tmp_path: Path) -> None:
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert run(board, tmp_path, WRITE_RESULT, name=f"{user}@127.0.0.1:{board.port}").read_text() == RESULT


def test_a_result_counts_whatever_the_exit_code(board: Loopback, tmp_path: Path) -> None:
    assert run(board, tmp_path, WRITE_RESULT + "exit 1\n").read_text() == RESULT
    nothing_left(board, tmp_path)


def test_what_the_kit_says_comes_before_its_end(board: Loopback, tmp_path: Path) -> None:
    lines: list[str] = []
    script = 'i=0\nwhile [ $i -lt 500 ]; do echo "out $i"; echo "err $i" >&2; i=$((i + 1)); done\n'
    run(board, tmp_path, script + WRITE_RESULT, observer=lines.append)
    assert lines == [f"{stream} {i}" for i in range(500) for stream in ("out", "err")]


def test_the_remote_command_suits_any_login_shell() -> None:
    assert "\n" not in OWNER  # csh ends a quotation at a line's end
    assert "'" not in OWNER


def test_the_kit_has_no_input_and_only_its_own_folder(board: Loopback, tmp_path: Path) -> None:
    lines: list[str] = []
    run(board, tmp_path, "cat\nls -A ..\nls -ld .. | cut -c1-10\numask\n" + WRITE_RESULT, observer=lines.append)
    assert lines == ["kit", "drwx------", "0077"]


def test_a_login_shell_may_talk(board: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talkative = tmp_path / "bin" / "ssh"
    talkative.parent.mkdir()
    talkative.write_text(f'#!/bin/sh\necho "Welcome to a board"\nexec {shutil.which("ssh")} "$@"\n')
    talkative.chmod(0o755)
    monkeypatch.setenv("PATH", f"{talkative.parent}:{os.environ['PATH']}")
    lines: list[str] = []
    assert run(board, tmp_path, WRITE_RESULT, observer=lines.append).read_text() == RESULT
    assert lines == ["Welcome to a board"]


# ---- names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parts", "by_hand"),
    [
        ("jetson", ("jetson", None, None), "ssh jetson"),
        ("nvidia@10.0.0.7", ("10.0.0.7", "nvidia", None), "ssh nvidia@10.0.0.7"),
        ("me@board.local:2222", ("board.local", "me", 2222), "ssh -p 2222 me@board.local"),
        ("me@[fe80::1%eth0]:22", ("fe80::1%eth0", "me", 22), "ssh -p 22 me@fe80::1%eth0"),
    ],
)
def test_names(name: str, parts: tuple[str, str | None, int | None], by_hand: str) -> None:
    board = board_named(name)
    assert (board.host, board.user, board.port) == parts
    assert board.by_hand == by_hand
    assert board.scp_host == (f"[{board.host}]" if ":" in board.host else board.host)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-oProxyCommand=touch pwned",
        "-G",
        "me@-oProxyCommand=x",
        "-l@host",
        "two words",
        "host\n",
        "host\0",
        "\x1b[31mhost",
        "$(touch pwned)",
        "`id`@host",
        "host;id",
        "me@you@host",
        "host:/etc/passwd",
        "host:0",
        "host:65536",
        "host:２２",
        "ssh://host",
        "fe80::1",
        "../host",
        "hôst",
    ],
)
def test_hostile_names_are_refused_before_anything_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(WrongBoardName) as refusal:
        run_on_board(name, tmp_path / "kit.tar.gz", result=tmp_path / "result.json", timeout_s=1)
    three_sentences(refusal.value, repr(name), "~/.ssh/config")


def test_nobody_is_asked_and_nothing_is_forwarded() -> None:
    options = board_named("me@host:2222", Path("conf")).options
    assert options[:2] == ["-F", "conf"]
    chosen = dict(word.split("=") for word in options[3::2])
    assert chosen["BatchMode"] == "yes"
    assert (chosen["User"], chosen["Port"]) == ("me", "2222")
    assert (chosen["ClearAllForwardings"], chosen["ForwardAgent"]) == ("yes", "no")
    assert "StrictHostKeyChecking" not in chosen  # the user's own setting


# ---- no way to the board ----------------------------------------------------------------------------------------


def test_a_changed_host_key_is_refused_in_the_words_of_ssh(board: Loopback, tmp_path: Path) -> None:
    known = board.folder / "known_hosts"
    right = known.read_text()
    known.write_text(f"[127.0.0.1]:{board.port} {(board.folder / 'stranger.pub').read_text()}")
    try:
        with pytest.raises(BoardUnreachable) as refusal:
            run(board, tmp_path, WRITE_RESULT)
    finally:
        known.write_text(right)
    three_sentences(refusal.value, "has changed and you have requested strict checking", "`ssh board`")
    nothing_left(board, tmp_path)


def test_an_unknown_host_key_is_refused(board: Loopback, tmp_path: Path) -> None:
    known = board.folder / "known_hosts"
    right = known.read_text()
    known.write_text("")
    try:
        with pytest.raises(BoardUnreachable) as refusal:
            run(board, tmp_path, WRITE_RESULT)
    finally:
        known.write_text(right)
    three_sentences(refusal.value, "does not trust the host key of board", "Host key verification failed")


def test_a_wrong_key_is_refused(board: Loopback, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(board.config.read_text().replace(f"{board.folder}/user", f"{board.folder}/stranger"))
    with pytest.raises(BoardUnreachable) as refusal:
        run_on_board("board", kit(tmp_path, ""), result=tmp_path / "r.json", timeout_s=20, ssh_config=config)
    three_sentences(refusal.value, "Permission denied (publickey)", "ssh-copy-id")


def test_nobody_listens(board: Loopback, tmp_path: Path) -> None:
    with pytest.raises(BoardUnreachable) as refusal:
        run(board, tmp_path, WRITE_RESULT, name="127.0.0.1:1")
    three_sentences(refusal.value, "127.0.0.1:1", "Connection refused", "`ssh -p 1 127.0.0.1`")


def test_ssh_is_missing(board: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BoardUnreachable) as refusal:
        run(board, tmp_path, WRITE_RESULT)
    three_sentences(refusal.value, "'ssh'", "openssh-client")


def test_scp_is_missing(board: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ssh = shutil.which("ssh")
    assert ssh is not None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ssh").symlink_to(ssh)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(BoardUnreachable) as refusal:
        run(board, tmp_path, WRITE_RESULT)
    three_sentences(refusal.value, "'scp'", "openssh-client")
    nothing_left(board, tmp_path)


# ---- it goes wrong on the board ---------------------------------------------------------------------------------


def test_a_kit_that_does_not_fit_speaks_for_itself(board: Loopback, tmp_path: Path) -> None:
    said = "The board runs JetPack 5.1.1 (L4T 35.3.1). The kit is for JetPack 6.1 to 6.2. Use --anyway."
    with pytest.raises(KitFailed) as refusal:
        run(board, tmp_path, f"echo checking\necho '{said}' >&2\nexit 6\n")
    assert refusal.value.received == "board: The board runs JetPack 5.1.1 (L4T 35.3.1)."
    assert refusal.value.expected == "The kit is for JetPack 6.1 to 6.2."
    assert refusal.value.action == "Use --anyway."
    nothing_left(board, tmp_path)


def test_a_kit_that_breaks_is_quoted(board: Loopback, tmp_path: Path) -> None:
    with pytest.raises(KitFailed) as refusal:
        run(board, tmp_path, "echo one\necho 'two.' >&2\nexit 3\n")
    three_sentences(refusal.value, "exit code 3", "one; two.", "README.md")
    nothing_left(board, tmp_path)


def test_a_full_disk_while_the_kit_runs(board: Loopback, tmp_path: Path) -> None:
    with pytest.raises(KitFailed) as refusal:
        run(board, tmp_path, "echo 'cp: error writing x: No space left on device' >&2\nexit 1\n")
    three_sentences(refusal.value, "The disk of board is full", "No space left on device", "TMPDIR")
    nothing_left(board, tmp_path)


def test_no_room_for_the_kit(tmp_path: Path) -> None:
    (tmp_path / "sshd").mkdir()
    board = start_loopback(tmp_path / "sshd", file_size_limit=64 * 1024)
    try:
        with pytest.raises(KitFailed) as refusal:
            run(board, tmp_path, WRITE_RESULT, extra=os.urandom(200_000))
        three_sentences(refusal.value, "could not be copied to board", "0.2 MiB", "`ssh board df -h`")
        with pytest.raises(KitFailed) as refusal:  # small while packed
            run(board, tmp_path, WRITE_RESULT, extra=bytes(200_000))
        three_sentences(refusal.value, "could not be unpacked on board: tar: ", "`ssh board df -h`")
        nothing_left(board, tmp_path)
    finally:
        board.stop()


def test_no_folder_for_temporary_files(board: Loopback, tmp_path: Path) -> None:
    board.tmp.rename(board.folder / "away")
    try:
        with pytest.raises(KitFailed) as refusal:
            run(board, tmp_path, WRITE_RESULT)
    finally:
        (board.folder / "away").rename(board.tmp)
    three_sentences(refusal.value, "could not make a folder", "No such file or directory", "TMPDIR")


def test_the_time_limit_ends_the_kit_on_the_board(board: Loopback, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "result.json").write_text("earlier")
    lines: list[str] = []
    with pytest.raises(KitFailed) as refusal:
        run(board, tmp_path, ENDLESS, timeout_s=3, observer=lines.append)
    three_sentences(refusal.value, "board was still at work after 3 s", "Allow more time with --board-timeout-s")
    assert not is_running(int(lines[0].split()[1]))
    assert (tmp_path / "merged" / "result.json").read_text() == "earlier"
    nothing_left(board, tmp_path)


def test_a_kit_that_never_stops_talking_is_ended_too(board: Loopback, tmp_path: Path) -> None:
    with pytest.raises(KitFailed) as refusal:
        run(
            board,
            tmp_path,
            "while :; do echo y; sleep 0.01; done\n",
            timeout_s=2,
            observer=lambda _: time.sleep(0.05),  # slower than the kit
        )
    three_sentences(refusal.value, "board was still at work after 2 s")
    nothing_left(board, tmp_path)


def test_a_kit_that_talks_faster_than_it_is_heard_is_held_up(board: Loopback, tmp_path: Path) -> None:
    """20 MB, of which a thousand lines wait here and the rest on the board, instead of all of it in memory."""
    said_all = tmp_path / "said_all"
    lines: list[str] = []
    was_held_up: list[bool] = []

    def slow_at_first(line: str) -> None:
        if not lines:
            time.sleep(2)
            was_held_up.append(not said_all.exists())
        lines.append(line)

    script = f'yes "$(printf %04000d 0)" | head -n 5000\ntouch {said_all}\n'
    run(board, tmp_path, script + WRITE_RESULT, observer=slow_at_first)
    assert was_held_up == [True]
    assert len(lines) == 5000


def test_a_flood_that_nobody_hears_does_not_keep_the_session_from_its_end(board: Loopback, tmp_path: Path) -> None:
    lines: list[str] = []

    def enough(line: str) -> None:
        lines.append(line)
        time.sleep(1)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        run(board, tmp_path, "yes\n", observer=enough)
    assert lines == ["y"]  # and no complaint that the board did not confirm its end
    nothing_left(board, tmp_path)


def test_an_endless_result_does_not_fill_the_disk(board: Loopback, tmp_path: Path) -> None:
    (tmp_path / "merged").mkdir()
    (tmp_path / "merged" / "result.json").write_text("earlier")
    with pytest.raises(KitFailed) as refusal:
        run(board, tmp_path, "truncate -s 1G result.json\n")
    three_sentences(refusal.value, "The result of board is larger than 1 MiB: ", "File too large", "your board")
    assert (tmp_path / "merged" / "result.json").read_text() == "earlier"
    nothing_left(board, tmp_path)


def test_a_connection_that_breaks_before_the_result(
    board: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scp = tmp_path / "bin" / "scp"
    scp.parent.mkdir()
    real = shutil.which("scp")
    scp.write_text(
        f"""#!/bin/sh
case "$*" in *result.json*) echo 'scp: Connection closed' >&2; exit 1;; *) exec {real} "$@";; esac
"""
    )
    scp.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scp.parent}:{os.environ['PATH']}")
    with pytest.raises(BoardUnreachable) as refusal:
        run(board, tmp_path, WRITE_RESULT)
    three_sentences(refusal.value, "could not be fetched from board: scp: Connection closed", "had ended", "same comm")
    assert not (tmp_path / "merged").exists() or not list((tmp_path / "merged").iterdir())
    nothing_left(board, tmp_path)


def test_a_result_of_the_largest_size_comes_whole(board: Loopback, tmp_path: Path) -> None:
    assert run(board, tmp_path, f"truncate -s {MAX_BYTES} result.json\n").stat().st_size == MAX_BYTES


def test_what_a_copy_says_is_bounded(board: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scp = tmp_path / "bin" / "scp"
    scp.parent.mkdir()
    scp.write_text("#!/bin/sh\nyes no | head -n 1000000 >&2\necho 'scp: the end' >&2\nexit 1\n")
    scp.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scp.parent}:{os.environ['PATH']}")
    tracemalloc.start()
    try:
        with pytest.raises(KitFailed, match="no; no; scp: the end"):
            run(board, tmp_path, WRITE_RESULT)
        assert tracemalloc.get_traced_memory()[1] < 1e6
    finally:
        tracemalloc.stop()
    scp.write_text("#!/bin/sh\nyes >&2\n")
    with pytest.raises(KitFailed, match="still copying after 2 s"):
        run(board, tmp_path, WRITE_RESULT, timeout_s=2)
    nothing_left(board, tmp_path)


def test_ctrl_c_ends_the_kit_on_the_board(board: Loopback, tmp_path: Path) -> None:
    pids: list[int] = []

    def interrupted(line: str) -> None:
        pids.append(int(line.split()[1]))
        os.kill(os.getpid(), signal.SIGINT)

    # A shell without job control starts its background jobs with SIGINT ignored, and the tests may be one.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(board, tmp_path, ENDLESS, observer=interrupted)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not is_running(pids[0])
    nothing_left(board, tmp_path)


def test_even_kill_9_of_this_side_ends_the_kit_on_the_board(board: Loopback, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from profiles.remote import run_on_board; archive = Path(sys.argv[1])\n"
        "run_on_board('board', archive, result=archive.with_name('r.json'), timeout_s=60, "
        "ssh_config=Path(sys.argv[2]), observer=lambda line: print(line, flush=True))"
    )
    archive = kit(tmp_path, ENDLESS)
    with subprocess.Popen(
        [sys.executable, "-c", program, archive, board.config], stdout=subprocess.PIPE, text=True
    ) as tool:
        assert tool.stdout is not None
        pid = int(tool.stdout.readline().split()[1])
        assert is_running(pid)
        tool.kill()
    eventually(lambda: not is_running(pid) and not [*board.tmp.iterdir()])


def test_a_board_that_goes_away_in_the_middle(tmp_path: Path) -> None:
    (tmp_path / "sshd").mkdir()
    board = start_loopback(tmp_path / "sshd")
    pids: list[int] = []

    def gone(line: str) -> None:
        if line.startswith("pid"):
            pids.append(int(line.split()[1]))
            board.signal(signal.SIGKILL)

    with pytest.raises(BoardUnreachable) as refusal:
        run(board, tmp_path, ENDLESS, observer=gone)
    board.stop()
    three_sentences(refusal.value, "board went away before the kit had ended", "network")
    eventually(lambda: not is_running(pids[0]) and not [*board.tmp.iterdir()])
    nothing_left(board, tmp_path)


def test_a_board_that_falls_silent_is_named_with_what_it_may_keep(
    board: Loopback, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("profiles.board_session.FAREWELL_S", 0.2)
    lines: list[str] = []

    def silent(line: str) -> None:
        lines.append(line)
        if line.startswith("pid"):
            board.signal(signal.SIGSTOP, but_the_listener=True)

    try:
        with pytest.raises(KitFailed):
            run(board, tmp_path, ENDLESS, timeout_s=3, observer=silent)
    finally:
        board.signal(signal.SIGCONT)
    assert lines[-1].startswith(f"board did not confirm that {board.tmp}/compress-kit.")
    eventually(lambda: not [*board.tmp.iterdir()])


# ---- archives ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("run_on_board.sh", "no folder with run_on_board.sh"),
        ("a b/run_on_board.sh", "no folder with run_on_board.sh"),
        ("kit/deep/run_on_board.sh", "no folder with run_on_board.sh"),
        (None, "No such file or directory"),
        ("", "ReadError"),
    ],
)
def test_what_is_no_kit_is_refused_before_connecting(tmp_path: Path, name: str | None, problem: str) -> None:
    archive = tmp_path / "kit.tar.gz"
    if name:
        with tarfile.open(archive, "w:gz") as content:
            content.addfile(tarfile.TarInfo(name))
    elif name is not None:
        archive.write_bytes(b"not gzip")
    with pytest.raises(KitFailed) as refusal:
        run_on_board("127.0.0.1:1", archive, result=tmp_path / "r.json", timeout_s=1)
    three_sentences(refusal.value, str(archive), problem)
