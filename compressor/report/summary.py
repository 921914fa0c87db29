"""The sentences that stand first: what was reached, on how many images, how fast, and what is not known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compressor.report.comparing import as_timed
from compressor.report.measured import Proportion
from compressor.report.schema import ModelRow, Report, Summary, Target
from compressor.report.shipping import Recommendation, Verdict
from compressor.report.student_search import StudentSearch, notes_on_chosen
from compressor.report.text import ACCURACY, agrees, count, percent, significant, span, with_interval
from compressor.report.verdicts import Decision, decision_of
from profiles.latency import LatencyStats

# An interval wider than this cannot tell a student to ship from a student to train again.
WIDE_INTERVAL = 0.10


def summarise(
    teacher: ModelRow,
    student: ModelRow,
    target: Target,
    recommendation: Recommendation | None = None,
    verdicts: Sequence[Verdict] = (),
    search: StudentSearch | None = None,
    *,
    without_images: bool = False,
    doubts: Sequence[str] = (),
    unsaid: str | None = None,
) -> Summary:
    """The summary of two rows, and what the limits decide. Of the two sets of images the larger one speaks first.

    What to ship is the first point, before it what makes the student useless and whether the teacher would do, and
    after it what the search for the student says against its choice.

    Args:
        without_images: the run was given no image at all. Where --eval gives none either, it cannot pass: that int8
            or the student is any good on real images is not known.
        doubts: what makes the student useless, in sentences.
        unsaid: why the images that there are do not say how good it is, as what precedes that.
    """
    shipping = (*doubts, *_shipping(recommendation), *(() if search is None else notes_on_chosen(search)))
    unjudged = without_images and student.agreement.larger is None
    decision = _decision(decision_of(verdicts, recommendation), unjudged=unjudged)
    share = percent(student.params_m / teacher.params_m)
    known = [
        (agreement, noun)
        for agreement, noun in (
            (student.agreement.eval, "--eval image"),
            (student.agreement.evidence, "held-out image"),
        )
        if agreement is not None
    ]
    if not known:
        nothing = "no image of the task was given that says" if without_images else "no held-out image says"
        headline = f"The student has {share} of its teacher's parameters; {unsaid or nothing} how good it is."
        return Summary(
            decision=decision,
            headline=headline,
            points=(*shipping, *_host(teacher, student), *_target(student, target)),
        )
    agreement, noun = max(known, key=lambda pair: pair[0].n)
    return Summary(
        decision=decision,
        headline=(
            f"The student {agrees(agreement, 'its teacher', percent(agreement.value), noun)}, with {share} of its "
            "parameters."
        ),
        points=(
            *shipping,
            _interval(agreement),
            *_mean_iou(teacher, student),
            *_accuracy(teacher, student),
            *_host(teacher, student),
            *_target(student, target),
        ),
    )


def limits_decision(report: Report) -> Decision:
    """What the limits of a report decide, whatever its gates say."""
    samples = report.samples
    without_images = not samples.num_train + samples.num_select + samples.num_evidence
    unjudged = without_images and report.student.agreement.larger is None
    return _decision(decision_of(report.verdicts, report.recommendation), unjudged=unjudged)


def _decision(of_the_limits: Decision, *, unjudged: bool) -> Decision:
    return "warn" if of_the_limits == "pass" and unjudged else of_the_limits


def _shipping(recommendation: Recommendation | None) -> Iterator[str]:
    if recommendation is not None:
        if recommendation.teacher_suffices is not None:
            yield recommendation.teacher_suffices
        yield recommendation.reason


def _interval(agreement: Proportion) -> str:
    found = "share of the variance" if agreement.of == "variance" else "agreement"
    sentence = f"The {100 * agreement.confidence:g} % interval of this {found} is {span(agreement)}"
    if agreement.high - agreement.low > WIDE_INTERVAL:
        return f"{sentence}: {count(agreement.n, 'image')} cannot tell more, a larger held-out part would."
    return f"{sentence}."


def _mean_iou(teacher: ModelRow, student: ModelRow) -> Iterator[str]:
    found = student.mean_iou.larger
    if found is not None:
        yield f"Mean IoU of its class maps with the teacher's: {with_interval(found)}."
    ours, theirs = student.mean_iou_masks.larger, teacher.mean_iou_masks.larger
    if ours is not None and theirs is not None:
        yield (
            f"Mean IoU with the masks of {count(ours.n, 'image')}: student {with_interval(ours)}, teacher "
            f"{with_interval(theirs)}."
        )


def _accuracy(teacher: ModelRow, student: ModelRow) -> Iterator[str]:
    ours, theirs = student.accuracy.eval, teacher.accuracy.eval
    if ours is not None and theirs is not None:
        yield (
            f"{ACCURACY[ours.of].capitalize()} on the {count(ours.n, 'image')} of --eval: student "
            f"{with_interval(ours)}, teacher {with_interval(theirs)}."
        )


def _host(teacher: ModelRow, student: ModelRow) -> Iterator[str]:
    ours, theirs = student.latency_host, teacher.latency_host
    if ours is None:
        return
    sentence = f"Latency on this host, {ours.device}, batch {ours.batch_size}: {_p50(ours)}"
    if theirs is not None:
        ratio = significant(theirs.latency_p50_ms / ours.latency_p50_ms)
        sentence += f"; the teacher takes {_p50(theirs)}, {ratio} times as long"
    yield f"{sentence}."


def _target(student: ModelRow, target: Target) -> Iterator[str]:
    latency = student.latency_target
    if latency is not None and latency.other_power_mode is not None:
        yield (
            f"Latency on the target, {target.title}, was measured in power mode {latency.other_power_mode} alone, "
            "which is not that of its profile and decides nothing."
        )
    if latency is None:
        yield f"Latency on the target, {target.title}, was not measured; the reason stands under the table."


def _p50(latency: LatencyStats) -> str:
    timed = as_timed(latency)
    doubts = ("" if latency.stable else ", unstable", "" if timed is None else f", {timed}")
    return f"{significant(latency.latency_p50_ms)} ms (p50{''.join(doubts)})"
