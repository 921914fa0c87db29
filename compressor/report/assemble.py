"""report.json from the facts that the stages left behind; computes nothing that was not measured there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from compressor import __version__
from compressor.inputs.card import Task, TeacherCard
from compressor.report.doubts import doubts_of
from compressor.report.limits import Limits, ParamsM
from compressor.report.measured import (
    AnyComparison,
    Comparison,
    Confidence,
    Proportion,
    RegressionComparison,
    SegmentationComparison,
)
from compressor.report.recommend import recommend
from compressor.report.robustness_record import Robustness
from compressor.report.schema import (
    Artefact,
    Choice,
    Distillation,
    Environment,
    ImageSet,
    LayerProfile,
    ModelRow,
    OnGenerated,
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
    TimeSplit,
    TrainingMemory,
)
from compressor.report.shipping import Kit, LimitsRecord, Variant
from compressor.report.student_search import StudentSearch, search_record
from compressor.report.summary import summarise
from compressor.report.text import count
from compressor.report.time_split import time_warnings
from compressor.report.variants import (
    Facts,
    Latencies,
    host_and_target,
    int8_of,
    kit_of,
    latencies_of,
    notes_of,
    scores_of,
    variants_of,
)
from compressor.report.verdicts import verdicts_of
from profiles.latency import LatencyStats
from profiles.schema import DeviceProfile

ARTEFACTS = (
    "onnx/student.onnx",
    "onnx/student.pt2",
    "distill/student.safetensors",
    "distill/student.json",
)
PICTURES = {
    "samples/sheet.png": "The samples and what the teacher says of them",
    "report/overlays.png": "Class maps of teacher and student, and where they differ",
    "report/curves.png": "Training curves",
    "report/synthetic.png": "Generated images: the class asked for, and what the teacher sees",
}
TITLES_BY_TASK: Mapping[Task, Mapping[str, str]] = MappingProxyType(
    {
        "segmentation": {
            "report/synthetic.png": "Generated images, and the class that the teacher gives most of their pixels"
        },
        "regression": {
            "samples/sheet.png": "The samples and what the teacher answers",
            "report/synthetic.png": "Generated images, and what the teacher answers",
        },
    }
)
CANDIDATES = "student/candidates.png"

NO_LIMITS = Limits()
AS_ASKED = "as asked"  # what the facts of `distill` say of a method that the user named


def build_report(
    *,
    facts: Facts,
    card: TeacherCard,
    student_spec: str,
    method: str,
    effort: str,
    seed: int,
    target: DeviceProfile,
    stages: Sequence[tuple[str, bool, float, str]],
    run_folder: Path,
    command: str,
    created: datetime,
    environment: Mapping[str, str | None],
    time: TimeSplit | None = None,
    limits: Limits = NO_LIMITS,
    merged: Mapping[str, LatencyStats] = MappingProxyType({}),
    failures: Mapping[str, str] = MappingProxyType({}),
    parities: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Report:
    """The report of a finished run.

    Args:
        facts: what each stage wrote to its `facts.json`, by stage name; without `precision`, `engine` or `kit` the
            report says nothing of those. `compressor.report.variants` has their layout; `student` may hold a `search`,
            which is a `compressor.students.search.StudentSearch` as plain data; `distill` may hold the `method` that
            was chosen and the `method_reason`; `report` what was found on images of the method, as `generated`, and
            `robustness`, `image_sets`, and `curves` by phase; `latency` the `layers`: the records of the schema.
        stages: name, whether it was cached, seconds, fingerprint.
        time: where it went.
        limits: what an artefact must hold to be recommended.
        merged: latencies that the target itself sent back, by variant (`student.int8`).
        failures: why the target could not build a variant or got wrong outputs from it, by variant.
        parities: fields of `VariantParity`, of the target's outputs, by variant.
    """
    latencies = latencies_of(facts)
    teacher_row, student_row = _rows(facts, card, student_spec, latencies, merged)
    variants = variants_of(facts, latencies, merged, failures, parities)
    calibrations, kit = int8_of(facts), kit_of(facts)
    attached = _target(target, (teacher_row, student_row), variants)
    params_m: ParamsM = {"student": student_row.params_m, "teacher": teacher_row.params_m}
    recommendation = recommend(variants, calibrations, limits, target, params_m)
    verdicts = verdicts_of(variants, recommendation, limits, target, params_m)
    search = _student_search(facts, run_folder)
    evidence, evaluation = _comparison(facts, "evidence", card), _comparison(facts, "eval", card)
    doubts = doubts_of(teacher_row, student_row, evidence, evaluation, effort)
    found = (warning for stage in facts.values() for warning in stage.get("warnings", ()))
    warnings = (*doubts, *found, *time_warnings(time))
    return Report(
        tool_version=__version__,
        command=command,
        created=created,
        run_name=run_folder.name,
        summary=summarise(
            teacher_row,
            student_row,
            attached,
            recommendation,
            verdicts,
            search,
            without_images=not any(facts["samples"]["parts"].values()),
            doubts=doubts,
            unsaid=_unsaid(evidence, evaluation),
        ),
        teacher=teacher_row,
        student=student_row,
        target=attached,
        task=card.task,
        comparison_evidence=evidence,
        comparison_eval=evaluation,
        generated=_generated(facts, card),
        samples=_samples(facts["samples"]),
        teacher_source=_teacher_source(facts["teacher"], card),
        student_search=search,
        distillation=_distillation(facts, method, effort, seed),
        onnx=_onnx(facts["onnx"]),
        variants=variants,
        variant_notes=notes_of(facts),
        int8=calibrations,
        limits=LimitsRecord(**asdict(limits)),
        recommendation=recommendation,
        verdicts=verdicts,
        image_sets=tuple(ImageSet(**one) for one in facts["report"].get("image_sets", ())),
        robustness=tuple(Robustness.model_validate(one) for one in facts["report"].get("robustness", ())),
        layers=tuple(LayerProfile.model_validate(one) for one in facts["latency"].get("layers", ())),
        kit=kit,
        artefacts=_artefacts(run_folder, variants, kit),
        pictures=_pictures(run_folder, card.task),
        warnings=warnings,
        stages=tuple(
            StageRecord(name=name, cached=cached, seconds=seconds, fingerprint=fingerprint)
            for name, cached, seconds, fingerprint in stages
        ),
        time=time,
        environment=Environment.model_validate(environment),
    )


def _target(profile: DeviceProfile, rows: Sequence[ModelRow], variants: Sequence[Variant]) -> Target:
    latencies = (*(row.latency_target for row in rows), *(variant.latency_target for variant in variants))
    found = [latency for latency in latencies if latency is not None]
    attached = profile.this_host or any(latency.origin == "measured" for latency in found)
    reason = (
        f"Not every artefact was measured on {profile.title}."
        if attached or found
        else f"No {profile.title} is attached to the machine that ran this."
    )
    return Target(
        profile=profile.name,
        title=profile.title,
        attached=attached,
        reason=None if all(row.latency_target for row in rows) else reason,
    )


def _rows(
    facts: Facts, card: TeacherCard, student_spec: str, latencies: Latencies, merged: Latencies
) -> tuple[ModelRow, ModelRow]:
    # `width:0.5` and `prune:0.5` say how much of the teacher; any other student is an architecture of its own.
    architecture = f"{student_spec} of {card.architecture}" if ":" in student_spec else student_spec
    teacher = _row("teacher", facts["teacher"]["file"], card.architecture, facts, latencies, merged)
    student = _row("student", "student.onnx", architecture, facts, latencies, merged)
    with_teacher = {name: scores_of(facts["report"], name) for name in ("agreement", "mean_iou")}
    return teacher, student.model_copy(update=with_teacher)


def _row(which: str, file: str, architecture: str, facts: Facts, latencies: Latencies, merged: Latencies) -> ModelRow:
    onnx, key = facts["onnx"], f"{which}.fp32"
    host, target = host_and_target(key, latencies, merged)
    return ModelRow(
        name=file,
        architecture=architecture,
        params_m=onnx["params"][which] / 1e6,
        macs_g=onnx["macs"][which] / 1e9,
        size_mib=onnx["sizes_mib"][which],
        accuracy=scores_of(facts["report"], f"{which}_accuracy"),
        mean_iou_masks=scores_of(facts["report"], f"{which}_mean_iou"),
        latency_host=host,
        latency_target=target,
    )


_COMPARISONS: Mapping[Task, type[AnyComparison]] = MappingProxyType(
    {
        "classification": Comparison,
        "segmentation": SegmentationComparison,
        "regression": RegressionComparison,
    }
)


def _comparison(facts: Facts, where: str, card: TeacherCard) -> AnyComparison | None:
    value = (facts["report"].get(where) or {}).get("comparison")
    return None if value is None else _COMPARISONS[card.task].model_validate(value)


def _unsaid(*comparisons: AnyComparison | None) -> str | None:
    """Why images were compared, and yet no share of variance is known."""
    compared = [one for one in comparisons if isinstance(one, RegressionComparison)]
    if not compared:
        return None
    most = max(compared, key=lambda one: one.num_images)
    images = count(most.num_images, "image")
    if most.num_images > 1 and all(output.explained is None for output in most.outputs):
        return f"the teacher's outputs do not vary over {images}, so nothing says"
    return f"{images} {'is' if most.num_images == 1 else 'are'} too few to say"


def _pictures(run_folder: Path, task: Task) -> tuple[Picture, ...]:
    titles = {**PICTURES, **TITLES_BY_TASK.get(task, {})}
    return tuple(Picture(path=path, title=title) for path, title in titles.items() if (run_folder / path).is_file())


def _generated(facts: Facts, card: TeacherCard) -> OnGenerated | None:
    found = facts["report"].get("generated") or {}
    if found.get("agreement") is None:
        return None
    mean_iou = found.get("mean_iou")
    return OnGenerated(
        agreement=Proportion(**found["agreement"]),
        mean_iou=None if mean_iou is None else Proportion(**mean_iou),
        comparison=_comparison(facts, "generated", card),
    )


def _samples(facts: Mapping[str, Any]) -> Samples:
    parts = facts["parts"]
    return Samples(
        num_train=parts["train"],
        num_pool=facts.get("num_pool", 0),
        num_select=parts["select"],
        num_evidence=parts["evidence"],
        skipped=tuple(SkippedFile(**entry) for entry in facts["skipped"]),
        num_labelled=facts["num_labelled"],
        teacher_confidence=None if facts["confidence"] is None else Confidence.model_validate(facts["confidence"]),
        teacher_accuracy=None if facts["accuracy"] is None else Proportion(**facts["accuracy"]),
        pseudo_labels=tuple(facts["pseudo_labels"]),
    )


def _teacher_source(facts: Mapping[str, Any], card: TeacherCard) -> TeacherSource:
    return TeacherSource(
        file=facts["file"],
        sha256=facts["sha256"],
        architecture=card.architecture,
        input_shape=card.input_shape,
        class_names=card.class_names,
        mean=card.mean,
        std=card.std,
        normalisation_origin=facts["normalisation_origin"],
        identity_error=facts["identity_error"],
    )


def _student_search(facts: Facts, run_folder: Path) -> StudentSearch | None:
    found = facts.get("student", {}).get("search")
    if found is None:
        return None
    return search_record(found, CANDIDATES if (run_folder / CANDIDATES).is_file() else None)


def _distillation(all_facts: Facts, method: str, effort: str, seed: int) -> Distillation:
    facts, curves = all_facts["distill"], all_facts["report"].get("curves", {})
    found = facts["method_facts"]
    reason = facts.get("method_reason", AS_ASKED)
    return Distillation(
        method=facts.get("method", method),
        chosen="asked" if reason == AS_ASKED else "auto",
        reason=None if reason == AS_ASKED else reason,
        effort=effort,
        seed=seed,
        device=facts["device"],
        precision=facts["precision"],
        uses_pool=facts.get("uses_pool", True),
        phases=tuple(Phase(**phase, curve=curves.get(phase["name"], ())) for phase in facts["phases"]),
        generator_resolution=found.get("generator_resolution"),
        generator_note=found.get("generator_note"),
        memory=None if facts.get("memory") is None else TrainingMemory(**facts["memory"]),
        departures=tuple(found.get("departures", ())),
        choices=(
            Choice(name="precision", value=facts["precision"], reason=facts["precision_reason"]),
            *_start_of(all_facts.get("student", {})),
            *_processes(facts.get("processes", 1)),
            *(Choice(**choice) for choice in found.get("choices", ())),
        ),
    )


def _start_of(student_facts: Mapping[str, Any]) -> Iterator[Choice]:
    """Where a student of another architecture began, if not from random weights."""
    if (share := student_facts.get("inherited", 0.0)) > 0:
        reason = f"{share:.0%} of its parameters have blocks of the same shapes there"
        yield Choice(name="start of the student", value="the teacher's blocks", reason=reason)


def _processes(number: int) -> tuple[Choice, ...]:
    """How many trained, where there was more than one; with another number batch norm sees other parts of a batch."""
    reason = "each computed its own rows of every batch"
    return () if number == 1 else (Choice(name="processes", value=str(number), reason=reason),)


def _onnx(facts: Mapping[str, Any]) -> Onnx:
    return Onnx(
        opset=facts["opset"],
        exporter=facts["exporter"],
        sha256=facts["sha256"],
        parity=tuple(
            Parity(
                images=images,
                num_images=found["count"],
                max_abs=found["max_abs"],
                max_rel=found["max_rel"],
                top1_agreement=found["top1_agreement"],
            )
            for images, found in facts["parity"].items()
        ),
    )


def _artefacts(run_folder: Path, variants: Sequence[Variant], kit: Kit | None) -> tuple[Artefact, ...]:
    """Every file that someone may take away, with its hash; those that this run did not make are left out."""
    paths = (*ARTEFACTS, *(variant.path for variant in variants), None if kit is None else kit.path)
    known = dict.fromkeys(path for path in paths if path is not None)
    return tuple(_artefact(run_folder, path) for path in known if (run_folder / path).is_file())


def _artefact(run_folder: Path, path: str) -> Artefact:
    content = (run_folder / path).read_bytes()
    return Artefact(path=path, sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
