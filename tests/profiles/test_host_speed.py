"""The speed of this machine: measured once, kept by machine, never taken from another one."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from profiles import host_speed as module
from profiles.catalogue import load_target
from profiles.host_speed import HostSpeed, cache_file, host_speed, measure_host_speed, with_host_speed
from profiles.sheet import target_sheet

SPEED = HostSpeed(
    host="Some CPU, 4 cores",
    measured_at=datetime(2026, 11, 2, 9, 30, tzinfo=UTC),
    fp32_gflops=153.44,
    fp32_by="ONNX Runtime",
    copy_gb_s=11.26,
    copy_mib=256.0,
    copy_threads=1,
    probe_us=87.5,
    probe_by="numpy 2.4.0, openblas 0.3.30 SkylakeX",
)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Measurements are counted and take no time; this machine is called as SPEED says."""
    calls: list[int] = []

    def measure() -> HostSpeed:
        calls.append(1)
        return SPEED.model_copy(update={"fp32_gflops": 100.0 * len(calls)})

    monkeypatch.setattr(module, "measure_host_speed", measure)
    monkeypatch.setattr(module, "host_name", lambda: SPEED.host)
    monkeypatch.setattr(module, "probe_library", lambda: SPEED.probe_by)
    return calls


def test_it_is_measured_once_and_again_on_demand(measured: list[int], tmp_path: Path) -> None:
    assert host_speed(cache=tmp_path).fp32_gflops == 100
    assert host_speed(cache=tmp_path).fp32_gflops == 100
    assert len(measured) == 1
    assert host_speed(remeasure=True, cache=tmp_path).fp32_gflops == 200
    assert host_speed(cache=tmp_path).fp32_gflops == 200
    assert [path.name for path in (tmp_path / "compress").iterdir()] == [cache_file(tmp_path).name]


def test_another_machine_is_measured_anew(measured: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = cache_file(tmp_path)
    host_speed(cache=tmp_path)
    monkeypatch.setattr(module, "host_name", lambda: "Some CPU, 8 cores")
    assert cache_file(tmp_path) != first
    cache_file(tmp_path).write_text(first.read_text())  # a home that two machines share, copied by hand
    host_speed(cache=tmp_path)
    assert len(measured) == 2


def test_a_record_of_an_earlier_version_is_measured_anew(measured: list[int], tmp_path: Path) -> None:
    host_speed(cache=tmp_path)
    older = SPEED.model_copy(update={"probe_us": None, "probe_by": None})
    cache_file(tmp_path).write_text(older.model_dump_json(exclude_none=True))
    assert host_speed(cache=tmp_path).probe_us == SPEED.probe_us
    assert len(measured) == 2


def test_another_blas_is_measured_anew(measured: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels may take five times as long for the probe at the same pace."""
    host_speed(cache=tmp_path)
    monkeypatch.setattr(module, "probe_library", lambda: "numpy 2.4.0, openblas 0.3.30 Nehalem")
    host_speed(cache=tmp_path)
    assert len(measured) == 2


def test_what_was_measured_beside_others_is_not_kept(
    measured: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturbed = SPEED.model_copy(update={"warnings": ("Other programs used 1.0 of 2 cores during the measurement.",)})
    monkeypatch.setattr(module, "measure_host_speed", lambda: disturbed)
    assert host_speed(cache=tmp_path) == disturbed
    assert "Other programs used 1.0 of 2 cores" in disturbed.source
    assert not cache_file(tmp_path).exists()


def test_a_cache_that_is_damaged_or_cannot_be_written_costs_a_measurement(measured: list[int], tmp_path: Path) -> None:
    path = cache_file(tmp_path)
    path.parent.mkdir()
    path.write_text("{")
    assert host_speed(cache=tmp_path).fp32_gflops == 100
    assert path.read_text() != "{"
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert host_speed(cache=blocked).fp32_gflops == 200


def test_the_cache_follows_the_users_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_file().is_relative_to(tmp_path / "xdg" / "compress")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_file().is_relative_to(tmp_path / ".cache" / "compress")


def test_the_sheet_shows_what_was_measured_where_and_when() -> None:
    profile = with_host_speed(load_target("cpu"), SPEED)
    assert profile.peaks.fp32_tflops is not None
    assert profile.peaks.fp32_tflops.value == 0.153
    assert profile.memory_bandwidth_gb_s is not None
    assert profile.memory_bandwidth_gb_s.value == 11.3
    said = " ".join(target_sheet(profile).split())
    assert "measured on Some CPU, 4 cores at 2026-11-02 09:30 UTC" in said
    assert "best copy of 256 MiB with 1 thread" in said


def test_figures_of_the_users_own_profile_stay(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("extends: cpu\npeaks: {fp32_tflops: {value: 2.0, source: my own}}\n")
    profile = with_host_speed(load_target(str(own)), SPEED)
    assert profile.peaks.fp32_tflops is not None
    assert profile.peaks.fp32_tflops.source == "my own"


def test_this_machine_really_computes_and_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_COPY_BYTES", 1 << 20)
    speed = measure_host_speed(seconds=0.02)
    assert 0.1 < speed.fp32_gflops < 100_000
    assert 0.1 < speed.copy_gb_s < 10_000
    assert speed.fp32_by in ("numpy", "ONNX Runtime")
    assert speed.copy_mib == 1
