"""What `compress targets` prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiles.catalogue import load_target, target_names
from profiles.schema import UNVERIFIED, DeviceProfile
from profiles.sheet import MARK, WIDTH, TargetRow, target_markdown, target_sheet, target_table


def unwrapped(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", target_names())
def test_the_sheet_shows_every_value_with_unit_and_source_and_marks_unverified_ones(name: str) -> None:
    profile = load_target(name)
    sheet = target_sheet(profile)
    assert sheet.startswith(f"{name}: {profile.title}\n")
    text = unwrapped(sheet)
    figures = dict(profile.figures())
    for what, figure in figures.items():
        assert unwrapped(figure.source) in text, what
        if not what.startswith("power_modes."):
            label = what.removeprefix("peaks.")
            (line,) = (line for line in sheet.splitlines() if line.startswith(f"  {label} "))
            assert f" {figure.value:g} " in line
            assert (f" {MARK} " in line) == (not figure.verified)
    for source in profile.sources.values():
        assert unwrapped(source) in text
    doubtful = any(source.startswith(UNVERIFIED) for source in _sources(profile))
    assert (f"\n{MARK} marks what" in sheet) == doubtful


def _sources(profile: DeviceProfile) -> list[str]:
    ranges = (profile.jetpack, profile.tensorrt, profile.cuda)
    return [
        *(figure.source for _, figure in profile.figures()),
        *profile.sources.values(),
        *(found.source for found in ranges if found is not None),
    ]


@pytest.mark.parametrize("name", target_names())
def test_no_line_is_wider_than_a_terminal(name: str) -> None:
    assert max(len(line) for line in target_sheet(load_target(name)).splitlines()) <= WIDTH == 100


def test_a_profile_of_ones_own_shows_what_it_extends(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: jetson\n", encoding="utf-8")
    lines = target_sheet(load_target(str(path))).splitlines()
    assert "  extends               jetson-orin-nano-super" in lines
    assert not any(line.startswith("  extends") for line in target_sheet(load_target("jetson-orin-nx")).splitlines())


def test_the_columns_are_aligned_and_carry_units() -> None:
    lines = target_sheet(load_target("jetson")).splitlines()
    peak = next(line for line in lines if "fp16_tflops" in line)
    bandwidth = next(line for line in lines if "memory_bandwidth" in line)
    assert "17 TFLOPS" in peak
    assert "102 GB/s" in bandwidth
    assert peak.index("17 TFLOPS") == bandwidth.index("102 GB/s")
    assert peak.index("NVIDIA") == bandwidth.index("NVIDIA")
    assert any("also called" in line and "jetson" in line for line in lines)
    assert any("jetpack" in line and "6.1 to 7.2.x" in line for line in lines)
    assert "Peaks (dense, of the GPU alone, in mode MAXN_SUPER)" in lines
    assert "Peaks (dense, of the CPU alone, in mode 2.4GHz)" in target_sheet(load_target("pi5"))


def test_power_modes_are_a_table_whose_letters_lead_to_the_sources() -> None:
    lines = target_sheet(load_target("agx-orin")).splitlines()
    start = lines.index("Power modes")
    assert lines[start + 1].split() == [
        *("nvpmodel", "watts", "gpu_mhz", "gpu_sms", "cpu_mhz", "cpu_cores", "memory_mhz")
    ]
    (row,) = (line.split() for line in lines if line.strip().startswith("MODE_30W"))
    assert row[:4] == ["MODE_30W", "2", "30", "d"]
    assert row[4:8] == ["612", "b", "8", "b"]
    assert any(line.startswith("  b  NVIDIA's nvpmodel_p3701_0000.conf") for line in lines)
    assert " 1866 c?" in target_sheet(load_target("tx2"))
    assert "\n  c? unverified: data sheet from memory" in target_sheet(load_target("tx2"))


def test_a_scaled_figure_says_from_what() -> None:
    sheet = unwrapped(target_sheet(load_target("jetson@15W")))
    assert sheet.startswith("jetson-orin-nano-super: NVIDIA Jetson Orin Nano Super 8 GB in mode 15W")
    assert "10.2 TFLOPS scaled from 17 in mode MAXN_SUPER by 612 of 1020 MHz; NVIDIA's announcement" in sheet


def test_a_wish_has_its_unit_and_a_setting_without_a_source_is_marked() -> None:
    assert "  max_latency_ms        33.3 ms\n" in target_sheet(load_target("jetson"))
    profile = load_target("cpu").model_copy(update={"sources": {}})
    (line,) = (line for line in target_sheet(profile).splitlines() if "opset_ceiling" in line)
    assert line.endswith(f"{MARK} unverified: no source given")


def test_the_table_has_one_row_per_target() -> None:
    rows = target_table(load_target(name) for name in target_names())
    assert [row.target for row in rows] == [*target_names()]
    assert rows[7] == TargetRow(
        target="jetson-nano",
        aliases="",
        runtime="tensorrt",
        precisions="fp32, fp16",
        title="NVIDIA Jetson Nano 4 GB",
    )


def test_the_table_of_the_docs() -> None:
    head, rule, nano, pi = target_markdown(load_target(name) for name in ("jetson-nano", "raspberry-pi-4"))
    assert head.count("|") == rule.count("|") == nano.count("|") == pi.count("|") == 12
    assert nano == (
        "| `jetson-nano` |  | NVIDIA Jetson Nano 4 GB | TensorRT 8.2.1 to 8.2.x "
        "| 0.236 | 0.472 |  | 25.6 | 4 | MAXN | 5W |"
    )
    assert f"| ONNX Runtime | 0.0576 {MARK} |  | 0.0576 {MARK} | 12.8 | 4 | 1.8GHz | 1.5GHz |" in pi
