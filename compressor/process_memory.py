"""What this process has taken of the memory, and what is free. Linux keeps the accounts; elsewhere less is known."""

from __future__ import annotations

import os
import re
import resource
import sys
from contextlib import suppress
from pathlib import Path

STATUS = Path("/proc/self/status")
RESET = Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # the kernel's number for "forget the peak of the resident set"
MACHINE = Path("/proc/meminfo")
CONTAINER = Path("/sys/fs/cgroup")  # its share, which the machine's accounts do not show


def status_kib(name: str, status: Path = STATUS) -> int:
    """One line of a process's accounts, such as VmRSS, VmHWM or RssAnon, in KiB.

    Raises:
        OSError: the system keeps no such accounts, or the process is gone.
    """
    found = re.search(rf"^{name}:\s+(\d+) kB$", status.read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise OSError(f"{status} has no {name}")
    return int(found[1])


def forget_peak() -> None:
    """Let the peak begin anew, where the system can; elsewhere it stays that of the whole process."""
    with suppress(OSError):
        RESET.write_text(RESET_PEAK)


def peak_resident_mib() -> float:
    """Highest resident memory of this process since `forget_peak`, with the pages of mapped files."""
    try:
        return status_kib("VmHWM") / 2**10
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)


def free_bytes() -> int:
    """What can be had of the machine's memory, or of its container's share where that is less; what only caches files
    counts as free. Where no accounts are kept, all of the machine's memory."""
    try:
        available = _number(MACHINE, r"MemAvailable:\s+(\d+) kB") * 2**10
    except OSError:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError):  # no container, or one without a limit
        limit, used = (_number(CONTAINER / f"memory.{name}", r"(\d+)") for name in ("max", "current"))
        cached = _number(CONTAINER / "memory.stat", r"file (\d+)")
        available = min(available, max(0, limit - used + cached))
    return available


def _number(path: Path, pattern: str) -> int:
    found = re.search(rf"^{pattern}$", path.read_text(encoding="ascii"), re.MULTILINE)
    if found is None:
        raise OSError(f"{path} has no number")
    return int(found[1])
