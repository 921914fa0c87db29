"""What a process takes and what is free, from the accounts of a system that need not be this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compressor import process_memory
from compressor.process_memory import free_bytes, peak_resident_mib


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        ({}, 2000),
        ({"max": "max", "current": "5", "stat": "file 3"}, 2000),
        ({"max": str(900 * 2**10), "current": str(800 * 2**10), "stat": f"anon 1\nfile {300 * 2**10}\n"}, 400),
        ({"max": str(100 * 2**10), "current": str(800 * 2**10), "stat": "file 0"}, 0),
    ],
)
def test_the_smaller_of_machine_and_container_counts(
    container: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = tmp_path / "meminfo"
    machine.write_text("MemTotal:       9000 kB\nMemAvailable:   2000 kB\n")
    for name, text in container.items():
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(process_memory, "MACHINE", machine)
    monkeypatch.setattr(process_memory, "CONTAINER", tmp_path)
    assert free_bytes() == expected * 2**10


def test_without_accounts_it_is_the_whole_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_memory, "MACHINE", tmp_path / "absent")
    assert free_bytes() == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


# In a process of its own, without torch: a system that is short of memory takes pages of libraries back at any time,
# and those are part of what is resident.
PEAKS = """
from compressor.process_memory import forget_peak, peak_resident_mib

def take() -> None:
    bytearray(b"x") * 2**26

take()
before = peak_resident_mib()
forget_peak()
after = peak_resident_mib()
take()
print(before, after, peak_resident_mib())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere no peak can be forgotten")
def test_a_peak_can_be_forgotten() -> None:
    said = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True).stdout
    before, after, again = map(float, said.split())
    if after == before:
        pytest.skip("this kernel does not forget the peak of a process")
    assert after < before - 50
    assert again > after + 50


def test_where_nothing_is_kept_the_peak_is_the_process_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_memory, "status_kib", absent)
    assert peak_resident_mib() > 10


def absent(_name: str) -> int:
    raise FileNotFoundError
