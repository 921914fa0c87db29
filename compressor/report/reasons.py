"""Why an artefact is recommended and every other one is not, in words with their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from compressor.report.comparing import as_fast, kind, milliseconds, no_larger, other_mode, p50, place
from compressor.report.limits import Limits
from compressor.report.shipping import Rejected, Variant
from compressor.report.text import agrees, joined, points, significant, with_interval
from compressor.report.variants import enough_to_prove
from profiles.schema import DeviceProfile


def failure(variant: Variant) -> str | None:
    """What the target itself said against a variant, as what follows a name."""
    reason = variant.failed_on_target
    return None if reason is None else f"failed on the target: {reason.rstrip('.')}"


def reason_of(
    chosen: Variant, made: Sequence[Variant], missed: Mapping[str, str], limits: Limits, target: DeviceProfile
) -> Iterator[str]:
    """One or two sentences, and a third where a limit could not be checked."""
    others = [
        variant
        for variant in made
        if (variant.model, variant.format) == (chosen.model, chosen.format) and variant is not chosen
    ]
    head = f"{chosen.label.capitalize()} is recommended"
    if chosen.measured is not None:
        rivals = [
            f"{_name(variant)} {_missed(variant, missed) or _against(variant, chosen, target)}"
            for variant in others
            if _was_there(variant)
        ]
        yield f"{head}: {p50(chosen)} ms on {place(target)}{', where ' + joined(rivals) if rivals else ''}."
    elif chosen.precision == "fp16":
        yield (
            f"{head} by its kind, since {_unmeasured(chosen, made, target)}: TensorRT usually gains from fp16, and "
            "int8 is recommended only where it was measured to be faster."
        )
    else:
        half = next((variant for variant in others if variant.precision == "fp16"), None)
        yield f"{head}, since {_unmeasured(chosen, made, target)}{_why_not_fp16(half, missed, target)}."
    yield from _cost(chosen, limits)
    if limits.max_latency_ms is not None and chosen.measured is None:
        yield _unchecked(chosen, limits, target)


def _unchecked(chosen: Variant, limits: Limits, target: DeviceProfile) -> str:
    """What is known of the limit of latency without a measurement; the verdict on it has the numbers."""
    if chosen.latency_predicted is not None and limits.accept_predicted:
        known = "holds by a prediction, which was accepted"
    elif other_mode(chosen, target) is not None:
        known = "is unproven: the board ran in another power mode"
    else:
        predicted = chosen.latency_predicted is not None
        known = "is unproven: the latency is only predicted" if predicted else "could not be checked"
    limit = limits.called("max_latency_ms")
    return f"{limit[0].upper()}{limit[1:]} {known}."


def _unmeasured(chosen: Variant, made: Sequence[Variant], target: DeviceProfile) -> str:
    """What is missing where the chosen one has no latency on the target."""
    nothing = f"no {chosen.model} within the limits" if any(map(_was_there, made)) else "nothing"
    mode = " in the power mode of its profile" if any(other_mode(variant, target) for variant in made) else ""
    return f"{nothing} was measured on {target.title}{mode}"


def _was_there(variant: Variant) -> bool:
    """Whether the target said anything of it."""
    return variant.measured is not None or variant.failed_on_target is not None


def _missed(variant: Variant, missed: Mapping[str, str]) -> str | None:
    """The limit that it misses; a board's own words of a failure stand in the table, not in the reason."""
    return missed.get(variant.label) if variant.failed_on_target is None else "failed there"


def _why_not_fp16(half: Variant | None, missed: Mapping[str, str], target: DeviceProfile) -> str:
    if target.runtime != "tensorrt" or half is None:
        return " and a lower precision is not faster on every device"
    if (missing := _missed(half, missed)) is not None:
        return f" and fp16 {missing}"
    agreement = half.agreement_with_fp32.larger
    if agreement is None:
        return " and no image says what fp16 costs"
    return f" and fp16 {agrees(agreement, 'fp32', with_interval(agreement))} only"


def _cost(chosen: Variant, limits: Limits) -> Iterator[str]:
    """What a lower precision costs, and how sure that is."""
    if chosen.precision == "fp32":
        return
    agreement = chosen.agreement_with_fp32.larger
    if agreement is None:
        yield f"No held-out image says what {chosen.precision} costs."
        return
    sentence = f"It {agrees(agreement, 'fp32', with_interval(agreement))}"
    few = agreement.n < enough_to_prove(agreement)
    yield f"{sentence}, too few to prove the limit of {points(limits.max_drop)}." if few else f"{sentence}."


def rejections(
    made: Sequence[Variant], missed: Mapping[str, str], chosen: Variant | None, target: DeviceProfile
) -> tuple[Rejected, ...]:
    """Every artefact but the chosen one; without a chosen one each has missed a limit."""
    return tuple(
        Rejected(
            variant=variant.label,
            reason=missed.get(variant.label) or ("" if chosen is None else _against(variant, chosen, target)),
        )
        for variant in made
        if variant is not chosen
    )


def _against(variant: Variant, chosen: Variant, target: DeviceProfile) -> str:
    """Why the chosen one was preferred, as what follows a name."""
    if variant.measured is not None and chosen.measured is not None:
        if kind(variant) != kind(chosen):
            return f"was measured in another way ({variant.measured.what}, {p50(variant)} ms)"
        ratio = milliseconds(variant) / milliseconds(chosen)
        if ratio < 1:
            if as_fast(chosen, variant):
                return f"is not clearly faster ({p50(variant)} ms)"
            if no_larger(variant, chosen):
                return f"is faster within the noise ({p50(variant)} ms)"
            return f"is faster ({p50(variant)} ms), but larger"
        if as_fast(variant, chosen):
            return f"is not faster ({p50(variant)} ms)"
        return f"takes {significant(ratio)} times as long" if ratio >= 2 else f"is {100 * (ratio - 1):.0f} % slower"
    if chosen.measured is not None:
        return f"was {other_mode(variant, target) or f'not measured on {place(target)}'}"
    if variant.measured is not None:
        return f"takes {p50(variant)} ms on {place(target)}, where no {chosen.model} within the limits was measured"
    if variant.model != chosen.model:
        return f"was not measured to be faster than the {chosen.model}"
    if variant.precision == "int8":
        return "was not measured to be faster"
    if variant.precision == chosen.precision:
        return f"is the same network, as {variant.format}"
    return f"was not preferred to {chosen.precision} without a measurement"


def _name(variant: Variant) -> str:
    return variant.label.removeprefix(f"{variant.model} ")
