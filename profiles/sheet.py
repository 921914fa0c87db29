"""A profile as plain text: the sheet of `compress targets show`, the rows of `compress targets list`, and the table of
docs/targets.md.

Every value stands beside its unit and its source; what nobody has re-read at its source carries a mark. Power modes
are a table, so their sources are notes below it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from textwrap import wrap
from typing import NamedTuple

from profiles.schema import NO_SOURCE, UNVERIFIED, DeviceProfile, Figure, PowerMode, VersionRange

MARK = "?"
WIDTH = 100
UNITS = {"tflops": "TFLOPS", "tops": "TOPS", "gb_s": "GB/s", "gib": "GiB"}
LABEL, VALUE = 21, 16  # columns of a sheet; what is longer pushes the rest of its own line

Row = tuple[str, str, str]  # what, value with unit, source


class TargetRow(NamedTuple):
    """One line of the table of targets; the field names are its header."""

    target: str
    aliases: str
    runtime: str
    precisions: str
    title: str


def target_table(profiles: Iterable[DeviceProfile]) -> list[TargetRow]:
    return [
        TargetRow(
            target=profile.name,
            aliases=", ".join(profile.aliases),
            runtime=profile.runtime,
            precisions=", ".join(profile.precisions),
            title=profile.title,
        )
        for profile in profiles
    ]


def target_markdown(profiles: Iterable[DeviceProfile]) -> list[str]:
    """The lines of a Markdown table of devices: what each is called, what decides its speed, and its power modes."""
    head = (
        "`--target`",
        "also",
        "device",
        "runtime",
        "fp32 TFLOPS",
        "fp16 TFLOPS",
        "int8 TOPS",
        "GB/s",
        "GiB",
        "in mode",
    )
    rows = [(*head, "other modes"), ("---",) * (len(head) + 1)]
    for profile in profiles:
        peaks = profile.peaks
        figures = (
            peaks.tf32_tflops or peaks.fp32_tflops,
            peaks.fp16_tflops,
            peaks.int8_tops,
            profile.memory_bandwidth_gb_s,
            profile.memory_gib,
        )
        rows.append(
            (
                f"`{profile.name}`",
                ", ".join(f"`{alias}`" for alias in profile.aliases),
                profile.title,
                f"TensorRT {_span(profile.tensorrt)}" if profile.tensorrt else "ONNX Runtime",
                *(f"{figure.value:g}{'' if figure.verified else f' {MARK}'}" if figure else "" for figure in figures),
                peaks.power_mode or "",
                ", ".join(mode.name for mode in profile.power_modes if mode.name != peaks.power_mode),
            )
        )
    return ["| " + " | ".join(row) + " |" for row in rows]


def target_sheet(profile: DeviceProfile) -> str:
    """Everything the profile says, no line longer than 100 columns unless one word is."""
    figures = {name: figure for name, figure in profile.figures() if not name.startswith("power_modes.")}
    peaks = {name.removeprefix("peaks."): figure for name, figure in figures.items() if name.startswith("peaks.")}
    unit = "CPU" if profile.kind == "cpu" else "GPU"
    where = f", in mode {profile.peaks.power_mode}" if profile.peaks.power_mode else ""
    sections = {
        "Device": _device(profile),
        f"Peaks (dense, of the {unit} alone{where})": _figures(peaks),
        "Memory": _figures({name: figure for name, figure in figures.items() if name.startswith("memory_")}),
        "Software": _software(profile),
        "Settings": _settings(profile),
        "Budget (wishes, where you give no limit)": _budget(profile),
    }
    lines = [f"{profile.name}: {profile.title}"]
    for heading, rows in sections.items():
        if rows:
            lines += ["", heading, *(line for row in rows for line in _lines(row))]
    if profile.power_modes:
        lines += ["", "Power modes", *_power_modes(profile.power_modes)]
    if profile.notes:
        lines += ["", "Notes", *(line for note in profile.notes for line in _wrapped("  - ", note))]
    sources = [source for rows in sections.values() for _, _, source in rows]
    sources += [figure.source for _, figure in profile.figures()]
    if any(source.startswith(UNVERIFIED) for source in sources):
        lines += ["", f"{MARK} marks what nobody has re-read at its source."]
    return "\n".join(lines) + "\n"


def _device(profile: DeviceProfile) -> list[Row]:
    rows: list[Row] = [("kind", profile.kind, ""), ("runtime", profile.runtime, "")]
    if profile.aliases:
        rows.insert(0, ("also called", ", ".join(profile.aliases), ""))
    if profile.extends:
        rows.insert(0, ("extends", profile.extends, ""))
    if profile.this_host:
        rows.append(("this host", "yes", ""))
    return rows


def _figures(figures: dict[str, Figure]) -> list[Row]:
    return [(name, _valued(name, figure), figure.source) for name, figure in figures.items()]


def _settings(profile: DeviceProfile) -> list[Row]:
    values = {
        "compute_capability": profile.compute_capability,
        "precisions": ", ".join(profile.precisions),
        "opset_ceiling": profile.opset_ceiling,
        "channel_multiple": profile.channel_multiple,
        "workspace_mib": profile.workspace_mib and f"{profile.workspace_mib} MiB",
    }
    sources = {str(setting): source for setting, source in profile.sources.items()}
    return [(name, str(value), sources.get(name, NO_SOURCE)) for name, value in values.items() if value]


def _software(profile: DeviceProfile) -> list[Row]:
    ranges = {"jetpack": profile.jetpack, "tensorrt": profile.tensorrt, "cuda": profile.cuda}
    return [(name, _span(found), found.source) for name, found in ranges.items() if found]


def _budget(profile: DeviceProfile) -> list[Row]:
    units = {"max_latency_ms": "ms", "max_size_mib": "MiB", "max_params_m": "million"}
    return [(name, f"{limit:g} {units[name]}", "") for name, limit in profile.budget or () if limit is not None]


def _power_modes(modes: Iterable[PowerMode]) -> Iterator[str]:
    """A table of the modes, each figure with the letter of its source, and the sources by letter."""
    columns = ("watts", "gpu_mhz", "gpu_sms", "cpu_mhz", "cpu_cores", "memory_mhz")
    rows: list[tuple[str, ...]] = [("", "nvpmodel", *columns)]
    letters: dict[str, str] = {}
    for mode in modes:
        cells = [mode.name, "" if mode.nvpmodel_id is None else str(mode.nvpmodel_id)]
        for column in columns:
            figure: Figure | None = getattr(mode, column)
            if figure is None:
                cells.append("")
                continue
            letter = letters.setdefault(figure.source, chr(ord("a") + len(letters)))
            cells.append(f"{figure.value:g} {letter}" + ("" if figure.verified else MARK))
        rows.append(tuple(cells))
    kept = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in kept]
    for row in zip(*kept, strict=True):
        yield ("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))).rstrip()
    for source, letter in letters.items():
        mark = MARK if source.startswith(UNVERIFIED) else " "
        yield from _wrapped(f"  {letter}{mark} ", source)


def _valued(name: str, figure: Figure) -> str:
    unit = next(unit for suffix, unit in UNITS.items() if name.endswith(suffix))
    return f"{figure.value:g} {unit}"


def _span(versions: VersionRange) -> str:
    return f"{versions.max}.x" if versions.min == versions.max else f"{versions.min} to {versions.max}.x"


def _lines(row: Row) -> list[str]:
    what, value, source = row
    mark = MARK if source.startswith(UNVERIFIED) else " "
    return _wrapped(f"  {what:<{LABEL}} {value:<{VALUE}} {mark} ", source)


def _wrapped(start: str, text: str) -> list[str]:
    indent = " " * len(start)
    lines = wrap(
        text,
        WIDTH,
        initial_indent=start,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )
    return lines or [start.rstrip()]
