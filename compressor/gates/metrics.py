"""The numbers of a report that a gate can speak of, by name, each with its interval, its images and its origin."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal, TypeAlias

from compressor.report.intervals import wilson_interval
from compressor.report.measured import Calibration, Comparison, Difference, Proportion, Scores
from compressor.report.schema import Report
from compressor.report.shipping import Variant
from profiles.latency import LatencyStats

Unit = Literal["share", "ms", "MiB", "M", "G", "nats"]
Images: TypeAlias = Literal["evidence", "eval"] | None
"""Which set; None: the larger."""

STUDENT_FP32 = "student fp32"
UNITS: Mapping[Unit, str] = MappingProxyType(
    {"share": " %", "ms": " ms", "MiB": " MiB", "M": " M", "G": " G", "nats": " nats"}
)


@dataclass(frozen=True)
class Found:
    """One number.

    Attributes:
        low, high: its interval, where it has one.
        n: images, or timed calls.
        images: the set that it was found on.
        stable: False of a timing whose sessions disagreed.
        conditions: what has to be equal for it to be compared with the same number of another report.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    origin: Literal["measured", "merged", "predicted"] = "measured"
    images: Literal["evidence", "eval"] | None = None
    conditions: tuple[str, ...] = ()
    stable: bool = True


@dataclass(frozen=True)
class Lost:
    """What is lost against the teacher, in the metric's unit; below 0 where something is gained.

    Attributes:
        worst: at the worse end of its interval.
    """

    reference: float
    change: float
    worst: float


Finder: TypeAlias = Callable[[Report, Variant, Images], Found | None]
Reference: TypeAlias = Callable[[Report, Variant, Images], Lost | None]


@dataclass(frozen=True)
class Metric:
    """A number that a gate may limit.

    Attributes:
        title: within a sentence, after `Student fp16: its ...`.
        better: which way is better, for what may be lost.
        reference: against the teacher; None: it has no such number.
        on_images: whether it is found on images, of which a gate may choose the set.
        artefact: the only one that it is known of; None: of each.
        of_teacher: whether it compares with the teacher, so that with another teacher it is another number.
    """

    name: str
    title: str
    unit: Unit
    better: Literal["higher", "lower"]
    find: Finder
    reference: Reference | None = None
    on_images: bool = False
    artefact: str | None = None
    of_teacher: bool = False


def judged_artefact(report: Report, label: str | None) -> Variant | None:
    """The artefact with this label; without one what is recommended, or else the student's fp32 file."""
    made = [variant for variant in report.variants if variant.path is not None]
    if label is not None:
        return next((variant for variant in made if variant.label == label), None)
    recommendation = report.recommendation
    if recommendation is not None and recommendation.model is not None:
        return next((variant for variant in made if recommendation.takes(variant)), None)
    return next((variant for variant in made if variant.label == STUDENT_FP32), None)


def incomparable(metric: Metric, earlier: tuple[Report, Found], later: tuple[Report, Found]) -> str | None:
    """Why a metric of two reports is not one number that changed, after `it is`; None: it is."""
    (report, found), (other, its) = earlier, later
    sources = (report.teacher_source, other.teacher_source)
    if report.task != other.task or (metric.on_images and sources[0].class_names != sources[1].class_names):
        return "of another task or of other classes"
    if metric.of_teacher and sources[0].sha256 != sources[1].sha256:
        return "with another teacher"
    if found.conditions != its.conditions:
        return f"of {', '.join(found.conditions)}, this one of {', '.join(its.conditions)}"
    if its.images is not None:
        one, same = _images_of(report, found.images), _images_of(other, its.images)
        return None if one is not None and one == same else "on other images, or does not say on which"
    return None


def _images_of(report: Report, name: Images) -> str | None:
    return next((images.sha256 for images in report.image_sets if images.name == name), None)


# --- shares of images -------------------------------------------------------------------------------------------------


def _score(name: str) -> Finder:
    """One of an artefact's `Scores`."""

    def find(_report: Report, variant: Variant, images: Images) -> Found | None:
        scores: Scores = getattr(variant, name)
        proportion = scores.larger if images is None else getattr(scores, images)
        return None if proportion is None else _share(proportion, "eval" if proportion is scores.eval else "evidence")

    return find


def _share(proportion: Proportion, images: Literal["evidence", "eval"]) -> Found:
    return Found(proportion.value, proportion.low, proportion.high, proportion.n, images=images)


def _of_all(find: Finder) -> Reference:
    """For what the teacher itself has all of."""

    def lost(report: Report, variant: Variant, images: Images) -> Lost | None:
        found = find(report, variant, images)
        return None if found is None else _lost(1.0, found, higher=True)

    return lost


def _paired(report: Report, variant: Variant, images: Images) -> Lost | None:
    """Accuracy minus the teacher's on the same images, whose interval is that of pairs."""
    accuracy = _score("accuracy")(report, variant, images)
    if accuracy is None or accuracy.images is None:
        return None
    difference: Difference | None = getattr(variant.accuracy_difference, accuracy.images)
    if difference is None:
        return None
    return Lost(accuracy.value - difference.value, -difference.value, -difference.low)


def _masks_of_teacher(report: Report, variant: Variant, images: Images) -> Lost | None:
    found = _score("mean_iou_masks")(report, variant, images)
    theirs = None if found is None or found.images is None else getattr(report.teacher.mean_iou_masks, found.images)
    return None if found is None or theirs is None else _lost(theirs.value, found, higher=True)


def _lowest_under_corruption(report: Report, variant: Variant, images: Images) -> Found | None:
    """The student's fp32 file alone is shown corrupted images."""
    if variant.label != STUDENT_FP32:
        return None
    rows = [row for row in report.robustness if images in (None, row.images)]
    lowest = min(rows, key=lambda row: row.agreement.value, default=None)
    return None if lowest is None else _share(lowest.agreement, lowest.images)


def _worst_class(report: Report, variant: Variant, images: Images) -> Found | None:
    """The class of the teacher's of which the student keeps the smallest share."""
    found = _compared(report, variant, images)
    if found is None or not found[0].flips:
        return None
    comparison, name = found
    worst = max(comparison.flips, key=lambda flips: flips.num_flipped / flips.num_images)
    kept, n = worst.num_images - worst.num_flipped, worst.num_images
    return Found(kept / n, *wilson_interval(kept, n), n, images=name)


# --- numbers of a comparison ------------------------------------------------------------------------------------------


def _compared(
    report: Report, variant: Variant, images: Images
) -> tuple[Comparison, Literal["evidence", "eval"]] | None:
    """Student against teacher on the larger set, or on the one that is named."""
    sets: tuple[tuple[object, Literal["evidence", "eval"]], ...] = (
        (report.comparison_eval, "eval"),
        (report.comparison_evidence, "evidence"),
    )
    known = [(found, name) for found, name in sets if isinstance(found, Comparison) and images in (None, name)]
    if variant.label != STUDENT_FP32 or not known:
        return None
    return max(known, key=lambda pair: pair[0].teacher_confidence.n)


def _divergence(report: Report, variant: Variant, images: Images) -> Found | None:
    found = _compared(report, variant, images)
    if found is None:
        return None
    return Found(found[0].mean_kl_nats, n=found[0].teacher_confidence.n, images=found[1])


def _calibration(name: str) -> Finder:
    def find(report: Report, variant: Variant, images: Images) -> Found | None:
        found = _compared(report, variant, images)
        calibration: Calibration | None = None if found is None else getattr(found[0], name)
        if found is None or calibration is None:
            return None
        return Found(calibration.error, n=calibration.n, images=found[1])

    return find


def _calibration_of_teacher(report: Report, variant: Variant, images: Images) -> Lost | None:
    ours = _calibration("calibration_labels")(report, variant, images)
    theirs = _calibration("teacher_calibration_labels")(report, variant, images)
    return None if ours is None or theirs is None else _lost(theirs.value, ours, higher=False)


# --- size and speed ---------------------------------------------------------------------------------------------------


def _size(_report: Report, variant: Variant, _images: Images) -> Found | None:
    return None if variant.size_mib is None else Found(variant.size_mib)


def _of_network(name: str) -> Finder:
    def find(report: Report, variant: Variant, _images: Images) -> Found | None:
        return Found(getattr(report.student if variant.model == "student" else report.teacher, name))

    return find


def _on_target(name: str) -> Finder:
    """Measured there or sent back; else predicted, which knows the median alone."""

    def find(_report: Report, variant: Variant, _images: Images) -> Found | None:
        if variant.measured is not None:
            return _timed(variant.measured, name)
        predicted = variant.latency_predicted
        if predicted is None or name != "latency_p50_ms":
            return None
        low, high = predicted.latency_p50_interval_ms
        conditions = (predicted.device, f"batch {predicted.batch_size}")
        return Found(predicted.latency_p50_ms, low, high, origin="predicted", conditions=conditions)

    return find


def _on_host(_report: Report, variant: Variant, _images: Images) -> Found | None:
    return None if variant.latency_host is None else _timed(variant.latency_host, "latency_p50_ms")


def _timed(latency: LatencyStats, name: str) -> Found:
    low, high = (name == "latency_p50_ms" and latency.latency_p50_interval_ms) or (None, None)
    conditions = (latency.device, latency.runtime, latency.what, f"batch {latency.batch_size}")
    return Found(
        getattr(latency, name),
        low,
        high,
        latency.count,
        origin=latency.origin,
        conditions=conditions,
        stable=latency.stable,
    )


def _of_teacher_file(find: Finder) -> Reference:
    """The same of the teacher's fp32 file."""

    def lost(report: Report, variant: Variant, images: Images) -> Lost | None:
        teacher = judged_artefact(report, "teacher fp32")
        theirs = None if teacher is None else find(report, teacher, images)
        ours = find(report, variant, images)
        if ours is None or theirs is None or ours.conditions != theirs.conditions:
            return None
        return _lost(theirs.value, ours, higher=False)

    return lost


def _lost(reference: float, found: Found, *, higher: bool) -> Lost:
    """What is lost against a number that counts as exact."""
    if higher:
        return Lost(reference, reference - found.value, reference - (found.value if found.low is None else found.low))
    return Lost(reference, found.value - reference, (found.value if found.high is None else found.high) - reference)


# --- their names ------------------------------------------------------------------------------------------------------


def _shares() -> Iterable[Metric]:
    of_each = partial(Metric, unit="share", better="higher", on_images=True)
    of_fp32 = partial(of_each, artefact=STUDENT_FP32)
    for name, title in (
        ("agreement", "agreement with the teacher"),
        ("agreement_with_fp32", "agreement with its fp32 file"),
        ("mean_iou", "mean IoU with the teacher"),
    ):
        own = name == "agreement_with_fp32"
        yield of_each(name, title, find=(find := _score(name)), reference=_of_all(find), of_teacher=not own)
    yield of_each("accuracy", "accuracy", find=_score("accuracy"), reference=_paired)
    yield of_each(
        "mean_iou_masks", "mean IoU with the masks", find=_score("mean_iou_masks"), reference=_masks_of_teacher
    )
    for name, title, find in (
        ("robust_agreement", "lowest agreement with the teacher under mild corruptions", _lowest_under_corruption),
        ("worst_class_agreement", "agreement with the teacher in the class where it is lowest", _worst_class),
    ):
        yield of_fp32(name, title, find=find, reference=_of_all(find), of_teacher=True)
    error = partial(of_fp32, better="lower")
    yield error(
        "calibration_error",
        "calibration error against the teacher's classes",
        find=_calibration("calibration"),
        of_teacher=True,
    )
    yield error(
        "calibration_error_labels",
        "calibration error against the labels",
        find=_calibration("calibration_labels"),
        reference=_calibration_of_teacher,
    )
    yield of_fp32(
        "mean_kl_nats",
        "KL divergence from the teacher",
        unit="nats",
        better="lower",
        find=_divergence,
        of_teacher=True,
    )


def _quantities() -> Iterable[Metric]:
    rows: tuple[tuple[str, str, Unit, Finder], ...] = (
        ("size_mib", "size", "MiB", _size),
        ("params_m", "number of parameters", "M", _of_network("params_m")),
        ("macs_g", "number of multiply-accumulates", "G", _of_network("macs_g")),
        ("latency_p50_ms", "p50 latency on the target", "ms", _on_target("latency_p50_ms")),
        ("latency_p99_ms", "p99 latency on the target", "ms", _on_target("latency_p99_ms")),
        ("host_latency_p50_ms", "p50 latency on this host", "ms", _on_host),
    )
    for name, title, unit, find in rows:
        yield Metric(name, title, unit, "lower", find, _of_teacher_file(find))


METRICS: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in (*_shares(), *_quantities())})
"""Every metric by its name; docs/gates.md lists them."""
