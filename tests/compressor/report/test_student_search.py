"""The search for a student in the report: a row for each network, and what carries the choice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from compressor.report.predicted import Prediction
from compressor.report.student_search import (
    Candidate,
    StudentLimits,
    StudentSearch,
    candidate_lines,
    latency_kind,
    notes_on_chosen,
    search_notes,
    search_record,
    search_remarks,
    search_summary,
)
from compressor.students import search_record as found_by
from compressor.students.reasons import no_faster
from compressor.students.trial import Row
from profiles.latency import LatencyStats

Searcher = Callable[..., StudentSearch]
Maker = Callable[..., Candidate]


def test_the_record_reads_what_the_search_wrote(latency: Callable[..., LatencyStats]) -> None:
    measured = latency(0.2, is_target=True)
    found = found_by.StudentSearch(
        teacher=found_by.Candidate("resnet34", "teacher", 21.8, 3.67, 83.2, latency=measured),
        candidates=(
            found_by.Candidate("prune:0.4", "pruned", 8.0, 1.3, 31.0, latency=measured, misses=("31.0 MiB",)),
            found_by.Candidate("width:0.5", "narrower", failure="no such width"),
        ),
        chosen="prune:0.4",
        reason="It is the most capable.",
        precision="fp16",
        limits=found_by.StudentLimits(max_size_mib=30.0),
        notes=("A note.",),
    )
    record = search_record(found.to_dict(), "student/candidates.png")
    assert record.model_dump(mode="json", exclude={"picture"}) == found.to_dict()
    assert record.picture == "student/candidates.png"
    assert record.candidates[0].latency == measured
    with pytest.raises(ValidationError, match="choosen"):
        search_record({**found.to_dict(), "choosen": "prune:0.4"})


def test_every_network_has_a_row_that_says_what_became_of_it(student_search: Searcher) -> None:
    rows = candidate_lines(student_search())
    assert [(row.spec, row.verdict) for row in rows] == [
        ("cifar_resnet20", "teacher"),
        ("prune:0.2", "0.450 ms predicted, above the limit of 0.400 ms"),
        ("prune:0.5", "chosen"),
        ("prune:0.7", "fits"),
        ("prune:0.9", "nothing is left of stage 1"),
    ]
    assert [row.spec for row in rows if row.chosen] == ["prune:0.5"]
    assert (rows[2].params, rows[2].macs, rows[2].size, rows[2].latency) == (
        "70.7 k",
        "676 k",
        "141 KiB",
        "≈0.31 (0.23 to 0.39)",
    )
    assert (rows[4].params, rows[4].macs, rows[4].size, rows[4].latency) == ("–", "–", "–", "–")


def test_a_chosen_one_that_misses_a_wish_says_both(student_search: Searcher, candidate: Maker) -> None:
    slow = candidate("prune:0.5", "pruned", 0.5, 40.0, "40.0 ms predicted, above the target's wish of 33.3 ms")
    rows = candidate_lines(student_search(candidates=(slow,)))
    assert rows[1].verdict == "chosen; 40.0 ms predicted, above the target's wish of 33.3 ms"


def test_a_teacher_of_the_chosen_ones_name_is_not_the_chosen_one(student_search: Searcher, candidate: Maker) -> None:
    twins = student_search(
        teacher=candidate("resnet18", "teacher", 1.0, 0.6),
        candidates=(candidate("resnet18", "other", 0.5, 0.3),),
        chosen="resnet18",
    )
    assert [row.chosen for row in candidate_lines(twins)] == [False, True]


def test_the_notes_are_what_was_asked_what_the_search_says_and_what_carries_the_choice(
    student_search: Searcher, candidate: Maker, prediction: Callable[..., Prediction]
) -> None:
    doubtful = prediction(0.3, basis="transferred", num_measurements=1, doubts=("Depthwise layers are new there.",))
    search = student_search(
        candidates=(candidate("prune:0.5", "pruned", 0.5, None, latency=doubtful),),
        limits=StudentLimits(max_latency_ms=5, max_size_mib=8, max_params_m=0.5),
    )
    assert search_notes(search) == (
        "Asked for: at most 5 ms, 8 MiB and 0.5 M parameters.",
        "Latency is that of an untrained export.",
        "prune:0.5: predicted for Jetson Orin Nano Super, batch 1, and not measured: transferred from other "
        "precisions or devices of its kind, with 1 measurement of the device in all, 90 % interval.",
        "prune:0.5: the nearest measurement is yolo11n at 640x640 in fp16.",
        "prune:0.5: Depthwise layers are new there.",
    )
    assert search_remarks(search) == search_notes(search)[:2]
    silent = student_search(candidates=(candidate("prune:0.5", "pruned", 0.5, None),), limits=StudentLimits(), notes=())
    assert search_notes(silent) == ()


def test_the_latency_is_called_what_it_is(
    student_search: Searcher, candidate: Maker, latency: Callable[..., LatencyStats]
) -> None:
    assert latency_kind(student_search()) == "predicted p50"
    here = candidate("prune:0.5", "pruned", 0.5, None, latency=latency(0.2, is_target=True))
    teacher = candidate("resnet18", "teacher", 1.0, None, latency=latency(0.4, is_target=True, stable=False))
    measured = student_search(teacher=teacher, candidates=(here,))
    assert latency_kind(measured) == "measured p50"
    assert [row.latency for row in candidate_lines(measured)] == ["0.400 (unstable)", "0.200"]
    assert latency_kind(student_search(candidates=(here,))) == "p50"
    untimed = candidate("resnet18", "teacher", 1.0, None)
    assert latency_kind(student_search(teacher=untimed, candidates=(untimed,))) == "p50"


def test_two_lines_say_why_and_among_how_many(student_search: Searcher, candidate: Maker) -> None:
    assert search_summary(student_search()) == (
        "prune:0.5 is the most capable candidate within the limit of 0.400 ms.",
        "4 candidates for the student, of which 2 fit; report.md has the table.",
    )
    alone = student_search(candidates=(candidate("prune:0.5", "pruned", 0.5, 0.3),))
    assert search_summary(alone)[1].startswith("1 candidate for the student, of which 1 fit")


def test_what_the_search_says_against_its_choice_stands_beside_it(
    student_search: Searcher, latency: Callable[..., LatencyStats]
) -> None:
    slow = found_by.Candidate("prune:0.5", "pruned", 1.0, 1.0, 1.0, latency=latency(0.7))
    teacher = found_by.Candidate("resnet34", "teacher", 2.0, 2.0, 2.0, latency=latency(0.66))
    against = no_faster(Row(slow, {}), Row(teacher, {}))
    assert against is not None
    search = student_search(notes=("prune:0.5x is another one.", "No candidate has a latency.", against))
    assert notes_on_chosen(search) == (against,)
    assert search_summary(search) == (search.reason, against, search_summary(student_search())[1])
