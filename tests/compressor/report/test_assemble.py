"""report.json from the facts of the stages: what is there is shown, what is not is said, and nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.inputs.card import TeacherCard
from compressor.report.assemble import build_report as assemble
from compressor.report.limits import Limits
from compressor.report.markdown import report_markdown
from compressor.report.measured import Proportion, Scores, SegmentationComparison
from compressor.report.predicted import Prediction
from compressor.report.schema import Report
from compressor.report.shipping import LimitsRecord, VariantParity
from compressor.report.student_search import StudentSearch
from compressor.tasks import task_of
from profiles.catalogue import load_target
from profiles.latency import LatencyStats
from profiles.schema import VersionRange

FP16_HERE = "fp16 is judged as ONNX Runtime computes it on a CPU, partly in fp32."
CPU, JETSON = load_target("cpu"), load_target("jetson")
CARD = TeacherCard(
    architecture="cifar_resnet20",
    num_classes=2,
    class_names=("cat", "dog"),
    input_shape=(1, 8, 8),
    channel_order="L",
    mean=(0.5,),
    std=(0.25,),
)


@pytest.fixture
def facts(latency: Callable[..., LatencyStats], proportion: Callable[[int, int], Proportion]) -> dict[str, Any]:
    """Of a run of the main job alone, on a target that is this host."""
    confidence = {"mean": 0.9, "p10": 0.8, "median": 0.95, "n": 4}
    here = {"student": 0.1, "teacher": 0.4}
    return {
        "teacher": {"file": "t.pt", "sha256": "a" * 64, "normalisation_origin": "the card", "identity_error": None},
        "samples": {
            "parts": {"train": 4, "select": 2, "evidence": 2},
            "skipped": [],
            "num_labelled": 0,
            "confidence": confidence,
            "accuracy": None,
            "pseudo_labels": [4, 4],
        },
        "distill": {
            "method_facts": {},
            "device": "cpu",
            "precision": "fp32",
            "precision_reason": "as asked",
            "phases": [],
        },
        "onnx": {
            "opset": 20,
            "exporter": "dynamo",
            "sha256": "b" * 64,
            "parity": {"batch 1": {"count": 1, "max_abs": 1e-6, "max_rel": 1e-6, "top1_agreement": 1.0}},
            "sizes_mib": {"student": 0.25, "teacher": 1.0},
            "params": {"student": 50_000, "teacher": 200_000},
            "macs": {"student": 1_000_000, "teacher": 4_000_000},
        },
        "latency": {"latencies": {name: latency(p50, is_target=True).to_dict() for name, p50 in here.items()}},
        "report": {"evidence": {"agreement": proportion(2, 2).model_dump()}, "warnings": ["Only 2 images."]},
    }


@pytest.fixture
def precise(facts: dict[str, Any], latency: Callable[..., LatencyStats], proportion: Any) -> dict[str, Any]:
    """With three files of the student, and an engine that could not be built."""
    parity = {"count": 64, "max_abs": 0.1, "max_rel": 0.01, "top1_agreement": 0.99}
    files = [
        {
            "model": "student",
            "precision": precision,
            "file": f"precision/student.{precision}.onnx",
            "made_for": "ONNX Runtime",
            "size_mib": 0.1,
            "sha256": "c" * 64,
            "parity": parity,
            "note": None,
            "optimise": True,
        }
        for precision in ("fp32", "fp16", "int8")
    ]
    teacher = {**files[0], "model": "teacher", "file": None, "parity": None, "size_mib": None, "sha256": None}
    engine = {**teacher, "model": "student", "precision": "fp16", "note": "skipped: no GPU"}
    speeds = {"student.fp32": 0.2, "student.fp16": 0.21, "student.int8": 0.1, "teacher.fp32": 0.8}
    same = proportion(395, 400).model_dump()
    return facts | {
        "precision": {
            "variants": [teacher, *files],
            "int8": [
                {
                    "model": "student",
                    "method": "entropy",
                    "num_real": 4,
                    "num_generated": 512,
                    "generator_note": "Generated images come from the run's own generator.",
                    "range_agreement_median": 0.9,
                    "range_agreement_lowest": 0.5,
                    "float_layers": ["conv1"],
                    "trials": [
                        {"method": "entropy", "float_groups": ["conv1"], "logit_error": 0.1, "agreement": 0.99, "s": 1}
                    ],
                    "judged_on": "2 select + 256 generated images",
                    "num_judged": 258,
                    "drop_points": 0.4,
                    "max_drop": 1.0,
                    "limit_held": True,
                }
            ],
            "notes": ["Graphs are typed."],
        },
        "engine": {"variants": [engine], "note": None},
        "kit": {"kit": {"path": "kit/kit.tar.gz", "sha256": "e" * 64, "files": ["manifest.json"], "notes": []}},
        "latency": {"latencies": {key: latency(p50, is_target=True).to_dict() for key, p50 in speeds.items()}},
        "report": {
            **facts["report"],
            "variants": {
                "student.int8": {
                    "evidence": {
                        "agreement": proportion(390, 400).model_dump(),
                        "agreement_with_fp32": same,
                        "student_accuracy": None,
                    },
                    "eval": {},
                }
            },
        },
    }


def report_of(facts: Mapping[str, Any], run_folder: Path, **changes: Any) -> Report:
    values: dict[str, Any] = {
        "card": CARD,
        "student_spec": "width:0.5",
        "method": "hidfd",
        "effort": "quick",
        "seed": 0,
        "target": CPU,
        "stages": [("teacher", False, 1.0, "f" * 16)],
        "command": "compress run --teacher t.pt --samples ./few",
        "created": datetime(2026, 11, 20, tzinfo=UTC),
        "environment": dict.fromkeys(("python", "torch", "onnxruntime", "os", "cpu"), "x"),
    }
    return assemble(facts=facts, run_folder=run_folder, **{**values, **changes})


def test_a_run_without_precisions_says_nothing_of_them(facts: dict[str, Any], tmp_path: Path) -> None:
    report = report_of(facts, tmp_path)
    assert (report.variants, report.variant_notes, report.int8) == ((), (), ())
    assert (report.recommendation, report.kit) == (None, None)
    assert report.student.latency_host is not None
    assert report.student.latency_host == report.student.latency_target
    assert report.student.latency_host.latency_p50_ms == 0.1
    assert report.target.attached
    assert report.target.reason is None
    assert report.warnings == ("Only 2 images.",)


def test_every_artefact_has_what_was_found_about_it(precise: dict[str, Any], tmp_path: Path) -> None:
    report = report_of(precise, tmp_path)
    assert [variant.label for variant in report.variants] == [
        "student fp32",
        "student fp16",
        "student int8",
        "student fp16 engine",
        "teacher fp32",
    ]
    int8 = report.variants[2]
    assert int8.parity is not None
    assert (int8.parity.max_rel, int8.parity.num_images) == (0.01, 64)
    assert int8.agreement.evidence is not None
    assert int8.agreement.evidence.value == 0.975
    assert (int8.agreement.eval, int8.accuracy.evidence) == (None, None)
    assert int8.latency_target is not None
    assert int8.latency_target.latency_p50_ms == 0.1
    engine = report.variants[3]
    assert (engine.path, engine.latency_host, engine.note) == (None, None, "skipped: no GPU")
    assert report.variant_notes == ("Graphs are typed.", FP16_HERE)
    assert report.kit is not None
    assert report.kit.files == ("manifest.json",)
    assert report_of(precise | {"kit": {"kit": None}}, tmp_path).kit is None
    assert report.student.latency_host is not None
    assert report.student.latency_host.latency_p50_ms == 0.2


def test_the_limit_of_int8_is_proven_by_enough_images_only(
    precise: dict[str, Any], tmp_path: Path, proportion: Callable[[int, int], Proportion]
) -> None:
    (calibration,) = report_of(precise, tmp_path).int8
    assert calibration.agreement_with_fp32 is not None
    assert calibration.agreement_with_fp32.n == 400
    assert not calibration.limit_proven  # 395 of 400 are 1.25 points
    found = precise["report"]["variants"]["student.int8"]["evidence"]
    (entry,) = precise["precision"]["int8"]
    # The low end of the interval decides: 396 of 400 are one point lost, and up to 2.5 within the interval.
    for same, n, max_drop, proven in (
        (400, 400, 1.0, True),
        (396, 400, 1.0, False),
        (396, 400, 2.6, True),
        (300, 300, 1.0, False),
        (299, 299, 2.0, False),
    ):
        found["agreement_with_fp32"] = proportion(same, n).model_dump()
        entry["max_drop"] = max_drop
        assert report_of(precise, tmp_path).int8[0].limit_proven is proven, (same, n, max_drop)


def test_a_trial_keeps_its_images_where_they_were_counted(precise: dict[str, Any], tmp_path: Path) -> None:
    (uncounted,) = report_of(precise, tmp_path).int8[0].trials
    assert (uncounted.float_groups, uncounted.num_images) == (("conv1",), None)
    precise["precision"]["int8"][0]["trials"][0]["num_images"] = 258
    assert report_of(precise, tmp_path).int8[0].trials[0].num_images == 258


def test_a_file_that_the_device_changes_is_not_judged_by_what_it_does_here(
    precise: dict[str, Any], tmp_path: Path, proportion: Callable[[int, int], Proportion]
) -> None:
    fp16 = precise["precision"]["variants"][2]
    perfect = proportion(400, 400).model_dump()
    precise["report"]["variants"]["student.fp16"] = {
        "evidence": dict.fromkeys(("agreement", "agreement_with_fp32", "student_accuracy"), perfect)
    }
    precise["latency"]["latencies"] = {}
    weak = JETSON.model_copy(update={"tensorrt": VersionRange(min="8.2", max="8.6")})
    judged = report_of(precise, tmp_path, target=weak)
    assert judged.recommendation is not None
    assert judged.recommendation.precision == "fp16"
    fp16 |= {"file": "onnx/student.onnx", "judged": False, "note": "lowered on the device, judged there alone"}
    report = report_of(precise, tmp_path, target=weak)
    row = report.variants[1]
    assert (row.label, row.note) == ("student fp16", "lowered on the device, judged there alone")
    assert (row.parity, row.agreement, row.agreement_with_fp32, row.accuracy) == (None, Scores(), Scores(), Scores())
    assert report.variant_notes == ("Graphs are typed.",)
    assert report.recommendation is not None
    assert report.recommendation.precision == "fp32"
    assert "no image says what fp16 costs" in report.recommendation.reason


def test_fp16_that_is_judged_here_has_one_note(precise: dict[str, Any], tmp_path: Path) -> None:
    fp16, int8 = precise["precision"]["variants"][2:]
    fp16["file"] = None
    assert report_of(precise, tmp_path).variant_notes == ("Graphs are typed.",)
    int8["optimise"] = False  # its float part is fp16
    assert report_of(precise, tmp_path).variant_notes == ("Graphs are typed.", FP16_HERE)


def test_limits_reach_the_recommendation_and_the_summary(precise: dict[str, Any], tmp_path: Path) -> None:
    strict = report_of(precise, tmp_path)
    assert strict.recommendation is not None
    assert strict.recommendation.precision == "fp32"  # int8 lost 1.25 points
    loose = report_of(precise, tmp_path, limits=Limits(max_drop=2.0))
    assert loose.recommendation is not None
    assert loose.recommendation.precision == "int8"
    assert loose.summary.points[0] == loose.recommendation.reason
    assert loose.limits == LimitsRecord(max_drop=2.0)
    assert report_of(precise, tmp_path, limits=Limits(0.5, 20.0, 8.0)).limits == LimitsRecord(
        max_drop=0.5, max_latency_ms=20.0, max_size_mib=8.0
    )


def test_a_prediction_fills_its_own_column_and_leaves_the_limit_unproven(
    precise: dict[str, Any], tmp_path: Path, prediction: Callable[..., Prediction]
) -> None:
    precise["latency"] = {
        "latencies": {},
        "predicted": {"student.fp16": prediction(3.0, device=JETSON.title).model_dump(mode="json")},
    }
    report = report_of(precise, tmp_path, target=JETSON, limits=Limits(max_latency_ms=5.0))
    fp32, fp16, *_ = report.variants
    assert (fp32.latency_predicted, fp16.latency_target) == (None, None)
    assert fp16.latency_predicted == prediction(3.0, device=JETSON.title)
    assert [(one.name, one.state, one.artefact) for one in report.verdicts] == [
        ("max_latency_ms", "unproven", "student fp32")
    ]
    assert report.summary.decision == "warn"
    # Predictions that are accepted can make a run fail.
    strict = Limits(max_latency_ms=2.0, accept_predicted=True)
    report = report_of(precise, tmp_path, target=JETSON, limits=strict)
    assert report.recommendation is not None
    rejected = {one.variant: one.reason for one in report.recommendation.rejected}
    assert rejected["student fp16"].startswith("is predicted to take ≈3.0 ms")
    assert report.limits == LimitsRecord(max_drop=1.0, max_latency_ms=2.0, accept_predicted=True)


def test_the_parameters_of_what_ships_are_judged(precise: dict[str, Any], tmp_path: Path) -> None:
    report = report_of(precise, tmp_path, limits=Limits(max_params_m=0.04))
    assert report.recommendation is not None
    assert report.recommendation.model is None  # the student has 50 k, the teacher 200 k
    assert [(one.state, one.value) for one in report.verdicts] == [("missed", 0.05)]
    assert report.summary.decision == "fail"
    assert report_of(precise, tmp_path, limits=Limits(max_params_m=0.05)).summary.decision == "pass"
    assert report_of(precise, tmp_path).summary.decision == "ungated"


def test_the_search_and_its_picture_are_there_where_the_tool_chose_the_student(
    precise: dict[str, Any], tmp_path: Path, student_search: Callable[..., StudentSearch]
) -> None:
    assert report_of(precise, tmp_path).student_search is None
    assert report_of(precise | {"student": {"params": 1, "macs": 1}}, tmp_path).student_search is None
    found = student_search(picture=None)
    facts = precise | {"student": {"search": found.model_dump(mode="json", exclude={"picture"})}}
    assert report_of(facts, tmp_path).student_search == found
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "candidates.png").touch()
    assert report_of(facts, tmp_path).student_search == student_search()


def test_what_failed_on_the_target_is_not_recommended(
    precise: dict[str, Any], tmp_path: Path, latency: Callable[..., LatencyStats]
) -> None:
    precise["latency"]["latencies"] = {}
    board = {"device": "Jetson", "origin": "merged", "is_target": True}
    report = report_of(
        precise,
        tmp_path,
        target=JETSON,
        limits=Limits(max_drop=2.0),
        merged={"student.fp32": latency(1.5, **board), "student.fp16": latency(1.2, **board)},
        failures={"student.int8": "The outputs are wrong."},
        parities={
            "student.fp16": {"max_rel": 2e-3, "top1_agreement": 1.0, "num_images": 8},
            "student.int8": {"max_rel": 0.4, "top1_agreement": 0.125, "num_images": 8},
        },
    )
    _, fp16, int8, *_ = report.variants
    assert (fp16.failed_on_target, int8.failed_on_target) == (None, "The outputs are wrong.")
    assert fp16.parity_target == VariantParity(max_rel=2e-3, top1_agreement=1.0, num_images=8)
    assert int8.parity_target is not None
    assert int8.parity_target.top1_agreement == 0.125
    assert report.recommendation is not None
    assert report.recommendation.precision == "fp16"
    assert {one.variant: one.reason for one in report.recommendation.rejected}["student int8"] == (
        "failed on the target: The outputs are wrong"
    )


def test_a_skipped_latency_is_absent_and_says_why(precise: dict[str, Any], tmp_path: Path) -> None:
    precise["latency"]["latencies"]["student.int8"] = {"skipped": "ONNX Runtime cannot run it"}
    report = report_of(precise, tmp_path)
    assert report.variants[2].latency_host is None
    assert report.variants[2].note == "latency skipped: ONNX Runtime cannot run it"


def test_merged_latencies_fill_the_targets_column(
    precise: dict[str, Any], tmp_path: Path, latency: Callable[..., LatencyStats]
) -> None:
    for key, p50_ms in (("student.fp32", 0.2), ("student.int8", 0.1), ("teacher.fp32", 0.8)):
        precise["latency"]["latencies"][key] = latency(p50_ms).to_dict()
    del precise["latency"]["latencies"]["student.fp16"]
    board = {"device": "Jetson", "origin": "merged", "is_target": True}
    fast = latency(1.5, **board)
    report = report_of(precise, tmp_path, target=JETSON, merged={"student.fp16": fast})
    assert report.variants[1].latency_target == fast
    assert report.recommendation is not None
    assert report.recommendation.precision == "fp16"
    assert not report.target.attached
    assert report.target.reason == f"Not every artefact was measured on {JETSON.title}."
    complete = {"student.fp32": fast, "teacher.fp32": latency(4.0, **board)}
    report = report_of(precise, tmp_path, target=JETSON, merged=complete)
    assert report.student.latency_target == fast
    assert report.target.reason is None
    nothing = report_of(precise, tmp_path, target=JETSON)
    assert nothing.target.reason == f"No {JETSON.title} is attached to the machine that ran this."


def test_files_are_listed_once_with_their_hashes(precise: dict[str, Any], tmp_path: Path) -> None:
    for path in ("onnx/student.onnx", "precision/student.int8.onnx", "kit/kit.tar.gz", "distill/generator.safetensors"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(path.encode())
    precise["precision"]["variants"][1]["file"] = "onnx/student.onnx"
    artefacts = report_of(precise, tmp_path).artefacts
    assert [artefact.path for artefact in artefacts] == [
        "onnx/student.onnx",
        "precision/student.int8.onnx",
        "kit/kit.tar.gz",
    ]
    assert artefacts[1].sha256 == hashlib.sha256(b"precision/student.int8.onnx").hexdigest()


DENSE = CARD.model_copy(update={"task": "segmentation"})


def maps_of(num_images: int, labelled: bool) -> dict[str, Any]:
    """What the task says of a student that differs on one pixel of each image."""
    teacher = torch.arange(num_images * 16).reshape(num_images, 4, 4).remainder(2).to(torch.uint8)
    student = teacher.clone()
    student[:, 0, 0] = 1 - student[:, 0, 0]
    labels = teacher if labelled else torch.full((num_images,), -1)
    return task_of("segmentation").evidence_facts(teacher, student, labels)


def test_a_segmentation_is_assembled_from_what_its_task_found(facts: dict[str, Any], tmp_path: Path) -> None:
    found = {"evidence": maps_of(3, False), "eval": maps_of(8, True), "generated": maps_of(9, False)}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "overlays.png").touch()
    report = report_of(facts | {"report": found}, tmp_path, card=DENSE)
    assert report.task == "segmentation"
    assert report.student.agreement.larger is not None
    assert (report.student.agreement.larger.n, report.student.agreement.larger.value) == (8, 15 / 16)
    assert report.student.mean_iou.evidence is not None
    assert report.student.mean_iou_masks.evidence is None
    assert report.teacher.mean_iou_masks.eval is not None
    assert report.teacher.mean_iou_masks.eval.value == 1.0
    assert report.teacher.accuracy.eval is not None
    assert isinstance(report.comparison_eval, SegmentationComparison)
    assert report.comparison_eval.lowest_image == 15 / 16
    assert report.generated is not None
    assert report.generated.agreement.n == 9
    assert [picture.path for picture in report.pictures] == ["report/overlays.png"]


def test_the_chosen_method_and_its_reason(facts: dict[str, Any], tmp_path: Path) -> None:
    asked = report_of(facts, tmp_path).distillation
    assert (asked.method, asked.chosen, asked.reason) == ("hidfd", "asked", None)
    named = {"method": "pool", "method_reason": "as asked"}
    named_too = report_of(facts | {"distill": facts["distill"] | named}, tmp_path, method="pool").distillation
    assert (named_too.method, named_too.chosen, named_too.reason) == ("pool", "asked", None)
    chosen = {"method": "dfad", "method_reason": "there is no image"}
    auto = report_of(facts | {"distill": facts["distill"] | chosen}, tmp_path, method="auto").distillation
    assert (auto.method, auto.chosen, auto.reason) == ("dfad", "auto", "there is no image")


@pytest.mark.parametrize("task", ["classification", "segmentation", "regression"])
def test_a_run_without_any_image_has_a_report(task: str, precise: dict[str, Any], tmp_path: Path) -> None:
    samples = facts_without_images(precise["samples"], [] if task == "regression" else [0, 0])
    found = precise | {"samples": samples, "report": {"evidence": {}, "variants": {}}}
    report = report_of(found, tmp_path, card=CARD.model_copy(update={"task": task}), limits=Limits(max_latency_ms=5.0))
    assert report.summary.decision == "warn"  # the latency holds, and nothing says how good the student is
    assert "no image of the task was given" in report.summary.headline
    assert report.student.agreement.larger is None
    assert "No image of the task was given." in report_markdown(report)


def facts_without_images(samples: Mapping[str, Any], pseudo_labels: list[int]) -> dict[str, Any]:
    parts = dict.fromkeys(samples["parts"], 0)
    return {**samples, "parts": parts, "confidence": None, "accuracy": None, "pseudo_labels": pseudo_labels}


@pytest.mark.parametrize(
    ("num_images", "scale", "said"),
    [
        (3, 1.0, "3 images are too few to say how good it is."),
        (1, 1.0, "1 image is too few to say how good it is."),
        (6, 0.0, "the teacher's outputs do not vary over 6 images, so nothing says how good it is."),
    ],
)
def test_images_that_do_not_say_how_good_a_regression_is(
    num_images: int, scale: float, said: str, facts: dict[str, Any], tmp_path: Path
) -> None:
    teacher = scale * torch.arange(2.0 * num_images).reshape(num_images, 2)
    found = task_of("regression").evidence_facts(teacher, teacher + 1, torch.empty(0))
    assert found["agreement"] is None
    samples = facts["samples"] | {"confidence": None, "accuracy": None, "pseudo_labels": []}
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "sheet.png").touch()
    report = report_of(
        facts | {"samples": samples, "report": {"evidence": found}},
        tmp_path,
        card=CARD.model_copy(update={"task": "regression"}),
    )
    assert said in report.summary.headline
    assert [picture.title for picture in report.pictures] == ["The samples and what the teacher answers"]


def test_what_makes_a_student_useless_stands_first(facts: dict[str, Any], tmp_path: Path) -> None:
    teacher = torch.eye(2)[torch.tensor([0] * 14 + [1] * 6)]
    found = task_of("classification").evidence_facts(teacher, torch.eye(2)[[0] * 20], torch.full((20,), -1))
    report = report_of(facts | {"report": {"evidence": found}}, tmp_path)
    (said,) = [text for text in report.warnings if "most frequent class always" in text]
    assert (report.warnings[0], report.summary.points[0]) == (said, said)


def test_a_method_that_leaves_the_pool_alone(facts: dict[str, Any], tmp_path: Path) -> None:
    assert report_of(facts, tmp_path).distillation.uses_pool
    alone = facts | {"distill": facts["distill"] | {"uses_pool": False}}
    assert not report_of(alone, tmp_path).distillation.uses_pool


def test_a_student_that_starts_from_the_teachers_blocks_says_so(facts: dict[str, Any], tmp_path: Path) -> None:
    facts["student"] = {"inherited": 0.93}
    choice = report_of(facts, tmp_path).distillation.choices[1]
    assert (choice.name, choice.value) == ("start of the student", "the teacher's blocks")
    assert choice.reason == "93% of its parameters have blocks of the same shapes there"
    facts["student"] = {"inherited": 0.0}
    assert [choice.name for choice in report_of(facts, tmp_path).distillation.choices] == ["precision"]


def test_the_new_evidence_reaches_the_report(precise: dict[str, Any], tmp_path: Path, proportion: Any) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 40, 2)
    found = task_of("classification").variant_facts(logits[0], logits[1], logits[1], torch.arange(40) % 2)
    few = task_of("classification").variant_facts(
        logits[0, :4], logits[1, :4], logits[1, :4], torch.tensor([0, 0, 0, -1])
    )
    share = proportion(30, 40).model_dump()
    layer = {"name": "conv", "module": "stem", "operator": "Conv 3x3", "time_ms": 0.1, "share": 1.0}
    profile = {"artefact": "student fp32", "device": "a CPU", "batch_size": 1, "num_layers": 1, "sum_ms": 0.1}
    disturbed = {"agreement": share, "teacher_kept": share, "student_kept": share}
    facts = precise | {
        "distill": precise["distill"]
        | {"phases": [{"name": "student", "num_steps": 6, "seconds": 1.0, "final_terms": {"feature": 0.5}}]},
        "latency": precise["latency"] | {"layers": [{**profile, "layers": [layer]}]},
        "report": precise["report"]
        | {
            "variants": {"student.int8": {"evidence": few, "eval": found}},
            "robustness": [{"corruption": "jpeg", "strength": "quality 65", "images": "eval", **disturbed}],
            "image_sets": [{"name": "train", "num_images": 4, "sha256": "a" * 64}],
            "curves": {"student": [{"step": 5, "terms": {"feature": 0.5}}], "another": []},
        },
    }
    report = report_of(facts, tmp_path)
    int8 = next(one for one in report.variants if one.precision == "int8")
    assert int8.accuracy_difference.eval is not None
    assert int8.accuracy_difference.evidence is not None
    assert (int8.accuracy_difference.eval.n, int8.accuracy_difference.evidence.n) == (40, 3)
    assert [one.num_images for one in int8.class_accuracy] == [20, 20]  # of the set with more labels
    fp32 = next(one for one in report.variants if one.precision == "fp32" and one.model == "student")
    assert fp32.accuracy_difference.eval is None
    assert fp32.class_accuracy == ()
    assert [(one.corruption, one.student_kept.n) for one in report.robustness] == [("jpeg", 40)]
    assert [(one.name, one.num_images) for one in report.image_sets] == [("train", 4)]
    assert [(one.artefact, len(one.layers)) for one in report.layers] == [("student fp32", 1)]
    assert [(one.step, one.terms) for one in report.distillation.phases[0].curve] == [(5, {"feature": 0.5})]
