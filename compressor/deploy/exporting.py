"""`compress export`: precisions, kit and recommendation for any ONNX classifier, ours or not. Nothing is trained.

    model.onnx ──> precision/ ──> kit/ ──> export.json
    ./images ──────┘

The images calibrate int8 and judge it, in two parts. There is no generator here, so there have to be enough of them.
A folder that an earlier export made is replaced as a whole.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compressor import __version__
from compressor.deploy.calibration_images import CalibrationImages, gather
from compressor.deploy.kits import make_kit
from compressor.deploy.latencies import Timing, measure_variants
from compressor.deploy.precisions import Made, make_precisions
from compressor.errors import InputRefused, UsageFault
from compressor.inputs.card import TeacherCard
from compressor.inputs.named import check_image_folder
from compressor.inputs.samples import SampleSet, read_samples, split_samples
from compressor.progress import Reporter
from compressor.report.evidence import variant_facts
from compressor.report.export_schema import Export, Source, write_export
from compressor.report.limits import Limits
from compressor.report.recommend import recommend
from compressor.report.schema import SkippedFile, Target
from compressor.report.variants import int8_of, kit_of, latencies_of, notes_of, variants_of
from compressor.stages import create_run_folder, exclusive
from exporters.errors import ExportError
from exporters.logits import logits_of, onnx_logits
from exporters.onnx_files import ClassifierInterface, OnnxFile, classifier_interface, load_onnx, opset_of, save_onnx
from profiles.catalogue import load_target
from profiles.schema import Budget, DeviceProfile, Precision

# Of the images, this share judges; what calibrates should be the larger part.
EVIDENCE_FRACTION = 0.3
TIMING = Timing(warmup_s=1.0, window_s=0.5, max_s=10.0)


@dataclass(frozen=True)
class ExportRequest:
    """What a user asks of an export.

    Attributes:
        source: the fp32 ONNX classifier.
        images: a folder with images of its task.
        mean, std: what its input is normalised with outside the file, per channel; None where it takes [0, 1].
        evaluation: more images, only ever reported on.
    """

    source: Path
    images: Path
    target: DeviceProfile
    out: Path
    precisions: tuple[Precision, ...] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    evaluation: Path | None = None
    max_drop: float = 1.0
    max_latency_ms: float | None = None
    max_size_mib: float | None = None
    seed: int = 0


def export_request(
    *,
    source: Path,
    images: Path,
    target: str,
    out: Path | None,
    precisions: str | None,
    mean: str | None,
    std: str | None,
    evaluation: Path | None,
    **others: Any,
) -> ExportRequest:
    """A request from the words of a command line.

    Raises:
        UsageFault: a word does not parse.
        ProfileError: there is no such target.
        InputRefused: a folder is not there.
    """
    check_image_folder("--samples", images)
    if evaluation is not None:
        check_image_folder("--eval", evaluation)
    profile = load_target(target)
    numbers = {"--mean": _numbers("--mean", mean), "--std": _numbers("--std", std)}
    if (mean is None) != (std is None):
        raise UsageFault(
            "Only one of --mean and --std is given.",
            "They go together.",
            "Give both, or neither if the file takes images in [0, 1].",
        )
    return ExportRequest(
        source=source.absolute(),
        images=images.absolute(),
        target=profile,
        out=(out or Path("exports") / f"{source.stem}-{profile.name}").absolute(),
        precisions=None if precisions is None else _precisions(precisions, profile),
        mean=numbers["--mean"],
        std=numbers["--std"],
        evaluation=None if evaluation is None else evaluation.absolute(),
        **others,
    )


def _numbers(flag: str, words: str | None) -> tuple[float, ...] | None:
    if words is None:
        return None
    try:
        numbers = tuple(float(word) for word in words.split(","))
    except ValueError:
        numbers = ()
    usable = numbers and all(map(math.isfinite, numbers)) and (flag == "--mean" or min(numbers) > 0)
    if not usable:
        raise UsageFault(
            f"{flag} {words} is not a list of numbers per channel.",
            "Finite numbers, and above 0 for --std, were expected, such as 0.5,0.5,0.5.",
            "Correct the flag and run the command again.",
        )
    return numbers


def _precisions(words: str, target: DeviceProfile) -> tuple[Precision, ...]:
    """fp32 is always among them: the others are judged by it."""
    wanted = set(words.split(","))
    if unknown := sorted(wanted - set(target.precisions)):
        raise UsageFault(
            f"--precisions has {', '.join(unknown)}.",
            f"{target.title} takes {', '.join(target.precisions)}.",
            "Name some of these, separated by commas.",
        )
    return tuple(precision for precision in target.precisions if precision in wanted | {"fp32"})


def export_classifier(request: ExportRequest, reporter: Reporter) -> Export:
    """Make every precision that the target takes, judge it, and say which one to ship.

    Raises:
        InputRefused: the file is no ONNX classifier of images with one or three channels, or no image is usable.
        UsageFault: the file's opset is above what the target reads, or the output folder is not ours.
    """
    try:
        proto = load_onnx(request.source)
        interface = classifier_interface(proto, request.source.name)
    except ExportError as error:
        raise InputRefused(error.received, error.expected, error.action) from error
    _check(request, interface, opset_of(proto))
    samples = read_samples(request.images, _card(interface))
    create_run_folder(request.out)
    with exclusive(request.out):
        for part in ("onnx", "precision", "kit"):
            shutil.rmtree(request.out / part, ignore_errors=True)
            (request.out / part).mkdir()
        file = save_onnx(proto, request.out / "onnx" / "student.onnx")
        export = _exported(request, file, interface, samples, reporter)
        write_export(export, request.out / "export.json")
    return export


def _exported(
    request: ExportRequest, file: OnnxFile, interface: ClassifierInterface, samples: SampleSet, reporter: Reporter
) -> Export:
    feed = partial(_fed, mean=request.mean, std=request.std)
    target, out = request.target, request.out
    pseudo_labels = torch.from_numpy(onnx_logits(file.path, feed(samples.images.numpy())).argmax(axis=1))
    split = split_samples(
        samples, pseudo_labels, seed=request.seed, select_fraction=0.1, evidence_fraction=EVIDENCE_FRACTION
    )
    images = gather(
        samples.images[split.train],
        samples.images[split.select],
        None,
        num_synthetic=0,
        seed=request.seed,
        absent="An export alone has no generator",
    )
    reporter.note(f"{len(split.train)} images calibrate, {len(split.select)} choose, {len(split.evidence)} judge")
    made = make_precisions(
        file.path,
        out / "precision",
        "student",
        target,
        request.precisions or target.precisions,
        _all_fed(images, feed),
        max_drop=request.max_drop,
        note=reporter.note,
    )
    sets = {"evidence": (samples.images[split.evidence], samples.labels[split.evidence])}
    warnings = [*samples.warnings, *images.warnings, *made.warnings]
    if request.evaluation is not None:
        more = read_samples(request.evaluation, _card(interface), keep_duplicates=True)
        sets["eval"] = (more.images, more.labels)
        warnings += more.warnings
    facts: dict[str, dict[str, Any]] = {
        "precision": {
            "variants": made.rows(),
            "int8": [] if made.int8 is None else [made.int8],
            "notes": list(made.notes),
        },
        "latency": {
            "latencies": measure_variants(made.variants, out, interface.image_shape, target, TIMING, reporter.note)
        },
        "report": {"variants": _judged(made, out, sets, feed)},
        "kit": {"kit": _kit(request, made, file.opset)},
    }
    latencies = latencies_of(facts)
    variants, calibrations = variants_of(facts, latencies, {}), int8_of(facts)
    budget = target.budget or Budget()
    limits = Limits(
        request.max_drop,
        request.max_latency_ms or budget.max_latency_ms,
        request.max_size_mib or budget.max_size_mib,
    )
    return Export(
        tool_version=__version__,
        created=datetime.now(UTC),
        source=Source(
            file=request.source.name,
            sha256=file.sha256,
            opset=file.opset,
            input_name=interface.input_name,
            image_shape=interface.image_shape,
            fixed_batch=interface.batch,
            num_classes=interface.num_classes,
        ),
        target=Target(
            profile=target.name,
            title=target.title,
            attached=target.this_host,
            reason=None if target.this_host else f"No {target.title} is attached to the machine that ran this.",
        ),
        num_calibration=len(split.train),
        num_evidence=len(split.evidence),
        skipped=tuple(SkippedFile(file=name, reason=reason) for name, reason in samples.skipped),
        variants=variants,
        variant_notes=notes_of(facts),
        int8=calibrations,
        recommendation=recommend(variants, calibrations, limits, target),
        kit=kit_of(facts),
        warnings=tuple(warnings),
    )


def _check(request: ExportRequest, interface: ClassifierInterface, opset: int) -> None:
    if opset > request.target.opset_ceiling:
        raise UsageFault(
            f"{request.source.name} is written in opset {opset}.",
            f"{request.target.title} reads opset {request.target.opset_ceiling} at most.",
            "Export the model again with that opset, or choose another --target.",
        )
    channels = interface.image_shape[0]
    if channels not in (1, 3):
        raise InputRefused(
            f"{request.source.name} takes images of {channels} channels.",
            "Folders hold images of 1 or 3 channels.",
            "Export a model for such images.",
        )
    for flag, numbers in (("--mean", request.mean), ("--std", request.std)):
        if numbers is not None and len(numbers) != channels:
            raise UsageFault(
                f"{flag} has {len(numbers)} numbers.",
                f"{request.source.name} takes images of {channels} channels.",
                "Give one number per channel, in the order of the model's channels.",
            )


def _card(interface: ClassifierInterface) -> TeacherCard:
    """How images are read for this file: to its size, as [0, 1]."""
    channels = interface.image_shape[0]
    return TeacherCard(
        architecture="onnx",
        num_classes=interface.num_classes,
        class_names=tuple(str(index) for index in range(interface.num_classes)),
        input_shape=interface.image_shape,
        channel_order="L" if channels == 1 else "RGB",
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
    )


def _fed(images: NDArray[Any], *, mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> NDArray[np.float32]:
    """uint8 or [0, 1] images (N, C, H, W) as the file takes them."""
    floats = images.astype(np.float32) / np.float32(255.0) if images.dtype == np.uint8 else images
    if mean is None or std is None:
        return floats
    subtracted, divided = (np.asarray(numbers, np.float32).reshape(1, -1, 1, 1) for numbers in (mean, std))
    fed: NDArray[np.float32] = (floats - subtracted) / divided
    return fed


def _all_fed(images: CalibrationImages, feed: Callable[[NDArray[Any]], NDArray[np.float32]]) -> CalibrationImages:
    return replace(images, real=feed(images.real), select=feed(images.select))


def _judged(
    made: Made,
    out: Path,
    sets: dict[str, tuple[torch.Tensor, torch.Tensor]],
    feed: Callable[[NDArray[Any]], NDArray[np.float32]],
) -> dict[str, dict[str, Any]]:
    """Each variant against the fp32 file, which is its own teacher here, on each set of images."""
    judged: dict[str, dict[str, Any]] = {variant.key: {} for variant in made.variants}
    for name, (images, labels) in sets.items():
        if len(images) == 0:
            continue
        fed, reference = feed(images.numpy()), None
        for variant in made.variants:  # fp32 first
            if variant.file is None:
                continue
            with variant.open(out) as runner:
                logits = torch.from_numpy(logits_of(runner, fed))
            reference = logits if reference is None else reference
            judged[variant.key][name] = variant_facts(reference, reference, logits, labels)
    return judged


def _kit(request: ExportRequest, made: Made, opset: int) -> dict[str, Any] | None:
    if request.target.this_host:
        return None
    metadata = {"tool": f"compress {__version__}", "source": request.source.name}
    return make_kit(request.out, made.variants, request.target, opset=opset, metadata=metadata)
