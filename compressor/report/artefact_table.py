"""The artefacts of a report as strings, once for every rendering: their worth, how int8 was made, what to ship."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from compressor.report.measured import Proportion
from compressor.report.predicted import Prediction
from compressor.report.reasons import failure
from compressor.report.shipping import Int8Calibration, Recommendation, Variant, Verdict
from compressor.report.text import (
    ABSENT,
    ACCURACY,
    AGREEMENT,
    agrees,
    approximate,
    carried_by,
    conditions,
    count,
    median,
    nearest,
    percent,
    points,
    size,
    with_interval,
)
from compressor.report.variants import enough_to_prove
from profiles.latency import LatencyStats

_SAME = {
    "images": "the same class on {} of {}",
    "pixels": "the same class on {} of the pixels of {}",
    "variance": "explaining {} of their variance on {}",
}
_LOST = {"images": "agreement with", "pixels": "agreement with", "variance": "the explained variance of"}


class Artefacts(Protocol):
    """What holds artefacts: the report of a run, or of an export alone."""

    @property
    def variants(self) -> tuple[Variant, ...]: ...
    @property
    def variant_notes(self) -> tuple[str, ...]: ...
    @property
    def int8(self) -> tuple[Int8Calibration, ...]: ...
    @property
    def recommendation(self) -> Recommendation | None: ...
    @property
    def verdicts(self) -> tuple[Verdict, ...]: ...


@dataclass(frozen=True)
class VariantLine:
    """One artefact; latencies are p50 in ms, and a predicted one has a column of its own.

    `verdict` says whether it is the recommended one, or why it is not.
    """

    label: str
    recommended: bool
    size: str
    parity: str
    agreement: str
    as_fp32: str
    mean_iou: str
    accuracy: str
    mean_iou_masks: str
    host: str
    target: str
    predicted: str
    verdict: str


def variant_lines(report: Artefacts) -> tuple[VariantLine, ...]:
    """Every artefact that exists; those that do not are in `variant_notes`."""
    chosen = report.recommendation
    rejected = {} if chosen is None else {one.variant: one.reason for one in chosen.rejected}
    maps = any(variant.mean_iou.larger is not None for variant in report.variants)
    lines = []
    for variant in report.variants:
        if variant.path is None:
            continue
        recommended = chosen is not None and chosen.takes(variant)
        is_fp32 = (variant.format, variant.precision) == ("onnx", "fp32")
        reference = is_fp32 and variant.model == "teacher"
        lines.append(
            VariantLine(
                label=variant.label,
                recommended=recommended,
                size=ABSENT if variant.size_mib is None else size(variant.size_mib),
                parity=_difference(variant, is_fp32),
                agreement="reference" if reference else _share(variant.agreement.larger),
                as_fp32="reference" if is_fp32 else _share(variant.agreement_with_fp32.larger),
                mean_iou="reference" if reference and maps else _share(variant.mean_iou.larger),
                accuracy=_share(variant.accuracy.larger),
                mean_iou_masks=_share(variant.mean_iou_masks.larger),
                host=_median(variant.latency_host),
                target=_median(variant.latency_target),
                predicted=ABSENT if variant.latency_predicted is None else approximate(variant.latency_predicted),
                verdict="recommended" if recommended else rejected.get(variant.label, ""),
            )
        )
    return tuple(lines)


def agreement_name(report: Artefacts) -> str:
    """`agreement`, `agreement of pixels`, `variance explained`: what the artefacts' agreement is."""
    return AGREEMENT[_share_of(report.variants)]


def accuracy_name(report: Artefacts) -> str:
    """`accuracy`, or `accuracy of pixels`."""
    return ACCURACY[_share_of(report.variants)]


def _share_of(variants: Sequence[Variant]) -> str:
    """Of what the artefacts' agreement is a share: one for all tasks' artefacts, images where nothing was judged."""
    found = [score.larger for variant in variants for score in (variant.agreement, variant.agreement_with_fp32)]
    return next((proportion.of for proportion in found if proportion is not None), "images")


def judged_on(report: Artefacts) -> str:
    """The images behind the artefacts' agreement: of evidence and --eval the larger, which is the same for all."""
    for scores in (score for variant in report.variants for score in (variant.agreement, variant.agreement_with_fp32)):
        if scores.larger is not None:
            return count(scores.larger.n, "--eval image" if scores.larger is scores.eval else "held-out image")
    return ""


def variant_notes(report: Artefacts, told: Collection[LatencyStats] = ()) -> tuple[str, ...]:
    """What casts doubt on an artefact or its latency, and why one does not exist. Artefacts with one note share it.

    Args:
        told: latencies of which other notes tell.
    """
    sharing: dict[str, list[str]] = {}
    for variant in report.variants:
        doubts = [
            text
            for latency in (variant.latency_host, variant.latency_target)
            if latency is not None and latency not in told
            for text in (*_elsewhere(report, latency), *latency.warnings)
        ]
        doubts += _on_target(variant)
        for text in (*([] if variant.note is None else [variant.note]), *dict.fromkeys(doubts)):
            sharing.setdefault(text, []).append(variant.label)
    return (*_made_for(report), *_shared(sharing), *report.variant_notes)


def prediction_lines(report: Artefacts) -> tuple[str, ...]:
    """What carries the predicted latencies, and what casts doubt on them. Artefacts with one sentence share it."""
    sharing: dict[str, list[str]] = {}
    for sentences_of in (carried_by, nearest, _doubts):
        for variant, prediction in _predicted(report):
            for sentence in sentences_of(prediction):
                sharing.setdefault(sentence, []).append(variant.label)
    everyone = [variant.label for variant, _ in _predicted(report)]
    if len(everyone) > 1:
        sharing = {text: ["all"] if labels == everyone else labels for text, labels in sharing.items()}
    return tuple(_shared(sharing))


def prediction_summary(report: Artefacts) -> tuple[str, ...]:
    """In a sentence or two what the predicted latencies are; their anchors take too much room for a terminal."""
    found = [prediction for _, prediction in _predicted(report)]
    if not found:
        return ()
    first = found[0]
    if first.num_measurements:
        known = f"from {count(first.num_measurements, 'measurement')} of {first.device} and those of its relatives"
    elif first.anchors:
        known = f"from measurements of its relatives; none of {first.device} is known"
    else:
        known = f"from the peak rates of {first.device} alone; no measurement is known"
    doubts = dict.fromkeys(doubt for prediction in found for doubt in prediction.doubts)
    which = "In doubt" if len(doubts) == 1 else f"The first of {count(len(doubts), 'doubt')}"
    return (
        f"≈ is predicted, with its {100 * first.interval_confidence:g} % interval, {known}.",
        *([f"{which}: {next(iter(doubts))}"] if doubts else []),
    )


def missing_lines(report: Artefacts) -> tuple[str, ...]:
    """Why an artefact was not made, or is of no use on the target."""
    whys = {
        variant.label: failure(variant) or (variant.note if variant.path is None else None)
        for variant in report.variants
    }
    return tuple(f"{label}: {why.rstrip('.')}." for label, why in whys.items() if why is not None)


def calibration_lines(report: Artefacts, model: str | None = None) -> tuple[str, ...]:
    """How each int8 file came about without the training data, and what that cost."""
    chosen = [calibration for calibration in report.int8 if model in (None, calibration.model)]
    lines: list[str] = []
    for calibration in chosen:
        names = [f"{other.model} int8" for other in chosen if other.generator_note == calibration.generator_note]
        lines += _calibration(calibration, names)
    return tuple(lines)


def recommendation_lines(report: Artefacts) -> tuple[str, ...]:
    """What to ship; where nothing holds the limits, what each artefact misses."""
    chosen = report.recommendation
    if chosen is None:
        return ()
    missed = () if chosen.model else (f"{one.variant.capitalize()} {one.reason}." for one in chosen.rejected)
    return (*(() if chosen.teacher_suffices is None else (chosen.teacher_suffices,)), chosen.reason, *missed)


def _predicted(report: Artefacts) -> Iterator[tuple[Variant, Prediction]]:
    for variant in report.variants:
        if variant.path is not None and variant.latency_predicted is not None:
            yield variant, variant.latency_predicted


def _doubts(prediction: Prediction) -> tuple[str, ...]:
    return prediction.doubts


def _made_for(report: Artefacts) -> Iterator[str]:
    """Of the artefacts that exist; one sentence where all are for the same runtime."""
    runtimes: dict[str, list[str]] = {}
    for variant in report.variants:
        if variant.path is not None:
            runtimes.setdefault(f"made for {variant.made_for}", []).append(variant.label)
    if len(runtimes) == 1:
        yield f"All are {next(iter(runtimes))}."
    else:
        yield from _shared(runtimes)


def _shared(sharing: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for text, labels in sharing.items():
        yield f"{', '.join(labels)}: {text.rstrip('.')}."


def _calibration(calibration: Int8Calibration, sharing: Sequence[str]) -> Iterator[str]:
    """The note on generated images stands with the first of those that share it."""
    tensors = ""
    if calibration.range_agreement_median is not None and calibration.range_agreement_lowest is not None:
        tensors = (
            f"; the ranges of real and generated images overlap by {percent(calibration.range_agreement_median)} in "
            f"the median tensor, {percent(calibration.range_agreement_lowest)} at least"
        )
    name = f"{calibration.model} int8"
    made = f"{calibration.num_generated:,} generated"
    if calibration.num_patterns:
        made = f"{calibration.num_patterns:,} smooth random patterns"
    given = f"{calibration.num_real:,} real"
    if calibration.num_pool:
        given = f"{calibration.num_pool:,} of the pool"
    yield (f"{name}, calibration: {given} + {made}, {calibration.method}{tensors}.")
    if calibration.generator_note is not None and name == sharing[0]:
        yield f"{', '.join(sharing)}: {calibration.generator_note}"
    limit = points(calibration.max_drop)
    held = "within" if calibration.limit_held else "above"
    yield (
        f"{name} loses {points(calibration.drop_points)} of {_LOST[_of(calibration)]} fp32, {held} the limit of "
        f"{limit}, on the images to choose on: {calibration.judged_on}."
    )
    yield f"{name} {_proof(calibration, limit)}."


def _of(calibration: Int8Calibration) -> str:
    """Of what the agreement of a network with its fp32 file is a share; images where it was not judged."""
    return "images" if calibration.agreement_with_fp32 is None else calibration.agreement_with_fp32.of


def _proof(calibration: Int8Calibration, limit: str) -> str:
    """What images say on which nothing was chosen."""
    agreement = calibration.agreement_with_fp32
    if agreement is None:
        return f"was judged on no held-out image, so its limit of {limit} is unproven"
    found = f"{agrees(agreement, 'fp32', with_interval(agreement))} held out from that"
    if calibration.limit_proven:
        return f"{found}, which proves the limit of {limit}"
    if agreement.n < (enough := enough_to_prove(agreement)):
        return f"{found}; with fewer than {enough} the limit of {limit} is unproven"
    if agreement.points_lost <= calibration.max_drop:
        reach = points(agreement.most_points_lost)
        return f"{found}: the limit of {limit} holds on these but is not proven, the interval reaches {reach}"
    return f"{found} and misses the limit of {limit} by {points(agreement.points_lost - calibration.max_drop)}"


def _on_target(variant: Variant) -> Iterator[str]:
    """How far the target's own outputs are from those here."""
    found = variant.parity_target
    if found is not None:
        yield (
            f"on the target within {found.max_rel:.1e} of what this machine gets from the same file, "
            f"{_SAME[_share_of([variant])].format(percent(found.top1_agreement), count(found.num_images, 'image'))}"
        )


def _elsewhere(report: Artefacts, latency: LatencyStats) -> tuple[str, ...]:
    """How a latency was obtained that was not obtained like the first one on this host."""
    host = next((variant.latency_host for variant in report.variants if variant.latency_host is not None), None)
    if host is not None and (host.device, host.runtime) == (latency.device, latency.runtime):
        return ()
    return (conditions(latency),)


def _median(latency: LatencyStats | None) -> str:
    return ABSENT if latency is None else median(latency)


def _difference(variant: Variant, is_fp32: bool) -> str:
    if is_fp32:
        return "reference"
    return ABSENT if variant.parity is None else f"{variant.parity.max_rel:.1e}"


def _share(proportion: Proportion | None) -> str:
    return ABSENT if proportion is None else with_interval(proportion)
