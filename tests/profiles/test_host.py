"""The host's name and its accounts, read from a made-up /proc."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from profiles.host import (
    HostSnapshot,
    contention,
    disturbed,
    gpu_conditions,
    host_conditions,
    host_name,
    host_snapshot,
    usable_cores,
)

CPUINFO = "processor\t: 0\nmodel name\t: Some CPU @ 2.6 GHz\ncpu MHz\t\t: 2599.998\n"


def test_the_name_is_the_board_or_the_cpu_with_its_cores(tmp_path: Path) -> None:
    suffix = f", {usable_cores()} core{'s' if usable_cores() > 1 else ''}"
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    assert host_name(tmp_path) == "Some CPU @ 2.6 GHz" + suffix
    (tmp_path / "device-tree").mkdir()
    (tmp_path / "device-tree" / "model").write_bytes(b"Raspberry Pi 5 Model B Rev 1.0\0")
    assert host_name(tmp_path) == "Raspberry Pi 5 Model B Rev 1.0" + suffix


def test_the_name_falls_back_to_the_platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert host_name(tmp_path).startswith("riscv64, ")


@pytest.mark.skipif(not hasattr(os, "sysconf"), reason="ticks a second are a notion of Unix")
def test_a_snapshot_reads_the_accounts(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    (tmp_path / "stat").write_text("cpu  100 20 30 400 50 6 7 80 9 9\ncpu0 1 1\ncpu1 1 1\nctxt 5\n")
    ticks = os.sysconf("SC_CLK_TCK")
    snapshot = host_snapshot(tmp_path)
    assert snapshot.cores == 2
    assert snapshot.total_s == pytest.approx(693 / ticks)  # without guest time, which user holds already
    assert snapshot.busy_s == pytest.approx(163 / ticks)
    assert snapshot.steal_s == pytest.approx(80 / ticks)
    assert snapshot.cpu_mhz == 2599.998


def test_a_machine_that_tells_nothing_gives_no_warning(tmp_path: Path) -> None:
    snapshot = replace(host_snapshot(tmp_path), load_average=None)
    assert (snapshot.total_s, snapshot.cpu_mhz) == (None, None)
    assert contention(snapshot, snapshot) == []


def test_contention_is_told_above_its_thresholds() -> None:
    before = HostSnapshot(cores=2, load_average=2.9, total_s=0, busy_s=0, steal_s=0, own_s=0, cpu_mhz=None)
    # Four CPU seconds: this process took 2.0 of them, others 0.4 (0.2 of a core), the hypervisor 0.04.
    quiet = replace(before, total_s=4.0, busy_s=2.4, steal_s=0.04, own_s=2.0)
    assert contention(before, quiet) == []
    assert contention(replace(before, load_average=3.1), quiet) == [
        "The machine was overloaded before the measurement: load average 3.1 on 2 cores."
    ]
    assert contention(before, replace(quiet, busy_s=3.0)) == [
        "Other programs used 0.5 of 2 cores during the measurement."
    ]
    assert contention(before, replace(quiet, steal_s=0.2)) == [
        "The hypervisor gave 5% of the CPU time to other machines (steal)."
    ]
    short = replace(before, total_s=0.2, busy_s=0.2, steal_s=0.1)
    assert contention(before, short) == []  # a few ticks say nothing


def test_a_hot_cpu_and_a_used_up_share_are_told(tmp_path: Path) -> None:
    cpu, cgroup = tmp_path / "cpu0", tmp_path / "cgroup"
    (cpu / "thermal_throttle").mkdir(parents=True)
    (cpu / "thermal_throttle" / "core_throttle_count").write_text("7\n")
    cgroup.mkdir()
    (cgroup / "cpu.stat").write_text("usage_usec 10\nthrottled_usec 2500000\n")
    after = replace(host_snapshot(tmp_path, cpu, cgroup), load_average=None)
    assert (after.throttle_count, after.quota_s) == (7, 2.5)
    before = replace(after, throttle_count=6, quota_s=1.0)
    assert contention(before, after) == [
        "The CPU was slowed down because it was hot.",
        "This container had used up its share of the CPU and waited for 1.5 s.",
    ]
    assert contention(after, after) == []


def test_a_session_is_disturbed_by_others_and_not_by_single_ticks() -> None:
    # A fifth of a second on two cores, in which this process kept one of them busy.
    before = HostSnapshot(cores=2, load_average=9.0, total_s=0, busy_s=0, steal_s=0, own_s=0, cpu_mhz=None)
    alone = replace(before, total_s=0.4, busy_s=0.2, own_s=0.2)
    assert not disturbed(before, alone)
    assert not disturbed(before, replace(alone, busy_s=0.23, steal_s=0.01))
    assert disturbed(before, replace(alone, busy_s=0.28))
    assert disturbed(before, replace(alone, steal_s=0.03))
    # 0.07 s: one tick of steal is 7 % of their CPU time, two are said.
    short = replace(before, total_s=0.14, busy_s=0.07, own_s=0.07)
    assert not disturbed(before, replace(short, steal_s=0.01))
    assert disturbed(before, replace(short, steal_s=0.02))
    tiny = replace(before, total_s=0.04, busy_s=0.02, own_s=0.02)
    assert not disturbed(before, replace(tiny, busy_s=0.03))
    assert disturbed(before, replace(tiny, busy_s=0.04))
    assert not disturbed(before, before)
    assert not disturbed(replace(before, total_s=None), replace(alone, total_s=None))


def test_conditions_are_what_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert host_conditions(tmp_path) == ()
    assert gpu_conditions() == ()
    (tmp_path / "cpufreq").mkdir()
    (tmp_path / "cpufreq" / "scaling_governor").write_text("schedutil\n")
    _program(tmp_path / "nvpmodel", "echo 'NV Power Mode: MAXN_SUPER'; echo 2")
    assert host_conditions(tmp_path) == ("CPU governor schedutil", "power mode MAXN_SUPER")
    _program(tmp_path / "nvidia-smi", "echo '1980, 2619, 700.00, 41, 0x0000000000000001'")  # idle
    assert gpu_conditions() == ("GPU 1980 MHz, memory 2619 MHz, power limit 700.00 W, 41 °C",)
    _program(tmp_path / "nvidia-smi", "echo '1200, 2619, 700.00, 88, 0x0000000000000024'")
    assert gpu_conditions()[1] == "GPU clocks held down by power or heat"
    _program(tmp_path / "nvidia-smi", "echo 'no devices'; exit 9")
    assert gpu_conditions() == ()


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
