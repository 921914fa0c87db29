"""metrics.txt: the numbers of report.json as OpenMetrics text, for GitLab's metrics report, Prometheus and the like.

Base units throughout: seconds, bytes, shares of 1. A share has the ends of its interval and its number of images as
families of their own. Nothing that a report does not hold is written as 0; its line is missing. Agreement on generated
images is no evidence (see `OnGenerated`) and so no metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from compressor.report.gate_record import State
from compressor.report.judgements import judgements
from compressor.report.measured import Comparison, Proportion, Scores
from compressor.report.predicted import Prediction
from compressor.report.schema import Report
from compressor.report.untrusted import printable
from profiles.latency import LatencyStats

LABEL_LIMIT = 200
MIB = 2**20
DECISIONS = ("ungated", "pass", "warn", "fail")

Labels = Mapping[str, str]


@dataclass
class Family:
    """One metric: `name` ends in its unit, and every sample has other labels."""

    name: str
    help: str
    type: Literal["gauge", "info", "stateset", "summary"] = "gauge"
    unit: str = ""
    samples: list[tuple[str, Labels, float]] = field(default_factory=list)

    def add(self, value: float | None, labels: Labels, suffix: str = "") -> None:
        """A sample; none where the value is not known."""
        if value is not None:
            self.samples.append((suffix, labels, value))

    def lines(self) -> Iterator[str]:
        """As text; a family without a sample is not there."""
        if not self.samples:
            return
        yield f"# TYPE {self.name} {self.type}"
        if self.unit:
            yield f"# UNIT {self.name} {self.unit}"
        yield f"# HELP {self.name} {_escaped(self.help)}"
        for suffix, labels, value in self.samples:
            inside = ",".join(f'{key}="{_label(text)}"' for key, text in labels.items())
            yield f"{self.name}{suffix}{{{inside}}} {_number(value)}"


def metrics_text(report: Report) -> str:
    """The whole file, ending in `# EOF`. The same report gives the same text."""
    families = (
        *_run(report),
        *_judged(report),
        *_networks(report),
        *_shares(report),
        *_latencies(report),
        *_robustness(report),
        *_confidence(report),
        *_times(report),
    )
    return "\n".join([*(line for family in families for line in family.lines()), "# EOF", ""])


def _run(report: Report) -> Iterator[Family]:
    info = Family("compress", "What was run.", "info")
    info.add(
        1,
        {
            "run": report.run_name,
            "version": report.tool_version,
            "teacher_sha256": report.teacher_source.sha256,
            "target": report.target.profile,
            "method": report.distillation.method,
            "task": report.task,
        },
        "_info",
    )
    yield info
    decision = Family("compress_decision", "What the gates and limits say of the run.", "stateset")
    for state in DECISIONS:
        decision.add(state == report.summary.decision, {"compress_decision": state})
    yield decision


def _judged(report: Report) -> Iterator[Family]:
    states = Family("compress_gate_state", "What was found of each gate, limit and wish.", "stateset")
    failed = Family("compress_gate_failed", "1 where a gate or limit fails the run, 0 where it does not.")
    for judgement in judgements(report):
        labels = {"gate": judgement.name, "kind": judgement.kind}
        for state in get_args(State):
            states.add(state == judgement.state, {**labels, "compress_gate_state": state})
        failed.add(judgement.outcome == "fail", labels)
    yield from (states, failed)
    value = Family("compress_gate_value", "What a gate's metric is, in the metric's own unit.")
    limit = Family("compress_gate_limit", "What a gate's rule allows.")
    change = Family("compress_gate_change", "What is lost of it, which the limit of such a rule is for.")
    for gate in report.gates:
        labels = {"gate": gate.name, "metric": gate.metric, "rule": gate.rule}
        value.add(gate.value, labels)
        limit.add(gate.limit, labels)
        change.add(gate.change, labels)
    yield from (value, limit, change)


def _networks(report: Report) -> Iterator[Family]:
    parameters = Family("compress_parameters", "Parameters of a network.")
    operations = Family("compress_macs", "Multiply-accumulates of one image.")
    for model, row in (("student", report.student), ("teacher", report.teacher)):
        parameters.add(round(row.params_m * 1e6), {"model": model})
        operations.add(round(row.macs_g * 1e9), {"model": model})
    files = Family("compress_size_bytes", "Size of an artefact's file.", unit="bytes")
    for variant in report.variants:
        size = None if variant.size_mib is None else round(variant.size_mib * MIB)
        files.add(size, {"artefact": variant.label})
    images = Family("compress_images", "Images by what the run did with them.")
    for part in report.image_sets:
        images.add(part.num_images, {"set": part.name})
    yield from (parameters, operations, files, images)


def _shares(report: Report) -> Iterator[Family]:
    """Of every artefact, on every set of images."""
    for name, help_text, scores in (
        ("agreement", "Agreement with the fp32 teacher.", [one.agreement for one in report.variants]),
        (
            "agreement_with_fp32",
            "Agreement with the same network's fp32 file.",
            [one.agreement_with_fp32 for one in report.variants],
        ),
        ("accuracy", "Agreement with the labels or masks.", [one.accuracy for one in report.variants]),
        ("mean_iou", "Mean IoU with the fp32 teacher's class maps.", [one.mean_iou for one in report.variants]),
        ("mean_iou_masks", "Mean IoU with the masks.", [one.mean_iou_masks for one in report.variants]),
    ):
        labelled = [
            (share, {"artefact": variant.label, "images": images})
            for variant, both in zip(report.variants, scores, strict=True)
            for images, share in _by_images(both)
        ]
        yield from _share(name, help_text, labelled)


def _by_images(scores: Scores) -> Iterator[tuple[str, Proportion]]:
    for images, share in (("evidence", scores.evidence), ("eval", scores.eval)):
        if share is not None:
            yield images, share


def _share(name: str, help_text: str, found: Iterable[tuple[Proportion, Labels]]) -> tuple[Family, ...]:
    """The value, the ends of its interval, and the images that it was found on."""
    value = Family(f"compress_{name}_ratio", help_text, unit="ratio")
    low = Family(f"compress_{name}_low_ratio", f"Low end of the interval. {help_text}", unit="ratio")
    high = Family(f"compress_{name}_high_ratio", f"High end of the interval. {help_text}", unit="ratio")
    images = Family(f"compress_{name}_images", f"Images that it was found on. {help_text}")
    for share, labels in found:
        value.add(share.value, labels)
        low.add(share.low, labels)
        high.add(share.high, labels)
        images.add(share.n, labels)
    return value, low, high, images


def _latencies(report: Report) -> Iterator[Family]:
    """Measured, merged and predicted ones apart, by `origin`; those of the host are never those of the target."""
    time = Family("compress_latency_seconds", "Latency of one batch.", "summary", "seconds")
    low = Family("compress_latency_median_low_seconds", "Low end of the interval of the median.", unit="seconds")
    high = Family("compress_latency_median_high_seconds", "High end of the interval of the median.", unit="seconds")
    for variant in report.variants:
        for stats in (variant.latency_host, variant.latency_target):
            if stats is None:
                continue
            labels = _timed(variant.label, stats)
            if stats.other_power_mode is not None:
                labels["power_mode"] = stats.other_power_mode
            for quantile, milliseconds in (
                ("0.5", stats.latency_p50_ms),
                ("0.9", stats.latency_p90_ms),
                ("0.99", stats.latency_p99_ms),
            ):
                time.add(milliseconds / 1000, {**labels, "quantile": quantile})
            if stats.latency_p50_interval_ms is not None:
                low.add(stats.latency_p50_interval_ms[0] / 1000, labels)
                high.add(stats.latency_p50_interval_ms[1] / 1000, labels)
        if (predicted := variant.latency_predicted) is not None:
            labels = _timed(variant.label, predicted)
            time.add(predicted.latency_p50_ms / 1000, {**labels, "quantile": "0.5"})
            low.add(predicted.latency_p50_interval_ms[0] / 1000, labels)
            high.add(predicted.latency_p50_interval_ms[1] / 1000, labels)
    yield from (time, low, high)


def _timed(artefact: str, found: LatencyStats | Prediction) -> dict[str, str]:
    return {"artefact": artefact, "device": found.device, "origin": found.origin, "batch": f"{found.batch_size}"}


def _robustness(report: Report) -> Iterator[Family]:
    labelled = [
        (row, {"corruption": row.corruption, "strength": row.strength, "images": row.images})
        for row in report.robustness
    ]
    agreement = [(row.agreement, labels) for row, labels in labelled]
    yield from _share("corrupted_agreement", "Agreement with the teacher on corrupted images.", agreement)
    kept = [
        (share, {**labels, "model": model})
        for row, labels in labelled
        for model, share in (("student", row.student_kept), ("teacher", row.teacher_kept))
    ]
    yield from _share("corrupted_kept", "A network with its own answer on the clean image.", kept)


def _confidence(report: Report) -> Iterator[Family]:
    divergence = Family("compress_kl_nats", "KL divergence of the student from the teacher.", unit="nats")
    error = Family("compress_calibration_error_ratio", "Expected calibration error.", unit="ratio")
    for images, comparison in (("evidence", report.comparison_evidence), ("eval", report.comparison_eval)):
        if not isinstance(comparison, Comparison):
            continue
        divergence.add(comparison.mean_kl_nats, {"images": images})
        for model, calibration in (
            ("student", comparison.calibration),
            ("student", comparison.calibration_labels),
            ("teacher", comparison.teacher_calibration_labels),
        ):
            if calibration is not None:
                error.add(calibration.error, {"model": model, "against": calibration.against, "images": images})
    yield from (divergence, error)


def _times(report: Report) -> Iterator[Family]:
    seconds = Family("compress_stage_seconds", "What each stage took when it ran.", unit="seconds")
    for stage in report.stages:
        seconds.add(stage.seconds, {"stage": stage.name})
    yield seconds


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _label(text: str) -> str:
    return _escaped(printable(text, LABEL_LIMIT))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
