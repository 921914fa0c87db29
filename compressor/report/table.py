"""The two tables of a report as strings, once for every rendering: what the networks are, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from compressor.report.measured import Proportion, Scores
from compressor.report.schema import Report
from compressor.report.text import (
    ABSENT,
    ACCURACY,
    AGREEMENT,
    conditions,
    count,
    joined,
    macs,
    milliseconds,
    params,
    size,
    times,
    with_interval,
)
from profiles.latency import LatencyStats


@dataclass(frozen=True)
class Line:
    """One line of teacher against student; `ratio` is student / teacher."""

    label: str
    teacher: str
    student: str
    ratio: str = ""


@dataclass(frozen=True)
class LatencyLine:
    """One network's p50 / p90 / p99 in ms: a column for the host and a column for the target."""

    model: str
    host: str
    target: str


def side_by_side(report: Report) -> tuple[Line, ...]:
    """Teacher against student in everything but latency, whose columns are devices."""
    teacher, student = report.teacher, report.student
    return (
        Line("file", teacher.name, student.name),
        Line("architecture", teacher.architecture, student.architecture),
        Line(
            "parameters",
            params(teacher.params_m),
            params(student.params_m),
            times(student.params_m, teacher.params_m),
        ),
        Line(
            "MACs per image",
            macs(teacher.macs_g),
            macs(student.macs_g),
            times(student.macs_g, teacher.macs_g),
        ),
        Line(
            "size of fp32 ONNX",
            size(teacher.size_mib),
            size(student.size_mib),
            times(student.size_mib, teacher.size_mib),
        ),
        *_score_lines(AGREEMENT, teacher.agreement, student.agreement, absent_teacher="reference"),
        *_score_lines(AGREEMENT, teacher.mean_iou, student.mean_iou, absent_teacher="reference"),
        *_score_lines(ACCURACY, teacher.accuracy, student.accuracy, absent_teacher=ABSENT),
        *_score_lines(_MASKS, teacher.mean_iou_masks, student.mean_iou_masks, absent_teacher=ABSENT),
    )


def latency_lines(report: Report) -> tuple[LatencyLine, ...]:
    """Teacher and student; a latency that is not known is a dash, and `latency_notes` says why."""
    return tuple(
        LatencyLine(model, _milliseconds(row.latency_host), _milliseconds(row.latency_target))
        for model, row in (("teacher", report.teacher), ("student", report.student))
    )


def host_name(report: Report) -> str:
    """The device of the host's latency column; its processor where nothing was measured."""
    latency = report.student.latency_host or report.teacher.latency_host
    return report.environment.cpu if latency is None else latency.device


def latency_notes(report: Report) -> tuple[str, ...]:
    """How each latency was obtained, what casts doubt on it, and why the target has none."""
    sharing: dict[str, list[str]] = {}
    for model, row in (("teacher", report.teacher), ("student", report.student)):
        # Where the host is the target, one measurement stands in both columns.
        for latency in (row.latency_host, row.latency_target):
            if latency is not None:
                for text in (f"{conditions(latency)}.", *latency.warnings):
                    sharing.setdefault(text, []).append(model)
    notes = [f"{joined(dict.fromkeys(models)).capitalize()}: {text}" for text, models in sharing.items()]
    if report.teacher.latency_target is None or report.student.latency_target is None:
        notes.append(str(report.target.reason))
    return tuple(notes)


_MASKS = {"overlap": "mean IoU with masks"}


def _score_lines(names: Mapping[str, str], teacher: Scores, student: Scores, absent_teacher: str) -> Iterator[Line]:
    """One line for each set of images on which either network has the metric; names: by what it is a share of."""
    for noun, theirs, ours in (
        ("held-out image", teacher.evidence, student.evidence),
        ("--eval image", teacher.eval, student.eval),
    ):
        known = ours or theirs
        if known is not None:
            yield Line(f"{names[known.of]}, {count(known.n, noun)}", _cell(theirs, absent_teacher), _cell(ours, ABSENT))


def _cell(proportion: Proportion | None, absent: str) -> str:
    return absent if proportion is None else with_interval(proportion)


def _milliseconds(latency: LatencyStats | None) -> str:
    return ABSENT if latency is None else milliseconds(latency)
