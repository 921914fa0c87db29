"""A profile as plain text: the sheet of `compress targets show` and the rows of `compress targets list`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from profiles.schema import NO_SOURCE, UNVERIFIED, DeviceProfile, VersionRange

MARK = "?"
UNITS = {
    "tflops": "TFLOPS",
    "tops": "TOPS",
    "gb_s": "GB/s",
    "gib": "GiB",
    "watts": "W",
    "mhz": "MHz",
    "cores": "cores",
}

Row = tuple[str, str, str]  # what, value with unit, source


class TargetRow(NamedTuple):
    """One line of the table of targets; the field names are its header."""

    target: str
    aliases: str
    kind: str
    runtime: str
    precisions: str
    opset: str
    memory: str
    title: str


def target_table(profiles: Iterable[DeviceProfile]) -> list[TargetRow]:
    return [
        TargetRow(
            target=profile.name,
            aliases=", ".join(profile.aliases),
            kind=profile.kind,
            runtime=profile.runtime,
            precisions=", ".join(profile.precisions),
            opset=str(profile.opset_ceiling),
            memory=f"{profile.memory_gib.value:g} GiB" if profile.memory_gib else "",
            title=profile.title,
        )
        for profile in profiles
    ]


def target_sheet(profile: DeviceProfile) -> str:
    """Everything the profile says: a line per value with its unit and its source, unverified ones marked."""
    sections = {
        "Device": _device(profile),
        "Settings": _settings(profile),
        "Software": _software(profile),
        "Figures": [(name, f"{found.value:g} {_unit(name)}", found.source) for name, found in profile.figures()],
        "Budget": [(name, f"{limit:g}", "") for name, limit in profile.budget or () if limit is not None],
    }
    rows = [row for section in sections.values() for row in section]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = [f"{profile.name}: {profile.title}"]
    for heading, section in sections.items():
        if section:
            lines += ["", heading, *(_line(row, widths) for row in section)]
    if profile.notes:
        lines += ["", "Notes", *(f"  - {note}" for note in profile.notes)]
    if any(_mark(source) == MARK for _, _, source in rows):
        lines += ["", f"{MARK} marks what nobody has re-read at its source."]
    return "\n".join(lines) + "\n"


def _device(profile: DeviceProfile) -> list[Row]:
    rows: list[Row] = [("kind", profile.kind, ""), ("runtime", profile.runtime, "")]
    if profile.aliases:
        rows.insert(0, ("also called", ", ".join(profile.aliases), ""))
    if profile.this_host:
        rows.append(("this host", "yes", ""))
    if profile.peaks.power_mode:
        rows.append(("peaks hold in", profile.peaks.power_mode, ""))
    return rows


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
    ranges: dict[str, VersionRange | None] = {
        "jetpack": profile.jetpack,
        "tensorrt": profile.tensorrt,
        "cuda": profile.cuda,
    }
    return [(name, _span(found), found.source) for name, found in ranges.items() if found]


def _span(versions: VersionRange) -> str:
    return f"{versions.max}.x" if versions.min == versions.max else f"{versions.min} to {versions.max}.x"


def _unit(name: str) -> str:
    return next(unit for suffix, unit in UNITS.items() if name.endswith(suffix))


def _mark(source: str) -> str:
    return MARK if source.startswith(UNVERIFIED) else " "


def _line(row: Row, widths: list[int]) -> str:
    what, value, source = row
    return f"  {what:<{widths[0]}}  {value:<{widths[1]}} {_mark(source)} {source}".rstrip()
