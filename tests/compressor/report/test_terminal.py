"""The summary on a terminal of 80 columns."""

from __future__ import annotations

import io
from collections.abc import Callable

from rich.console import Console

from compressor.report.predicted import Prediction
from compressor.report.schema import Report
from compressor.report.shipping import Variant
from compressor.report.terminal import print_summary, summary_table
from profiles.latency import LatencyStats


def printed(report: Report) -> str:
    stream = io.StringIO()
    print_summary(report, Console(file=stream, width=80))
    return stream.getvalue()


def test_everything_fits_80_columns_uncut(report: Report) -> None:
    text = printed(report)
    assert all(len(line) <= 80 for line in text.splitlines())
    for words in (
        "cifar_resnet20 width 0.5",
        "(83.5 to 98.6 %)",
        "0.148 / 0.163 / 0.207",
        "host: Example CPU @ 2.70GHz",
        "target: Jetson Orin Nano Super",
        "No jetson-orin-nano-super is attached",
        "Warning: The samples have no image of class 9",
        "(96.2 to 98.2 %)",
        "→ student fp16",
        "calibration: 40 real + 512 generated",
        "student int8 keeps in float: /stem/Conv.",
        "student fp16 engine: skipped: no GPU.",
        "Student fp16 is recommended by its kind",
        "(0.23 to 0.39)",
        "prune:0.5 is the most capable candidate within the limit of 0.400 ms.",
        "4 candidates for the student, of which 2 fit; report.md has the table.",
        "Unproven: Student fp16 is predicted to take ≈0.31 ms (0.23 to 0.39)",
        "Held: Student fp16 is 0.150 MiB, within the target's wish of 1 MiB.",
    ):
        assert words in text
    assert "…" not in text


def test_the_table_has_teacher_and_student_side_by_side(report: Report) -> None:
    table = summary_table(report)
    assert [str(column.header) for column in table.columns] == ["", "teacher", "student", "ratio"]
    assert table.row_count == 9


def test_the_widest_artefact_table_keeps_its_intervals_whole(
    report: Report,
    build_report: Callable[..., Report],
    variant: Callable[..., Variant],
    latency: Callable[..., LatencyStats],
) -> None:
    board = latency(123.4, origin="merged", is_target=True, stable=False)
    wide = variant("teacher", "int8", format="engine", size_mib=1234.5, latency_target=board)
    wide = wide.model_copy(update={"latency_host": latency(123.4, stable=False)})
    text = printed(build_report(variants=(*report.variants, wide)))
    assert all(len(line) <= 80 for line in text.splitlines())
    for words in ("teacher int8 ", "engine ", "1,230 MiB", "(96.2 to 98.2 %)", "(merged,"):
        assert words in text
    # The target's column holds what it sent back, so the rest is predicted in a sentence.
    assert "Predicted for the target, p50 in ms: student fp16 ≈0.31 (0.23 to 0.39)." in text


def test_what_another_power_mode_leaves_open_is_still_predicted(
    build_report: Callable[..., Report],
    variant: Callable[..., Variant],
    latency: Callable[..., LatencyStats],
    prediction: Callable[..., Prediction],
) -> None:
    board = latency(0.2, origin="merged", is_target=True, other_power_mode="MAXN_SUPER")
    row = variant("student", "fp16", latency_target=board, latency_predicted=prediction(0.31))
    text = printed(build_report(variants=(row,)))
    assert "in MAXN_SUPER)" in text
    assert "Predicted for the target, p50 in ms: student fp16 ≈0.31 (0.23 to 0.39)." in text


def test_hostile_text_is_neither_markup_nor_escape_sequence(
    report: Report, build_report: Callable[..., Report]
) -> None:
    name = "[bold red]x[/bold red]\x1b[2J\x1b]0;owned\x07" + "y" * 5000
    hostile = build_report(
        run_name=name, student=report.student.model_copy(update={"name": name}), warnings=(name,) * 30
    )
    text = printed(hostile)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold red]x[/bold" in text
    assert "More warnings in report.json: 20." in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_an_unstable_latency_says_so(
    report: Report, build_report: Callable[..., Report], latency: Callable[..., LatencyStats]
) -> None:
    shaky = latency(0.148, stable=False, warnings=("Unstable: the medians varied by 20 %.",))
    text = printed(build_report(student=report.student.model_copy(update={"latency_host": shaky})))
    assert "(unstable)" in text
    assert "Student: Unstable: the medians varied by 20 %." in text
