"""`compress export`: precisions, kit and recommendation for any ONNX classifier or segmenter, ours or not.

    model.onnx ──> onnx/ ──> precision/ ──> kit/ ──> facts.json ──> export.json
    ./images ────────────────┘                           ↑
                                              a result from the device

Nothing is trained. The images calibrate int8 and judge it, in two parts. There is no generator here, so there have to
be enough of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from compressor import __version__
from compressor.deploy.board_results import accept_result, check_result, failures_of, latencies_of, parities_of
from compressor.deploy.calibration_images import gather
from compressor.deploy.export_folder import EXPORT, check_out, earlier_export, new_export, room_for
from compressor.deploy.export_inputs import Classifier, labels_of, read_classifier, read_images
from compressor.deploy.export_request import ExportRequest, export_request
from compressor.deploy.kits import make_kit
from compressor.deploy.latencies import Timing, measure_variants
from compressor.deploy.precisions import Made, make_precisions
from compressor.deploy.predictions import predicted_variants
from compressor.errors import UsageFault
from compressor.inputs.onnx_network import as_refusal
from compressor.inputs.pixels import Images, StoredImages
from compressor.inputs.samples import SampleSet, split_samples
from compressor.progress import Reporter
from compressor.report.export_schema import Export, Source, read_export, write_export
from compressor.report.limits import Limits, limits_of
from compressor.report.measured import Proportion
from compressor.report.recommend import recommend
from compressor.report.schema import SkippedFile, Target
from compressor.report.shipping import LimitsRecord, Variant
from compressor.report.text import with_interval
from compressor.report.variants import int8_of, kit_of, notes_of, variants_of
from compressor.report.variants import latencies_of as latencies_here
from compressor.report.verdicts import verdicts_of
from compressor.stage_files import FACTS, read_facts, save_facts
from compressor.tasks import TaskEvidence, ask_file, task_of
from exporters.onnx_files import save_onnx
from exporters.runners import OnnxRunner
from profiles.board_result import BoardResult
from profiles.schema import DeviceProfile

__all__ = ["ExportRequest", "export_classifier", "export_request", "merge_into_export"]

# Of the images, this share judges; what calibrates should be the larger part.
EVIDENCE_FRACTION = 0.3
TIMING = Timing()


def export_classifier(request: ExportRequest, reporter: Reporter) -> Export:
    """Make every precision that the target takes, judge it, and say which one to ship.

    An export that is in the folder already is replaced as a whole, or stays as it was.

    Raises:
        InputRefused: the file is no fp32 ONNX classifier or segmenter of images with one, three or four channels that
            ONNX Runtime can run, or no image is usable.
        UsageFault: the file's opset is above what the target reads, or the folder is not ours or cannot be written.
    """
    check_out(request.out)
    classifier = read_classifier(request)
    more = None
    with room_for(request.out) as scratch:
        samples = read_images(request.images, classifier.interface, "--samples", scratch)
        if request.evaluation is not None:
            more = read_images(request.evaluation, classifier.interface, "--eval", scratch, keep_duplicates=True)
    with new_export(request.out) as folder:
        _gather_facts(request, classifier, samples, more, folder, reporter)
        export = _built(folder, None)
        write_export(export, folder / EXPORT)
    return export


def merge_into_export(folder: Path, path: Path) -> Export:
    """Bring what the kit of an export measured on its device into export.json.

    Raises:
        UsageFault: the folder holds no finished export, or cannot be written.
        StaleResult, BoardResultError: the file is no result of this export's kit; nothing has changed then.
    """
    _check_finished(folder)
    with earlier_export(folder):
        _check_finished(folder)
        result = check_result(folder, path)
        try:
            export = _built(folder, result)
        except (KeyError, ValueError) as error:
            raise _unfinished(folder) from error
        accept_result(folder, path)
        write_export(export, folder / EXPORT)
    return export


def _check_finished(folder: Path) -> None:
    try:
        version = read_export(folder / EXPORT).tool_version
    except (OSError, ValueError) as error:
        raise _unfinished(folder) from error
    if version != __version__:
        raise _unfinished(folder)


def _unfinished(folder: Path) -> UsageFault:
    return UsageFault(
        f"{folder} holds no finished export of this version.",
        f"The folder of an export with its {EXPORT} and {FACTS} was expected.",
        "Give the folder that `compress export` made, or make the export again and take its kit to the device.",
    )


def _gather_facts(
    request: ExportRequest,
    classifier: Classifier,
    samples: SampleSet,
    more: SampleSet | None,
    folder: Path,
    reporter: Reporter,
) -> None:
    """Make the files, and write down what was found out about them."""
    target = request.target
    with as_refusal():
        file = save_onnx(classifier.proto, folder / "onnx" / "student.onnx")
    task = task_of(classifier.task)
    with OnnxRunner(file.path) as runner:
        groups = task.groups(ask_file(task, runner, samples.images).answers)
    split = split_samples(samples, groups, seed=request.seed, select_fraction=0.1, evidence_fraction=EVIDENCE_FRACTION)
    images = gather(
        StoredImages((samples.images, split.train)),
        StoredImages((samples.images, split.select)),
        None,
        num_synthetic=0,
        seed=request.seed,
        absent="An export alone has no generator",
        more="More --samples would help.",
    )
    reporter.note(f"{len(images.real)} images calibrate, {len(images.select)} choose, {len(split.evidence)} judge")
    made = make_precisions(
        file.path,
        folder / "precision",
        "student",
        target,
        request.precisions or target.precisions,
        images,
        max_drop=request.max_drop,
        note=reporter.note,
        task=classifier.task,
    )
    labels, told = labels_of(request.images, samples, classifier.interface, folder)
    sets: dict[str, tuple[Images, torch.Tensor]] = {
        "evidence": (StoredImages((samples.images, split.evidence)), labels[split.evidence])
    }
    warnings = [*samples.warnings, *told, *made.warnings]
    if more is not None and request.evaluation is not None:
        labels, told = labels_of(request.evaluation, more, classifier.interface, folder)
        sets["eval"] = (more.images, labels)
        warnings += [*more.warnings, *told]
    save_facts(
        folder / "precision",
        variants=made.rows(),
        int8=[] if made.int8 is None else [made.int8],
        notes=made.notes,
    )
    save_facts(
        folder,
        source=classifier.source.model_dump(mode="json"),
        target=target.model_dump(mode="json"),
        limits=asdict(limits_of(request.max_drop, request.max_latency_ms, request.max_size_mib, target.budget)),
        num_calibration=len(images.real),
        num_evidence=len(split.evidence),
        skipped=samples.skipped,
        warnings=list(dict.fromkeys(warnings)),
        latency={
            "latencies": measure_variants(
                made.variants, folder, classifier.interface.image_shape, target, TIMING, reporter.note
            ),
            "predicted": _predicted(made, folder, target, reporter),
        },
        report={"variants": _judged(task, made, folder, sets, reporter)},
        kit={"kit": _kit(request, made, file.opset, folder)},
    )


def _judged(
    task: TaskEvidence,
    made: Made,
    folder: Path,
    sets: Mapping[str, tuple[Images, torch.Tensor]],
    reporter: Reporter,
) -> dict[str, dict[str, Any]]:
    """Each variant against the fp32 file, which is its own teacher here, on each set of images (N, C, H, W).

    sets: images and what is known of them, -1 or masks.
    """
    judged: dict[str, dict[str, Any]] = {}
    for name, (images, labels) in sets.items():
        reference: torch.Tensor | None = None
        for variant in made.variants:  # fp32 first
            if variant.file is None or not variant.judged:
                continue
            with variant.open(folder) as runner:
                answers = ask_file(task, runner, images).answers
            reference = answers if reference is None else reference
            facts = task.variant_facts(reference, reference, answers, labels)
            judged.setdefault(variant.key, {})[name] = facts
            if (overlap := facts.get("student_mean_iou")) is not None:
                found = with_interval(Proportion(**overlap))
                reporter.note(f"{variant.precision}: mean IoU with the masks of {overlap['n']:,} images {found}")
    return judged


def _predicted(made: Made, folder: Path, target: DeviceProfile, reporter: Reporter) -> dict[str, Any]:
    predicted, refused = predicted_variants(made.variants, folder, target, anchors=())
    if refused is not None:
        reporter.note(refused)
    return predicted


def _kit(request: ExportRequest, made: Made, opset: int, folder: Path) -> dict[str, Any] | None:
    if request.target.this_host:
        return None
    metadata = {"tool": f"compress {__version__}", "source": request.source.name}
    return make_kit(folder, made.variants, request.target, opset=opset, metadata=metadata)


def _built(folder: Path, merged: BoardResult | None) -> Export:
    """The export from the facts in its folder, and from what its device sent back."""
    found = read_facts(folder)
    facts = {**found, "precision": read_facts(folder / "precision")}
    target, limits = DeviceProfile.model_validate(found["target"]), Limits(**found["limits"])
    sent = {} if merged is None else latencies_of(merged, target)
    failures = {} if merged is None else failures_of(merged)
    variants = variants_of(facts, latencies_here(facts), sent, failures, {} if merged is None else parities_of(merged))
    calibrations = int8_of(facts)
    recommendation = recommend(variants, calibrations, limits, target)
    return Export(
        tool_version=__version__,
        created=datetime.now(UTC),
        source=Source.model_validate(found["source"]),
        target=_target(target, variants),
        num_calibration=found["num_calibration"],
        num_evidence=found["num_evidence"],
        skipped=tuple(SkippedFile(file=name, reason=reason) for name, reason in found["skipped"]),
        variants=variants,
        variant_notes=notes_of(facts),
        int8=calibrations,
        limits=LimitsRecord(**found["limits"]),
        recommendation=recommendation,
        verdicts=verdicts_of(variants, recommendation, limits, target),
        kit=kit_of(facts),
        warnings=tuple(found["warnings"]),
    )


def _target(profile: DeviceProfile, variants: Sequence[Variant]) -> Target:
    latencies = [variant.latency_target for variant in variants if variant.path is not None]
    reason = (
        f"Not every artefact was measured on {profile.title}."
        if any(latencies)
        else f"No {profile.title} is attached to the machine that ran this."
    )
    return Target(
        profile=profile.name,
        title=profile.title,
        attached=profile.this_host,
        reason=None if profile.this_host or all(latencies) else reason,
    )
