"""The machine that this program runs on: its name, and what else used it while something was measured."""

from __future__ import annotations

import os
import platform
import re
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")

# Below these nothing is said. The load average counts this program's own earlier work too, which alone makes
# about one thread per core: only well above that it speaks of others.
LOAD_PER_CORE = 1.5
STEAL_SHARE = 0.02
OTHERS_SHARE = 0.10
OTHERS_CORES = 0.25
SHORTEST_S = 0.5  # the kernel counts in ticks of 10 ms; shorter spans say nothing


@dataclass(frozen=True)
class HostSnapshot:
    """The CPU's accounts at one moment; None where the system does not tell.

    Attributes:
        cores: logical cores that `total_s` is summed over.
        load_average: threads that wanted to run, mean of the last minute.
        total_s, busy_s, steal_s: CPU seconds since boot, all cores together; steal is what the hypervisor
            gave to others.
        own_s: CPU seconds of this process.
        cpu_mhz: clock of the first core.
    """

    cores: int
    load_average: float | None
    total_s: float | None
    busy_s: float | None
    steal_s: float | None
    own_s: float
    cpu_mhz: float | None


def host_name(proc: Path = PROC) -> str:
    """The board or CPU model and its usable cores, such as 'Intel(R) Xeon(R) Processor, 2 cores'."""
    cpuinfo = _text(proc / "cpuinfo")
    model = (
        _text(proc / "device-tree" / "model").strip("\0\n ")  # Jetsons and Raspberry Pis name the board here
        or _field(cpuinfo, "model name")
        or platform.processor()
        or platform.machine()
    )
    cores = usable_cores()
    return f"{model}, {cores} core{'s' if cores > 1 else ''}"


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def host_snapshot(proc: Path = PROC) -> HostSnapshot:
    """Read the accounts now."""
    stat = _text(proc / "stat")
    cores = len(re.findall(r"^cpu\d+ ", stat, re.MULTILINE)) or usable_cores()
    total_s = busy_s = steal_s = None
    if match := re.match(r"cpu((?: +\d+){8})", stat):
        # user nice system idle iowait irq softirq steal; guest time follows and is already inside user.
        seconds = [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in match[1].split()]
        total_s, steal_s = sum(seconds), seconds[7]
        busy_s = total_s - steal_s - seconds[3] - seconds[4]
    mhz = _field(_text(proc / "cpuinfo"), "cpu MHz")
    return HostSnapshot(
        cores=cores,
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        total_s=total_s,
        busy_s=busy_s,
        steal_s=steal_s,
        own_s=time.process_time(),
        cpu_mhz=float(mhz) if mhz else None,
    )


def contention(before: HostSnapshot, after: HostSnapshot) -> list[str]:
    """Sentences on what else used the CPU between two snapshots; empty if nothing worth saying."""
    found = []
    if before.load_average is not None and before.load_average > LOAD_PER_CORE * before.cores:
        found.append(
            f"The machine was overloaded before the measurement: load average {before.load_average:.1f} "
            f"on {before.cores} cores."
        )
    total_s = _difference(before.total_s, after.total_s)
    if total_s < SHORTEST_S * after.cores:
        return found
    steal = _difference(before.steal_s, after.steal_s) / total_s
    if steal > STEAL_SHARE:
        found.append(f"The hypervisor gave {steal:.0%} of the CPU time to other machines (steal).")
    others = (_difference(before.busy_s, after.busy_s) - (after.own_s - before.own_s)) / total_s * after.cores
    if others > max(OTHERS_CORES, OTHERS_SHARE * after.cores):
        found.append(f"Other programs used {others:.1f} of {after.cores} cores during the measurement.")
    return found


def _difference(before: float | None, after: float | None) -> float:
    return 0.0 if before is None or after is None else after - before


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str:
    match = re.search(rf"^{name}\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    return match[1] if match else ""
