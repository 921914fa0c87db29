"""What `compress targets` prints."""

from profiles.catalogue import load_target, target_names
from profiles.sheet import MARK, TargetRow, target_sheet, target_table


def test_the_sheet_shows_every_figure_with_unit_and_source_and_marks_unverified_ones() -> None:
    for name in target_names():
        profile = load_target(name)
        lines = target_sheet(profile).splitlines()
        assert lines[0] == f"{name}: {profile.title}"
        for what, figure in profile.figures():
            (line,) = (line for line in lines if line.strip().startswith(f"{what} "))
            assert line.endswith(figure.source)
            assert (f" {MARK} " in line) == (not figure.verified)
        legend = any(line.startswith(MARK) for line in lines)
        assert legend == any(not figure.verified for _, figure in profile.figures())


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


def test_a_setting_without_a_source_is_marked() -> None:
    profile = load_target("cpu").model_copy(update={"sources": {}})
    (line,) = (line for line in target_sheet(profile).splitlines() if "opset_ceiling" in line)
    assert line.endswith(f"{MARK} unverified: no source given")


def test_the_table_has_one_row_per_target() -> None:
    rows = target_table(load_target(name) for name in target_names())
    assert [row.target for row in rows] == [*target_names()]
    assert rows[1] == TargetRow(
        target="jetson-nano",
        aliases="",
        kind="jetson",
        runtime="tensorrt",
        precisions="fp32, fp16",
        opset="13",
        memory="4 GiB",
        title="NVIDIA Jetson Nano 4 GB",
    )
    assert rows[0].memory == ""
