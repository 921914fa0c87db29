"""What comes first: the decision with its few numbers, gates and limits, and the artefacts side by side."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

from compressor.gates.metrics import METRICS, UNITS
from compressor.report.artefact_table import (
    accuracy_name,
    agreement_name,
    calibration_lines,
    judged_on,
    prediction_lines,
    variant_notes,
)
from compressor.report.gate_record import GateResult
from compressor.report.html.blocks import (
    Badge,
    Block,
    Column,
    Details,
    Figure,
    Heading,
    Paragraph,
    Row,
    Section,
    bullets,
    said,
    table,
)
from compressor.report.html.charts import Axis, Line, Mark, intervals
from compressor.report.html.numbers import NOTHING, Name, Numbers, Path, Words
from compressor.report.measured import Difference, Scores
from compressor.report.schema import Report
from compressor.report.shipping import Variant
from compressor.report.table import side_by_side
from compressor.report.text import ABSENT, count, signed_points
from compressor.report.untrusted import NAME_LIMIT, printable
from compressor.report.wording import PREPOSITION

DECISIONS = MappingProxyType(
    {
        "pass": Badge("Pass", "good"),
        "warn": Badge("Warning", "doubt"),
        "fail": Badge("Fail", "bad"),
        "ungated": Badge("No limit set", "none"),
    }
)
STATES = MappingProxyType(
    {
        "held": Badge("held", "good"),
        "missed": Badge("missed", "bad"),
        "unproven": Badge("unproven", "doubt"),
        "missing": Badge("missing", "doubt"),
        "too_few": Badge("too few", "doubt"),
        "stale": Badge("stale", "doubt"),
    }
)
TONES = MappingProxyType({"pass": "good", "warn": "doubt", "fail": "bad"})
WORST_OUTCOME_FIRST = ("fail", "warn", "pass")
RULES = MappingProxyType(
    {
        "min": "at least ",
        "max": "at most ",
        "max_drop": "loses at most ",
        "max_drop_relative": "loses at most ",
        "max_regression": "regresses by at most ",
        "max_regression_relative": "regresses by at most ",
    }
)
IMAGES = MappingProxyType({"evidence": "held-out images", "eval": "--eval images"})
LIMIT_UNITS = MappingProxyType({"max_latency_ms": " ms", "max_size_mib": " MiB", "max_params_m": " M"})
LIMITS = MappingProxyType(
    {"max_latency_ms": "p50 latency", "max_size_mib": "size of the file", "max_params_m": "parameters"}
)


@dataclass(frozen=True)
class Tile:
    """One number that is read in a glance, what it is, and what it rests on."""

    label: str
    words: Words
    under: Words


def tiles(numbers: Numbers) -> tuple[Tile, ...]:
    """Agreement, size and latency of what ships; what is not known has no tile."""
    return tuple(_tiles(numbers))


def _tiles(numbers: Numbers) -> Iterator[Tile]:
    report = numbers.report
    index = next((i for i, one in enumerate(report.variants) if _ships(report, one)), None)
    shipped = None if index is None else report.variants[index]
    at: Path = ("student",) if index is None else ("variants", index)
    name = "student" if shipped is None else shipped.label
    scores = report.student.agreement if shipped is None else shipped.agreement
    if scores.larger is not None:
        which = larger(scores)
        where: Path = (*at, "agreement", which)
        of = (" of ", numbers.number("count", (*where, "n")), f" {IMAGES[which]}, ", *numbers.span(where))
        label = "explained of the teacher's variance" if scores.larger.of == "variance" else "agrees with the teacher"
        yield Tile(f"{name[0].upper()}{name[1:]} {label}", (numbers.number("percent", (*where, "value")),), of)
    share = numbers.number("share", ("student", "params_m"), ("teacher", "params_m"))
    both = (
        numbers.number("params", ("student", "params_m")),
        " of ",
        numbers.number("params", ("teacher", "params_m")),
    )
    yield Tile("Parameters of the teacher's", (share,), both)
    if shipped is None:
        return
    if shipped.size_mib is not None:
        teacher = numbers.number("size", ("teacher", "size_mib"))
        yield Tile(
            "Size of the file",
            (numbers.number("size", (*at, "size_mib")),),
            (f"{name}; the teacher's fp32 has ", teacher),
        )
    title = printable(report.target.title, NAME_LIMIT)
    if shipped.latency_target is not None:
        latency = shipped.latency_target
        doubt = "" if latency.other_power_mode is None else ", in another power mode than its profile's"
        p50 = numbers.number("significant", (*at, "latency_target", "latency_p50_ms"))
        yield Tile("Median latency on the target", (p50, " ms"), (f"{latency.origin} on {title}{doubt}",))
    elif shipped.latency_predicted is not None:
        where = (*at, "latency_predicted", "latency_p50_interval_ms")
        low, high = (numbers.number("two digits", (*where, end)) for end in (0, 1))
        p50 = numbers.number("predicted", (*at, "latency_predicted", "latency_p50_ms"))
        under = (low, " to ", high, f" ms, predicted for {title}, not measured")
        yield Tile("Median latency on the target", (p50, " ms"), under)
    elif shipped.latency_host is not None:
        p50 = numbers.number("significant", (*at, "latency_host", "latency_p50_ms"))
        device = printable(shipped.latency_host.device, NAME_LIMIT)
        yield Tile("Median latency on this host", (p50, " ms"), (f"measured on {device}, which is not the target",))


# --- gates and limits ----------------------------------------------------------------------------------------------


def gates(numbers: Numbers) -> Section | None:
    """Every gate, the failed ones first, and every limit that an artefact had to hold."""
    report = numbers.report
    blocks = (*_gates(numbers), *_baseline(report), *_verdicts(numbers))
    return Section("gates", "Gates and limits", "Gates", blocks) if blocks else None


def _gates(numbers: Numbers) -> Iterator[Block]:
    report = numbers.report
    order = sorted(range(len(report.gates)), key=lambda i: WORST_OUTCOME_FIRST.index(report.gates[i].outcome))
    if order:
        in_words = (Column("gate"), Column("what follows", wide=True))
        yield table("Gates, failed ones first", in_words, [_gate(report.gates[index]) for index in order])
        in_numbers = (
            Column("gate"),
            Column("value", numeric=True),
            Column("limit"),
            Column("lost", numeric=True),
            Column("reference", numeric=True),
            Column("on", numeric=True),
        )
        rows = [_gate_in_numbers(numbers, index) for index in order]
        yield Details("Gates in numbers", (table("Gates in numbers", in_numbers, rows),))


def _gate(gate: GateResult) -> Row:
    origin = "" if gate.origin in (None, "measured") else f", {gate.origin}"
    artefact = "" if gate.artefact is None else f" {printable(gate.artefact, NAME_LIMIT)}"
    metric = "" if gate.metric in gate.name else f" {printable(gate.metric, NAME_LIMIT)}"
    state = STATES[gate.state].text
    badge = Badge(state if gate.outcome == "pass" else f"{gate.outcome}: {state}", TONES[gate.outcome])
    name: Words = (Name(printable(gate.name, NAME_LIMIT)), f"{metric}{artefact}{origin}")
    return Row((name, said(gate.sentence)), strong=gate.outcome == "fail", badge=badge)


def _gate_in_numbers(numbers: Numbers, index: int) -> Row:
    gate, at = numbers.report.gates[index], ("gates", index)
    form, unit = _form_of(gate.metric)
    interval: Words = ()
    if gate.low is not None and gate.high is not None:
        low, high = (numbers.number(form, (*at, end)) for end in ("low", "high"))
        interval = (" (", low, " to ", high, ")")
    value: Words = NOTHING if gate.value is None else (numbers.number(form, (*at, "value")), unit, *interval)
    on: Words = NOTHING
    if gate.n is not None:
        kind = IMAGES[gate.images] if gate.images else "calls" if "latency" in gate.metric else "images"
        on = (numbers.number("count", (*at, "n")), f" {kind}")
    return Row(
        (
            (Name(printable(gate.name, NAME_LIMIT)),),
            value,
            (RULES[gate.rule], *_limit(numbers, gate.rule, gate.metric, (*at, "limit"), typed=True)),
            NOTHING if gate.change is None else _limit(numbers, gate.rule, gate.metric, (*at, "change"), typed=False),
            NOTHING if gate.reference is None else (numbers.number(form, (*at, "reference")), unit),
            on,
        )
    )


def _form_of(metric: str) -> tuple[str, str]:
    """How a metric's value is shown, and its unit; of an unknown one, from a later version, the bare number."""
    known = METRICS.get(metric)
    if known is None:
        return "significant", ""
    return ("percent", "") if known.unit == "share" else ("significant", UNITS[known.unit])


def _limit(numbers: Numbers, rule: str, metric: str, path: Path, *, typed: bool) -> Words:
    """In the unit of the metric; what is lost of a share is in points, and relatively lost in per cent of before.

    typed: as the user gave it, and not rounded.
    """
    form, unit = _form_of(metric)
    if rule.endswith("_relative"):
        return (numbers.number("typed percent" if typed else "percent", path), " of it")
    if form == "percent" and rule in ("min", "max"):
        return (numbers.number("typed percent", path),)
    if form == "percent":
        return (numbers.number("typed points" if typed else "lost points", path), " points")
    return (numbers.number("typed" if typed else "significant", path), unit)


def _baseline(report: Report) -> Iterator[Block]:
    baseline = report.baseline
    if baseline is not None:
        file, run = (Name(printable(text, NAME_LIMIT)) for text in (baseline.file, baseline.run_name))
        made = printable(baseline.created, NAME_LIMIT)
        words: Words = ("Regressions are against ", file, ", run ", run, f", made {made}, SHA-256 ")
        yield Paragraph((*words, Name(baseline.sha256), "."))


def _verdicts(numbers: Numbers) -> Iterator[Block]:
    report = numbers.report
    columns = (
        Column("limit on"),
        Column("what follows", wide=True),
        Column("artefact"),
        Column("value", numeric=True),
        Column("limit", numeric=True),
        Column("set by"),
    )
    rows = []
    for index, verdict in enumerate(report.verdicts):
        at: Path = ("verdicts", index)
        unit = LIMIT_UNITS[verdict.name]
        interval: Words = ()
        if verdict.interval is not None:
            low, high = (numbers.number("two digits", (*at, "interval", end)) for end in (0, 1))
            interval = (" (", low, " to ", high, ")")
        form = "predicted" if verdict.origin == "predicted" else "significant"
        value: Words = NOTHING if verdict.value is None else (numbers.number(form, (*at, "value")), unit, *interval)
        rows.append(
            Row(
                (
                    (LIMITS[verdict.name],),
                    said(verdict.sentence),
                    (ABSENT if verdict.artefact is None else printable(verdict.artefact, NAME_LIMIT),),
                    value,
                    ("at most ", numbers.number("typed", (*at, "limit")), unit),
                    ("the user" if verdict.set_by == "user" else "the target's profile, a wish",),
                ),
                badge=STATES[verdict.state],
            )
        )
    if rows:
        yield table("Limits and wishes, which steer what is recommended", columns, rows)


# --- artefacts -----------------------------------------------------------------------------------------------------


def artefacts(numbers: Numbers) -> Section | None:
    """The networks and every file that may ship, each against the fp32 teacher."""
    report = numbers.report
    notes = (*prediction_lines(report), *calibration_lines(report), *_float_layers(report), *variant_notes(report))
    blocks = (
        *_networks(numbers),
        *_variants(numbers),
        *_differences(numbers),
        *((Details(f"Notes on the artefacts ({len(notes):,})", bullets(notes, said, "the notes")),) if notes else ()),
    )
    return Section("artefacts", "Teacher against artefacts", "Artefacts", blocks)


def _networks(numbers: Numbers) -> Iterator[Block]:
    """Every line of `side_by_side`; those of agreement and accuracy are per artefact in the next table."""
    report = numbers.report
    names = [
        Row(
            (
                (line.label,),
                (Name(printable(line.teacher, NAME_LIMIT)),),
                (Name(printable(line.student, NAME_LIMIT)),),
                (),
            )
        )
        for line in side_by_side(report)[:2]
    ]
    quantities = [
        Row(
            (
                (label,),
                (numbers.number(form, ("teacher", field)),),
                (numbers.number(form, ("student", field)),),
                (numbers.number("times", ("student", field), ("teacher", field)),),
            )
        )
        for label, form, field in (
            ("parameters", "params", "params_m"),
            ("MACs per image", "macs", "macs_g"),
            ("size of fp32 ONNX", "size", "size_mib"),
        )
    ]
    scores = [
        Row(((line.label,), _score(numbers, "teacher", line.path), _score(numbers, "student", line.path), ()))
        for line in _score_paths(report)
    ]
    columns = (Column(""), *(Column(title, numeric=True) for title in ("teacher", "student", "student / teacher")))
    yield table("Teacher and student", columns, [*names, *quantities, *scores])


@dataclass(frozen=True)
class _ScorePath:
    label: str
    path: Path


def _score_paths(report: Report) -> tuple[_ScorePath, ...]:
    """Where the scores of `side_by_side` are, in its order and with its labels."""
    labels = [line.label for line in side_by_side(report)[5:]]
    paths: list[Path] = [
        (metric, which)
        for metric in ("agreement", "mean_iou", "accuracy", "mean_iou_masks")
        for which in ("evidence", "eval")
        if any(getattr(getattr(row, metric), which) is not None for row in (report.teacher, report.student))
    ]
    return tuple(_ScorePath(label, path) for label, path in zip(labels, paths, strict=True))


def _score(numbers: Numbers, model: str, path: Path) -> Words:
    reference = model == "teacher" and path[0] in ("agreement", "mean_iou")
    found = numbers.share((model, *path))
    return ("reference",) if reference and found == NOTHING else found


def _variants(numbers: Numbers) -> Iterator[Block]:
    report = numbers.report
    made = [(index, variant) for index, variant in enumerate(report.variants) if variant.path is not None]
    if not made:
        return
    agreement = f"{agreement_name(report)} {PREPOSITION[report.task]}"
    images = judged_on(report)
    columns = (
        Column("artefact"),
        Column("size", numeric=True),
        Column("difference to fp32", numeric=True),
        Column(f"{agreement} the teacher{f', {images}' if images else ''}", numeric=True),
        Column(f"{agreement} fp32", numeric=True),
        Column("mean IoU with the teacher", numeric=True),
        Column(accuracy_name(report), numeric=True),
        Column("accuracy minus the teacher's, points", numeric=True),
        Column("mean IoU with masks", numeric=True),
        Column("host, p50 ms", numeric=True),
        Column("target, p50 ms", numeric=True),
        Column("target, predicted p50 ms", numeric=True),
        Column("why not", wide=True),
    )
    rows = [_variant(numbers, index, variant) for index, variant in made]
    yield table("Artefacts, each against the fp32 teacher on the same images", columns, rows)


def _variant(numbers: Numbers, index: int, variant: Variant) -> Row:
    report, at = numbers.report, ("variants", index)
    is_fp32 = (variant.format, variant.precision) == ("onnx", "fp32")
    reference = is_fp32 and variant.model == "teacher"
    maps = any(one.mean_iou.larger is not None for one in report.variants)
    chosen = report.recommendation
    rejected = {} if chosen is None else {one.variant: one.reason for one in chosen.rejected}
    recommended = _ships(report, variant)
    parity: Words = ("reference",)
    if not is_fp32:
        parity = NOTHING if variant.parity is None else (numbers.number("exponent", (*at, "parity", "max_rel")),)

    def share(metric: str) -> Words:
        scores: Scores = getattr(variant, metric)
        return NOTHING if scores.larger is None else numbers.share((*at, metric, larger(scores)))

    return Row(
        (
            (variant.label,),
            numbers.one("size", (*at, "size_mib")),
            parity,
            ("reference",) if reference else share("agreement"),
            ("reference",) if is_fp32 else share("agreement_with_fp32"),
            ("reference",) if reference and maps else share("mean_iou"),
            share("accuracy"),
            ("reference",) if reference and _any_difference(report) else _difference(numbers, index),
            share("mean_iou_masks"),
            numbers.median((*at, "latency_host")),
            numbers.median((*at, "latency_target")),
            numbers.predicted((*at, "latency_predicted")),
            () if recommended else said(rejected.get(variant.label, "")),
        ),
        strong=recommended,
        badge=Badge("recommended", "good") if recommended else None,
    )


def _any_difference(report: Report) -> bool:
    return any(_larger_difference(variant) is not None for variant in report.variants)


def _larger_difference(variant: Variant) -> str | None:
    """On which set of images the paired difference says more."""
    known: dict[str, Difference | None] = {
        "eval": variant.accuracy_difference.eval,
        "evidence": variant.accuracy_difference.evidence,
    }
    sizes = {which: found.n for which, found in known.items() if found is not None}
    return max(sizes, key=sizes.__getitem__, default=None)


def _difference(numbers: Numbers, index: int) -> Words:
    which = _larger_difference(numbers.report.variants[index])
    return NOTHING if which is None else numbers.difference(("variants", index, "accuracy_difference", which))


def _differences(numbers: Numbers) -> Iterator[Block]:
    """Paired differences of accuracy: drawn, and in full for those who test them."""
    report = numbers.report
    lines, rows = [], []
    for index, variant in enumerate(report.variants):
        for which in ("eval", "evidence"):
            found: Difference | None = getattr(variant.accuracy_difference, which)
            if found is None:
                continue
            at: Path = ("variants", index, "accuracy_difference", which)
            if which == _larger_difference(variant):
                mark = Mark(found.value, found.low, found.high)
                lines.append(Line(variant.label, (mark,), numbers.number("points", (*at, "value"))))
            rows.append(
                Row(
                    (
                        (f"{variant.label}, {IMAGES[which]}",),
                        (numbers.number("count", (*at, "n")),),
                        numbers.difference(at),
                        numbers.one("count", (*at, "gained")),
                        numbers.one("count", (*at, "lost")),
                        numbers.one("significant", (*at, "p_value")),
                    )
                )
            )
    if not lines:
        return
    axis = Axis("accuracy against the teacher's, points", signed_points, lines=((0.0, "the teacher"),))
    title = "Accuracy of each artefact against the fp32 teacher"
    yield Heading("What it costs in accuracy")
    yield Figure(
        f"{title}, image by image on the same images. An interval that crosses the teacher's line tells no difference.",
        intervals("accuracy-difference", title, axis, lines),
    )
    columns = (
        Column("artefact and images"),
        Column("images", numeric=True),
        Column("difference, points", numeric=True),
        Column("right alone", numeric=True),
        Column("wrong alone", numeric=True),
        Column("McNemar's p", numeric=True),
    )
    yield Details("All paired differences", (table("Paired differences of accuracy", columns, rows),))


def _float_layers(report: Report) -> Iterator[str]:
    for calibration in report.int8:
        if calibration.float_layers:
            shown = ", ".join(printable(layer, NAME_LIMIT) for layer in calibration.float_layers[:5])
            rest = len(calibration.float_layers) - 5
            more = f" and {count(rest, 'more', 'more')}" if rest > 0 else ""
            yield f"{calibration.model} int8, layers that stayed float: {shown}{more}."


def larger(scores: Scores) -> str:
    """The set with more images, of which `Scores.larger` speaks."""
    return "eval" if scores.larger is scores.eval else "evidence"


def _ships(report: Report, variant: Variant) -> bool:
    return variant.path is not None and report.recommendation is not None and report.recommendation.takes(variant)
