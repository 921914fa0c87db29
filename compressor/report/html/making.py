"""How the student came about: training, images, the search for it, warnings, provenance, and how to make it again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path as FilePath

from compressor.report.html.blocks import (
    WORST,
    Block,
    Bullets,
    Column,
    Command,
    Details,
    Facts,
    Figure,
    Figures,
    Heading,
    Paragraph,
    Row,
    Section,
    bullets,
    name,
    said,
    table,
)
from compressor.report.html.charts import Axis, Line, Mark, curve, intervals
from compressor.report.html.numbers import Name, Numbers, Path, Words
from compressor.report.html.pictures import inlined
from compressor.report.predicted import Prediction
from compressor.report.schema import Phase, Picture, Report
from compressor.report.student_search import Candidate, candidate_lines, latency_kind, search_notes
from compressor.report.text import as_typed, count
from compressor.report.time_split import time_lines
from compressor.report.untrusted import NAME_LIMIT, without_controls
from compressor.report.wording import EQUAL, has_samples

SETS = {
    "train": "trained on",
    "select": "chosen on",
    "evidence": "held out for this report",
    "pool": "pool, other images to train on",
    "eval": "--eval set",
}
HELD = {"device": "copied to it once", "memory": "in memory", "file": "read batch by batch"}


def training(numbers: Numbers) -> Section:
    """The phases, each with its curves."""
    making = numbers.report.distillation
    rows = [
        Row(
            (
                (name(phase.name),),
                (numbers.number("count", (*at, "num_steps")),),
                (numbers.number("duration", (*at, "seconds")),),
                _terms(numbers, phase, at),
            )
        )
        for index, phase in enumerate(making.phases)
        for at in [("distillation", "phases", index)]
    ]
    columns = (
        Column("phase"),
        Column("steps", numeric=True),
        Column("time", numeric=True),
        Column("loss terms at the end", wide=True),
    )
    blocks: list[Block] = [table("Training phases", columns, rows)]
    for index, phase in enumerate(making.phases):
        figures = tuple(_curves(numbers, index, phase))
        if figures:
            title = f"Loss terms of the phase {name(phase.name).text}"
            blocks += [Heading(title), Figures(figures)]
        blocks += bullets([f"Training went wrong and went on: {text}" for text in phase.remedies], said, "the remedies")
    return Section("training", "Training", "Training", tuple(blocks))


def _terms(numbers: Numbers, phase: Phase, at: Path) -> Words:
    words: list[Words] = [
        (name(term), " ", numbers.number("significant", (*at, "final_terms", term))) for term in phase.final_terms
    ]
    return tuple(piece for place, term in enumerate(words) for piece in ((", ",) if place else ()) + term)


def _curves(numbers: Numbers, index: int, phase: Phase) -> Iterator[Figure]:
    for number, term in enumerate(dict.fromkeys(term for point in phase.curve for term in point.terms)):
        known = [place for place, point in enumerate(phase.curve) if term in point.terms]
        steps = [phase.curve[place].step for place in known]
        values = [phase.curve[place].terms[term] for place in known]
        at: Path = ("distillation", "phases", index, "curve", known[-1], "terms", term)
        title = name(term).text
        yield Figure("", curve(f"curve-{index}-{number}", title, steps, values, numbers.number("significant", at)))


def images(numbers: Numbers, run_folder: FilePath | None) -> Section:
    """The user's images by what was done with them, what the teacher says of them, and the run's pictures."""
    report = numbers.report
    samples = report.samples
    facts: list[tuple[str, Words]] = []
    if not has_samples(report):
        facts.append(("samples", ("No image of the task was given.",)))
    for field, label in (
        ("num_train", "to train on"),
        ("num_select", "to choose on"),
        ("num_evidence", "held out for this report"),
        ("num_pool", "in the pool"),
        ("num_labelled", "with a mask" if report.task == "segmentation" else "with a label"),
    ):
        if getattr(samples, field) or field == "num_evidence":
            facts.append((label, (numbers.number("count", ("samples", field)),)))
    if samples.num_pool and not report.distillation.uses_pool:
        facts.append(("use of the pool", ("the method does not train on it",)))
    if samples.teacher_confidence is not None:
        mean, median, low = (
            numbers.number("percent", ("samples", "teacher_confidence", field)) for field in ("mean", "median", "p10")
        )
        facts.append(("the teacher's confidence", ("mean ", mean, ", median ", median, ", one in ten below ", low)))
    if samples.teacher_accuracy is not None:
        facts.append(("the teacher's accuracy", numbers.share(("samples", "teacher_accuracy"))))
    blocks = (
        Facts(tuple(facts)),
        *_sets(numbers),
        *_pictures(report, run_folder),
        *_labels(numbers),
        *_skipped(report),
    )
    return Section("images", "Samples and image sets", "Samples", blocks)


def _sets(numbers: Numbers) -> Iterator[Block]:
    rows = [
        Row(
            (
                (SETS[found.name],),
                (numbers.number("count", ("image_sets", index, "num_images")),),
                (Name(found.sha256),),
            )
        )
        for index, found in enumerate(numbers.report.image_sets)
    ]
    if rows:
        columns = (Column("images"), Column("number", numeric=True), Column("SHA-256 of their files' hashes"))
        yield table("Image sets; no image is in two of them", columns, rows)


def _pictures(report: Report, run_folder: FilePath | None) -> Iterator[Block]:
    """Curves are drawn from the numbers where there are any."""
    drawn = any(phase.curve for phase in report.distillation.phases)
    wanted = [picture for picture in report.pictures if not (drawn and _of_curves(picture))]
    shown = inlined(wanted, run_folder)
    yield from shown.pictures
    if shown.left_out:
        yield Bullets(tuple(map(said, shown.left_out)))


def _of_curves(picture: Picture) -> bool:
    return "curves" in picture.path.rpartition("/")[2]


def _labels(numbers: Numbers) -> Iterator[Block]:
    samples = numbers.report.samples
    if not any(samples.pseudo_labels):
        return
    seen = sorted((i for i, n in enumerate(samples.pseudo_labels) if n), key=lambda i: -samples.pseudo_labels[i])
    rows = [
        Row(
            (
                (name(numbers.report.teacher_source.class_names[index]),),
                (numbers.number("count", ("samples", "pseudo_labels", index)),),
            )
        )
        for index in seen[:WORST]
    ]
    columns = (Column("class"), Column("images", numeric=True))
    left = len(seen) - len(rows)
    more = f"and {left:,} more in report.json" if left else ""
    seen_most = table("Classes that the teacher sees in the samples, the most frequent first", columns, rows, more)
    missing = len(samples.pseudo_labels) - len(seen)
    note = (Paragraph((f"{count(missing, 'class', 'classes')} in no image.",)),) if missing else ()
    yield Details("What the teacher sees in the samples", (seen_most, *note))


def _skipped(report: Report) -> Iterator[Block]:
    skipped = report.samples.skipped
    if skipped:
        yield Heading(f"{count(len(skipped), 'file')} skipped")
        yield from bullets(skipped, lambda one: (name(one.file), ": ", *said(one.reason)), "the files")


def student(numbers: Numbers) -> Section | None:
    """How the student was chosen, where the tool chose it."""
    search = numbers.report.student_search
    if search is None:
        return None
    columns = (
        Column("student"),
        Column("parameters", numeric=True),
        Column("MACs", numeric=True),
        Column(f"size, {search.precision}", numeric=True),
        Column(f"{latency_kind(search)}, ms", numeric=True),
        Column("", wide=True),
    )
    places: list[Path] = [("student_search", "teacher")]
    places += [("student_search", "candidates", index) for index in range(len(search.candidates))]
    rows, lines = [], []
    for at, line in zip(places, candidate_lines(search), strict=True):
        found: Candidate = numbers.at(at)
        predicted = isinstance(found.latency, Prediction)
        rows.append(
            Row(
                (
                    (name(line.spec),),
                    numbers.one("params", (*at, "params_m")),
                    numbers.one("macs", (*at, "macs_g")),
                    numbers.one("size", (*at, "size_mib")),
                    numbers.predicted((*at, "latency")) if predicted else numbers.median((*at, "latency")),
                    said(line.verdict),
                ),
                strong=line.chosen,
            )
        )
        if found.latency is not None:
            p50 = found.latency.latency_p50_ms
            low, high = found.latency.latency_p50_interval_ms or (p50, p50)
            mark = Mark(p50, min(low, p50), max(high, p50), doubtful=predicted)
            form = "predicted" if predicted else "significant"
            role = ", chosen" if line.chosen else ""
            number = numbers.number(form, (*at, "latency", "latency_p50_ms"))
            lines.append(Line(f"{name(line.spec).text}{role}", (mark,), number))
    blocks: list[Block] = [Paragraph(said(search.reason))]
    if lines:
        title = f"Candidates by {latency_kind(search)} of one image"
        limit = search.limits.max_latency_ms
        bounds = () if limit is None else ((limit, f"limit {as_typed(limit)} ms"),)
        axis = Axis(f"{latency_kind(search)} on the target, ms", low=0.0, lines=bounds)
        blocks.append(Figure(title, intervals("candidates", title, axis, lines)))
    blocks.append(table("Candidates for the student", columns, rows))
    blocks += bullets(search_notes(search), said, "the notes")
    return Section("student", "Search for the student", "Student", tuple(blocks))


def warnings(numbers: Numbers) -> Section | None:
    """All of them."""
    found = numbers.report.warnings
    return Section("warnings", "Warnings", "Warnings", bullets(found, said, "the warnings")) if found else None


# --- provenance ----------------------------------------------------------------------------------------------------


def provenance(numbers: Numbers) -> Section:
    """Everything that someone needs who asks where a file came from."""
    blocks = (
        Facts(tuple(_source(numbers))),
        Heading("Method"),
        Facts(tuple(_method(numbers))),
        *_departures(numbers.report),
        Heading("Files"),
        *_files(numbers),
        *_parity(numbers),
        *_stages(numbers),
    )
    return Section("provenance", "Provenance", "Provenance", blocks)


def _source(numbers: Numbers) -> Iterator[tuple[str, Words]]:
    report = numbers.report
    source = report.teacher_source
    yield "teacher", (name(source.file), ", ", name(source.architecture))
    yield "teacher's SHA-256", (Name(source.sha256),)
    shape = [numbers.number("count", ("teacher_source", "input_shape", index)) for index in range(3)]
    yield "input", (shape[0], " × ", shape[1], " × ", shape[2])
    origin = said(source.normalisation_origin)
    mean, std = (_vector(numbers, ("teacher_source", field)) for field in ("mean", "std"))
    yield "normalisation", ("mean ", *mean, ", std ", *std, ", from ", *origin)
    if source.identity_error is not None:
        head = "upsampled classifier(map)" if report.task == "segmentation" else "classifier(pool(map))"
        where = "the samples" if has_samples(report) else "random images"
        error = numbers.number("exponent", ("teacher_source", "identity_error"))
        exact = source.identity_error == 0
        yield f"logits = {head}", ("holds ", *(("exactly",) if exact else ("to ", error)), f" on {where}")


def _vector(numbers: Numbers, path: Path) -> Words:
    words: list[Words] = [(numbers.number("significant", (*path, index)),) for index in range(len(numbers.at(path)))]
    return ("(", *(piece for place, word in enumerate(words) for piece in ((", ",) if place else ()) + word), ")")


def _method(numbers: Numbers) -> Iterator[tuple[str, Words]]:
    making = numbers.report.distillation
    chosen: Words = ("chosen by the tool: ", *said(making.reason)) if making.reason is not None else ("as asked",)
    yield "method", (name(making.method), ", effort ", name(making.effort), ", ", *chosen)
    yield "seed", (numbers.number("plain", ("distillation", "seed")),)
    yield "trained on", (name(making.device), " in ", name(making.precision))
    if making.generator_resolution is not None:
        height, width = (numbers.number("count", ("distillation", "generator_resolution", index)) for index in (0, 1))
        note: Words = () if making.generator_note is None else (". ", *said(making.generator_note))
        yield "generated images", (height, " × ", width, *note)
    if making.memory is not None:
        at: Path = ("distillation", "memory")
        gpu: Words = ()
        if making.memory.device_peak_mib is not None:
            gpu = (", ", numbers.number("size", (*at, "device_peak_mib")), " on the GPU")
        host, held = (numbers.number("size", (*at, field)) for field in ("host_peak_mib", "images_mib"))
        how = HELD[making.memory.images_held]
        yield "peak memory, measured", (host, " resident on the host", *gpu, "; ", held, f" of images, {how}")
    for choice in making.choices:
        yield choice.name[:NAME_LIMIT], (name(choice.value), ", ", *said(choice.reason))


def _departures(report: Report) -> Iterator[Block]:
    departures = report.distillation.departures
    if departures:
        listed = bullets(departures, said, "the departures")
        yield Details(f"{count(len(departures), 'departure')} from the method's paper", listed)


def _files(numbers: Numbers) -> Iterator[Block]:
    report = numbers.report
    rows = [
        Row(
            (
                (name(file.path),),
                (numbers.number("size of bytes", ("artefacts", index, "size_bytes")),),
                (Name(file.sha256),),
            )
        )
        for index, file in enumerate(report.artefacts)
    ]
    columns = (Column("file"), Column("size", numeric=True), Column("SHA-256"))
    yield table("Files of this run", columns, rows)
    if (kit := report.kit) is not None:
        yield Paragraph(
            (
                "Device kit ",
                name(kit.path),
                f": {count(len(kit.files), 'file')}, manifest SHA-256 ",
                Name(kit.sha256),
                ".",
            )
        )
        yield from bullets([note for note in kit.notes if note not in report.variant_notes], said, "the notes")


def _parity(numbers: Numbers) -> Iterator[Block]:
    onnx = numbers.report.onnx
    rows = [
        Row(
            (
                said(parity.images),
                (numbers.number("count", (*at, "num_images")),),
                (numbers.number("exponent", (*at, "max_abs")),),
                (numbers.number("exponent", (*at, "max_rel")),),
                (numbers.number("percent", (*at, "top1_agreement")),),
            )
        )
        for index, parity in enumerate(onnx.parity)
        for at in [("onnx", "parity", index)]
    ]
    columns = (
        Column("on"),
        Column("images", numeric=True),
        Column("largest difference", numeric=True),
        Column("relative", numeric=True),
        Column(EQUAL[numbers.report.task], numeric=True),
    )
    yield Paragraph(
        ("ONNX opset ", numbers.number("plain", ("onnx", "opset")), " by exporter ", name(onnx.exporter), ".")
    )
    yield table("The fp32 ONNX file against torch", columns, rows)


def _stages(numbers: Numbers) -> Iterator[Block]:
    rows = [
        Row(
            (
                (name(stage.name),),
                ("from the cache" if stage.cached else "ran",),
                (numbers.number("duration", ("stages", index, "seconds")),),
                (name(stage.fingerprint),),
            )
        )
        for index, stage in enumerate(numbers.report.stages)
    ]
    columns = (Column("stage"), Column(""), Column("time", numeric=True), Column("fingerprint"))
    lines = [*time_lines(numbers.report.time)]
    listed = (Bullets(tuple(map(said, lines))),) if lines else ()
    yield Details("Stages and their time", (table("Stages", columns, rows), *listed))


def reproduce(numbers: Numbers) -> Section:
    """The command, and what it ran on."""
    report = numbers.report
    environment = report.environment
    versions = {
        "compress": report.tool_version,
        "Python": environment.python,
        "torch": environment.torch,
        "onnxruntime": environment.onnxruntime,
        "onnx": environment.onnx,
        "system": environment.os,
        "processor": environment.cpu,
        "GPU": environment.gpu,
        "made": f"{report.created:%Y-%m-%d %H:%M %Z}",
        "report.json": f"schema {report.schema_version}",
    }
    facts = tuple((label, said(text)) for label, text in versions.items() if text is not None)
    lines = tuple(without_controls(line) for line in report.command.splitlines())
    return Section("reproduce", "Reproduce", "Reproduce", (Command("Command of this run", lines), Facts(facts)))
