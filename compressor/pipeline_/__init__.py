"""The pipeline: ten stages and one short adapter for each. The only file that sees configuration and science.

    t.pt ──> teacher ─┬─> samples ─┬─> distill ──> onnx ──> precision ─┬─> engine ─┬─> latency ──> report
    ./few ────────────┤            │                                   └─> kit     │
                      └─> student ─┘                                       └───────┘

A stage reads files of earlier stages and writes files of its own; nothing is handed over in memory, so that any of them
can be resumed in another process. What a stage found out for the report stands in its `facts.json`.

`prepare` refuses what can be refused before anything runs, `declare` says what each stage depends on, and then follow
the adapters in their order. `running` executes them, `planning` only looks.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import BaseModel
from torch import Tensor

from compressor import __version__
from compressor.config import Resolved, RunConfig, section_settings
from compressor.deploy.board_results import MERGED, check_anchors
from compressor.deploy.calibration_images import gather
from compressor.deploy.engines import build_engines_here, engine_environment
from compressor.deploy.expected_latency import expected_precision, latency_source, run_anchors
from compressor.deploy.kits import make_kit
from compressor.deploy.latencies import Timing, measure_variants, onnxruntime_version
from compressor.deploy.precisions import make_precisions
from compressor.deploy.predictions import predicted_variants
from compressor.deploy.variants import Variant
from compressor.distill.generator import Generator, load_generator
from compressor.distill.training import Context, best_precision, fitting_threads, read_log
from compressor.doctor import training_device
from compressor.errors import EnvironmentFault, UsageFault
from compressor.inputs.card import TeacherCard
from compressor.inputs.evaluation import evaluation_set
from compressor.inputs.intake import TeacherSource, read_teacher
from compressor.inputs.named import check_image_folder, read_class_names
from compressor.inputs.refusals import existing_file
from compressor.inputs.samples import read_samples, split_samples
from compressor.inputs.settle import checked_identity, provisional_card, settled_card
from compressor.inputs.teacher import Classifier, Teacher, load_teacher
from compressor.interruption import StopRequest
from compressor.method_sheet import check_method
from compressor.methods import TrainingImages, check_fit, load_method
from compressor.progress import Reporter
from compressor.report import text
from compressor.report.candidate_picture import candidate_picture
from compressor.report.evidence import evidence_facts, variant_facts
from compressor.report.first_look import first_look
from compressor.report.limits import Limits, limits_of
from compressor.report.pictures import contact_sheet, synthetic_sheet, teacher_captions, training_curves
from compressor.report.student_search import StudentSearch as SearchRecord
from compressor.report.student_search import search_record
from compressor.stage_files import load_tensors, read_facts, save_facts, save_tensors
from compressor.stages import Choices, Stage, atomic_path, atomic_write_text
from compressor.students.named import check_named_student
from compressor.students.search import StudentLimits, StudentSearch, search_student
from compressor.students.specification import AUTO, build_backbone, parse_student
from compressor.students.student import Backbone, Student, load_backbone, load_student, save_backbone, save_student
from exporters.logits import logits_of
from exporters.macs import count_macs, count_params
from exporters.onnx_files import load_onnx
from exporters.onnx_to_int8 import needs_reduced_range
from exporters.parity import check_parity
from exporters.runners import OnnxRunner, TorchRunner
from exporters.tensorrt_operators import check_operators
from exporters.torch_to_onnx import onnx_from_torch
from exporters.torch_to_pt2 import pt2_from_torch
from profiles.catalogue import load_target
from profiles.host import host_name, usable_cores
from profiles.predict import Anchor
from profiles.predictor_version import predictor_version
from profiles.schema import Budget, DeviceProfile, Precision
from profiles.ssh import board_named

MODELS: tuple[Literal["student", "teacher"], ...] = ("student", "teacher")
IDENTITY_IMAGES = 64
FEW_EVIDENCE = 30


@dataclass(frozen=True)
class Run:
    """One run: its settings, its target, the device that it trains on, and whoever watches or stops it."""

    config: RunConfig
    target: DeviceProfile
    device: str
    reporter: Reporter
    stop: StopRequest

    def path(self, stage: str, name: str = "") -> Path:
        return self.config.out / stage / name

    def card(self) -> TeacherCard:
        return TeacherCard.model_validate_json(self.path("teacher", "card.json").read_text(encoding="utf-8"))

    def teacher(self) -> Teacher:
        return load_teacher(load_tensors(self.path("teacher", "weights.safetensors")), self.card()).to(self.device)

    def samples(self) -> dict[str, Tensor]:
        """images (N, C, H, W) uint8, labels, pseudo_labels (N,), and the indices train, select, evidence."""
        return load_tensors(self.path("samples", "images.safetensors"))

    def student(self) -> Student:
        return load_student(self.path("distill", "student.safetensors"), self.path("distill", "student.json"))

    def generator(self) -> Generator | None:
        """The method's generator in evaluation mode on the CPU; None where it leaves none."""
        weights = self.path("distill", "generator.safetensors")
        if not weights.exists():
            return None
        shape = json.loads(self.path("distill", "generator.json").read_text(encoding="utf-8"))
        return load_generator(load_tensors(weights), shape)

    def variants(self, *stages: str) -> tuple[Variant, ...]:
        """The files of student and teacher that these stages made, ONNX files and engines by default."""
        stages = stages or ("precision", "engine")
        return tuple(Variant.from_dict(row) for stage in stages for row in read_facts(self.path(stage))["variants"])

    def anchors(self) -> tuple[Anchor, ...]:
        """What an earlier run, named by the user, has measured on this target."""
        earlier = self.config.student.anchors
        return () if earlier is None else run_anchors(earlier, self.target)

    def opset_ceiling(self) -> int:
        return self.config.onnx.opset or self.target.opset_ceiling

    def fitting_settings(self, card: TeacherCard) -> dict[str, Any]:
        """The settings of the method that follow from the effort, the image and the device."""
        config = self.config.distill
        return load_method(config.method).defaults(config.effort, card.input_shape, self.device)

    def method_settings(self, card: TeacherCard) -> BaseModel:
        """The method's own settings: its defaults, those that fit the situation, then the user's options."""
        config = self.config.distill
        return load_method(config.method).Config(**{**self.fitting_settings(card), **config.options})


def limits_for(config: RunConfig, target: DeviceProfile) -> Limits:
    """What an artefact must hold: the user's limits, and the wishes of the target where the user has none."""
    own = config.limits
    return limits_of(
        own.max_drop,
        own.max_latency_ms,
        own.max_size_mib,
        target.budget,
        max_params_m=own.max_params_m,
        accept_predicted=own.accept_predicted,
    )


def student_limits(config: RunConfig) -> StudentLimits:
    """What the user asks of a student that is chosen."""
    own = config.limits
    return StudentLimits(own.max_latency_ms, own.max_size_mib, own.max_params_m)


# --- before anything runs ---------------------------------------------------------------------------------------------


def prepare(resolved: Resolved, reporter: Reporter | None = None, stop: StopRequest | None = None) -> Run:
    """Refuse what can be refused without reading a weight or an image.

    Raises:
        UsageFault, ProfileError, WrongBoardName: a setting fits no method, student, target or board.
        StaleResult, BoardResultError: what --anchors names was measured of other files than that run has now.
        InputRefused: the teacher or a folder of images is not there.
        EnvironmentFault: a GPU was demanded and there is none.
    """
    config = resolved.config
    target = load_target(config.target)
    check_method(config.distill.method, config.distill.options)
    parse_student(config.student.spec)
    if config.student.anchors is not None:
        check_anchors(config.student.anchors, target)
    if config.onnx.opset is not None and config.onnx.opset > target.opset_ceiling:
        raise UsageFault(
            f"--opset {config.onnx.opset} is above what {target.title} reads.",
            f"Its ceiling is opset {target.opset_ceiling}.",
            f"Use --opset {target.opset_ceiling}, or leave the flag out.",
        )
    wanted = config.precision.precisions or target.precisions
    if unknown := [precision for precision in wanted if precision not in target.precisions]:
        raise UsageFault(
            f"--precisions has {', '.join(unknown)}.",
            f"{target.title} takes {', '.join(target.precisions)}.",
            "Name some of these, or leave the flag out.",
        )
    existing_file(config.teacher.file)
    if config.board is not None:
        board_named(config.board, config.ssh_config)
    check_image_folder("--samples", config.samples.folder)
    if config.report.eval is not None:
        check_image_folder("--eval", config.report.eval)
    return Run(config, target, training_device(config.device), reporter or Reporter(quiet=True), stop or StopRequest())


# --- the stages -------------------------------------------------------------------------------------------------------


def declare(run: Run) -> tuple[Stage, ...]:
    """The stages of a run, in order, with everything that each depends on."""
    config, path = run.config, run.path
    teacher = (path("teacher", "weights.safetensors"), path("teacher", "card.json"))
    samples = path("samples", "images.safetensors")
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
    student_depends: dict[str, Any] = {"channel_multiple": target.channel_multiple}
    student_environment = {"torch": torch.__version__, "torch-pruning": importlib.metadata.version("torch-pruning")}
    if config.student.spec == AUTO:  # chosen once by all this; a resumed run keeps it, on whichever machine
        student_depends |= {
            "limits": asdict(student_limits(config)),
            "target": target.model_dump(mode="json"),
            "precision": expected_precision(target, config.precision.precisions),
        }
    beside = config.teacher.file.with_suffix(".yaml")
    cards = [file for file in (config.teacher.card or beside, config.teacher.class_names) if file and file.exists()]
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
    ) -> Stage:
        outputs = (*outputs, "facts.json")
        return Stage(name, inputs, outputs, settings, environment or {}, 1, partial(work, run), optional_outputs)

    return (
        stage(
            "teacher",
            read_the_teacher,
            (config.teacher.file, *cards, config.samples.folder),
            ("weights.safetensors", "card.json"),
            section_settings(config, "teacher"),
        ),
        stage(
            "samples",
            read_the_samples,
            (*teacher, config.samples.folder),
            ("images.safetensors", "split.json", "sheet.png"),
            section_settings(config, "samples") | seed,
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
            (*teacher, samples, *backbone),
            ("student.safetensors", "student.json", "log.jsonl"),
            section_settings(config, "distill") | seed | {"method_version": load_method(config.distill.method).VERSION},
            {"device": run.device, "torch": torch.__version__},
            optional_outputs=("generator.safetensors", "generator.json"),
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
            (*onnx, samples, path("distill", "facts.json")),
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
        ),
        stage(
            "report",
            gather_evidence,
            (
                *(*teacher, samples, *onnx, precisions, path("samples", "split.json"), path("distill", "log.jsonl")),
                *(path("distill", "facts.json"), path("engine", "facts.json"), *evaluation),
            ),
            ("curves.png",),
            {"report.synthetic_sheet": config.report.synthetic_sheet},
            {"device": run.device, "onnxruntime": host["onnxruntime"]},
            optional_outputs=("synthetic.png",),
        ),
    )


def read_the_teacher(run: Run, folder: Path) -> None:
    """The checkpoint, without running its code; its card; and whether its classifier can be shared."""
    config = run.config.teacher
    source = teacher_source(run)
    few = read_samples(run.config.samples.folder, provisional_card(source), max_images=IDENTITY_IMAGES)
    card, origin, warnings = settled_card(source, few)
    teacher = load_teacher(source.state_dict, card)
    identity_error = checked_identity(teacher, few)
    save_tensors(source.state_dict, folder / "weights.safetensors")
    atomic_write_text(folder / "card.json", card.model_dump_json(indent=2) + "\n")
    shape = "x".join(str(side) for side in card.input_shape)
    run.reporter.note(f"{card.architecture}, {card.num_classes} classes, input {shape}, normalisation from {origin}")
    save_facts(
        folder,
        file=config.file.name,
        sha256=source.sha256,
        normalisation_origin=origin,
        identity_error=identity_error,
        warnings=[*source.warnings, *warnings],
    )


def teacher_source(run: Run) -> TeacherSource:
    """The user's checkpoint, checked whole, and what is known of its input before any image was read."""
    config = run.config.teacher
    names = None if config.class_names is None else read_class_names(config.class_names)
    return read_teacher(
        config.file,
        architecture=config.architecture,
        card_file=config.card,
        feature_layer=config.feature_layer,
        classifier_layer=config.classifier_layer,
        overrides={"mean": config.mean, "std": config.std, "input_size": config.input_size, "class_names": names},
    )


def read_the_samples(run: Run, folder: Path) -> None:
    """The few real images, what the teacher says of them, and their split, made once before anything trains."""
    config, teacher = run.config.samples, run.teacher()
    samples = read_samples(config.folder, teacher.card, max_images=config.max_images)
    logits = _teacher_logits(teacher, samples.images, run.device)
    pseudo_labels = logits.argmax(dim=1)
    seen = first_look(logits, samples.labels)
    run.reporter.note(seen.sentence)
    split = split_samples(
        samples,
        pseudo_labels,
        seed=run.config.seed,
        select_fraction=config.select_fraction,
        evidence_fraction=config.evidence_fraction,
    )
    parts = {"train": split.train, "select": split.select, "evidence": split.evidence}
    run.reporter.note(
        ", ".join(f"{len(rows):,} {name}" for name, rows in parts.items())
        + (f"; {len(samples.skipped):,} files skipped" if samples.skipped else "")
    )
    warnings = [*samples.warnings, *seen.warnings]
    if len(split.select) == 0:
        warnings.append("There are too few samples to hold some out for choices, so nothing is chosen on them.")
    tensors = {"images": samples.images, "labels": samples.labels, "pseudo_labels": pseudo_labels, **parts}
    save_tensors(tensors, folder / "images.safetensors")
    atomic_write_text(folder / "split.json", json.dumps(split.to_dict(samples), indent=2) + "\n")
    contact_sheet(samples.images, folder / "sheet.png", teacher_captions(logits, teacher.card.class_names))
    save_facts(
        folder,
        parts={name: len(rows) for name, rows in parts.items()},
        num_labelled=int((samples.labels >= 0).sum()),
        skipped=[{"file": file, "reason": reason} for file, reason in samples.skipped],
        confidence=seen.confidence.model_dump(),
        accuracy=seen.accuracy and seen.accuracy.model_dump(),
        pseudo_labels=torch.bincount(pseudo_labels, minlength=teacher.card.num_classes).tolist(),
        warnings=warnings,
    )


def make_the_student(run: Run, folder: Path) -> None:
    """The student's body before training; where the user leaves it open, the most capable one that fits."""
    teacher, config, samples = run.teacher(), run.config, run.samples()
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
        images=samples["images"][samples["train"]].to(run.device).float() / 255.0,
    )
    if search is None:
        check_the_named_student(run, teacher, backbone)
    with atomic_path(folder / "backbone.safetensors") as weights, atomic_path(folder / "backbone.json") as card:
        save_backbone(backbone, weights, card)
    params, macs = count_params(backbone), count_macs(backbone, teacher.card.input_shape)
    run.reporter.note(f"{spec}: a backbone of {text.params(params / 1e6)} parameters, {text.macs(macs / 1e9)} MACs")
    save_facts(folder, spec=spec, params=params, macs=macs, search=None if search is None else search.to_dict())


def search_for_student(run: Run, teacher: Teacher) -> StudentSearch:
    """What `--student auto` means for this teacher, target and limits. It looks at no image, so a plan can ask too.

    Raises:
        NoStudentFits: no candidate holds the user's limits.
    """
    config, target = run.config, run.target
    own, wishes = config.limits, target.budget or Budget()
    precision = expected_precision(target, config.precision.precisions)
    timed = not target.this_host or own.max_latency_ms is not None  # measuring takes seconds for each candidate
    return search_student(
        teacher,
        limits=student_limits(config),
        wishes=StudentLimits(wishes.max_latency_ms, wishes.max_size_mib, wishes.max_params_m),
        memory_gib=target.memory_gib.value if target.memory_gib else None,
        channel_multiple=target.channel_multiple,
        precision=precision,
        latency_of=latency_source(target, precision, anchors=run.anchors()) if timed else None,
        opset_ceiling=run.opset_ceiling(),
        seed=config.seed,
        note=run.reporter.note,
    )


def check_the_named_student(run: Run, teacher: Teacher, backbone: Backbone) -> None:
    """Refuse before hours of training what can be counted now."""
    config, target = run.config, run.target
    check_named_student(
        config.student.spec,
        backbone,
        teacher,
        limits=student_limits(config),
        memory_gib=target.memory_gib.value if target.memory_gib else None,
        precisions=config.precision.precisions or target.precisions,
    )


def planned_search(run: Run, finished: Collection[str]) -> SearchRecord | None:
    """The search that a run has made or would make, as its report says it; None where the user names the student.

    Args:
        finished: the stages whose files are there and fit.

    Raises:
        InputRefused: no candidate holds the limits, or the student that was named does not.
    """
    spec, automatic = run.config.student.spec, run.config.student.spec == AUTO
    if "student" in finished:
        return search_record(read_facts(run.path("student"))["search"]) if automatic else None
    if "teacher" in finished:
        teacher = run.teacher()
    else:
        source = teacher_source(run)
        teacher = load_teacher(source.state_dict, provisional_card(source)).to(run.device)
    if not automatic:
        multiple, seed = run.target.channel_multiple, run.config.seed
        check_the_named_student(run, teacher, build_backbone(spec, teacher, channel_multiple=multiple, seed=seed))
        return None
    return search_record(search_for_student(run, teacher).to_dict())


def distill_the_student(run: Run, folder: Path) -> None:
    """Whatever the method does, with the train part of the samples only."""
    config, teacher = run.config.distill, run.teacher()
    card, samples = teacher.card, run.samples()
    settings = run.method_settings(card)
    precision, why = _precision(run, card)
    context = Context(
        folder,
        device=run.device,
        seed=run.config.seed,
        precision=precision,
        observer=run.reporter,
        should_stop=run.stop.asked,
    )
    body, body_card = run.path("student", "backbone.safetensors"), run.path("student", "backbone.json")
    backbone = load_backbone(body, body_card, card.input_shape[0])
    run.reporter.note(f"{config.method} in {precision} on {run.device} ({why})")
    train = samples["images"][samples["train"]].to(run.device)
    with run.stop.between_steps(), run.reporter.phases(), fitting_threads(min(card.input_shape[1:])):
        images = TrainingImages(few=train, pool=train[:0])
        check_fit(config.method, teacher, len(images.few), len(images.pool))
        distilled = load_method(config.method).distill(teacher, backbone, images, settings, context)
    with atomic_path(folder / "student.safetensors") as weights, atomic_path(folder / "student.json") as student_card:
        save_student(distilled.student, weights, student_card)
    last_terms = {row["phase"]: row["terms"] for row in read_log(folder / "log.jsonl")}
    generator = distilled.generator
    if generator is not None:  # int8 is calibrated on its images; like the samples it stays in the run folder
        save_tensors(generator.state_dict(), folder / "generator.safetensors")
        atomic_write_text(folder / "generator.json", json.dumps(asdict(generator.shape)) + "\n")
    save_facts(
        folder,
        device=run.device,
        precision=precision,
        precision_reason=why,
        settings=settings.model_dump(mode="json"),
        phases=[{**asdict(phase), "final_terms": last_terms.get(phase.name, {})} for phase in context.phases],
        method_facts=dict(distilled.facts),
    )


def export_the_student(run: Run, folder: Path) -> None:
    """One ONNX file with the normalisation inside, proven equal to the torch module; the teacher's too, to compare."""
    teacher, student, samples = run.teacher().cpu(), run.student(), run.samples()
    shape = teacher.card.input_shape
    provenance = {
        "tool": f"compress {__version__}",
        "card": teacher.card.model_dump_json(),
        "student": json.dumps(student.card.model_dump(mode="json", exclude={"input"})),
        "teacher_sha256": read_facts(run.path("teacher"))["sha256"],
        "target": run.target.name,
    }
    models = {"student": student, "teacher": Classifier(teacher)}
    files = {
        name: onnx_from_torch(
            model, shape, folder / f"{name}.onnx", opset_ceiling=run.opset_ceiling(), metadata=provenance
        )
        for name, model in models.items()
    }
    pt2_from_torch(student, shape, folder / "student.pt2")
    random = torch.Generator().manual_seed(run.config.seed)
    batches = {f"batch {size}": torch.rand(size, *shape, generator=random) for size in (1, 7)}
    if len(samples["evidence"]):
        batches["held-out images"] = samples["images"][samples["evidence"]].float() / 255.0
    file = files["student"]
    check_operators(load_onnx(file.path), run.target)
    with TorchRunner(student) as reference, OnnxRunner(file.path) as candidate:
        parities = {
            name: check_parity(reference, candidate, [batch.numpy() for batch in torch.split(images, 64)])
            for name, images in batches.items()
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
        params={name: count_params(model) for name, model in models.items()},
        macs={name: count_macs(model, shape) for name, model in models.items()},
    )


def make_the_precisions(run: Run, folder: Path) -> None:
    """fp16 and int8 of student and teacher, as the target takes them; int8 is calibrated without the training data."""
    samples, config = run.samples(), run.config.precision
    images = gather(
        samples["images"][samples["train"]],
        samples["images"][samples["select"]],
        run.generator(),
        num_synthetic=config.calibration_images,
        seed=run.config.seed,
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
        )
        for name in MODELS
    ]
    save_facts(
        folder,
        variants=[row for found in made for row in found.rows()],
        int8=[found.int8 for found in made if found.int8 is not None],
        notes=list(dict.fromkeys(note for found in made for note in found.notes)),
        warnings=list(dict.fromkeys(warning for found in made for warning in found.warnings)),
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
            f"No engine was built: {reason or rows[0]['note']}",
            f"--require-engine asks for one for {run.target.title}.",
            "Run where that GPU and TensorRT are, or leave --require-engine out and build on the device with the kit.",
        )
    save_facts(folder, variants=rows, note=reason)


def make_the_kit(run: Run, folder: Path) -> None:
    """What builds, checks and times the student on the device itself; this machine needs none for itself."""
    if run.target.this_host:
        save_facts(folder, kit=None)
        return
    samples, names = run.samples(), MODELS if run.config.kit.teacher else MODELS[:1]
    images = samples["images"][samples["evidence"]] if run.config.kit.images else samples["images"][:0]
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
    save_facts(folder, latencies=latencies, predicted=predicted)


def gather_evidence(run: Run, folder: Path) -> None:
    """What the report says of quality: the exported files against the teacher, on images that nothing else has read."""
    teacher, samples = run.teacher(), run.samples()
    rows = samples["evidence"]
    evidence, variants = _judge(run, teacher, samples["images"][rows], samples["labels"][rows])
    facts: dict[str, Any] = {"evidence": evidence}
    by_set = {"evidence": variants}
    warnings: list[str] = []
    if run.config.report.eval is not None:
        images, labels, warnings = evaluation_set(
            run.config.report.eval, teacher.card, samples["images"], run.path("samples", "split.json")
        )
        facts["eval"], by_set["eval"] = _judge(run, teacher, images, labels)
    elif len(rows) < FEW_EVIDENCE:
        warnings.append(
            f"Only {len(rows)} held-out images judge the student, so its interval is wide; "
            "give labelled or unlabelled images with --eval to narrow it."
        )
    keys = dict.fromkeys(key for found in by_set.values() for key in found)
    facts["variants"] = {key: {name: found.get(key) for name, found in by_set.items()} for key in keys}
    training_curves(read_log(run.path("distill", "log.jsonl")), folder / "curves.png")
    generator = run.generator()
    if generator is not None and run.config.report.synthetic_sheet:
        synthetic_sheet(generator.to(run.device), teacher, folder / "synthetic.png", seed=run.config.seed)
    save_facts(folder, warnings=warnings, **facts)


# --- helpers of the adapters ------------------------------------------------------------------------------------------


def _precision(run: Run, card: TeacherCard) -> tuple[str, str]:
    """The arithmetic of the training; what was chosen by looking at the machine is kept for a resumed run."""
    if run.config.distill.precision != "auto":
        return run.config.distill.precision, "as asked"
    side = min(card.input_shape[1:])
    precision, why = Choices(run.config.out).remember(
        f"precision on {run.device} at {side} px", lambda: list(best_precision(torch.device(run.device), side))
    )
    return precision, why


@torch.no_grad()
def _teacher_logits(teacher: Teacher, images: Tensor, device: str) -> Tensor:
    """(N, C, H, W) uint8 to (N, K) on the CPU."""
    return torch.cat([teacher(batch.to(device).float() / 255.0).logits.float().cpu() for batch in _batches(images)])


def _judge(run: Run, teacher: Teacher, images: Tensor, labels: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """The student, and every variant by its key, on (N, C, H, W) uint8; both empty without images."""
    if len(images) == 0:
        return {}, {}
    reference = _teacher_logits(teacher, images, run.device)
    logits: dict[str, Tensor] = {}
    for variant in run.variants():
        if variant.file is not None and variant.judged:
            with variant.open(run.config.out) as runner:
                logits[variant.key] = torch.from_numpy(logits_of(runner, images.numpy()))
    variants = {
        key: variant_facts(reference, logits[f"{key.partition('.')[0]}.fp32"], found, labels)
        for key, found in logits.items()
    }
    return evidence_facts(reference, logits["student.fp32"], labels), variants


def _batches(images: Tensor) -> tuple[Tensor, ...]:
    return torch.split(images, 256)
