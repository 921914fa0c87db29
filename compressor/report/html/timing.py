"""How fast: on this host, on the target, and as predicted for it, each apart from the others; and layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from compressor.report.html.blocks import Block, Column, Details, Figure, Paragraph, Row, Section, bullets, said, table
from compressor.report.html.charts import Axis, Bar, Line, Mark, bars, intervals
from compressor.report.html.numbers import NOTHING, Name, Numbers, Path, Words
from compressor.report.predicted import Prediction
from compressor.report.schema import LayerProfile
from compressor.report.table import host_name, latency_notes
from compressor.report.text import count
from compressor.report.untrusted import NAME_LIMIT, printable
from profiles.latency import LatencyStats

SLOWEST = 15  # layers that are drawn


@dataclass(frozen=True)
class _Timed:
    """One latency of one artefact; `where` is a device that is not to be mixed with another."""

    label: str
    where: Literal["host", "target"]
    path: Path
    latency: LatencyStats | Prediction


def latency(numbers: Numbers) -> Section | None:
    """One drawing for each device, since a number from one never stands beside that of another."""
    report = numbers.report
    timed = tuple(_timed(numbers))
    notes = latency_notes(report)
    if not timed and not notes:
        return None
    columns = (
        Column("artefact"),
        Column("on"),
        Column("origin"),
        Column("p50, ms", numeric=True),
        Column("interval of p50, ms", numeric=True),
        Column("p90, ms", numeric=True),
        Column("p99, ms", numeric=True),
        Column("batch", numeric=True),
        Column("calls", numeric=True),
        Column("device and runtime", wide=True),
    )
    names = {"host": host_name(report), "target": report.target.title}
    blocks: list[Block] = []
    for where, device in names.items():
        lines = [_line(numbers, one) for one in timed if one.where == where]
        if lines:
            title = f"Latency on the {where}, {printable(device, NAME_LIMIT)}"
            doubt = ", hollow where it is only predicted" if any(line.marks[0].doubtful for line in lines) else ""
            drawing = intervals(f"latency-{where}", title, Axis("p50 latency of one batch, ms", low=0.0), lines)
            blocks.append(Figure(f"{title}{doubt}", drawing))
    rows = [_row(numbers, one) for one in timed]
    if rows:
        blocks.append(table("Every latency, with its origin and interval", columns, rows))
    return Section("latency", "Latency", "Latency", (*blocks, *bullets(notes, said, "the notes")))


def _timed(numbers: Numbers) -> Iterator[_Timed]:
    """Of all artefacts; without any, of the two networks."""
    report = numbers.report
    owners: list[tuple[str, Path]] = [
        (variant.label, ("variants", index))
        for index, variant in enumerate(report.variants)
        if variant.path is not None
    ]
    for where, field in (("host", "latency_host"), ("target", "latency_target"), ("target", "latency_predicted")):
        for label, at in owners or [("teacher", ("teacher",)), ("student", ("student",))]:
            found = None if field == "latency_predicted" and not owners else numbers.at((*at, field))
            if found is not None:
                yield _Timed(label, "host" if where == "host" else "target", (*at, field), found)


def _line(numbers: Numbers, one: _Timed) -> Line:
    latency, predicted = one.latency, isinstance(one.latency, Prediction)
    low, high = latency.latency_p50_interval_ms or (latency.latency_p50_ms,) * 2
    p50 = latency.latency_p50_ms
    mark = Mark(p50, min(low, p50), max(high, p50), doubtful=predicted)
    label = f"{one.label}{', predicted' if predicted else ''}"
    form = "predicted" if predicted else "significant"
    return Line(label, (mark,), numbers.number(form, (*one.path, "latency_p50_ms")))


def _row(numbers: Numbers, one: _Timed) -> Row:
    latency, at = one.latency, one.path
    predicted = isinstance(latency, Prediction)
    digits = "two digits" if predicted else "significant"
    interval: Words = NOTHING
    if latency.latency_p50_interval_ms is not None:
        low, high = (numbers.number(digits, (*at, "latency_p50_interval_ms", end)) for end in (0, 1))
        known = latency.interval_confidence is not None
        confidence = (", ", numbers.number("confidence", (*at, "interval_confidence"))) if known else ()
        interval = (low, " to ", high, *confidence)
    if isinstance(latency, Prediction):
        how: Words = (f"{printable(latency.device, NAME_LIMIT)}, {latency.precision}, not measured",)
        tails: tuple[Words, ...] = (NOTHING, NOTHING)
        calls = NOTHING
    else:
        marks = "".join(
            (
                "" if latency.stable else ", unstable",
                "" if latency.other_power_mode is None else f", in {printable(latency.other_power_mode, NAME_LIMIT)}",
            )
        )
        how = (f"{printable(latency.device, NAME_LIMIT)}, {printable(latency.runtime, NAME_LIMIT)}{marks}",)
        tails = tuple((numbers.number("significant", (*at, f"latency_{tail}_ms")),) for tail in ("p90", "p99"))
        calls = (numbers.number("count", (*at, "count")),)
    form = "predicted" if predicted else "significant"
    return Row(
        (
            (one.label,),
            (one.where,),
            (latency.origin,),
            (numbers.number(form, (*at, "latency_p50_ms")),),
            interval,
            *tails,
            (numbers.number("count", (*at, "batch_size")),),
            calls,
            how,
        )
    )


def layers(numbers: Numbers) -> Section | None:
    """For each profile the slowest layers, and the rest as one bar."""
    profiles = numbers.report.layers
    if not profiles:
        return None
    blocks = [block for index, profile in enumerate(profiles) for block in _profile(numbers, index, profile)]
    why = "Profiling costs time itself: this says where the time goes, and the latency above says how much it is."
    return Section("layers", "Latency by layer", "Layers", (Paragraph((why,), faint=True), *blocks))


def _profile(numbers: Numbers, index: int, profile: LayerProfile) -> Iterator[Block]:
    at: Path = ("layers", index)
    order = sorted(range(len(profile.layers)), key=lambda i: -profile.layers[i].time_ms)
    first = order[:SLOWEST]
    places: list[Path] = [(*at, "layers", place, "time_ms") for place in first]
    drawn = [
        Bar(_layer(profile, place), numbers.number("significant", path), profile.layers[place].time_ms)
        for place, path in zip(first, places, strict=True)
    ]
    if rest := profile.num_layers - len(first):
        number = numbers.number("rest", (*at, "sum_ms"), *places)
        drawn.append(Bar(f"the other {count(rest, 'layer')}", number, max(0.0, number.value), rest=True))
    title = (
        f"{printable(profile.artefact, NAME_LIMIT)} on {printable(profile.device, NAME_LIMIT)}, slowest layers first"
    )
    axis = Axis("time in one call, ms, with the cost of profiling", low=0.0)
    yield Figure(title, bars(f"layers-{index}", title, axis, drawn))
    total = numbers.number("significant", (*at, "sum_ms"))
    yield Paragraph(
        (
            f"{profile.origin[0].upper()}{profile.origin[1:]}, batch ",
            numbers.number("count", (*at, "batch_size")),
            "; all ",
            numbers.number("count", (*at, "num_layers")),
            " layers take ",
            total,
            " ms.",
        )
    )
    columns = (
        Column("layer"),
        Column("part of the network"),
        Column("operator"),
        Column("time, ms", numeric=True),
        Column("share", numeric=True),
        Column("MACs", numeric=True),
        Column("of the peak rate", numeric=True),
    )
    rows = []
    for place in order:
        layer, path = profile.layers[place], (*at, "layers", place)
        rows.append(
            Row(
                (
                    (Name(printable(layer.name, NAME_LIMIT)),),
                    (Name(printable(layer.module, NAME_LIMIT)),) if layer.module else NOTHING,
                    (printable(layer.operator, NAME_LIMIT),) if layer.operator else NOTHING,
                    (numbers.number("significant", (*path, "time_ms")),),
                    (numbers.number("percent", (*path, "share")),),
                    numbers.one("macs of one", (*path, "macs")),
                    numbers.one("percent", (*path, "peak_share")),
                )
            )
        )
    caption = f"Layers of {title.removesuffix(', slowest layers first')}"
    yield Details(f"{count(len(rows), 'layer')} in numbers", (table(caption, columns, rows),))


def _layer(profile: LayerProfile, place: int) -> str:
    layer = profile.layers[place]
    operator = f" · {layer.operator}" if layer.operator and layer.module else ""
    return f"{layer.module or layer.name}{operator}"
