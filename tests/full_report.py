"""A report in which every record is filled, those of schema 1.5 too; gates of every state among them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from report_samples import build_report

from compressor.report.evidence import wilson_interval
from compressor.report.gate_record import Baseline, GateResult, Outcome, Rule, State
from compressor.report.measured import (
    Calibration,
    ClassAccuracy,
    ClassFlips,
    ClassOverlap,
    Comparison,
    Difference,
    Differences,
    OutputError,
    Proportion,
    RegressionComparison,
    Scores,
    SegmentationComparison,
    Shift,
)
from compressor.report.robustness_record import Corruption, Robustness
from compressor.report.schema import CurvePoint, ImageSet, LayerProfile, OnGenerated, Phase, Report
from compressor.report.shipping import Variant
from profiles.layer_times import LayerTime

STRENGTHS: dict[Corruption, str] = {
    "jpeg": "quality 50",
    "blur": "sigma 1 px",
    "noise": "deviation 0.04",
    "brighter": "gain 1.3",
    "darker": "gain 0.7",
}


def full_report(**changes: Any) -> Report:
    """What `build_report` gives, filled up, with top-level fields replaced by `changes`.

    It has been written and read back, so every record of it is valid.
    """
    base = build_report()
    names = changes.get("teacher_source", base.teacher_source).class_names
    values: dict[str, Any] = {
        "summary": base.summary.model_copy(update={"decision": "fail"}),
        "variants": variants(base, len(names)),
        "comparison_evidence": comparison(base, 40, labelled=False),
        "comparison_eval": comparison(base, 1000, labelled=True, num_classes=len(names)),
        "generated": OnGenerated(agreement=share(221, 256), comparison=comparison(base, 256, labelled=False)),
        "distillation": base.distillation.model_copy(update={"phases": phases()}),
        "gates": gates(),
        "baseline": Baseline(
            file="last release/report.json", sha256="9" * 64, run_name="t-jetson-1", created="2026-10-02T08:00:00Z"
        ),
        "image_sets": tuple(
            ImageSet(name=name, num_images=count, sha256=f"{index}" * 64)
            for index, (name, count) in enumerate(
                (("train", 120), ("select", 40), ("evidence", 40), ("pool", 5000), ("eval", 1000))
            )
        ),
        "robustness": tuple(robustness()),
        "layers": (layers("student fp32", 24), layers("teacher fp32", 57)),
        "environment": base.environment.model_copy(update={"onnx": "1.23.0", "gpu": "Example GPU 24 GB"}),
    }
    return Report.model_validate_json(build_report(**{**values, **changes}).model_dump_json())


def full_segmentation() -> Report:
    """Of 30 classes, some with masks."""
    base = build_report()
    source = base.teacher_source.model_copy(update={"class_names": tuple(f"class {index}" for index in range(30))})
    found = SegmentationComparison(
        num_images=120,
        lowest_image=0.81,
        classes=tuple(
            ClassOverlap(
                class_index=index,
                teacher_share=1 / 30,
                iou=0.5 + index / 100,
                teacher_iou=0.7 if index % 2 else None,
                student_iou=0.68 if index % 2 else None,
            )
            for index in range(30)
        ),
    )
    overlap = {"mean_iou": Scores(evidence=part(0.71, "overlap")), "mean_iou_masks": Scores(eval=part(0.6, "overlap"))}
    pixels = Scores(evidence=part(0.93, "pixels"))
    return full_report(
        task="segmentation",
        teacher_source=source,
        samples=base.samples.model_copy(update={"pseudo_labels": (4,) * 30}),
        teacher=base.teacher.model_copy(update={"mean_iou_masks": overlap["mean_iou_masks"]}),
        student=base.student.model_copy(update={**overlap, "agreement": pixels}),
        variants=tuple(
            variant.model_copy(update={**overlap, "agreement": pixels if variant.model == "student" else Scores()})
            for variant in base.variants
        ),
        comparison_evidence=found,
        comparison_eval=None,
        generated=OnGenerated(agreement=part(0.8, "pixels"), mean_iou=part(0.5, "overlap"), comparison=found),
    )


def full_regression() -> Report:
    """Of an output that is followed, one that is not, and one that does not vary."""
    base = build_report()
    found = RegressionComparison(
        num_images=120,
        rmse=0.42,
        outputs=(
            OutputError(index=0, explained=0.98, rmse=0.1, teacher_std=0.7),
            OutputError(index=2, explained=-0.4, rmse=0.6, teacher_std=0.5),
            OutputError(index=3, explained=None, rmse=0.01, teacher_std=0.0),
        ),
    )
    variance = Scores(evidence=part(0.93, "variance"))
    unlabelled = {"pseudo_labels": (), "teacher_confidence": None, "teacher_accuracy": None, "num_labelled": 0}
    return full_report(
        task="regression",
        samples=base.samples.model_copy(update=unlabelled),
        teacher=base.teacher.model_copy(update={"accuracy": Scores()}),
        student=base.student.model_copy(update={"accuracy": Scores(), "agreement": variance}),
        variants=tuple(
            variant.model_copy(update={"agreement": variance if variant.model == "student" else Scores()})
            for variant in base.variants
        ),
        comparison_evidence=found,
        comparison_eval=None,
        generated=None,
    )


def share(successes: int, n: int) -> Proportion:
    low, high = wilson_interval(successes, n)
    return Proportion(value=successes / n, low=low, high=high, n=n)


def part(value: float, of: Literal["pixels", "overlap", "variance"], n: int = 120) -> Proportion:
    return Proportion(value=value, low=value - 0.02, high=value + 0.015, n=n, of=of)


def comparison(base: Report, n: int, *, labelled: bool, num_classes: int = 10) -> Comparison:
    """Classes flip the more, the higher their index modulo seven is."""
    found = base.comparison_evidence
    assert isinstance(found, Comparison)
    return found.model_copy(
        update={
            "teacher_confidence": found.teacher_confidence.model_copy(update={"n": n}),
            "student_confidence": found.student_confidence.model_copy(update={"n": n}),
            "flips": tuple(
                ClassFlips(class_index=index, num_images=20, num_flipped=index % 7) for index in range(num_classes)
            ),
            "confidence_shift": Shift(value=-0.0234, low=-0.0301, high=-0.0167, n=n),
            "calibration": Calibration(error=0.0312, n=n, num_bins=15, against="teacher"),
            "calibration_labels": Calibration(error=0.0287, n=n, num_bins=15, against="labels") if labelled else None,
            "teacher_calibration_labels": (
                Calibration(error=0.0143, n=n, num_bins=15, against="labels") if labelled else None
            ),
        }
    )


def variants(base: Report, num_classes: int) -> tuple[Variant, ...]:
    """Those of the base with paired differences, and the teacher's fp16 and int8 files."""
    known = list(base.variants)
    teacher = known[-1]
    known += [
        teacher.model_copy(
            update={
                "precision": precision,
                "path": f"precision/teacher.{precision}.onnx",
                "size_mib": size_mib,
                "agreement": Scores(evidence=share(40, 40), eval=share(998, 1000)),
            }
        )
        for precision, size_mib in (("fp16", 0.53), ("int8", 0.28))
    ]
    return tuple(
        variant if variant.path is None else variant.model_copy(update=_accuracy(variant, place, num_classes))
        for place, variant in enumerate(known)
    )


def _accuracy(variant: Variant, place: int, num_classes: int) -> dict[str, Any]:
    found: dict[str, Any] = {"accuracy": Scores(eval=share(985 - 3 * place, 1000))}
    if (variant.model, variant.precision) == ("teacher", "fp32"):
        return found
    value = -0.003 * place
    difference = Difference(
        value=value, low=value - 0.011, high=value + 0.0042, n=1000, gained=6, lost=6 + 3 * place, p_value=0.0413
    )
    classes = tuple(
        ClassAccuracy(
            class_index=index,
            num_images=40,
            num_right_teacher=38,
            num_right=38 - (index + place) % 5 + (index % 2),
            low=-0.2 - 0.01 * (index % 5),
            high=0.06,
        )
        for index in range(num_classes)
    )
    return {**found, "accuracy_difference": Differences(eval=difference), "class_accuracy": classes}


def phases() -> tuple[Phase, ...]:
    """Curves of 60 points: falling, rising and through zero."""
    return (
        Phase(
            name="generator",
            num_steps=1200,
            seconds=41.3,
            final_terms={"d_adversarial": 1.832, "g_adversarial": -0.0415},
            remedies=("at step 311 a loss was not finite; went back to step 300.",),
            curve=_curve(1200, {"d_adversarial": lambda part: 1.8 + math.exp(-4 * part), "g_adversarial": math.cos}),
        ),
        Phase(
            name="student",
            num_steps=2000,
            seconds=3725,
            final_terms={"feature": 0.01234},
            curve=_curve(2000, {"feature": lambda part: 0.012 + 0.5 * math.exp(-6 * part)}),
        ),
    )


def _curve(num_steps: int, terms: dict[str, Callable[[float], float]]) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(
            step=round(num_steps * (place + 1) / 60), terms={name: term(place / 59) for name, term in terms.items()}
        )
        for place in range(60)
    )


def gates() -> tuple[GateResult, ...]:
    """One of every state, and one of every rule."""
    held = gate("agreement", "min", 0.95, "held", value=0.97, low=0.9577, high=0.979, n=1000)
    missed = gate(
        "accuracy",
        "max_drop",
        0.005,
        "missed",
        value=0.979,
        low=0.968,
        high=0.986,
        n=1000,
        reference=0.985,
        change=0.006,
    )
    return (
        held,
        missed,
        gate("latency_p50_ms", "max", 0.4, "unproven", "warn", value=0.31, low=0.23, high=0.39, origin="predicted"),
        gate("mean_iou", "min", 0.5, "missing"),
        gate("robust_agreement", "min", 0.9, "too_few", "warn", value=0.95, low=0.83, high=0.99, n=40, min_samples=200),
        gate("size_mib", "max_regression_relative", 0.05, "stale", "warn", value=0.15, reference=0.14, change=0.071),
        gate("params_m", "max", 0.1, "held", value=0.0713),
        gate("mean_kl_nats", "max_regression", 0.01, "held", value=0.0312, n=1000, reference=0.03, change=0.0012),
        gate("worst_class_agreement", "max_drop_relative", 0.2, "held", value=0.9, n=40, reference=1.0, change=0.1),
    )


def gate(
    metric: str, rule: Rule, limit: float, state: State, severity: Literal["fail", "warn"] = "fail", **changes: Any
) -> GateResult:
    assert state in get_args(State)
    outcome: Outcome = "pass" if state == "held" else severity
    values: dict[str, Any] = {
        "artefact": "student fp16",
        "images": "eval" if changes.get("n") else None,
        "judged": "interval" if changes.get("low") else "value",
        "origin": "measured" if changes.get("value") is not None else None,
        "sentence": f"Student fp16: its {metric} is {state.replace('_', ' ')} at {rule} {limit:g}.",
    }
    return GateResult(
        name=f"{metric} {rule}",
        metric=metric,
        rule=rule,
        limit=limit,
        severity=severity,
        state=state,
        outcome=outcome,
        **{**values, **changes},
    )


def robustness() -> Sequence[Robustness]:
    return [
        Robustness(
            corruption=corruption,
            strength=strength,
            images="eval",
            agreement=share(960 - 30 * place, 1000),
            teacher_kept=share(980 - 10 * place, 1000),
            student_kept=share(970 - 35 * place, 1000),
            teacher_accuracy=share(972 - 10 * place, 1000),
            student_accuracy=share(955 - 30 * place, 1000),
        )
        for place, (corruption, strength) in enumerate(STRENGTHS.items())
    ]


def layers(artefact: str, num_layers: int) -> LayerProfile:
    """Each layer takes a little less than the one before; of many only 40 are there."""
    times = [0.03 * 0.9**place for place in range(num_layers)]
    return LayerProfile(
        artefact=artefact,
        device="Example CPU @ 2.70GHz",
        batch_size=1,
        num_layers=num_layers,
        sum_ms=sum(times),
        layers=tuple(
            LayerTime(
                name=f"/layer{place}/Conv_token_{place}",
                module=f"stages.{place // 6}.{place % 6}.conv" if place % 5 else "",
                operator="Conv 3x3" if place % 3 else "Add",
                time_ms=time,
                share=time / sum(times),
                macs=80_000 + 1000 * place if place % 3 else None,
                peak_share=0.21 if place % 3 else None,
            )
            for place, time in enumerate(times[:40])
        ),
    )
