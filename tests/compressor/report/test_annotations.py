"""Workflow commands for GitHub: few, failures first, and each is one command and no more."""

from __future__ import annotations

from collections.abc import Callable

from judged import every_outcome, gate, hostile

from compressor.report.annotations import LINES, annotation_lines
from compressor.report.schema import Report


def test_failures_come_first_and_the_rest_is_counted(build_report: Callable[..., Report]) -> None:
    lines = annotation_lines(build_report(gates=every_outcome()))
    assert len(lines) == LINES
    assert lines[0] == "::error title=gate accuracy.max_drop::accuracy.max_drop: agreement is 97 %25."
    assert [line.split(" ")[0] for line in lines] == ["::error"] * 5 + ["::warning"]
    assert lines[-1] == "::warning title=compress::4 more limits not held or not proven: see report.md."


def test_nothing_is_said_where_everything_holds(build_report: Callable[..., Report]) -> None:
    assert annotation_lines(build_report(gates=(gate("agreement.min"),), verdicts=())) == []


def test_as_many_as_fit_are_all_shown(build_report: Callable[..., Report]) -> None:
    gates = tuple(gate(f"gate {index}", "missed", "warn") for index in range(LINES))
    lines = annotation_lines(build_report(gates=gates, verdicts=()))
    assert len(lines) == LINES
    assert all(line.startswith("::warning title=gate gate ") for line in lines)


def test_hostile_words_make_no_second_command_and_no_second_property(report: Report) -> None:
    lines = annotation_lines(hostile(report))
    assert lines
    for line in lines:
        assert len(line.splitlines()) == 1
        head, _, data = line.removeprefix("::").partition("::")
        assert head.count("=") == 1
        assert "," not in head
        assert ":" not in head
        assert "\x1b" not in line
        assert len(data) < 1_000
