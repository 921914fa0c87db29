"""Which artefact to ship: the fastest that is still right, and why in a sentence.

    1. An artefact that misses a limit, or that failed on the target, is out. What is unknown excludes nothing, and
       neither does what is only predicted, unless predictions are accepted. Wishes of the target's budget give way
       where no artefact holds them.
    2. Latencies are compared on the target alone, and like with like: those of another device say nothing about it,
       nor do its own in another power mode.
    3. Of what was measured there the fastest is taken, and of those that are as fast the highest precision.
    4. Where nothing was measured there, TensorRT is given fp16 if that loses nothing within its interval, else fp32;
       int8 is never taken on trust, and ONNX Runtime gets fp32.
    5. The student is taken, unless the teacher in some precision is as fast and no larger. A student that gains size
       alone is still taken, and that is said first.

The limit on agreement is decided on the images that choices are made on. Evidence can only refute it: with few images
by an interval that lies below it as a whole, since one image of forty must not decide.
"""

from __future__ import annotations

from collections.abc import Sequence

from compressor.report.comparing import as_fast, comparable, kind, milliseconds, no_larger, p50, place, precision_rank
from compressor.report.limits import UNCOUNTED, Limits, ParamsM, missed_limit, teacher_within_limits
from compressor.report.reasons import failure, reason_of, rejections
from compressor.report.shipping import Int8Calibration, Recommendation, Variant
from compressor.report.text import joined
from profiles.schema import DeviceProfile

__all__ = ["Limits", "recommend"]


def recommend(
    variants: Sequence[Variant],
    calibrations: Sequence[Int8Calibration],
    limits: Limits,
    target: DeviceProfile,
    params_m: ParamsM = UNCOUNTED,
) -> Recommendation | None:
    """The recommended artefact, or the statement that none holds the limits; None where nothing was made."""
    made = [variant for variant in variants if variant.path is not None]
    if not made:
        return None
    found = _within(made, calibrations, limits, target, params_m)
    if found.model is not None or not limits.wishes:
        return found
    without = _within(made, calibrations, limits.of_the_user, target, params_m)
    if without.model is None:
        return found
    wishes = joined(limits.called(name) for name in limits.wishes)
    return without.model_copy(update={"reason": f"No artefact holds {wishes}. {without.reason}"})


def _within(
    made: Sequence[Variant],
    calibrations: Sequence[Int8Calibration],
    limits: Limits,
    target: DeviceProfile,
    params_m: ParamsM,
) -> Recommendation:
    """The best of those within all of these limits."""
    missed = {
        variant.label: reason
        for variant in made
        if (reason := failure(variant) or missed_limit(variant, calibrations, limits, target, params_m))
    }
    fit = [variant for variant in made if variant.label not in missed]
    teachers = [variant for variant in fit if variant.model == "teacher"]
    student = _best([variant for variant in fit if variant.model == "student"], target)
    teacher = _best(teachers, target)
    gains = None if student is None or teacher is None else _gains(student, teacher, target)
    chosen = student
    if student is None or (gains is not None and teacher is not None and no_larger(teacher, student)):
        chosen = teacher
    if chosen is None:
        return Recommendation(reason="No artefact holds the limits.", rejected=rejections(made, missed, None, target))
    return Recommendation(
        model=chosen.model,
        format=chosen.format,
        precision=chosen.precision,
        path=chosen.path,
        reason=" ".join(reason_of(chosen, made, missed, limits, target)),
        teacher_suffices=teacher_within_limits(teachers, limits, target, params_m) or gains,
        rejected=rejections(made, missed, chosen, target),
    )


def _best(variants: Sequence[Variant], target: DeviceProfile) -> Variant | None:
    """The best of one network's variants, all within the limits."""
    measured = comparable([variant for variant in variants if variant.measured is not None])
    if measured:
        fastest = min(measured, key=milliseconds)
        tied = [variant for variant in measured if as_fast(variant, fastest)]
        return min(tied, key=lambda variant: (precision_rank(variant), milliseconds(variant)))
    if not variants:
        return None
    precisions = {variant.precision: variant for variant in sorted(variants, key=lambda one: one.format == "onnx")}
    half = precisions.get("fp16")
    if half is not None and target.runtime == "tensorrt" and _loses_nothing(half, precisions.get("fp32")):
        return half
    return min(precisions.values(), key=precision_rank)


def _gains(student: Variant, teacher: Variant, target: DeviceProfile) -> str | None:
    """Said where a student is known to be no faster than its teacher."""
    if kind(student) is None or kind(teacher) != kind(student) or not as_fast(teacher, student):
        return None
    nothing = "nothing" if no_larger(teacher, student) else "no speed, only size"
    return (
        f"The student gains {nothing} on {place(target)}: {teacher.label} takes {p50(teacher)} ms, {student.label} "
        f"{p50(student)} ms."
    )


def _loses_nothing(half: Variant, single: Variant | None) -> bool:
    """Whether fp16's loss is zero within its interval, on images that exist."""
    same = half.agreement_with_fp32.larger
    if same is not None and same.value == 1.0:
        return True
    ours, theirs = half.agreement.larger, None if single is None else single.agreement.larger
    return ours is not None and theirs is not None and ours.n == theirs.n and ours.low <= theirs.value <= ours.high
