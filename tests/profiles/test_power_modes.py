"""A device in another power mode: what is scaled, by what, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from profiles.catalogue import load_target, resolved_alias
from profiles.errors import ProfileError
from profiles.schema import NO_SOURCE, DeviceProfile

SEEN = "seen"


def figure(value: float, source: str = SEEN) -> dict[str, Any]:
    return {"value": value, "source": source}


def board(**changes: Any) -> DeviceProfile:
    """A board with a full mode and a half one: half the clock, half the multiprocessors, 3/4 of the memory's clock."""
    modes = [
        {"name": "MAXN", "gpu_mhz": figure(1000), "gpu_sms": figure(16), "memory_mhz": figure(4000)},
        {"name": "MODE_30W", "gpu_mhz": figure(500), "gpu_sms": figure(8), "memory_mhz": figure(3000)},
    ]
    return DeviceProfile.model_validate(
        {
            "name": "board",
            "title": "A board",
            "kind": "jetson",
            "runtime": "tensorrt",
            "compute_capability": "8.7",
            "jetpack": {"min": "6.1", "max": "6.2"},
            "tensorrt": {"min": "10.3", "max": "10.3"},
            "cuda": {"min": "12.6", "max": "12.6"},
            "precisions": ["fp32", "fp16"],
            "opset_ceiling": 20,
            "channel_multiple": 16,
            "power_modes": modes,
            "peaks": {"power_mode": "MAXN", "fp32_tflops": figure(4), "fp16_tflops": figure(40, "unverified: heard")},
            "memory_bandwidth_gb_s": figure(200),
            "memory_gib": figure(8),
        }
        | changes
    )


def refused(profile: DeviceProfile, mode: str) -> ProfileError:
    with pytest.raises(ProfileError) as caught:
        profile.in_power_mode(mode)
    for sentence in (caught.value.received, caught.value.expected, caught.value.action):
        assert sentence.endswith(".")
        assert "\n" not in sentence
    return caught.value


def test_peaks_follow_clock_and_units_and_bandwidth_the_memorys_clock() -> None:
    half = board().in_power_mode("MODE_30W")
    assert half.peaks.fp32_tflops is not None
    assert half.memory_bandwidth_gb_s is not None
    assert half.peaks.fp32_tflops.value == 1.0
    assert half.peaks.fp32_tflops.source == "scaled from 4 in mode MAXN by 500 of 1000 MHz and 8 of 16 SM; seen"
    assert half.memory_bandwidth_gb_s.value == 150.0
    assert half.peaks.power_mode == "MODE_30W"
    assert (half.name, half.title) == ("board", "A board in mode MODE_30W")
    assert half.memory_gib == board().memory_gib
    assert DeviceProfile.model_validate(half.model_dump()) == half  # consistent, as what a run folder keeps must be


def test_what_was_unverified_stays_so_and_what_rests_on_it_becomes_so() -> None:
    peak = board().in_power_mode("30W").peaks.fp16_tflops
    assert peak is not None
    assert peak.source.startswith("unverified: scaled from 40 ")
    assert peak.source.endswith("; heard")
    modes = [
        {"name": "MAXN", "gpu_mhz": figure(1000)},
        {"name": "low", "gpu_mhz": figure(500, "unverified: heard")},
    ]
    doubtful = board(power_modes=modes).in_power_mode("low").peaks.fp32_tflops
    assert doubtful is not None
    assert (doubtful.value, doubtful.verified) == (2.0, False)


@pytest.mark.parametrize("name", ["MAXN", "maxn"])
def test_the_mode_of_the_peaks_itself_changes_nothing_but_the_title(name: str) -> None:
    same = board().in_power_mode(name)
    assert same.title == "A board in mode MAXN"
    assert same.model_copy(update={"title": "A board"}) == board()


def test_there_and_back_is_where_it_began() -> None:
    back = board().in_power_mode("30w").in_power_mode("maxn")
    assert [found.value for _, found in back.figures()] == [found.value for _, found in board().figures()]
    assert back.title == "A board in mode MAXN"


def test_a_bandwidth_whose_clock_is_not_known_is_kept_and_marked() -> None:
    modes = [{"name": "MAXN", "gpu_mhz": figure(1000)}, {"name": "low", "gpu_mhz": figure(500)}]
    bandwidth = board(power_modes=modes).in_power_mode("low").memory_bandwidth_gb_s
    assert bandwidth is not None
    assert bandwidth.value == 200
    assert bandwidth.source == "unverified: not scaled, as the memory clock of a mode is not known; seen"


def test_a_cpu_follows_its_clock_and_its_cores() -> None:
    pi = load_target("raspberry-pi-4@1.5GHz")
    assert pi.peaks.fp32_tflops is not None
    assert pi.peaks.fp32_tflops.value == 0.048


def test_a_mode_that_is_not_there_is_refused_with_those_that_are() -> None:
    error = refused(board(), "25W")
    assert error.received == "A board has no power mode '25W'."
    assert error.expected == "Its power modes: MAXN, MODE_30W."
    assert "extends board" in error.action
    nothing = refused(board(power_modes=[], peaks={}), "25W")
    assert nothing.expected == "Its profile lists no power modes."
    assert nothing.action.startswith("Leave '@25W' out, or")


def test_clocks_that_are_not_known_are_refused() -> None:
    modes = [{"name": "MAXN", "gpu_mhz": figure(1000)}, {"name": "120W", "watts": figure(120)}]
    error = refused(board(power_modes=modes), "120W")
    assert error.received == "The clock of power mode '120W' of A board is not known."
    assert error.action.startswith("Give gpu_mhz of both modes")
    assert "'MAXN'" in refused(board(power_modes=[{"name": "MAXN"}, modes[0] | {"name": "low"}]), "low").received
    unnamed = refused(board(peaks={"fp32_tflops": 4}), "30W")
    assert unnamed.received == "The profile of A board does not say which power mode its peaks hold in."
    assert "`peaks.power_mode`" in unnamed.expected


def test_a_target_spelled_with_a_mode() -> None:
    slow = load_target("jetson@15W")
    assert (slow.name, slow.title) == ("jetson-orin-nano-super", "NVIDIA Jetson Orin Nano Super 8 GB in mode 15W")
    assert slow.peaks.int8_tops is not None
    assert slow.peaks.int8_tops.value == 19.8  # 33 x 612 / 1020, near the 20 of the same board before Super mode
    assert resolved_alias("jetson@15W") == "jetson-orin-nano-super@15W"
    assert resolved_alias("t4@boost") is None
    for target in ("jetson@99W", "jetson@"):
        with pytest.raises(ProfileError, match="15W, 25W, MAXN_SUPER"):
            load_target(target)
    with pytest.raises(ProfileError, match="Unknown target 'jetsen'"):
        load_target("jetsen@15W")


def test_nvidias_own_figures_for_a_mode_are_met() -> None:
    """NVIDIA/Deep-Learning-Accelerator-SW: the GPU of an AGX Orin has 109 sparse TOPS at 50 W, and 41 at 30 W."""
    for mode, sparse in (("50W", 109), ("30W", 41)):
        peak = load_target(f"agx-orin@{mode}").peaks.int8_tops
        assert peak is not None
        assert 2 * peak.value == pytest.approx(sparse, rel=0.03)


@pytest.mark.parametrize("folder", ["a@b", "plain"])
def test_a_mode_after_a_path_and_an_at_sign_within_one(tmp_path: Any, folder: str) -> None:
    path = tmp_path / folder / "our@board.yaml"
    path.parent.mkdir()
    path.write_text("extends: jetson\nname: ours\n", encoding="utf-8")
    assert load_target(str(path)).peaks.power_mode == "MAXN_SUPER"
    assert load_target(f"{path}@25W").peaks.power_mode == "25W"
    bare = DeviceProfile.model_validate(load_target(str(path)).model_dump() | {"memory_bandwidth_gb_s": 90})
    slow = bare.in_power_mode("15W").memory_bandwidth_gb_s
    assert slow is not None
    assert slow.source.endswith(f"; {NO_SOURCE.removeprefix('unverified: ')}")
