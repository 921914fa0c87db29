"""A board that is none: a file tree like a Jetson's with a stand-in trtexec, for kits that run with --root."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOGS = Path(__file__).parent / "exporters" / "trtexec_logs"
L4T = {
    "8.2": "32 (release), REVISION: 7.1",
    "8.5": "35 (release), REVISION: 3.1",
    "10.3": "36 (release), REVISION: 4.3",
}


def run_kit(kit: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "./run_on_board.sh", *arguments],
        cwd=kit,
        env={**os.environ, "PYTHON": sys.executable, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def fake_root(folder: Path, version: str, **changes: str) -> Path:
    """What a board of that version of TensorRT shows of itself."""
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: ARMv8 Processor rev 1 (v8l)\n",
        "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.5 LTS"\n',
        "sys/class/devfreq/17000000.gpu/cur_freq": "1020000000\n",
        "sys/class/devfreq/17000000.gpu/min_freq": "306000000\n",
        "sys/class/devfreq/17000000.gpu/max_freq": "1020000000\n",
        "usr/sbin/nvpmodel": "#!/bin/sh\necho 'NV Power Mode: MAXN_SUPER'\necho 2\n",
        "usr/src/tensorrt/bin/trtexec": (LOGS / "trtexec").read_text(),
    }
    if version in L4T:
        module = "Nano" if version == "8.2" else "Orin Nano"
        files["proc/device-tree/model"] = f"NVIDIA Jetson {module} Developer Kit\0"
        files["etc/nv_tegra_release"] = f"# R{L4T[version]}, GCID: 1, BOARD: generic, EABI: aarch64, DATE: -\n"
    for name, text in {**files, **changes}.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    return folder / "root"


def simulate_kit(
    kit: Path, folder: Path, version: str, *arguments: str, root: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    root = root or fake_root(folder, version)
    logs = {"TRTEXEC_LOGS": str(LOGS / version), "TRTEXEC_CALLS": str(folder / "calls.txt"), **environment}
    return run_kit(kit, "--root", str(root), *arguments, **logs)
