"""report.md: made from report.json alone, short enough for a pull-request comment (65,536 characters)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar
from urllib.parse import quote

from compressor.report.artefact_table import (
    accuracy_name,
    agreement_name,
    calibration_lines,
    judged_on,
    prediction_lines,
    variant_lines,
    variant_notes,
)
from compressor.report.decision import decision_sentence
from compressor.report.evidence_lines import (
    accuracy_line,
    class_words,
    disturbed_lines,
    disturbed_on,
    shipped,
    sureness,
    worst_classes,
)
from compressor.report.measured import (
    AnyComparison,
    ClassFlips,
    ClassOverlap,
    Comparison,
    OutputError,
    RegressionComparison,
    SegmentationComparison,
)
from compressor.report.schema import Distillation, Report, TrainingMemory
from compressor.report.shipping import Variant
from compressor.report.student_search import candidate_lines, latency_kind, search_remarks
from compressor.report.table import host_name, latency_lines, latency_notes, side_by_side
from compressor.report.text import ABSENT, agrees, count, duration, percent, significant, size, with_interval
from compressor.report.time_split import time_lines
from compressor.report.untrusted import code, fenced, prose
from compressor.report.wording import EQUAL, NO_EVIDENCE, PREPOSITION, has_samples
from profiles.latency import LatencyStats

T = TypeVar("T")

# A list in report.json may be as long as the user's folder; here it ends with a count of the rest.
LIST_LIMIT = 15
# All lists together may still be too long, where every sentence quotes a name that is nothing but markup. With what is
# said of the rest this stays below a comment's 65,536 characters, and at four bytes each below a step summary's 1 MiB.
LENGTH_LIMIT = 65_000
WORST_CLASSES = 5

_OUTCOMES = ("fail", "warn", "pass")


def report_markdown(report: Report) -> str:
    """The whole file, ending in a newline. The same report gives the same text."""
    sections = (
        _head,
        _limits,
        _networks,
        _latency,
        _shipping,
        _student,
        _warnings,
        _differences,
        _disturbed,
        _generated,
        _samples,
        _making,
        _pictures,
        _files,
        _again,
    )
    return "\n\n".join(_short_enough(chain.from_iterable(section(report) for section in sections))) + "\n"


def _short_enough(blocks: Iterable[str]) -> Iterator[str]:
    """All blocks that fit, each whole, so that no table and no fence ends in the middle; and how many did not."""
    length, num_left_out = 0, 0
    for block in blocks:
        if length + len(block) + len("\n\n") > LENGTH_LIMIT:
            num_left_out += 1
            continue
        length += len(block) + len("\n\n")
        yield block
    if num_left_out:
        yield f"Left out for its length: {count(num_left_out, 'part')} of this report. All of it is in report.json."


def _head(report: Report) -> Iterator[str]:
    yield f"# Compression report: {code(report.run_name)}"
    yield f"**{decision_sentence(report)}** {prose(report.summary.headline)}"
    if report.summary.points:
        yield _bullets(map(prose, report.summary.points))


def _limits(report: Report) -> Iterator[str]:
    if report.verdicts:
        yield "## Limits"
        yield _bullets(f"**{verdict.state}**: {prose(verdict.sentence)}" for verdict in report.verdicts)
    if report.gates:
        yield "## Gates"
        worst_first = sorted(report.gates, key=lambda gate: _OUTCOMES.index(gate.outcome))
        yield _bullets(_limited(worst_first, lambda gate: f"**{gate.outcome}**: {prose(gate.sentence)}", "gates"))
    if (baseline := report.baseline) is not None:
        yield prose(f"Compared with the baseline {baseline.run_name} of {baseline.created[:16].replace('T', ' ')}.")


def _networks(report: Report) -> Iterator[str]:
    yield "## Teacher and student"
    rows = [(line.label, line.teacher, line.student, line.ratio) for line in side_by_side(report)]
    header = ("", "teacher", "student", "student / teacher")
    yield _table("lrrr", header, [[prose(cell) for cell in row] for row in rows])


def _latency(report: Report) -> Iterator[str]:
    yield "Latency of one batch, p50 / p90 / p99 in ms:"
    header = ("", f"host: {prose(host_name(report))}", f"target: {prose(report.target.title)}")
    rows = [(line.model, prose(line.host), prose(line.target)) for line in latency_lines(report)]
    yield _table("lrr", header, rows)
    yield _bullets(map(prose, latency_notes(report)))


def _shipping(report: Report) -> Iterator[str]:
    lines = variant_lines(report)
    if not lines:
        return
    yield "## What to ship"
    agreement = f"{agreement_name(report)} {PREPOSITION[report.task]}"
    images = judged_on(report)
    columns = [
        ("artefact", [f"**{prose(line.label)}**" if line.recommended else prose(line.label) for line in lines]),
        ("size", [line.size for line in lines]),
        ("difference to fp32", [line.parity for line in lines]),
        (f"{agreement} the teacher{f', {images}' if images else ''}", [line.agreement for line in lines]),
        (f"{agreement} fp32", [line.as_fp32 for line in lines]),
        ("mean IoU with the teacher", [line.mean_iou for line in lines]),
        (accuracy_name(report), [line.accuracy for line in lines]),
        ("mean IoU with masks", [line.mean_iou_masks for line in lines]),
        ("host, p50 ms", [line.host for line in lines]),
        ("target, p50 ms", [line.target for line in lines]),
        ("target, predicted p50 ms", [prose(line.predicted) for line in lines]),
        ("", [prose(line.verdict) for line in lines]),
    ]
    known = [(name, cells) for name, cells in columns if set(cells) - {ABSENT, ""}]
    align = "l" + "r" * (len(known) - 2) + "l"
    yield _table(align, [name for name, _ in known], zip(*(cells for _, cells in known), strict=True))
    notes = [
        *map(prose, prediction_lines(report)),
        *map(prose, calibration_lines(report)),
        *_float_layers(report),
        *map(prose, variant_notes(report, told=_in_latency_notes(report))),
    ]
    if notes:
        yield _bullets(notes)


def _in_latency_notes(report: Report) -> tuple[LatencyStats, ...]:
    rows = (report.teacher, report.student)
    found = [latency for row in rows for latency in (row.latency_host, row.latency_target)]
    return tuple(latency for latency in found if latency is not None)


def _student(report: Report) -> Iterator[str]:
    """How the student was chosen, where the tool chose it."""
    search = report.student_search
    if search is None:
        return
    yield "## The student"
    yield prose(search.reason)
    header = ("student", "parameters", "MACs", f"size, {search.precision}", f"{latency_kind(search)}, ms", "")
    rows = [
        (
            f"**{code(line.spec)}**" if line.chosen else code(line.spec),
            line.params,
            line.macs,
            line.size,
            prose(line.latency),
            prose(line.verdict),
        )
        for line in candidate_lines(search)
    ]
    yield _table("lrrrrl", header, rows)
    if remarks := search_remarks(search):  # what carries the predictions stands with those of the artefacts
        yield _bullets(_limited(remarks, prose, "more notes"))
    if search.picture is not None:
        yield f"![Candidates by latency and size]({quote(search.picture)})"


def _float_layers(report: Report) -> Iterator[str]:
    for calibration in report.int8:
        if calibration.float_layers:
            layers = ", ".join(_limited(calibration.float_layers, code, "more"))
            yield f"{calibration.model} int8, layers that stayed float: {layers}."


def _warnings(report: Report) -> Iterator[str]:
    if report.warnings:
        yield "## Warnings"
        yield _bullets(_limited(report.warnings, prose, "more warnings"))


def _differences(report: Report) -> Iterator[str]:
    lines = [
        _difference(comparison, where, report.teacher_source.class_names)
        for where, comparison in (
            ("held-out images", report.comparison_evidence),
            ("images of --eval", report.comparison_eval),
        )
        if comparison is not None
    ]
    if (variant := shipped(report)) is not None:
        lines += _accuracy_lines(report, variant)
    if lines:
        yield "## Where the student differs"
        yield _bullets(lines)


def _accuracy_lines(report: Report, variant: Variant) -> Iterator[str]:
    if (line := accuracy_line(variant)) is not None:
        yield prose(line)
    if worst := worst_classes(variant):
        names = report.teacher_source.class_names
        said = [f"{code(names[one.class_index])} ({class_words(one)})" for one in worst[:WORST_CLASSES]]
        if rest := len(worst) - len(said):
            said.append(f"and {rest:,} more in report.json")
        yield f"{variant.label}, labels that lose most: {', '.join(said)}."


def _disturbed(report: Report) -> Iterator[str]:
    lines = disturbed_lines(report)
    if not lines:
        return
    yield "## On disturbed images"
    yield (
        f"The teacher and the student's fp32 file on {disturbed_on(report)}; kept is an answer that is the one to the "
        "undisturbed image."
    )
    columns = [
        ("", [prose(line.corruption) for line in lines]),
        ("they agree", [line.agreement for line in lines]),
        ("the teacher keeps", [line.teacher_kept for line in lines]),
        ("the student keeps", [line.student_kept for line in lines]),
        ("the teacher's accuracy", [line.teacher_accuracy for line in lines]),
        ("the student's accuracy", [line.student_accuracy for line in lines]),
    ]
    known = [(name, cells) for name, cells in columns if set(cells) != {ABSENT}]
    rows = zip(*(cells for _, cells in known), strict=True)
    yield _table("l" + "r" * (len(known) - 1), [name for name, _ in known], rows)


def _difference(comparison: AnyComparison, where: str, class_names: Sequence[str]) -> str:
    match comparison:
        case Comparison():
            return _of_classes(comparison, where, class_names)
        case SegmentationComparison():
            return _of_maps(comparison, where, class_names)
        case RegressionComparison():
            return _of_outputs(comparison, where, class_names)


def _of_maps(comparison: SegmentationComparison, where: str, class_names: Sequence[str]) -> str:
    """Least alike first; a class that neither gives to any pixel is not there."""
    classes = sorted(comparison.classes, key=lambda one: one.iou)

    def overlap(one: ClassOverlap) -> str:
        masks = (
            ""
            if one.teacher_iou is None or one.student_iou is None
            else f"; with masks {percent(one.student_iou)}, the teacher {percent(one.teacher_iou)}"
        )
        return (
            f"{code(class_names[one.class_index])} {percent(one.iou)} "
            f"({percent(one.teacher_share)} of the teacher's pixels{masks})"
        )

    shares = ", ".join(_limited(classes, overlap, "more"))
    return (
        f"On {comparison.num_images:,} {where}: in every one at least {percent(comparison.lowest_image)} of the pixels "
        f"agree; IoU by class, least alike first: {shares}."
    )


def _of_outputs(comparison: RegressionComparison, where: str, names: Sequence[str]) -> str:
    """Worst first."""
    outputs = sorted(comparison.outputs, key=lambda one: 1.0 if one.explained is None else one.explained)

    def error(one: OutputError) -> str:
        known = "the teacher's is constant"
        if one.explained is not None:
            known = f"{percent(one.explained)} explained, the teacher's deviation {significant(one.teacher_std)}"
        return f"{code(names[one.index])} {significant(one.rmse)} ({known})"

    errors = ", ".join(_limited(outputs, error, "more"))
    return (
        f"On {comparison.num_images:,} {where}: root mean square difference {significant(comparison.rmse)} over all "
        f"outputs; by output: {errors}."
    )


def _of_classes(comparison: Comparison, where: str, class_names: Sequence[str]) -> str:
    teacher, student = comparison.teacher_confidence, comparison.student_confidence
    moved = sorted((flips for flips in comparison.flips if flips.num_flipped), key=lambda flips: -flips.num_flipped)

    def share(flips: ClassFlips) -> str:
        return f"{code(class_names[flips.class_index])} ({flips.num_flipped:,} of {flips.num_images:,})"

    shares = ", ".join(_limited(moved, share, "more"))
    flips = f"flips by the teacher's class: {shares}" if moved else "no flips"
    sure = "".join(f"; {clause}" for clause in sureness(comparison))
    return (
        f"On {teacher.n:,} {where}: KL divergence {significant(comparison.mean_kl_nats)} nats; mean "
        f"confidence {percent(student.mean)}, the teacher's {percent(teacher.mean)}{sure}; {flips}."
    )


def _generated(report: Report) -> Iterator[str]:
    """What is no evidence stands apart from what is."""
    found = report.generated
    if found is None:
        return
    yield "## On generated images"
    yield NO_EVIDENCE
    lines = [f"The student {prose(agrees(found.agreement, 'its teacher', with_interval(found.agreement)))}."]
    if found.mean_iou is not None:
        lines.append(f"Mean IoU of its class maps with the teacher's: {with_interval(found.mean_iou)}.")
    if found.comparison is not None:
        lines.append(_difference(found.comparison, "generated images", report.teacher_source.class_names))
    yield _bullets(lines)


def _samples(report: Report) -> Iterator[str]:
    samples = report.samples
    lines = ["No image of the task was given."]
    if has_samples(report):
        lines = [
            f"{count(samples.num_train, 'image')} to train on, {samples.num_select:,} to choose on, "
            f"{samples.num_evidence:,} held out for this report{_labelled(report)}."
        ]
    if samples.num_pool:
        others, making = count(samples.num_pool, "other image"), report.distillation
        unused = f"{others} in the pool, which {code(making.method)} does not use."
        lines.append(f"{others} to train on, from the pool." if making.uses_pool else unused)
    if (confidence := samples.teacher_confidence) is not None:
        lines.append(
            f"The teacher's confidence: mean {percent(confidence.mean)}, median "
            f"{percent(confidence.median)}, one image in ten below {percent(confidence.p10)}."
        )
    if (accuracy := samples.teacher_accuracy) is not None:
        of = "the pixels of " if accuracy.of == "pixels" else ""
        lines.append(f"The teacher's accuracy: {percent(accuracy.value)} of {of}{accuracy.n:,} labelled images.")
    if any(samples.pseudo_labels):
        lines += _classes_seen(report)
    if samples.skipped:
        lines.append(f"{count(len(samples.skipped), 'file')} skipped:")
        skipped = _limited(samples.skipped, lambda one: f"{code(one.file)}: {prose(one.reason)}", "more")
        lines[-1] += "".join(f"\n  - {line}" for line in skipped)
    yield "## Samples"
    yield _bullets(lines)


def _labelled(report: Report) -> str:
    if report.task == "regression":
        return ""
    return f"; {report.samples.num_labelled:,} have a {'mask' if report.task == 'segmentation' else 'label'}"


def _classes_seen(report: Report) -> Iterator[str]:
    class_names = report.teacher_source.class_names
    labels = zip(report.samples.pseudo_labels, class_names, strict=True)
    seen = sorted((pair for pair in labels if pair[0]), key=lambda pair: -pair[0])
    given = _limited(seen, lambda pair: f"{code(pair[1])} ({pair[0]:,})", "more")
    dense = report.task == "segmentation"
    yield f"The teacher's {'most frequent ' if dense else ''}classes: {', '.join(given)}."
    if len(seen) < len(class_names):
        missing = count(len(class_names) - len(seen), "class", "classes")
        yield f"{missing} the most frequent in no image." if dense else f"{missing} in no image."


def _making(report: Report) -> Iterator[str]:
    distillation, source, onnx = report.distillation, report.teacher_source, report.onnx
    yield "## How it was made"
    yield _bullets(
        [
            f"Teacher {code(source.file)}, {code(source.architecture)}, input "
            f"{'×'.join(map(str, source.input_shape))}, SHA-256 {code(source.sha256)}.",
            f"Normalisation: mean {_vector(source.mean)}, std {_vector(source.std)}, from "
            f"{prose(source.normalisation_origin)}.{_identity(report)}",
            f"Method {code(distillation.method)}, effort {code(distillation.effort)}, seed "
            f"{distillation.seed}, on {code(distillation.device)} in {code(distillation.precision)}."
            f"{_why_method(distillation)}",
            *_method_notes(distillation),
        ]
    )
    yield _table(
        "lrrl",
        ("training phase", "steps", "time", "loss terms at the end"),
        [
            (code(phase.name), f"{phase.num_steps:,}", duration(phase.seconds), _terms(phase.final_terms))
            for phase in distillation.phases
        ],
    )
    yield f"ONNX opset {onnx.opset} by exporter {code(onnx.exporter)}, against torch:"
    yield _table(
        "lrrr",
        ("on", "images", "largest difference", EQUAL[report.task]),
        [(prose(p.images), f"{p.num_images:,}", f"{p.max_abs:.1e}", percent(p.top1_agreement)) for p in onnx.parity],
    )


def _why_method(distillation: Distillation) -> str:
    if distillation.reason is None:
        return ""
    return f" The tool chose it: {prose(distillation.reason.rstrip('.'))}."


def _identity(report: Report) -> str:
    error = report.teacher_source.identity_error
    if error is None:
        return ""
    said = "upsampled classifier(map)" if report.task == "segmentation" else "classifier(pool(map))"
    where = "the samples" if has_samples(report) else "random images"
    return f" On {where}, logits = {said} holds {f'to {error:.1e}' if error else 'exactly'}."


def _method_notes(distillation: Distillation) -> Iterator[str]:
    if distillation.generator_resolution is not None:
        height, width = distillation.generator_resolution
        yield prose(distillation.generator_note or f"Images are generated at {height}x{width}.")
    for phase in distillation.phases:
        for remedy in phase.remedies:
            yield f"Training went wrong and went on: {prose(remedy)}"
    if distillation.memory is not None:
        yield _memory(distillation.memory)
    for departure in distillation.departures:
        yield f"Departure from the paper: {prose(departure)}"
    for choice in distillation.choices:
        yield f"Chosen by looking: {code(choice.name)} = {code(choice.value)} ({prose(choice.reason.rstrip('.'))})."


def _memory(memory: TrainingMemory) -> str:
    gpu = "" if memory.device_peak_mib is None else f", {size(memory.device_peak_mib)} on the GPU"
    held = {"device": "were copied there once", "memory": "were copied once", "file": "were read batch by batch"}
    images = f"; {size(memory.images_mib)} of images {held[memory.images_held]}" if memory.images_mib else ""
    return (
        f"Peak memory of the training, {memory.origin}: {size(memory.host_peak_mib)} resident on the host{gpu}{images}."
    )


def _pictures(report: Report) -> Iterator[str]:
    if report.pictures:
        yield "## Pictures"
    for picture in report.pictures:
        yield f"![{prose(picture.title)}]({quote(picture.path)})"


def _files(report: Report) -> Iterator[str]:
    yield "## Artefacts"
    rows = [(code(file.path), size(file.size_bytes / 2**20), code(file.sha256)) for file in report.artefacts]
    yield _table("lrl", ("file", "size", "SHA-256"), rows)
    if (kit := report.kit) is not None:
        yield f"Device kit {code(kit.path)}: {count(len(kit.files), 'file')}, manifest SHA-256 {code(kit.sha256)}."
        if notes := [note for note in kit.notes if note not in report.variant_notes]:
            yield _bullets(_limited(notes, prose, "more"))


def _again(report: Report) -> Iterator[str]:
    environment = report.environment
    yield "## Reproduce"
    yield fenced(report.command)
    stages = [f"{stage.name} {'cached' if stage.cached else duration(stage.seconds)}" for stage in report.stages]
    yield prose(f"Stages: {', '.join(stages)}.")
    yield from map(prose, time_lines(report.time))
    gpu = "" if environment.gpu is None else f", {environment.gpu}"
    yield prose(
        f"compress {report.tool_version}, Python {environment.python}, torch {environment.torch}, "
        f"onnxruntime {environment.onnxruntime}, {environment.os}, {environment.cpu}{gpu}; "
        f"{report.created:%Y-%m-%d %H:%M %Z}; report.json schema {report.schema_version}."
    )


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _limited(items: Sequence[T], render: Callable[[T], str], noun: str) -> list[str]:
    """The first items as text, and how many `noun` are only in report.json."""
    texts = [render(item) for item in items[:LIST_LIMIT]]
    rest = len(items) - len(texts)
    return [*texts, f"and {rest:,} {noun} in report.json"] if rest else texts


def _table(align: str, header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; `align` has an l or r for each column."""
    rule = ["---:" if side == "r" else "---" for side in align]
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *rows))


def _terms(terms: dict[str, float]) -> str:
    return ", ".join(f"{code(name)} {significant(value)}" for name, value in terms.items())


def _vector(values: Sequence[float]) -> str:
    return f"({', '.join(map(significant, values))})"
