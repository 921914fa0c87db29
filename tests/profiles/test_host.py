"""The host's name and its accounts, read from a made-up /proc."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from profiles.host import HostSnapshot, contention, host_name, host_snapshot, usable_cores

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
