"""The whole demo without a network: nothing asks for one, and nothing needs one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# The demo of fewer steps. Whoever asks the system for a connection or a name is noted and refused.
DEMO = """
import sys
from pathlib import Path

from compressor import cli, demo

ASKING = {"socket.connect", "socket.bind", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo",
          "socket.gethostbyname", "socket.gethostbyaddr", "urllib.Request"}

def refuse(event, arguments):
    if event in ASKING:
        with Path(sys.argv[1], "asked.txt").open("a") as file:
            file.write(f"{event} {arguments[1:]}\\n")
        raise PermissionError(f"{event} during a demo that has no network")

demo.TEACHER_STEPS, demo.HIDFD_STEPS = 30, {"generator_steps": 20, "student_steps": 30}
sys.addaudithook(refuse)
sys.exit(cli.invoke(["demo", "--out", sys.argv[1] + "/demo", "--json"]))
"""


def no_network() -> list[str]:
    """Words before a command that take its network away, where this system lets us: code that is not Python's, too."""
    words = ["unshare", "--map-root-user", "--net"]
    able = shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True).returncode == 0
    return words if able else []


@pytest.mark.slow
def test_the_demo_needs_no_network_and_asks_for_none(tmp_path: Path) -> None:
    command = [*no_network(), sys.executable, "-c", DEMO, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    asked = tmp_path / "asked.txt"
    assert not asked.exists(), asked.read_text()
    assert done.returncode in (0, 1), done.stderr  # its gates are for the demo's own number of steps
    assert json.loads(done.stdout)["run_name"] == "run"
    assert (tmp_path / "demo/run/report.html").stat().st_size > 10_000


def test_the_hook_sees_who_asks(tmp_path: Path) -> None:
    """A check that could not fail would be none."""
    program = DEMO.replace("sys.exit(", "import socket; socket.create_connection(('127.0.0.1', 9)); sys.exit(")
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1
    assert "PermissionError: socket." in done.stderr
    assert (tmp_path / "asked.txt").read_text().startswith("socket.")
