"""The machine that this program runs on: its name, and what else used it while something was measured."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
CPU = Path("/sys/devices/system/cpu/cpu0")
CGROUP = Path("/sys/fs/cgroup")

# Below these nothing is said. The load average counts this program's own earlier work too, which alone makes
# about one thread per core: only well above that it speaks of others.
LOAD_PER_CORE = 1.5
STEAL_SHARE = 0.02
OTHERS_SHARE = 0.10
OTHERS_CORES = 0.25
SHORTEST_S = 0.5  # the kernel counts in ticks of 10 ms; shorter spans say nothing
SESSION_STEAL_SHARE = 0.05
SINGLE_TICK_S = 0.015  # two ticks are above this; one, which is 7 % of 0.07 s on two cores, must not count
QUESTION_TIMEOUT_S = 5


@dataclass(frozen=True)
class HostSnapshot:
    """The CPU's accounts at one moment; None where the system does not tell.

    Attributes:
        cores: logical cores that `total_s` is summed over.
        load_average: threads that wanted to run, mean of the last minute.
        total_s, busy_s, steal_s: CPU seconds since boot, all cores together; steal is what the hypervisor
            gave to others.
        own_s: CPU seconds of this process and of its children that have ended.
        cpu_mhz: clock of the first core.
        throttle_count: how often the first core was slowed because it was hot, since boot.
        quota_s: seconds in which this container had used up its share of the CPU and waited, since its start.
    """

    cores: int
    load_average: float | None
    total_s: float | None
    busy_s: float | None
    steal_s: float | None
    own_s: float
    cpu_mhz: float | None
    throttle_count: int | None = None
    quota_s: float | None = None


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


def host_conditions(cpu: Path = CPU) -> tuple[str, ...]:
    """How the machine is set, as far as it tells: the CPU's governor, and the power mode of a Jetson, in phrases."""
    governor = _text(cpu / "cpufreq" / "scaling_governor").strip()
    mode = re.search(r"NV Power Mode:\s*(\S+)", answer_of("nvpmodel", "-q"))
    return (
        *([f"CPU governor {governor}"] if governor else []),
        *([f"power mode {mode[1]}"] if mode else []),
    )


def gpu_conditions() -> tuple[str, ...]:
    """The first GPU's clocks, power limit and what holds its clocks down, as nvidia-smi tells them, in phrases."""
    fields = "clocks.sm,clocks.mem,power.limit,temperature.gpu,clocks_throttle_reasons.active"
    answer = answer_of("nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader,nounits", "--id=0")
    values = [value.strip() for value in answer.split(",")]
    if len(values) != 5:
        return ()
    sm, memory, watts, celsius, reasons = values
    found = [f"GPU {sm} MHz, memory {memory} MHz, power limit {watts} W, {celsius} °C"]
    # Bits of NVML's nvmlClocksThrottleReasons: 0x4 power cap, 0x8 hardware slow-down, 0x20, 0x40 heat, 0x80 brake.
    if re.fullmatch(r"0x[0-9a-fA-F]+", reasons) and int(reasons, 16) & 0xEC:
        found.append("GPU clocks held down by power or heat")
    return tuple(found)


def answer_of(program: str, *arguments: str) -> str:
    """What a program of the system prints; nothing where it is not there, fails or hangs."""
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        done = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=QUESTION_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def host_snapshot(proc: Path = PROC, cpu: Path = CPU, cgroup: Path = CGROUP) -> HostSnapshot:
    """Read the accounts now."""
    stat = _text(proc / "stat")
    cores = len(re.findall(r"^cpu\d+ ", stat, re.MULTILINE)) or usable_cores()
    total_s = busy_s = steal_s = None
    times = os.times()
    if match := re.match(r"cpu((?: +\d+){8})", stat):
        # user nice system idle iowait irq softirq steal; guest time follows and is already inside user.
        seconds = [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in match[1].split()]
        total_s, steal_s = sum(seconds), seconds[7]
        busy_s = total_s - steal_s - seconds[3] - seconds[4]
    mhz = _field(_text(proc / "cpuinfo"), "cpu MHz")
    throttled = _text(cpu / "thermal_throttle" / "core_throttle_count").strip()
    waited = re.search(r"^throttled_usec (\d+)$", _text(cgroup / "cpu.stat"), re.MULTILINE)
    return HostSnapshot(
        cores=cores,
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        total_s=total_s,
        busy_s=busy_s,
        steal_s=steal_s,
        own_s=time.process_time() + times.children_user + times.children_system,
        cpu_mhz=float(mhz) if mhz else None,
        throttle_count=int(throttled) if throttled.isdigit() else None,
        quota_s=int(waited[1]) / 1e6 if waited else None,
    )


def contention(before: HostSnapshot, after: HostSnapshot) -> list[str]:
    """Sentences on what else used the CPU between two snapshots; empty if nothing worth saying."""
    found = []
    if before.load_average is not None and before.load_average > LOAD_PER_CORE * before.cores:
        found.append(
            f"The machine was overloaded before the measurement: load average {before.load_average:.1f} "
            f"on {before.cores} cores."
        )
    if after.throttle_count is not None and after.throttle_count > (before.throttle_count or 0):
        found.append("The CPU was slowed down because it was hot.")
    if (waited := _difference(before.quota_s, after.quota_s)) > 0:
        found.append(f"This container had used up its share of the CPU and waited for {waited:.2g} s.")
    if _difference(before.total_s, after.total_s) < SHORTEST_S * after.cores:
        return found
    steal, others = _shares(before, after)
    if steal > STEAL_SHARE:
        found.append(f"The hypervisor gave {steal:.0%} of the CPU time to other machines (steal).")
    if others > max(OTHERS_CORES, OTHERS_SHARE * after.cores):
        found.append(f"Other programs used {others:.1f} of {after.cores} cores during the measurement.")
    return found


def disturbed(before: HostSnapshot, after: HostSnapshot) -> bool:
    """Whether others used the CPU between two snapshots; also of a fraction of a second, and then more coarsely."""
    total_s = _difference(before.total_s, after.total_s)
    if total_s <= 0:
        return False
    (steal, others), tick = _shares(before, after), SINGLE_TICK_S / total_s
    return steal > max(SESSION_STEAL_SHARE, tick) or others > max(OTHERS_CORES, max(OTHERS_SHARE, tick) * after.cores)


def _shares(before: HostSnapshot, after: HostSnapshot) -> tuple[float, float]:
    """The share of the CPU time that was stolen, and the cores that other programs of this machine used."""
    total_s = _difference(before.total_s, after.total_s)
    others_s = _difference(before.busy_s, after.busy_s) - (after.own_s - before.own_s)
    return _difference(before.steal_s, after.steal_s) / total_s, others_s / total_s * after.cores


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
