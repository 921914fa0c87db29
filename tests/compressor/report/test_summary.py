"""The sentences that stand first follow from the numbers."""

from __future__ import annotations

from collections.abc import Callable

from compressor.report.measured import Scores
from compressor.report.schema import Report
from compressor.report.shipping import Recommendation
from compressor.report.student_search import StudentSearch
from compressor.report.summary import summarise
from profiles.latency import LatencyStats


def test_the_headline_holds_agreement_count_and_size_on_the_larger_set(report: Report) -> None:
    summary = summarise(report.teacher, report.student, report.target)
    assert summary.decision == "ungated"
    assert summary.headline == (
        "The student agrees with its teacher on 97.4 % of 1,000 --eval images, with 26.2 % of its parameters."
    )
    alone = report.student.model_copy(update={"agreement": Scores(evidence=report.student.agreement.evidence)})
    assert summarise(report.teacher, alone, report.target).headline == (
        "The student agrees with its teacher on 95.0 % of 40 held-out images, with 26.2 % of its parameters."
    )


def test_the_decision_is_that_of_the_limits(report: Report) -> None:
    def decision(state: str) -> str:
        verdicts = [one.model_copy(update={"state": state}) for one in report.verdicts]
        blind = report.student.model_copy(update={"agreement": Scores()})
        found = {
            summarise(report.teacher, student, report.target, report.recommendation, verdicts).decision
            for student in (report.student, blind)
        }
        assert len(found) == 1
        return found.pop()

    assert [decision(state) for state in ("held", "unproven", "missed")] == ["pass", "warn", "fail"]


def test_what_to_ship_is_the_first_point_and_a_teacher_that_suffices_before_it(report: Report) -> None:
    found = Recommendation(reason="Student fp16 is recommended.", model="student", precision="fp16")
    points = summarise(report.teacher, report.student, report.target, found).points
    assert points[0] == "Student fp16 is recommended."
    sufficing = found.model_copy(update={"teacher_suffices": "The teacher holds the limits."})
    points = summarise(report.teacher, report.student, report.target, sufficing).points
    assert points[:2] == ("The teacher holds the limits.", "Student fp16 is recommended.")
    blind = report.student.model_copy(update={"agreement": Scores()})
    assert summarise(report.teacher, blind, report.target, found).points[0] == "Student fp16 is recommended."


def test_a_wide_interval_asks_for_more_images_and_a_narrow_one_does_not(report: Report) -> None:
    narrow = summarise(report.teacher, report.student, report.target)
    assert narrow.points[0] == "The 95 % interval of this agreement is 96.2 to 98.2 %."
    few = report.student.model_copy(update={"agreement": Scores(evidence=report.student.agreement.evidence)})
    assert "40 images cannot tell more" in summarise(report.teacher, few, report.target).points[0]


def test_an_unstable_latency_is_never_stated_plainly(report: Report) -> None:
    assert report.student.latency_host is not None
    shaky = report.student.latency_host.model_copy(update={"stable": False})
    student = report.student.model_copy(update={"latency_host": shaky})
    points = summarise(report.teacher, student, report.target).points
    assert any("0.148 ms (p50, unstable)" in point for point in points)


def test_accuracy_is_stated_where_there_are_labels(report: Report) -> None:
    sentence = (
        "Accuracy on the 1,000 images of --eval: student 96.8 % (95.5 to 97.7 %), teacher 98.5 % (97.5 to 99.1 %)."
    )
    assert sentence in summarise(report.teacher, report.student, report.target).points
    student = report.student.model_copy(update={"accuracy": Scores()})
    points = summarise(report.teacher, student, report.target).points
    assert not any("Accuracy" in point for point in points)


def test_what_speaks_against_the_student_comes_after_what_to_ship(
    report: Report, student_search: Callable[..., StudentSearch]
) -> None:
    against = "prune:0.5 is smaller but no faster than the teacher."
    search = student_search(notes=("Latency is that of an untrained export.", against))
    found = Recommendation(reason="Student fp16 is recommended.", model="student", precision="fp16")
    blind = report.student.model_copy(update={"agreement": Scores()})
    for student in (report.student, blind):
        points = summarise(report.teacher, student, report.target, found, (), search).points
        assert points[:2] == ("Student fp16 is recommended.", against)
        assert search.notes[0] not in points


def test_another_power_mode_is_said(report: Report, latency: Callable[..., LatencyStats]) -> None:
    board = latency(2.1, origin="merged", is_target=True, other_power_mode="MAXN_SUPER")
    student = report.student.model_copy(update={"latency_target": board})
    points = summarise(report.teacher, student, report.target).points
    assert points[-1] == (
        "Latency on the target, Jetson Orin Nano Super, was measured in power mode MAXN_SUPER alone, which is not that "
        "of its profile and decides nothing."
    )


def test_what_was_timed_at_another_pace_stands_beside_it(report: Report, latency: Callable[..., LatencyStats]) -> None:
    here = latency(1.81, pace=0.9, latency_p50_as_timed_ms=1.97)
    student = report.student.model_copy(update={"latency_host": here})
    points = summarise(report.teacher, student, report.target).points
    assert any("1.81 ms (p50, 1.97 ms as timed)" in point for point in points)
