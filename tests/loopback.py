"""A board for tests: a real sshd on a loopback port, with its own host key, user key, and temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
MISSING = [
    *(["sshd"] if SSHD is None else []),
    *(name for name in ("ssh", "scp", "ssh-keygen", "prlimit") if shutil.which(name) is None),
    *(["/proc"] if not Path("/proc/self/task").is_dir() else []),
]


@dataclass
class Loopback:
    """One sshd; `tmp` is where the board keeps temporary files, `config` what `ssh -F` takes to reach it as `board`."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def tmp(self) -> Path:
        return self.folder / "tmp"

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    def processes(self) -> list[int]:
        """The sshd and all that descends from it, but not what it left to init."""
        found = [self.process.pid]
        for pid in found:
            with suppress(OSError):
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return found

    def signal(self, number: int, *, but_the_listener: bool = False) -> None:
        """Send a signal to every sshd process; what they run keeps running."""
        for pid in self.processes()[but_the_listener:]:
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith("sshd"):
                    os.kill(pid, number)

    def stop(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        self.process.wait()


def start_loopback(folder: Path, *, file_size_limit: int | None = None, python: str = "python3") -> Loopback:
    """Start an sshd.

    Args:
        folder: empty; keys, configuration, log, and the board's folder for temporary files.
        file_size_limit: neither the sshd nor what it runs writes a file of more bytes.
        python: what the environment variable PYTHON says on the board.
    """
    assert SSHD is not None
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    (folder / "tmp").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    common = f"IdentitiesOnly yes\nUserKnownHostsFile {folder}/known_hosts\nGlobalKnownHostsFile /dev/null\n"
    common += f"StrictHostKeyChecking yes\nIdentityFile {folder}/user\n"
    (folder / "ssh_config").write_text(f"Host board\nHostName 127.0.0.1\nPort {port}\nHost *\n{common}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPidFile none\n"
        f"Subsystem sftp internal-sftp\nSetEnv TMPDIR={folder}/tmp PYTHON={python}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # without it, an sshd of root refuses to start
    command = [SSHD, "-D", "-f", str(folder / "sshd_config"), "-E", str(folder / "log")]
    if file_size_limit:
        # Python ignores SIGXFSZ; handed on, a write beyond the limit is an error and not the end of the process.
        command = ["prlimit", f"--fsize={file_size_limit}", *command]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, restore_signals=file_size_limit is None)
    deadline = time.monotonic() + 10
    while "listening" not in ((folder / "log").read_text() if (folder / "log").exists() else ""):
        assert process.poll() is None, "sshd did not start"
        assert time.monotonic() < deadline, "sshd did not listen in time"
        time.sleep(0.02)
    return Loopback(folder, port, process)
