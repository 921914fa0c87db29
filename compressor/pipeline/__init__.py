"""The pipeline: ten stages and one short adapter for each. The only file that sees configuration and science.

    t.pt ──> teacher ─┬─> samples ─┬─> distill ──> onnx ──> precision ─┬─> engine ─┬─> latency ──> report
    ./few ────────────┤            │                                   └─> kit     │
                      └─> student ─┘                                       └───────┘

A stage reads files of earlier stages and writes files of its own; nothing is handed over in memory, so that any of them
can be resumed in another process. What a stage found out for the report stands in its `facts.json`.

`declare` says what each stage depends on, and then follow the adapters in their order. `run` has the settings and the
files of a run, `choices` what is left to the tool; `running` executes the stages, `planning` only looks.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from compressor import __version__
from compressor.config import section_settings
from compressor.deploy.board_results import MERGED
from compressor.deploy.calibration_images import draw, gather
from compressor.deploy.engines import build_engines_here, engine_environment
from compressor.deploy.expected_latency import expected_precision
from compressor.deploy.kits import make_kit
from compressor.deploy.latencies import Timing, measure_variants, onnxruntime_version
from compressor.deploy.layer_profiles import profiles_of_networks
from compressor.deploy.precisions import make_precisions
from compressor.deploy.predictions import predicted_variants
from compressor.distill.training import Context, best_precision, fitting_threads, read_log
from compressor.distill.training_images import forget_peaks, memory_facts
from compressor.errors import EnvironmentFault
from compressor.inputs.card import VOID, TeacherCard
from compressor.inputs.evaluation import evaluation_set
from compressor.inputs.masks import check_masks, read_masks
from compressor.inputs.near_copies import thumbnails
from compressor.inputs.network_intake import files_beside
from compressor.inputs.onnx_network import as_refusal
from compressor.inputs.own_code import ARCHIVE, pack
from compressor.inputs.own_teacher import know_packed_network
from compressor.inputs.packed_network import check_packed_network
from compressor.inputs.pool import read_pool
from compressor.inputs.samples import UNKNOWN, SampleSet, no_samples, read_samples, split_samples
from compressor.inputs.settle import checked_identity, provisional_card, settled_card
from compressor.inputs.teacher import Teacher, load_teacher
from compressor.inputs.teacher_onnx import onnx_from_teacher, teacher_footprint
from compressor.method_choice import AUTO_METHOD
from compressor.method_speed import steps_of
from compressor.methods import check_fit, load_method, method_names, trains_on_pool, what_is_left
from compressor.pipeline.budget import plan_choices, plan_warnings, schedule_in_words, settings_within_budget
from compressor.pipeline.choices import (
    check_options,
    check_the_named_student,
    check_what_is_asked,
    method_for,
    search_for_student,
)
from compressor.pipeline.judging import Judged, judge, judge_disturbed
from compressor.pipeline.run import Run, own_code_of, student_limits, teacher_source
from compressor.pipeline.together import order_of, training_together
from compressor.report import text
from compressor.report.candidate_picture import candidate_picture
from compressor.report.leaks import checked_image_sets, records_of
from compressor.report.pictures import contact_sheet, synthetic_sheet, training_curves
from compressor.report.robustness_record import Robustness
from compressor.report.student_search import search_record
from compressor.report.training_log import curve_points
from compressor.stage_files import load_tensors, read_facts, save_facts, save_tensors
from compressor.stages import Choices, Stage, atomic_path, atomic_write_text
from compressor.students.footprint import footprint
from compressor.students.prune import rows_to_look_at
from compressor.students.specification import AUTO, build_backbone
from compressor.students.student import save_backbone, save_student
from compressor.tasks import ask_teacher
from exporters.golden import MAX_GOLDEN
from exporters.logits import fitting_batch
from exporters.macs import count_macs, count_params
from exporters.onnx_files import load_onnx
from exporters.onnx_to_int8 import needs_reduced_range
from exporters.parity import Outputs, check_parity
from exporters.runners import OnnxRunner, TorchRunner
from exporters.tensorrt_operators import check_operators
from exporters.torch_to_onnx import onnx_from_torch
from exporters.torch_to_pt2 import pt2_from_torch
from profiles.host import host_name, usable_cores
from profiles.predictor_version import predictor_version
from profiles.schema import Budget, Precision

MODELS: tuple[Literal["student", "teacher"], ...] = ("student", "teacher")
IDENTITY_IMAGES = 64
FEW_EVIDENCE = 30
NUM_GENERATED = 256  # images that the student is also judged on


# --- the stages -------------------------------------------------------------------------------------------------------


def declare(run: Run) -> tuple[Stage, ...]:
    """The stages of a run, in order, with everything that each depends on."""
    config, path = run.config, run.path
    own = own_code_of(config)
    # A changed forward computes something else with the same weights and the same card.
    packed = () if own is None else (path("teacher", ARCHIVE),)
    teacher = (path("teacher", "weights.safetensors"), path("teacher", "card.json"), *packed)
    samples = path("samples", "images.safetensors")
    few_folder = () if config.samples.folder is None else (config.samples.folder,)
    pool_folder = () if config.samples.pool is None else (config.samples.pool,)
    pool = () if config.samples.pool is None else (path("samples", "pool.safetensors"),)
    backbone = (path("student", "backbone.safetensors"), path("student", "backbone.json"))
    student = (path("distill", "student.safetensors"), path("distill", "student.json"))
    onnx = (path("onnx", "student.onnx"), path("onnx", "teacher.onnx"))
    precisions = path("precision", "facts.json")  # with the hash of every file
    target = run.target
    takes = {
        "target": target.name,
        "runtime": target.runtime,
        "precisions": list(target.precisions),
        "tensorrt": target.tensorrt and [target.tensorrt.min, target.tensorrt.max],
        "this_host": target.this_host,
    }
    built_for = {name: getattr(target, name) for name in ("kind", "compute_capability", "workspace_mib")}
    anchors = () if config.student.anchors is None else (config.student.anchors / MERGED,)
    student_depends: dict[str, Any] = {"channel_multiple": target.channel_multiple, "inherits": True}
    student_environment = {"torch": torch.__version__, "torch-pruning": importlib.metadata.version("torch-pruning")}
    if config.student.spec == AUTO:  # chosen once by all this; a resumed run keeps it, on whichever machine
        student_depends |= {
            "limits": asdict(student_limits(config)),
            "target": target.model_dump(mode="json"),
            "precision": expected_precision(target, config.precision.precisions),
        }
    beside = config.teacher.file.with_suffix(".yaml")
    code = (config.teacher.code,) if own is None else own.paths()
    about = (config.teacher.card or beside, config.teacher.class_names, *code)
    about_teacher = [*(file for file in about if file and file.exists()), *files_beside(config.teacher.file)]
    evaluation = () if config.report.eval is None else (config.report.eval,)
    seed = {"seed": config.seed}
    onnx_version = importlib.metadata.version("onnx")
    host = {"machine": host_name(), "cores": str(usable_cores()), "onnxruntime": onnxruntime_version()}

    def stage(
        name: str,
        work: Callable[[Run, Path], None],
        inputs: tuple[Path, ...],
        outputs: tuple[str, ...],
        settings: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
        optional_outputs: tuple[str, ...] = (),
        version: int = 1,
    ) -> Stage:
        outputs = (*outputs, "facts.json")
        return Stage(name, inputs, outputs, settings, environment or {}, version, partial(work, run), optional_outputs)

    return (
        stage(
            "teacher",
            read_the_teacher,
            (config.teacher.file, *about_teacher, *few_folder),
            ("weights.safetensors", "card.json"),
            section_settings(config, "teacher"),
            optional_outputs=(ARCHIVE,),
        ),
        stage(
            "samples",
            read_the_samples,
            (*teacher, *few_folder, *pool_folder),
            ("images.safetensors", "split.json", "known.safetensors"),
            section_settings(config, "samples") | seed,
            optional_outputs=("sheet.png", "pool.safetensors"),
            version=2,
        ),
        stage(
            "student",
            make_the_student,
            (*teacher, samples, *anchors),
            ("backbone.safetensors", "backbone.json"),
            section_settings(config, "student") | seed | student_depends,
            student_environment,
            optional_outputs=("candidates.png",),
        ),
        stage(
            "distill",
            distill_the_student,
            (*teacher, samples, *pool, *backbone),
            ("student.safetensors", "student.json", "log.jsonl"),
            section_settings(config, "distill")
            | seed
            | {"method_version": method_versions(config.distill.method)}
            | ({} if config.budget is None else {"budget": config.budget}),
            {"device": run.device, "torch": torch.__version__},
            optional_outputs=("generator.safetensors", "generator.json", "made.safetensors"),
        ),
        stage(
            "onnx",
            export_the_student,
            (*teacher, path("teacher", "facts.json"), *student, samples),
            ("student.onnx", "teacher.onnx", "student.pt2"),
            {"target": run.target.name, "opset_ceiling": run.opset_ceiling()},
            {"torch": torch.__version__, "onnx": onnx_version},
        ),
        stage(
            "precision",
            make_the_precisions,
            (*onnx, samples, *pool, path("distill", "facts.json")),
            (),
            section_settings(config, "precision") | seed | {"max_drop": config.limits.max_drop} | takes,
            # Without VNNI, int8 for this processor is another file.
            {"onnx": onnx_version, "onnxruntime": host["onnxruntime"], "reduced_range": str(needs_reduced_range())},
            optional_outputs=tuple(f"{name}.{kind}.onnx" for name in MODELS for kind in ("fp16", "int8")),
        ),
        stage(
            "engine",
            build_engines,
            (*onnx, precisions),
            (),
            section_settings(config, "engine") | takes | built_for,
            engine_environment(),
            optional_outputs=tuple(
                f"{name}.{kind}.engine{ending}"
                for name in MODELS
                for kind in get_args(Precision)
                for ending in ("", ".json")
            ),
        ),
        stage(
            "kit",
            make_the_kit,
            (*onnx, precisions, samples),
            (),
            section_settings(config, "kit") | {"target": run.target.model_dump(mode="json")},
            optional_outputs=("kit.tar.gz", "kit/manifest.json"),
        ),
        stage(
            "latency",
            measure_latency,
            (*onnx, precisions, path("engine", "facts.json"), *anchors),
            (),
            section_settings(config, "latency") | {"target": target.model_dump(mode="json")},
            host | ({} if target.this_host else {"predictor": predictor_version()}),
            version=2,
        ),
        stage(
            "report",
            gather_evidence,
            (
                *(*teacher, samples, path("samples", "known.safetensors"), path("samples", "split.json")),
                *(*onnx, precisions, *evaluation),
                *(path("distill", "log.jsonl"), path("distill", "facts.json"), path("engine", "facts.json")),
            ),
            ("curves.png", "judged.json"),
            section_settings(config, "report"),
            {"device": run.device, "onnxruntime": host["onnxruntime"]},
            optional_outputs=("synthetic.png", "overlays.png"),
            version=2,
        ),
    )


def method_versions(method: str) -> dict[str, int]:
    """The versions of what may train the student."""
    return {name: load_method(name).VERSION for name in (method_names() if method == AUTO_METHOD else (method,))}


def read_the_teacher(run: Run, folder: Path) -> None:
    """The checkpoint, without running its code; its card; and whether its classifier can be shared."""
    config, own = run.config.teacher, own_code_of(run.config)
    source = teacher_source(run)
    few = None
    if run.config.samples.folder is not None:
        few = read_samples(
            run.config.samples.folder, provisional_card(source), max_images=IDENTITY_IMAGES, scratch=folder
        )
    card, origin, warnings = settled_card(source, few)
    if card.task == "segmentation" and run.config.report.eval is not None:
        check_masks(run.config.report.eval)
    if own is not None:  # from now on the teacher is made from this copy, wherever the run folder goes
        pack(own, folder / ARCHIVE)
        check_packed_network(own, folder / ARCHIVE, card.input_shape[1:])
        know_packed_network(card, folder / ARCHIVE)
    teacher = load_teacher(source.state_dict, card)
    check_what_is_asked(run, teacher)
    identity_error = checked_identity(teacher, few)
    check_export(run, teacher, folder)
    save_tensors(source.state_dict, folder / "weights.safetensors")
    atomic_write_text(folder / "card.json", card.model_dump_json(indent=2) + "\n")
    shape = "x".join(str(side) for side in card.input_shape)
    outputs = "outputs" if card.task == "regression" else "classes"
    found = origin if origin.startswith("chosen") else f"from {origin}"
    run.reporter.note(f"{card.architecture}, {card.num_classes} {outputs}, input {shape}, normalisation {found}")
    if not teacher.has_layers:
        warnings = (*warnings, what_is_left(teacher, config.file.name))
    save_facts(
        folder,
        file=config.file.name,
        sha256=source.sha256,
        normalisation_origin=origin,
        identity_error=identity_error,
        warnings=[*source.warnings, *warnings],
    )


def check_export(run: Run, teacher: Teacher, folder: Path) -> None:
    """Refuse now what could not be exported or counted after hours of training; of known layers that is known.

    Raises:
        InputRefused: the teacher's file becomes no ONNX file for this target.
    """
    if not teacher.has_layers:
        with as_refusal(), TemporaryDirectory(dir=folder) as scratch:
            onnx_from_teacher(teacher, Path(scratch, "teacher.onnx"), opset_ceiling=run.opset_ceiling(), metadata={})
            teacher_footprint(teacher)


def read_the_samples(run: Run, folder: Path) -> None:
    """The few real images, what the teacher says of them, and their split, made before anything trains; the pool."""
    config, teacher, task = run.config.samples, run.teacher(), run.task()
    classes = 0 if teacher.task == "regression" else teacher.card.num_classes
    facts: dict[str, Any] = {"confidence": None, "accuracy": None, "pseudo_labels": [0] * classes, "num_pool": 0}
    warnings: list[str] = []
    if config.folder is None:
        samples = no_samples(teacher.card)
        labels, groups = samples.labels, torch.empty(0, dtype=torch.int64)
        run.reporter.note("no image of the task is given")
    else:
        samples = read_samples(config.folder, teacher.card, max_images=config.max_images, scratch=folder)
        seen = ask_teacher(task, teacher, samples.images, run.device)
        groups = task.groups(seen.answers)
        labels, notes = labels_of(samples, config.folder, teacher.card, folder)
        warnings += notes
        look = task.first_look(seen, labels, teacher.card)
        run.reporter.note(look.sentence)
        contact_sheet(samples.images, folder / "sheet.png", task.captions(seen, teacher.card))
        facts |= {
            "confidence": look.confidence and look.confidence.model_dump(),
            "accuracy": look.accuracy and look.accuracy.model_dump(),
            "pseudo_labels": task.counts(seen.answers, teacher.card),
        }
        warnings += look.warnings
    split = split_samples(
        samples,
        groups,
        seed=run.config.seed,
        select_fraction=config.select_fraction,
        evidence_fraction=config.evidence_fraction,
    )
    parts = {"train": split.train, "select": split.select, "evidence": split.evidence}
    if len(samples.images):
        run.reporter.note(
            ", ".join(f"{len(rows):,} {name}" for name, rows in parts.items())
            + (f"; {len(samples.skipped):,} files skipped" if samples.skipped else "")
        )
        if len(split.select) == 0:
            warnings.append("There are too few samples to hold some out for choices, so nothing is chosen on them.")
    known = {"samples": thumbnails(samples.images)}
    records = split.to_dict(samples)
    if config.pool is not None:
        pool = read_pool(config.pool, teacher.card, samples, max_images=config.max_pool_images, scratch=folder)
        run.reporter.note(f"{len(pool.images):,} images in the pool")
        save_tensors({"images": pool.images}, folder / "pool.safetensors")
        known["pool"] = thumbnails(pool.images)
        records["pool"] = records_of(pool.files, pool.sha256)
        facts["num_pool"] = len(pool.images)
        warnings += pool.warnings
    tensors = {"images": samples.images, "labels": labels, "pseudo_labels": groups, **parts}
    save_tensors(tensors, folder / "images.safetensors")
    save_tensors(known, folder / "known.safetensors")
    atomic_write_text(folder / "split.json", json.dumps(records, indent=2) + "\n")
    save_facts(
        folder,
        parts={name: len(rows) for name, rows in parts.items()},
        num_labelled=num_labelled(labels),
        skipped=[{"file": file, "reason": reason} for file, reason in samples.skipped],
        warnings=[*samples.warnings, *warnings],
        **facts,
    )


def labels_of(samples: SampleSet, folder: Path, card: TeacherCard, scratch: Path) -> tuple[Tensor, tuple[str, ...]]:
    """What is known of the samples: a class for each, or for a segmentation with masks a class for each pixel."""
    masks = read_masks(folder, samples.files, card, scratch) if card.task == "segmentation" else None
    return (samples.labels, ()) if masks is None else (masks.masks, masks.warnings)


def num_labelled(labels: Tensor) -> int:
    """Images of which something is known."""
    return int((labels >= 0).sum()) if labels.dim() == 1 else int((labels != VOID).flatten(1).any(dim=1).sum())


def make_the_student(run: Run, folder: Path) -> None:
    """The student's body before training; where the user leaves it open, the most capable one that fits."""
    teacher, config, train = run.teacher(), run.config, run.part("train")
    spec, search = config.student.spec, None
    if spec == AUTO:
        search = search_for_student(run, teacher)
        spec = search.chosen
        run.reporter.note(search.reason)
        wish_ms = (run.target.budget or Budget()).max_latency_ms
        candidate_picture(search_record(search.to_dict()), folder / "candidates.png", wish_ms=wish_ms)
    backbone = build_backbone(
        spec,
        teacher,
        channel_multiple=run.target.channel_multiple,
        seed=config.seed,
        images=train[rows_to_look_at(teacher, len(train))].to(run.device).float() / 255.0,
    )
    if search is None:
        check_the_named_student(run, teacher, backbone)
    with atomic_path(folder / "backbone.safetensors") as weights, atomic_path(folder / "backbone.json") as card:
        save_backbone(backbone, weights, card)
    params, macs = count_params(backbone), count_macs(backbone, teacher.card.input_shape)
    run.reporter.note(f"{spec}: a backbone of {text.params(params / 1e6)} parameters, {text.macs(macs / 1e9)} MACs")
    if backbone.inherited > 0:
        run.reporter.note(f"{backbone.inherited:.0%} of its parameters start as those of the teacher's blocks")
    save_facts(
        folder,
        spec=spec,
        params=params,
        macs=macs,
        inherited=backbone.inherited,
        search=None if search is None else search.to_dict(),
    )


def distill_the_student(run: Run, folder: Path) -> None:
    """Whatever the method does, with the train part of the samples, and with the pool."""
    config, teacher = run.config.distill, run.teacher()
    card, backbone, few, pool = teacher.card, run.backbone(), run.part("train"), run.pool()
    choice = method_for(run, teacher, few, pool, backbone)
    check_options(config, choice)
    check_fit(choice.method, teacher, len(few), len(pool))
    uses_pool = trains_on_pool(choice.method)
    warnings = []
    if len(pool) and not uses_pool:
        others = " and ".join(name for name in method_names() if trains_on_pool(name))
        warnings.append(f"--pool is not used by {choice.method} to train on; {others} do.")
    whole = run.method_settings(choice.method, card)
    precision, why = _precision(run, card)
    number = run.ranks.size
    where = run.device if number == 1 else f"{run.device} in {number} processes"
    run.reporter.note(f"{choice.method} ({choice.reason}), in {precision} on {where} ({why})")
    device = torch.device(run.device)
    forget_peaks(device)
    images, placement = run.training_images(with_pool=uses_pool)
    if placement.num_bytes:
        run.reporter.note(placement.sentence)
    with run.stop.between_steps(), fitting_threads(min(card.input_shape[1:]), precision):
        settings, plan = settings_within_budget(run, choice.method, images, whole, precision)
    warnings += () if plan is None else plan_warnings(plan, config.effort)
    run.reporter.note(schedule_in_words(config.effort, steps_of(settings), plan))
    order = order_of(
        folder,
        method=choice.method,
        settings=settings.model_dump(mode="json"),
        precision=precision,
        device=run.device,
    )
    with (
        run.stop.between_steps(),
        training_together(run, folder, order) as world,
        run.reporter.phases(),
        fitting_threads(min(card.input_shape[1:]), precision),
    ):
        context = Context(
            folder,
            device=run.device,
            seed=run.config.seed,
            precision=precision,
            observer=run.reporter,
            should_stop=run.stop.asked,
            world=world,
        )
        distilled = load_method(choice.method).distill(teacher, backbone, images, settings, context)
    with atomic_path(folder / "student.safetensors") as weights, atomic_path(folder / "student.json") as student_card:
        save_student(distilled.student, weights, student_card)
    choices = [*distilled.facts.get("choices", ()), *(() if plan is None else plan_choices(plan))]
    last_terms = {row["phase"]: row["terms"] for row in read_log(folder / "log.jsonl")}
    generator = distilled.generator
    if distilled.images is not None:
        save_tensors({"images": distilled.images}, folder / "made.safetensors")
    if generator is not None:  # int8 is calibrated on its images; like the samples it stays in the run folder
        save_tensors(generator.state_dict(), folder / "generator.safetensors")
        atomic_write_text(folder / "generator.json", json.dumps(asdict(generator.shape)) + "\n")
    save_facts(
        folder,
        method=choice.method,
        method_reason=choice.reason,
        device=run.device,
        processes=number,
        precision=precision,
        precision_reason=why,
        settings=settings.model_dump(mode="json"),
        phases=[{**asdict(phase), "final_terms": last_terms.get(phase.name, {})} for phase in context.phases],
        method_facts={**distilled.facts, "choices": choices},
        budget=plan,
        uses_pool=uses_pool,
        memory=memory_facts(placement, device),
        warnings=warnings,
    )


def export_the_student(run: Run, folder: Path) -> None:
    """One ONNX file with the normalisation inside, proven equal to the torch module; the teacher's too, to compare."""
    teacher, student, evidence = run.teacher().cpu(), run.student(), run.part("evidence")
    shape = teacher.card.input_shape
    provenance = {
        "tool": f"compress {__version__}",
        "card": teacher.card.model_dump_json(),
        "student": json.dumps(student.card.model_dump(mode="json", exclude={"input"})),
        "teacher_sha256": read_facts(run.path("teacher"))["sha256"],
        "target": run.target.name,
    }
    ceiling = run.opset_ceiling()
    files = {
        "student": onnx_from_torch(student, shape, folder / "student.onnx", opset_ceiling=ceiling, metadata=provenance),
        "teacher": onnx_from_teacher(teacher, folder / "teacher.onnx", opset_ceiling=ceiling, metadata=provenance),
    }
    sizes = {"student": footprint(student, shape), "teacher": teacher_footprint(teacher)}
    pt2_from_torch(student, shape, folder / "student.pt2")
    random = torch.Generator().manual_seed(run.config.seed)
    size = fitting_batch(shape[1:], 64)
    batches: dict[str, Iterable[Tensor]] = {
        f"batch {count}": torch.rand(count, *shape, generator=random).split(size) for count in (1, 7)
    }
    if len(evidence):
        batches["held-out images"] = (images.float() / 255.0 for images in evidence.split(size))
    file = files["student"]
    outputs: Outputs = "values" if teacher.task == "regression" else "classes"
    check_operators(load_onnx(file.path), run.target)
    with TorchRunner(student) as reference, OnnxRunner(file.path) as candidate:
        parities = {
            name: check_parity(reference, candidate, (batch.numpy() for batch in some), outputs=outputs)
            for name, some in batches.items()
        }
    largest = max(parity.max_rel for parity in parities.values())
    run.reporter.note(f"student.onnx: opset {file.opset}, {file.size_mib:.2f} MiB, within {largest:.1e} of torch")
    save_facts(
        folder,
        opset=file.opset,
        exporter=file.exporter,
        sha256=file.sha256,
        parity={name: asdict(parity) for name, parity in parities.items()},
        sizes_mib={name: onnx_file.size_mib for name, onnx_file in files.items()},
        params={name: size.params for name, size in sizes.items()},
        macs={name: size.macs for name, size in sizes.items()},
    )


def make_the_precisions(run: Run, folder: Path) -> None:
    """fp16 and int8 of student and teacher, as the target takes them; int8 is calibrated without the training data."""
    config, few = run.config.precision, run.part("train")
    images = gather(
        few,
        run.part("select"),
        run.generator(),
        num_synthetic=config.calibration_images,
        seed=run.config.seed,
        kept=run.made_images(),
        pool=None if len(few) else run.pool(),
    )
    made = [
        make_precisions(
            run.path("onnx", f"{name}.onnx"),
            folder,
            name,
            run.target,
            config.precisions or run.target.precisions,
            images,
            max_drop=run.config.limits.max_drop,
            note=run.reporter.note,
            task=run.card().task,
        )
        for name in MODELS
    ]
    save_facts(
        folder,
        variants=[row for found in made for row in found.rows()],
        int8=[found.int8 for found in made if found.int8 is not None],
        notes=list(dict.fromkeys(note for found in made for note in found.notes)),
        warnings=list(_warnings_by_network([found.warnings for found in made])),
    )


def build_engines(run: Run, folder: Path) -> None:
    """TensorRT engines, where a GPU of the target's kind and TensorRT's libraries are here; otherwise why not."""
    config = run.config.engine
    rows, reason = build_engines_here(
        run.variants("precision"),
        run.config.out,
        folder,
        run.target,
        max_batch=config.max_batch,
        note=run.reporter.note,
    )
    if reason is not None:
        run.reporter.note(reason)
    if config.require and not any(row["file"] for row in rows):
        raise EnvironmentFault(
            f"No engine was built: {(reason or rows[0]['note']).removeprefix('skipped: ')}",
            f"--require-engine asks for one for {run.target.title}.",
            "Run where that GPU and TensorRT are, or leave --require-engine out and build on the device with the kit.",
        )
    save_facts(folder, variants=rows, note=reason)


def make_the_kit(run: Run, folder: Path) -> None:
    """What builds, checks and times the student on the device itself; this machine needs none for itself."""
    if run.target.this_host:
        save_facts(folder, kit=None)
        return
    names = MODELS if run.config.kit.teacher else MODELS[:1]
    images = run.part("evidence")[: MAX_GOLDEN if run.config.kit.images else 0]
    kit = make_kit(
        run.config.out,
        [variant for variant in run.variants("precision") if variant.model in names],
        run.target,
        opset=read_facts(run.path("onnx"))["opset"],
        golden_images=(images.float() / 255.0).numpy() if len(images) else None,
        metadata={"tool": f"compress {__version__}", "card": run.card().model_dump_json()},
    )
    run.reporter.note(f"{kit['path']}: copy it to {run.target.title}, unpack it and run ./run_on_board.sh")
    warnings = []
    if run.config.kit.images and len(images) == 0:
        warnings.append("--kit-images found no held-out sample to put into the kit, so it holds patterns.")
    save_facts(folder, kit=kit, warnings=warnings)


def measure_latency(run: Run, folder: Path) -> None:
    """Every file of student and teacher that this machine can run as it is meant to be run."""
    config = run.config.latency
    timing = Timing(config.warmup_s, config.window_s, config.max_s, config.threads)
    shape = run.card().input_shape
    latencies = measure_variants(run.variants(), run.config.out, shape, run.target, timing, run.reporter.note)
    predicted, refused = predicted_variants(run.variants("precision"), run.config.out, run.target, run.anchors())
    if refused is not None:
        run.reporter.note(refused)
    layers = profiles_of_networks(run.variants("precision"), latencies, run.config.out, shape, run.reporter.note)
    save_facts(folder, latencies=latencies, predicted=predicted, layers=[one.model_dump() for one in layers])


def gather_evidence(run: Run, folder: Path) -> None:
    """What the report says of quality: the exported files against the teacher, on images that nothing else has read."""
    teacher, samples, task = run.teacher(), run.samples(), run.task()
    rows = samples["evidence"]
    split = json.loads(run.path("samples", "split.json").read_text(encoding="utf-8"))
    records: dict[str, list[dict[str, str]]] = {"evidence": [split["files"][row] for row in rows.tolist()]}
    found = None
    if run.config.report.eval is not None:
        known = load_tensors(run.path("samples", "known.safetensors"))
        found = evaluation_set(run.config.report.eval, teacher.card, known, scratch=folder)
        records["eval"] = records_of(found.files, found.sha256)
    image_sets = checked_image_sets(split, records)
    atomic_write_text(folder / "judged.json", json.dumps(records, indent=2) + "\n")
    by_set: dict[str, Judged] = {"evidence": judge(run, teacher, run.part("evidence"), samples["labels"][rows])}
    warnings: list[str] = []
    if found is not None:
        by_set["eval"] = judge(run, teacher, found.images, found.labels)
        warnings += found.warnings
    elif len(rows) == 0:
        warnings.append(
            "No held-out image judges the student, so nothing says how good it is; give labelled or unlabelled images "
            "with --eval."
        )
    elif len(rows) < FEW_EVIDENCE:
        held_out = "1 held-out image judges" if len(rows) == 1 else f"{len(rows)} held-out images judge"
        warnings.append(
            f"Only {held_out} the student, so its interval is wide; "
            "give labelled or unlabelled images with --eval to narrow it."
        )
    keys = dict.fromkeys(key for judged in by_set.values() for key in judged.variants)
    robustness: tuple[Robustness, ...] = ()
    if not run.config.report.skip_robustness:
        larger = max(by_set, key=lambda name: (len(by_set[name].images), name == "eval"))
        robustness = judge_disturbed(run, teacher, by_set[larger], "eval" if larger == "eval" else "evidence")
    log = read_log(run.path("distill", "log.jsonl"))
    training_curves(log, folder / "curves.png")
    generator = run.generator()
    generated: dict[str, Any] = {}
    images = run.made_images()
    if generator is not None:
        drawn = draw(generator, NUM_GENERATED, seed=run.config.seed)
        images = (torch.from_numpy(drawn) * 255.0).round().to(torch.uint8)
    if images is not None:  # of no use to a gate: how a student does on what taught it
        images = images[:NUM_GENERATED]
        generated = judge(run, teacher, images, torch.full((len(images),), UNKNOWN), only="student.fp32").facts
    if generator is not None and run.config.report.synthetic_sheet:
        synthetic_sheet(
            generator.to(run.device),
            teacher,
            folder / "synthetic.png",
            seed=run.config.seed,
            captions_of=lambda logits: task.captions(task.look(logits), teacher.card),
        )
    shown = list(by_set.values())[-1]  # the user's own images, where there are any
    if shown.teacher is not None and shown.student is not None:
        task.draw(shown.images, shown.teacher, shown.student, teacher.card, folder / "overlays.png")
    save_facts(
        folder,
        warnings=warnings,
        variants={key: {name: judged.variants.get(key) for name, judged in by_set.items()} for key in keys},
        generated=generated,
        robustness=[one.model_dump() for one in robustness],
        image_sets=[one.model_dump() for one in image_sets],
        curves={phase: [point.model_dump() for point in points] for phase, points in curve_points(log).items()},
        **{name: judged.facts for name, judged in by_set.items()},
    )


# --- helpers of the adapters ------------------------------------------------------------------------------------------


def _warnings_by_network(found: Sequence[Sequence[str]]) -> Iterator[str]:
    """What holds for both networks once, the rest with the name of the one that it is said of."""
    for name, warnings in zip(MODELS, found, strict=True):
        for warning in dict.fromkeys(warnings):
            if not all(warning in others for others in found):
                yield f"{name.capitalize()}: {warning}"
            elif name == MODELS[0]:
                yield warning


def _precision(run: Run, card: TeacherCard) -> tuple[str, str]:
    """The arithmetic of the training; what was chosen by looking at the machine is kept for a resumed run."""
    if run.config.distill.precision != "auto":
        return run.config.distill.precision, "as asked"
    side = min(card.input_shape[1:])
    with fitting_threads(side):
        precision, why = Choices(run.config.out).remember(
            f"precision on {run.device} at {side} px", lambda: list(best_precision(torch.device(run.device), side))
        )
    return precision, why
