"""The pipeline: seven stages and one short adapter for each. The only file that sees configuration and science.

    t.pt ──> teacher ─┬─> samples ─┬─> distill ──> onnx ──> latency ──> report
    ./few ────────────┤            │
                      └─> student ─┘

A stage reads files of earlier stages and writes files of its own; nothing is handed over in memory, so that any of them
can be resumed in another process. What a stage found out for the report stands in its `facts.json`.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from compressor import __version__
from compressor.config import FIELDS, Resolved, RunConfig, get, save_resolved
from compressor.distill.training import Context, best_precision, read_log
from compressor.errors import (
    CompressError,
    EnvironmentFault,
    InputRefused,
    Interrupted,
    StageFailed,
    UsageFault,
)
from compressor.inputs.card import TeacherCard
from compressor.inputs.intake import read_teacher
from compressor.inputs.nearest import did_you_mean
from compressor.inputs.normalisation import choose_normalisation
from compressor.inputs.samples import read_samples, split_samples
from compressor.inputs.teacher import Classifier, Teacher, classifier_identity_error, load_teacher
from compressor.methods import Method, load_method, method_names
from compressor.progress import Reporter
from compressor.report.assemble import build_report, earlier_fingerprints
from compressor.report.evidence import accuracy, agreement, compare, confidence_summary
from compressor.report.markdown import report_markdown
from compressor.report.pictures import contact_sheet, teacher_captions, training_curves
from compressor.report.schema import Report, write_report
from compressor.stages import (
    Choices,
    Refusal,
    Stage,
    StageResult,
    Status,
    atomic_write_text,
    create_run_folder,
    exclusive,
    execute,
)
from compressor.stages import plan as plan_stages
from compressor.students.specification import build_backbone, parse_student
from compressor.students.student import (
    Student,
    load_backbone,
    load_student,
    save_backbone,
    save_student,
)
from exporters.errors import ExportError
from exporters.macs import count_macs, count_params
from exporters.parity import check_parity
from exporters.parity import compare as compare_outputs
from exporters.runners import OnnxRunner, TorchRunner
from exporters.torch_to_onnx import onnx_from_torch
from profiles.catalogue import load_target, resolved_alias
from profiles.errors import ToolError
from profiles.host import host_name, usable_cores
from profiles.latency import measure
from profiles.schema import DeviceProfile

IDENTITY_TOLERANCE = 1e-3
IDENTITY_IMAGES = 64
LOW_CONFIDENCE = 0.5
FEW_EVIDENCE = 30


@dataclass(frozen=True)
class Run:
    """One run: its settings, its folder, its target, and whoever watches."""

    config: RunConfig
    folder: Path
    target: DeviceProfile
    device: str
    reporter: Reporter
    should_stop: Callable[[], bool] = lambda: False

    @property
    def choices(self) -> Choices:
        return Choices(self.folder)

    def path(self, stage: str, name: str) -> Path:
        return self.folder / stage / name

    def teacher(self) -> Teacher:
        card = TeacherCard.model_validate_json(self.path("teacher", "card.json").read_text())
        return load_teacher(_load_tensors(self.path("teacher", "weights.safetensors")), card).to(self.device)

    def samples(self) -> dict[str, Tensor]:
        """images (N, C, H, W) uint8, labels, pseudo_labels (N,), and the indices train, select, evidence."""
        return _load_tensors(self.path("samples", "images.safetensors"))

    def student(self) -> Student:
        return load_student(self.path("distill", "student.safetensors"), self.path("distill", "student.json"))


# --- the stages ------------------------------------------------------------------------------------------------------


def declare(run: Run) -> tuple[Stage, ...]:
    """The stages of a run, in order, with everything that each depends on."""
    config, path = run.config, run.path
    teacher = (path("teacher", "weights.safetensors"), path("teacher", "card.json"))
    samples = path("samples", "images.safetensors")
    student = (path("distill", "student.safetensors"), path("distill", "student.json"))
    onnx = (path("onnx", "student.onnx"), path("onnx", "teacher.onnx"))
    cards = tuple(file for file in _card_files(config) if file.exists())
    training = {"device": run.device, "torch": torch.__version__}
    host = {"machine": host_name(), "cores": str(usable_cores()), "onnxruntime": _version("onnxruntime")}
    seed = {"seed": config.seed}
    evaluation = (config.report.eval,) if config.report.eval is not None else ()

    def stage(
        name: str,
        inputs: tuple[Path, ...],
        outputs: tuple[str, ...],
        settings: Mapping[str, Any],
        work: Callable[[Run, Path], None],
        environment: Mapping[str, str] | None = None,
        version: int = 1,
        optional_outputs: tuple[str, ...] = (),
    ) -> Stage:
        return Stage(
            name,
            inputs,
            (*outputs, "facts.json"),
            settings,
            environment or {},
            version,
            lambda folder: work(run, folder),
            optional_outputs,
        )

    return (
        stage(
            "teacher",
            (config.teacher.file, *cards, config.samples.folder),
            ("weights.safetensors", "card.json"),
            _settings(config, "teacher"),
            read_the_teacher,
        ),
        stage(
            "samples",
            (*teacher, config.samples.folder),
            ("images.safetensors", "split.json", "sheet.png"),
            {**_settings(config, "samples"), **seed},
            read_the_samples,
        ),
        stage(
            "student",
            teacher,
            ("backbone.safetensors", "backbone.json"),
            {**_settings(config, "student"), **seed, "channel_multiple": run.target.channel_multiple},
            make_the_student,
        ),
        stage(
            "distill",
            (*teacher, samples, path("student", "backbone.safetensors"), path("student", "backbone.json")),
            ("student.safetensors", "student.json", "log.jsonl"),
            {**_settings(config, "distill"), **seed, "report.synthetic_sheet": config.report.synthetic_sheet},
            distill_the_student,
            environment=training,
            optional_outputs=("generator.safetensors", "synthetic.png"),
        ),
        stage(
            "onnx",
            (*teacher, *student, samples),
            ("student.onnx", "teacher.onnx", "student.pt2"),
            {"opset_ceiling": _opset_ceiling(run)},
            export_the_student,
            environment={"torch": torch.__version__},
        ),
        stage("latency", onnx, (), _settings(config, "latency"), measure_latency, environment=host),
        stage(
            "report",
            (
                *teacher,
                samples,
                *onnx,
                path("samples", "split.json"),
                path("distill", "log.jsonl"),
                *evaluation,
            ),
            ("curves.png",),
            {},
            gather_evidence,
        ),
    )


def read_the_teacher(run: Run, folder: Path) -> None:
    """The checkpoint, without running its code; its card; and whether its classifier can be shared."""
    config = run.config.teacher
    overrides: dict[str, object] = {"mean": config.mean, "std": config.std, "input_size": config.input_size}
    if config.class_names is not None:
        overrides["class_names"] = _lines(config.class_names)
    source = read_teacher(
        config.file,
        architecture=config.architecture,
        card_file=config.card,
        feature_layer=config.feature_layer,
        classifier_layer=config.classifier_layer,
        overrides=overrides,
    )
    warnings, card, origin = list(source.warnings), source.card, source.origin.get("mean", "default")
    channels = int(source.card_facts["input_shape"][0])
    provisional = card or source.card_with((0.0,) * channels, (1.0,) * channels)
    few = read_samples(run.config.samples.folder, provisional, max_images=IDENTITY_IMAGES)
    if card is None:
        choice = choose_normalisation(
            lambda mean, std, value_range: load_teacher(source.state_dict, source.card_with(mean, std, value_range)),
            few.images,
            few.labels,
            channels,
        )
        card = source.card_with(choice.mean, choice.std, choice.value_range)
        origin = f"chosen on the samples: {choice.name}"
        warnings.append(choice.sentence)
    teacher = load_teacher(source.state_dict, card)
    error = classifier_identity_error(teacher, few.images.float() / 255.0)
    if not error <= IDENTITY_TOLERANCE:
        raise InputRefused(
            f"The teacher's logits differ from classifier(mean of the feature map) by {error:.1%} on the samples.",
            "Classifier sharing needs a network that ends in a feature map, a global average pool and one linear layer.",
            "Name those layers with --feature-layer and --classifier-layer.",
        )
    _save_tensors(source.state_dict, folder / "weights.safetensors")
    (folder / "card.json").write_text(card.model_dump_json(indent=2) + "\n")
    shape = "x".join(str(side) for side in card.input_shape)
    run.reporter.note(f"{card.architecture}, {card.num_classes} classes, input {shape}, normalisation from {origin}")
    _save_facts(
        folder,
        file=config.file.name,
        sha256=source.sha256,
        normalisation_origin=origin,
        identity_error=error,
        params=count_params(teacher.network),
        macs=count_macs(Classifier(teacher), card.input_shape),
        warnings=warnings,
    )


def read_the_samples(run: Run, folder: Path) -> None:
    """The few real images, what the teacher says of them, and their split, made once before anything trains."""
    config, teacher = run.config.samples, run.teacher()
    card = teacher.card
    samples = read_samples(config.folder, card, max_images=config.max_images)
    logits = _teacher_logits(teacher, samples.images, run.device)
    pseudo_labels = logits.argmax(dim=1)
    split = split_samples(
        samples,
        pseudo_labels,
        seed=run.config.seed,
        select_fraction=config.select_fraction,
        evidence_fraction=config.evidence_fraction,
    )
    labelled = samples.labels >= 0
    teacher_accuracy = accuracy(logits[labelled], samples.labels[labelled])
    confidence = confidence_summary(logits)
    assert confidence is not None  # read_samples refuses an empty folder
    warnings = list(samples.warnings)
    if confidence.mean < LOW_CONFIDENCE:
        warnings.append(
            f"The teacher is unsure of these samples (mean confidence {confidence.mean:.0%}): "
            "check the folder, the normalisation and the channel order before you trust this run."
        )
    if len(split.evidence) < FEW_EVIDENCE and run.config.report.eval is None:
        warnings.append(
            f"Only {len(split.evidence)} held-out images judge the student, so its interval is wide; "
            "give labelled or unlabelled images with --eval to narrow it."
        )
    if len(split.select) == 0:
        warnings.append("There are too few samples to hold some out for choices, so nothing is chosen on them.")
    seen = f"{len(samples.images)} images, teacher's confidence {confidence.mean:.1%} in the mean"
    if teacher_accuracy is not None:
        seen += f", accuracy {teacher_accuracy.value:.1%} on {teacher_accuracy.n} labelled"
        if teacher_accuracy.high < 2.0 / card.num_classes:
            warnings.append(
                f"The teacher's accuracy on the labelled samples is {teacher_accuracy.value:.1%}: "
                "the class names, the normalisation or the folder do not belong to this teacher."
            )
    run.reporter.note(seen)
    run.reporter.note(
        f"split: {len(split.train)} train, {len(split.select)} select, {len(split.evidence)} evidence"
        + (f"; {len(samples.skipped)} files skipped" if samples.skipped else "")
    )
    parts = {"train": split.train, "select": split.select, "evidence": split.evidence}
    tensors = {"images": samples.images, "labels": samples.labels, "pseudo_labels": pseudo_labels, **parts}
    _save_tensors(tensors, folder / "images.safetensors")
    (folder / "split.json").write_text(json.dumps(split.to_dict(samples), indent=2) + "\n")
    top = logits.softmax(dim=1).max(dim=1)
    captions = [
        f"{card.class_names[k]} {p:.0%}" for k, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
    contact_sheet(samples.images, folder / "sheet.png", captions)
    _save_facts(
        folder,
        parts={name: len(rows) for name, rows in parts.items()},
        num_labelled=int(labelled.sum()),
        skipped=[{"file": file, "reason": reason} for file, reason in samples.skipped],
        confidence=confidence.model_dump(),
        accuracy=teacher_accuracy.model_dump() if teacher_accuracy is not None else None,
        pseudo_labels=torch.bincount(pseudo_labels, minlength=card.num_classes).tolist(),
        warnings=warnings,
    )


def make_the_student(run: Run, folder: Path) -> None:
    """The student's body before training."""
    teacher = run.teacher()
    backbone = build_backbone(
        run.config.student.spec, teacher, channel_multiple=run.target.channel_multiple, seed=run.config.seed
    )
    save_backbone(backbone, folder / "backbone.safetensors", folder / "backbone.json")
    params, macs = count_params(backbone), count_macs(backbone, teacher.card.input_shape)
    run.reporter.note(f"{run.config.student.spec}: backbone of {params / 1e6:.3g} M parameters, {macs / 1e9:.3g} GMAC")
    _save_facts(folder, params=params, macs=macs)


def distill_the_student(run: Run, folder: Path) -> None:
    """Whatever the method does, with the train part of the samples only."""
    config, teacher = run.config.distill, run.teacher()
    card, samples = teacher.card, run.samples()
    settings = method_settings(run, card)
    precision, why = _precision(run, card)
    context = Context(
        folder,
        device=run.device,
        seed=run.config.seed,
        precision=precision,
        observer=run.reporter,
        should_stop=run.should_stop,
    )
    backbone = load_backbone(
        run.path("student", "backbone.safetensors"), run.path("student", "backbone.json"), card.input_shape[0]
    )
    run.reporter.note(f"{config.method} in {precision} on {run.device} ({why})")
    train = samples["images"][samples["train"]].to(run.device)
    try:
        distilled = load_method(config.method).distill(teacher, backbone, train, settings, context)
    finally:
        run.reporter.phase_ended()
    save_student(distilled.student, folder / "student.safetensors", folder / "student.json")
    generator = distilled.generator
    if generator is not None and config.export_generator:
        _save_tensors(generator.state_dict(), folder / "generator.safetensors")
    if generator is not None and run.config.report.synthetic_sheet:
        _synthetic_sheet(generator, teacher, folder / "synthetic.png", run.config.seed, run.device)
    _save_facts(
        folder,
        device=run.device,
        precision=precision,
        precision_reason=why,
        settings=settings.model_dump(mode="json"),
        phases=[asdict(phase) for phase in context.phases],
        method_facts=dict(distilled.facts),
    )


def export_the_student(run: Run, folder: Path) -> None:
    """One ONNX file with the normalisation inside, proven equal to the torch module; the teacher's as well, to compare."""
    teacher, student = run.teacher().cpu(), run.student()
    card, samples = teacher.card, run.samples()
    ceiling = _opset_ceiling(run)
    provenance = {
        "tool": f"compress {__version__}",
        "card": card.model_dump_json(),
        "student": json.dumps(student.card.model_dump(mode="json", exclude={"input"})),
        "teacher_sha256": _read_facts(run, "teacher")["sha256"],
        "target": run.target.name,
    }
    files, parities = {}, []
    models = {"student": (student, provenance), "teacher": (Classifier(teacher).eval(), provenance)}
    for name, (module, metadata) in models.items():
        files[name] = onnx_from_torch(
            module, card.input_shape, folder / f"{name}.onnx", opset_ceiling=ceiling, metadata=metadata
        )
    held_out = samples["images"][samples["evidence"]].float() / 255.0
    random = torch.Generator().manual_seed(run.config.seed)
    batches = {f"batch {size}": torch.rand(size, *card.input_shape, generator=random) for size in (1, 7)}
    batches |= {"held-out images": held_out} if len(held_out) else {}
    with TorchRunner(student) as reference, OnnxRunner(folder / "student.onnx") as candidate:
        check_parity(reference, candidate, [images.numpy() for images in batches.values()])
        for name, images in batches.items():
            feed = {"image": images.numpy()}
            parity = compare_outputs(reference.infer(feed)["logits"], candidate.infer(feed)["logits"])
            parities.append(
                {
                    "images": name,
                    "num_images": len(images),
                    "max_abs": parity.max_abs,
                    "max_rel": parity.max_rel,
                    "top1_agreement": parity.top1_agreement,
                }
            )
    example = torch.zeros(2, *card.input_shape)
    batch = torch.export.Dim("batch", min=1, max=1024)
    torch.export.save(torch.export.export(student, (example,), dynamic_shapes=({0: batch},)), folder / "student.pt2")
    run.reporter.note(
        f"student.onnx: opset {files['student'].opset}, {files['student'].size_mib:.2f} MiB, "
        f"differs from torch by {max(row['max_rel'] for row in parities):.1e} at most"
    )
    _save_facts(
        folder,
        opset=files["student"].opset,
        exporter=files["student"].exporter,
        sha256=files["student"].sha256,
        parity=parities,
        sizes_mib={name: file.size_mib for name, file in files.items()},
        params={"student": count_params(student)},
        macs={"student": count_macs(student, card.input_shape)},
    )


def measure_latency(run: Run, folder: Path) -> None:
    """ONNX Runtime on this host, student and teacher under the same conditions."""
    config = run.config.latency
    threads = "its own choice of threads" if config.threads is None else f"{config.threads} threads"
    latencies: dict[str, Any] = {}
    for name in ("student", "teacher"):
        with OnnxRunner(run.path("onnx", f"{name}.onnx"), threads=config.threads) as runner:
            shape = TeacherCard.model_validate_json(run.path("teacher", "card.json").read_text()).input_shape
            feed = {"image": torch.full((1, *shape), 0.5).numpy()}
            stats = measure(
                lambda runner=runner, feed=feed: runner.infer(feed),  # type: ignore[misc]
                batch_size=1,
                device=host_name(),
                runtime=f"ONNX Runtime CPU, {threads}",
                versions={"onnxruntime": _version("onnxruntime")},
                warmup_s=config.warmup_s,
                window_s=config.window_s,
                max_s=config.max_s,
                is_target=run.target.this_host,
            )
        latencies[name] = stats.to_dict()
        state = "" if stats.stable else " (unstable)"
        run.reporter.note(
            f"{name}: p50 {stats.latency_p50_ms:.3g} ms, p99 {stats.latency_p99_ms:.3g} ms on this host{state}"
        )
    _save_facts(folder, latencies=latencies)


def gather_evidence(run: Run, folder: Path) -> None:
    """What the report says of quality: the exported file against the teacher, on images that nothing else has read."""
    teacher, samples = run.teacher(), run.samples()
    evidence = samples["images"][samples["evidence"]]
    facts: dict[str, Any] = {"warnings": []}
    facts["evidence"] = _compare_on(run, teacher, evidence, samples["labels"][samples["evidence"]])
    if run.config.report.eval is not None:
        images, labels, warnings = _evaluation_set(run, teacher.card)
        facts["eval"] = _compare_on(run, teacher, images, labels)
        facts["warnings"] += warnings
    training_curves(read_log(run.path("distill", "log.jsonl")), folder / "curves.png")
    _save_facts(folder, **facts)


# --- running and planning ----------------------------------------------------------------------------------------------


def execute_run(resolved: Resolved, reporter: Reporter, *, command: str) -> Report:
    """Run or resume all stages and write the report.

    Raises:
        CompressError: with the exit code of what happened; finished stages are kept.
    """
    with _stop_on_signals() as should_stop:
        run = _prepare(resolved, reporter, should_stop)
        if alias := resolved_alias(run.config.target):
            reporter.note(f"target: {run.config.target} means {alias}")
        create_run_folder(run.folder)
        with exclusive(run.folder):
            save_resolved(resolved, run.folder / "config.yaml")
            results = [_execute_stage(stage, run) for stage in declare(run)]
            return _write_reports(run, results, command)


def _execute_stage(stage: Stage, run: Run) -> StageResult:
    if run.should_stop():
        raise Interrupted(
            f"The run was stopped before stage {stage.name}.",
            "Everything before it is saved.",
            "Run the same command again to go on from here.",
        )

    def announce(name: str, status: Status) -> None:
        run.reporter.stage(name, status.state, status.reason)

    with _as_stage_errors(stage.name, run.folder):
        result = execute(stage, run.folder, announce)
    for warning in _read_facts(run, stage.name).get("warnings", ()):
        run.reporter.warn(warning)
    return result


def _write_reports(run: Run, results: list[StageResult], command: str) -> Report:
    """report.json and report.md at the top of the run folder; an unchanged run keeps the report that it has."""
    path = run.folder / "report.json"
    facts = {result.name: _read_facts(run, result.name) for result in results}
    report = build_report(
        facts=facts,
        card=TeacherCard.model_validate_json(run.path("teacher", "card.json").read_text()),
        student_spec=run.config.student.spec,
        method=run.config.distill.method,
        effort=run.config.distill.effort,
        seed=run.config.seed,
        target=run.target,
        stages=[(r.name, r.state == "cached", r.seconds, r.fingerprint) for r in results],
        log=read_log(run.path("distill", "log.jsonl")),
        run_folder=run.folder,
        command=command,
        created=datetime.now(UTC),
        environment=_environment(run),
    )
    earlier = earlier_fingerprints(path)
    if earlier and earlier != [result.fingerprint for result in results]:
        run.reporter.warn("The settings changed, so this run's report replaces the earlier one in the same folder.")
    write_report(report, path)
    atomic_write_text(run.folder / "report.md", report_markdown(report))
    return report


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    stages: tuple[tuple[str, Status], ...]
    settings: tuple[tuple[str, object, str], ...]
    target: str

    def to_dict(self) -> dict[str, Any]:
        return {
            "stages": [{"name": n, "state": s.state, "reason": s.reason} for n, s in self.stages],
            "settings": [{"name": n, "value": v, "origin": o} for n, v, o in self.settings],
            "target": self.target,
        }

    def to_text(self) -> str:
        lines = [f"target: {self.target}", "", "stages:"]
        lines += [f"  {n:<8} {s.state:<7} {s.reason}" for n, s in self.stages]
        width = max(len(n) for n, _, _ in self.settings)
        lines += ["", "settings:"]
        lines += [f"  {n:<{width}}  {v}  ({o})" for n, v, o in self.settings]
        return "\n".join(lines)


def plan_run(resolved: Resolved) -> Plan:
    """What `execute_run` would do now; writes nothing."""
    run = _prepare(resolved, Reporter(quiet=True), lambda: False)
    stages = declare(run)
    statuses = plan_stages(stages, run.folder)
    alias = resolved_alias(run.config.target)
    target = run.target.title + (f" ({run.config.target} means {alias})" if alias else "")
    settings = tuple((name, get(run.config, name), origin) for name, origin in resolved.origins.items())
    return Plan(tuple(zip((stage.name for stage in stages), statuses, strict=True)), settings, target)


def _prepare(resolved: Resolved, reporter: Reporter, should_stop: Callable[[], bool]) -> Run:
    """Everything that can be refused before the first stage."""
    config = resolved.config
    target = load_target(config.target)
    if config.distill.method not in method_names():
        raise UsageFault(
            f"Unknown method {config.distill.method!r}.",
            f"Available: {', '.join(method_names())}.",
            did_you_mean(config.distill.method, method_names()) or "`compress methods` describes them.",
        )
    parse_student(config.student.spec)
    _check_options(load_method(config.distill.method), config.distill.method, config.distill.options)
    ceiling = config.onnx.opset
    if ceiling is not None and ceiling > target.opset_ceiling:
        raise UsageFault(
            f"--opset {ceiling} is above what {target.title} reads.",
            f"Its ceiling is opset {target.opset_ceiling}.",
            f"Use --opset {target.opset_ceiling}, or leave the flag out.",
        )
    for flag, path in (("--samples", config.samples.folder), ("--eval", config.report.eval)):
        if path is not None and not path.is_dir():
            raise InputRefused(
                f"{flag} {path} is not a folder." if path.exists() else f"There is no folder {path} for {flag}.",
                "A folder with image files was expected.",
                f"Check the path given to {flag}.",
            )
    return Run(config, config.out, target, _device(config.device), reporter, should_stop)


def method_settings(run: Run, card: TeacherCard) -> BaseModel:
    """The method's own settings: its defaults, those that fit the situation, then the user's options."""
    config = run.config.distill
    method = load_method(config.method)
    fitting = method.defaults(config.effort, card.input_shape, run.device)
    return method.Config(**{**fitting, **config.options})


def _check_options(method: Method, name: str, options: Mapping[str, object]) -> None:
    try:
        method.Config(**options)
    except ValidationError as error:
        problems = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        first = str(error.errors()[0]["loc"][0])
        raise UsageFault(
            f"--option does not fit the method {name}: {'; '.join(problems)}.",
            f"Its options are {', '.join(method.Config.model_fields)}.",
            did_you_mean(first, method.Config.model_fields) or f"`compress methods` describes the options of {name}.",
        ) from error


def _device(wanted: str) -> str:
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise EnvironmentFault(
            "--device cuda was asked for, but torch finds no CUDA GPU.",
            "A CUDA GPU with a driver that fits this torch was expected.",
            "Run `compress doctor` to see what is missing, or use --device cpu.",
        )
    return "cuda" if wanted != "cpu" and available else "cpu"


def _precision(run: Run, card: TeacherCard) -> tuple[str, str]:
    """The arithmetic of the training; what was chosen by looking at the machine is kept for a resumed run."""
    wanted = run.config.distill.precision
    if wanted != "auto":
        return wanted, "as asked"
    precision, why = run.choices.remember(
        f"precision on {run.device}",
        lambda: list(best_precision(torch.device(run.device), min(card.input_shape[1:]))),
    )
    return precision, why


@contextmanager
def _as_stage_errors(stage: str, run_folder: Path) -> Iterator[None]:
    """Give whatever ends a stage its three sentences; failures that have them already pass.

    The traceback of anything unforeseen goes to `<stage>/error.log`.
    """
    try:
        yield
    except ExportError as error:
        raise StageFailed(f"Stage {stage} failed. {error.received}", error.expected, error.action) from error
    except (ToolError, Refusal):
        raise
    except torch.OutOfMemoryError as error:
        raise StageFailed(
            f"Stage {stage} ran out of GPU memory.",
            "The method's batches and networks have to fit.",
            "Use --effort quick, or smaller batches such as --option student_batch_size=64.",
        ) from error
    except OSError as error:
        raise StageFailed(
            f"Stage {stage} could not read or write a file: {error}.",
            "Free space and permission to write in the run folder were expected.",
            "Make room or name another folder with --out, then run the same command again; finished stages are kept.",
        ) from error
    except Exception as error:
        log = run_folder / stage / "error.log"
        log.write_text(traceback.format_exc())
        raise StageFailed(
            f"Stage {stage} failed: {type(error).__name__}: {error}.",
            f"The traceback is in {log}.",
            "Earlier stages are kept. If the lines there do not tell what to change, report them with `compress doctor`.",
        ) from error


@contextmanager
def _stop_on_signals() -> Iterator[Callable[[], bool]]:
    """The first Ctrl-C or SIGTERM asks the run to stop between two steps; the second stops it at once."""
    stop = threading.Event()

    def ask(_signum: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield stop.is_set
        return
    previous = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop.is_set
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


# --- helpers of the adapters ---------------------------------------------------------------------------------------------


def _settings(config: RunConfig, section: str) -> dict[str, Any]:
    """A section under the names that a user knows, without paths: a file counts by its content."""
    values: dict[str, Any] = {}
    for name in FIELDS:
        value = get(config, name)
        if name.startswith(f"{section}.") and not isinstance(value, Path):
            values[name] = list(value) if isinstance(value, tuple) else value
    return values


def _card_files(config: RunConfig) -> tuple[Path, ...]:
    beside = config.teacher.file.with_suffix(".yaml")
    return tuple(path for path in (config.teacher.card or beside, config.teacher.class_names) if path is not None)


def _opset_ceiling(run: Run) -> int:
    return run.config.onnx.opset or run.target.opset_ceiling


@torch.no_grad()
def _teacher_logits(teacher: Teacher, images: Tensor, device: str) -> Tensor:
    """(N, C, H, W) uint8 to (N, K) on the CPU."""
    batches = images.split(256)
    return torch.cat([teacher(batch.to(device).float() / 255.0).logits.float().cpu() for batch in batches])


def _compare_on(run: Run, teacher: Teacher, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Agreement, accuracy and the rest of the exported student on (N, C, H, W) uint8; empty without images."""
    if len(images) == 0:
        return {}
    teacher_logits = _teacher_logits(teacher, images, run.device)
    with OnnxRunner(run.path("onnx", "student.onnx")) as runner:
        outputs = [runner.infer({"image": (batch.float() / 255.0).numpy()})["logits"] for batch in images.split(256)]
    student_logits = torch.cat([torch.from_numpy(output) for output in outputs])
    labelled = labels >= 0
    measured = {
        "agreement": agreement(teacher_logits, student_logits),
        "comparison": compare(teacher_logits, student_logits),
        "teacher_accuracy": accuracy(teacher_logits[labelled], labels[labelled]),
        "student_accuracy": accuracy(student_logits[labelled], labels[labelled]),
    }
    return {name: value.model_dump() if value is not None else None for name, value in measured.items()}


def _evaluation_set(run: Run, card: TeacherCard) -> tuple[Tensor, Tensor, list[str]]:
    """The user's --eval images without those that the samples hold as well, which a stage may have trained on."""
    assert run.config.report.eval is not None
    evaluation = read_samples(run.config.report.eval, card)
    split = json.loads(run.path("samples", "split.json").read_text())
    known = {entry["sha256"] for entry in split}
    keep = torch.tensor([sha not in known for sha in evaluation.sha256])
    warnings = list(evaluation.warnings)
    if not keep.all():
        warnings.append(
            f"{int((~keep).sum())} images of --eval are also among the samples; they are left out of the evaluation."
        )
    return evaluation.images[keep], evaluation.labels[keep], warnings


@torch.no_grad()
def _synthetic_sheet(generator: torch.nn.Module, teacher: Teacher, path: Path, seed: int, device: str) -> None:
    """64 generated images with the teacher's opinion of each; written on request only."""
    random = torch.Generator(device).manual_seed(seed)
    z, labels = generator.latents(64, random)  # type: ignore[operator]
    images = generator(z, labels)
    seen = teacher_captions(teacher(images).logits, teacher.card.class_names)
    captions = [f"asked: {teacher.card.class_names[k]}\n{line}" for k, line in zip(labels.tolist(), seen, strict=True)]
    contact_sheet((images * 255.0).round().to(torch.uint8).cpu(), path, captions)


def _environment(run: Run) -> dict[str, str | None]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "onnxruntime": _version("onnxruntime"),
        "os": platform.platform(),
        "cpu": host_name(),
        "gpu": torch.cuda.get_device_name() if run.device == "cuda" else None,
    }


def _version(module: str) -> str:
    import importlib

    return str(importlib.import_module(module).__version__)


def _lines(path: Path) -> tuple[str, ...]:
    try:
        return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(
            f"The class names in {path} cannot be read: {error}.",
            "A text file with one class name a line, in index order, was expected.",
            "Check the path given to --class-names.",
        ) from error


def _load_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, path)


def _save_facts(folder: Path, **facts: Any) -> None:
    (folder / "facts.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + os.linesep)


def _read_facts(run: Run, stage: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(run.path(stage, "facts.json").read_text())
    return facts
