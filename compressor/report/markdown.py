"""report.md: made from report.json alone, short enough for a pull-request comment (65,536 characters)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import TypeVar
from urllib.parse import quote

from compressor.report.artefact_table import (
    calibration_lines,
    judged_on,
    prediction_lines,
    variant_lines,
    variant_notes,
)
from compressor.report.measured import ClassFlips, Comparison
from compressor.report.schema import Distillation, Report
from compressor.report.student_search import candidate_lines, latency_kind, search_remarks
from compressor.report.table import host_name, latency_lines, latency_notes, side_by_side
from compressor.report.text import ABSENT, count, duration, joined, percent, significant, size
from compressor.report.untrusted import code, fenced, prose
from profiles.latency import LatencyStats

T = TypeVar("T")

# A list in report.json may be as long as the user's folder; here it ends with a count of the rest.
LIST_LIMIT = 15

_DECISIONS = {
    "ungated": "No limit was asked for.",
    "warn": "Not every limit is known to hold.",
    "fail": "A limit is not held.",
}
_QUANTITIES = {"max_latency_ms": "latency", "max_size_mib": "size", "max_params_m": "parameters"}


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
        _samples,
        _making,
        _pictures,
        _files,
        _again,
    )
    return "\n\n".join(chain.from_iterable(section(report) for section in sections)) + "\n"


def _head(report: Report) -> Iterator[str]:
    yield f"# Compression report: {code(report.run_name)}"
    yield f"**{_decision(report)}** {prose(report.summary.headline)}"
    if report.summary.points:
        yield _bullets(map(prose, report.summary.points))


def _decision(report: Report) -> str:
    """In words; what passed is named, since nothing else was judged."""
    if report.summary.decision != "pass":
        return _DECISIONS[report.summary.decision]
    held = [_QUANTITIES[verdict.name] for verdict in report.verdicts if verdict.set_by == "user"]
    return f"The limit{'' if len(held) == 1 else 's'} on {joined(held)} hold{'s' if len(held) == 1 else ''}."


def _limits(report: Report) -> Iterator[str]:
    if report.verdicts:
        yield "## Limits"
        yield _bullets(f"**{verdict.state}**: {prose(verdict.sentence)}" for verdict in report.verdicts)


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
    columns = [
        ("artefact", [f"**{prose(line.label)}**" if line.recommended else prose(line.label) for line in lines]),
        ("size", [line.size for line in lines]),
        ("difference to fp32", [line.parity for line in lines]),
        (f"agreement with the teacher, {judged_on(report)}", [line.agreement for line in lines]),
        ("agreement with fp32", [line.as_fp32 for line in lines]),
        ("accuracy", [line.accuracy for line in lines]),
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
    if lines:
        yield "## Where the student differs"
        yield _bullets(lines)


def _difference(comparison: Comparison, where: str, class_names: Sequence[str]) -> str:
    teacher, student = comparison.teacher_confidence, comparison.student_confidence
    moved = sorted((flips for flips in comparison.flips if flips.num_flipped), key=lambda flips: -flips.num_flipped)

    def share(flips: ClassFlips) -> str:
        return f"{code(class_names[flips.class_index])} ({flips.num_flipped:,} of {flips.num_images:,})"

    shares = ", ".join(_limited(moved, share, "more"))
    flips = f"flips by the teacher's class: {shares}" if moved else "no flips"
    return (
        f"On {teacher.n:,} {where}: KL divergence {significant(comparison.mean_kl_nats)} nats; mean "
        f"confidence {percent(student.mean)}, the teacher's {percent(teacher.mean)}; {flips}."
    )


def _samples(report: Report) -> Iterator[str]:
    samples, class_names = report.samples, report.teacher_source.class_names
    lines = [
        f"{count(samples.num_train, 'image')} to train on, {samples.num_select:,} to choose on, "
        f"{samples.num_evidence:,} held out for this report; {samples.num_labelled:,} have a label."
    ]
    if (confidence := samples.teacher_confidence) is not None:
        lines.append(
            f"The teacher's confidence: mean {percent(confidence.mean)}, median "
            f"{percent(confidence.median)}, one image in ten below {percent(confidence.p10)}."
        )
    if (accuracy := samples.teacher_accuracy) is not None:
        lines.append(f"The teacher's accuracy: {percent(accuracy.value)} of {accuracy.n:,} labelled images.")
    labels = zip(samples.pseudo_labels, class_names, strict=True)
    seen = sorted((pair for pair in labels if pair[0]), key=lambda pair: -pair[0])
    given = _limited(seen, lambda pair: f"{code(pair[1])} ({pair[0]:,})", "more")
    lines.append(f"The teacher's classes: {', '.join(given)}.")
    if len(seen) < len(class_names):
        lines.append(f"{count(len(class_names) - len(seen), 'class', 'classes')} in no image.")
    if samples.skipped:
        lines.append(f"{count(len(samples.skipped), 'file')} skipped:")
        skipped = _limited(samples.skipped, lambda one: f"{code(one.file)}: {prose(one.reason)}", "more")
        lines[-1] += "".join(f"\n  - {line}" for line in skipped)
    yield "## Samples"
    yield _bullets(lines)


def _making(report: Report) -> Iterator[str]:
    distillation, source, onnx = report.distillation, report.teacher_source, report.onnx
    yield "## How it was made"
    yield _bullets(
        [
            f"Teacher {code(source.file)}, {code(source.architecture)}, input "
            f"{'×'.join(map(str, source.input_shape))}, SHA-256 {code(source.sha256)}.",
            f"Normalisation: mean {_vector(source.mean)}, std {_vector(source.std)}, from "
            f"{prose(source.normalisation_origin)}.{_identity(source.identity_error)}",
            f"Method {code(distillation.method)}, effort {code(distillation.effort)}, seed "
            f"{distillation.seed}, on {code(distillation.device)} in {code(distillation.precision)}.",
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
        ("on", "images", "largest difference", "top-1 equal"),
        [(prose(p.images), f"{p.num_images:,}", f"{p.max_abs:.1e}", percent(p.top1_agreement)) for p in onnx.parity],
    )


def _identity(error: float | None) -> str:
    if error is None:
        return ""
    return f" On the samples, logits = classifier(pool(map)) holds {f'to {error:.1e}' if error else 'exactly'}."


def _method_notes(distillation: Distillation) -> Iterator[str]:
    if distillation.generator_resolution is not None:
        height, width = distillation.generator_resolution
        yield prose(distillation.generator_note or f"Images are generated at {height}x{width}.")
    for departure in distillation.departures:
        yield f"Departure from the paper: {prose(departure)}"
    for choice in distillation.choices:
        yield f"Chosen by looking: {code(choice.name)} = {code(choice.value)} ({prose(choice.reason.rstrip('.'))})."


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
