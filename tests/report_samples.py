"""A small report whose every section has something in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest

from compressor.report.intervals import mcnemar_p, paired_difference, wilson_interval
from compressor.report.limits import Limits
from compressor.report.measured import (
    Calibration,
    ClassAccuracy,
    ClassFlips,
    Comparison,
    Confidence,
    Difference,
    Differences,
    Proportion,
    Scores,
    Shift,
)
from compressor.report.predicted import Prediction
from compressor.report.recommend import recommend
from compressor.report.schema import (
    Artefact,
    Choice,
    Distillation,
    Environment,
    ModelRow,
    Onnx,
    Parity,
    Phase,
    Picture,
    Report,
    Samples,
    SkippedFile,
    StageRecord,
    Target,
    TeacherSource,
    TrainingMemory,
)
from compressor.report.shipping import Int8Calibration, Int8Trial, Kit, LimitsRecord, Variant, VariantParity
from compressor.report.student_search import Candidate, StudentLimits, StudentSearch
from compressor.report.summary import summarise
from compressor.report.verdicts import verdicts_of
from profiles.catalogue import load_target
from profiles.latency import LatencyStats

JETSON = load_target("jetson-orin-nano-super")
NO_JETSON = "No jetson-orin-nano-super is attached to this machine, and no other device stands in for it."


def proportion(successes: int, n: int) -> Proportion:
    low, high = wilson_interval(successes, n)
    return Proportion(value=successes / n, low=low, high=high, n=n)


def paired(both: int, gained: int, lost: int, neither: int) -> Difference:
    value, low, high = paired_difference(both, gained, lost, neither)
    n = both + gained + lost + neither
    p_value = mcnemar_p(gained, lost)
    return Difference(value=value, low=low, high=high, n=n, gained=gained, lost=lost, p_value=p_value)


def latency(p50_ms: float, **changes: Any) -> LatencyStats:
    values: dict[str, Any] = {
        "device": "Example CPU @ 2.70GHz",
        "is_target": False,
        "runtime": "onnxruntime 1.31.1, CPUExecutionProvider, 2 threads",
        "versions": {"onnxruntime": "1.31.1"},
        "batch_size": 1,
        "latency_p50_ms": p50_ms,
        "latency_p90_ms": 1.1 * p50_ms,
        "latency_p99_ms": 1.4 * p50_ms,
        "latency_p50_interval_ms": (0.98 * p50_ms, 1.03 * p50_ms),
        "interval_confidence": 0.97,
        "throughput_ips": 1000 / p50_ms,
        "warmup_count": 20,
        "count": 3000,
        "num_windows": 8,
        "num_windows_used": 6,
        "window_s": 0.25,
        "cv": 0.01,
        "cv_bound": 0.05,
        "stable": True,
    }
    return LatencyStats(**{**values, **changes})


def prediction(p50_ms: float, **changes: Any) -> Prediction:
    """For the target of `build_report`, in fp16, known to a quarter."""
    values: dict[str, Any] = {
        "device": "Jetson Orin Nano Super",
        "precision": "fp16",
        "batch_size": 1,
        "latency_p50_ms": p50_ms,
        "latency_p50_interval_ms": (0.75 * p50_ms, 1.25 * p50_ms),
        "interval_confidence": 0.9,
        "basis": "calibrated",
        "anchors": ("yolo11n at 640x640 in fp16",),
        "num_measurements": 23,
        "doubts": (),
    }
    return Prediction(**{**values, **changes})


def candidate(spec: str, kind: str, share: float, p50_ms: float | None, *misses: str, **changes: Any) -> Candidate:
    """A network with this share of a teacher of 272 k parameters and 2.6 M MACs."""
    values: dict[str, Any] = {
        "params_m": 0.2719 * share,
        "macs_g": 0.0026 * share,
        "size_mib": 0.53 * share,
        "latency": None if p50_ms is None else prediction(p50_ms),
        "misses": misses,
    }
    return Candidate(spec=spec, kind=kind, **{**values, **changes})


def student_search(**changes: Any) -> StudentSearch:
    """Of a limit of 0.4 ms, which a copy pruned by a half holds."""
    nothing = {"params_m": None, "macs_g": None, "size_mib": None}
    values: dict[str, Any] = {
        "teacher": candidate("cifar_resnet20", "teacher", 1.0, 0.62),
        "candidates": (
            candidate("prune:0.2", "pruned", 0.64, 0.45, "0.450 ms predicted, above the limit of 0.400 ms"),
            candidate("prune:0.5", "pruned", 0.26, 0.31),
            candidate("prune:0.7", "pruned", 0.1, 0.22),
            candidate("prune:0.9", "pruned", 1.0, None, failure="nothing is left of stage 1", **nothing),
        ),
        "chosen": "prune:0.5",
        "reason": "prune:0.5 is the most capable candidate within the limit of 0.400 ms.",
        "precision": "fp16",
        "limits": StudentLimits(max_latency_ms=0.4),
        "notes": ("Latency is that of an untrained export.",),
        "picture": "student/candidates.png",
    }
    return StudentSearch(**{**values, **changes})


def variant(model: str, precision: str, **changes: Any) -> Variant:
    """A made ONNX file that agrees with its fp32 file on all of 1,000 images."""
    values: dict[str, Any] = {
        "model": model,
        "format": "onnx",
        "precision": precision,
        "path": f"precision/{model}.{precision}.onnx",
        "made_for": "TensorRT 10 and 11, typed",
        "size_mib": 0.29,
        "sha256": "d" * 64,
        "parity": VariantParity(max_rel=3e-4, top1_agreement=1.0, num_images=40),
        "agreement": Scores(evidence=proportion(38, 40), eval=proportion(974, 1000)),
        "agreement_with_fp32": Scores(eval=proportion(1000, 1000)),
    }
    return Variant(**{**values, **changes})


def calibration(**changes: Any) -> Int8Calibration:
    """Of an int8 file whose limit holds on all images, which are too few to prove it."""
    values: dict[str, Any] = {
        "model": "student",
        "method": "percentile",
        "num_real": 40,
        "num_generated": 512,
        "range_agreement_median": 0.93,
        "range_agreement_lowest": 0.41,
        "float_layers": ("/stem/Conv",),
        "trials": (
            Int8Trial(method="min-max", float_groups=(), logit_error=0.09, agreement=0.98, num_images=296),
            Int8Trial(
                method="percentile", float_groups=("/stem/Conv",), logit_error=0.03, agreement=0.997, num_images=296
            ),
        ),
        "judged_on": "40 select + 256 generated images",
        "num_judged": 296,
        "drop_points": 0.34,
        "max_drop": 1.0,
        "limit_held": True,
        "agreement_with_fp32": proportion(992, 1000),
        "limit_proven": False,
    }
    return Int8Calibration(**{**values, **changes})


def build_report(**changes: Any) -> Report:
    """The report of a run on a ten-class teacher, with top-level fields replaced by `changes`."""
    teacher = ModelRow(
        name="t.pt",
        architecture="cifar_resnet20",
        params_m=0.2719,
        macs_g=0.0026,
        size_mib=1.05,
        accuracy=Scores(evidence=proportion(39, 40), eval=proportion(985, 1000)),
        latency_host=latency(0.412),
    )
    student = ModelRow(
        name="student.onnx",
        architecture="cifar_resnet20 width 0.5",
        params_m=0.0713,
        macs_g=0.00069,
        size_mib=0.29,
        agreement=Scores(evidence=proportion(38, 40), eval=proportion(974, 1000)),
        accuracy=Scores(evidence=proportion(37, 40), eval=proportion(968, 1000)),
        latency_host=latency(0.148),
    )
    target = Target(profile="jetson-orin-nano-super", title="Jetson Orin Nano Super", attached=False, reason=NO_JETSON)
    limits = Limits(max_latency_ms=0.4, max_size_mib=1.0, wishes=("max_size_mib",))
    values: dict[str, Any] = {
        "tool_version": "0.1.0",
        "command": "compress run --teacher t.pt --samples ./few --target jetson --seed 7",
        "created": datetime(2026, 11, 20, 12, 30, tzinfo=UTC),
        "run_name": "t-jetson",
        "teacher": teacher,
        "student": student,
        "target": target,
        "comparison_evidence": Comparison(
            mean_kl_nats=0.0312,
            teacher_confidence=Confidence(mean=0.971, p10=0.91, median=0.994, n=40),
            student_confidence=Confidence(mean=0.948, p10=0.84, median=0.987, n=40),
            flips=(
                ClassFlips(class_index=1, num_images=4, num_flipped=2),
                ClassFlips(class_index=8, num_images=6, num_flipped=0),
            ),
            confidence_shift=Shift(value=-0.023, low=-0.041, high=-0.008, n=40),
            calibration=Calibration(error=0.061, n=40, num_bins=4, against="teacher"),
            calibration_labels=Calibration(error=0.058, n=40, num_bins=4, against="labels"),
            teacher_calibration_labels=Calibration(error=0.031, n=40, num_bins=4, against="labels"),
        ),
        "samples": Samples(
            num_train=120,
            num_select=40,
            num_evidence=40,
            skipped=(SkippedFile(file="few/7/broken.png", reason="The file ends before the image does."),),
            num_labelled=200,
            teacher_confidence=Confidence(mean=0.968, p10=0.9, median=0.993, n=200),
            teacher_accuracy=proportion(197, 200),
            pseudo_labels=(20, 21, 19, 20, 20, 20, 20, 20, 40, 0),
        ),
        "teacher_source": TeacherSource(
            file="t.pt",
            sha256="a" * 64,
            architecture="cifar_resnet20",
            input_shape=(1, 8, 8),
            class_names=tuple(str(digit) for digit in range(10)),
            mean=(0.3053,),
            std=(0.376,),
            normalisation_origin="the card in t.pt",
            identity_error=2.1e-7,
        ),
        "distillation": Distillation(
            method="hidfd",
            effort="standard",
            seed=7,
            device="cpu",
            precision="fp32",
            phases=(
                Phase(
                    name="generator",
                    num_steps=1200,
                    seconds=41.3,
                    final_terms={"d_adversarial": 1.832, "g_adversarial": -0.0415},
                ),
                Phase(name="student", num_steps=2000, seconds=3725, final_terms={"feature": 0.01234}),
            ),
            generator_resolution=(8, 8),
            memory=TrainingMemory(host_peak_mib=812.5, images_mib=0.0254, images_held="memory"),
            departures=("The class weights are updated, which the official code never does.",),
            choices=(Choice(name="batch_size", value="64", reason="The samples fill two batches."),),
        ),
        "onnx": Onnx(
            opset=20,
            exporter="dynamo",
            sha256="b" * 64,
            parity=(
                Parity(images="batch 1", num_images=1, max_abs=9.5e-7, max_rel=1e-6, top1_agreement=1.0),
                Parity(images="held-out images", num_images=40, max_abs=2.4e-6, max_rel=3e-6, top1_agreement=1.0),
            ),
        ),
        "variants": (
            variant("student", "fp32", path="onnx/student.onnx", latency_host=latency(0.148)),
            variant(
                "student",
                "fp16",
                size_mib=0.15,
                accuracy_difference=Differences(eval=paired(960, 8, 25, 7)),
                class_accuracy=(
                    ClassAccuracy(
                        class_index=3, num_images=90, num_right_teacher=89, num_right=80, low=-0.173, high=-0.04
                    ),
                    ClassAccuracy(
                        class_index=4, num_images=110, num_right_teacher=109, num_right=110, low=-0.03, high=0.05
                    ),
                    ClassAccuracy(
                        class_index=8, num_images=40, num_right_teacher=40, num_right=35, low=-0.261, high=-0.03
                    ),
                ),
                latency_host=latency(0.151),
                latency_predicted=prediction(0.31),
            ),
            variant(
                "student",
                "int8",
                size_mib=0.09,
                parity=VariantParity(max_rel=0.031, top1_agreement=0.975, num_images=40),
                agreement=Scores(evidence=proportion(37, 40), eval=proportion(970, 1000)),
                agreement_with_fp32=Scores(evidence=proportion(39, 40), eval=proportion(992, 1000)),
                latency_host=latency(0.12, stable=False, warnings=("Unstable: the medians varied by 20 %.",)),
            ),
            variant("student", "fp16", format="engine", path=None, note="skipped: no GPU", parity=None),
            variant(
                "teacher",
                "fp32",
                path="onnx/teacher.onnx",
                size_mib=1.05,
                agreement=Scores(),
                latency_host=latency(0.412),
            ),
        ),
        "variant_notes": ("TensorRT 10.3 with --stronglyTyped on a board is unproven.",),
        "int8": (calibration(),),
        "student_search": student_search(),
        "limits": LimitsRecord(**asdict(limits)),
        "kit": Kit(path="kit/kit.tar.gz", sha256="e" * 64, files=("manifest.json", "run_on_board.sh"), notes=()),
        "artefacts": (
            Artefact(path="onnx/student.onnx", sha256="b" * 64, size_bytes=304_087),
            Artefact(path="student/student.safetensors", sha256="c" * 64, size_bytes=295_112),
        ),
        "pictures": (
            Picture(path="distill/training curves.png", title="Training curves"),
            Picture(path="samples/contact_sheet.png", title="Samples with the teacher's opinion of them"),
        ),
        "warnings": ("The samples have no image of class 9; the student saw it only in generated images.",),
        "stages": (
            StageRecord(name="teacher", cached=True, seconds=0.4, fingerprint="0123456789abcdef"),
            StageRecord(name="distill", cached=False, seconds=101.2, fingerprint="fedcba9876543210"),
        ),
        "environment": Environment(
            python="3.11.7",
            torch="2.15.0",
            onnxruntime="1.31.1",
            os="Linux 6.1 x86_64",
            cpu="Example CPU @ 2.70GHz",
        ),
    }
    values["recommendation"] = recommend(values["variants"], values["int8"], limits, JETSON)
    found = {**values, **changes}["recommendation"]
    values["verdicts"] = verdicts_of(values["variants"], found, limits, JETSON)
    values["summary"] = summarise(teacher, student, target, found, values["verdicts"])
    return Report(**{**values, **changes})


@pytest.fixture(name="build_report")
def _build_report() -> Callable[..., Report]:
    return build_report


@pytest.fixture(name="latency")
def _latency() -> Callable[..., LatencyStats]:
    return latency


@pytest.fixture(name="prediction")
def _prediction() -> Callable[..., Prediction]:
    return prediction


@pytest.fixture(name="candidate")
def _candidate() -> Callable[..., Candidate]:
    return candidate


@pytest.fixture(name="student_search")
def _student_search() -> Callable[..., StudentSearch]:
    return student_search


@pytest.fixture(name="variant")
def _variant() -> Callable[..., Variant]:
    return variant


@pytest.fixture(name="calibration")
def _calibration() -> Callable[..., Int8Calibration]:
    return calibration


@pytest.fixture(name="proportion")
def _proportion() -> Callable[[int, int], Proportion]:
    return proportion


@pytest.fixture
def report() -> Report:
    return build_report()
