"""A device in another power mode: the figures of its profile scaled by the clocks and by the units that are left on.

    peak(there) = peak(here) * clock(there) / clock(here) * units(there) / units(here)

with the GPU's clock and its streaming multiprocessors (modes of a Jetson turn some of them off), or a CPU's clock and
cores. The bandwidth follows the memory's clock. This is arithmetic, not a measurement: what a lower power budget does
to a clock under load is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from profiles.errors import ProfileError
from profiles.schema import UNVERIFIED, DeviceProfile, Figure, Peaks, PowerMode, mode_key


class _Step(NamedTuple):
    """What differs between two power modes, and in what unit."""

    old: Figure
    new: Figure
    unit: str


def in_power_mode(profile: DeviceProfile, name: str) -> DeviceProfile:
    """The device in the mode of this name; the profile's name stays, its title says the mode.

    Upper and lower case are the same, and `MODE_` may be left out. Every figure that changes says from what.

    Raises:
        ProfileError: there is no such mode, or a clock that the peaks are scaled by is not known.
    """
    modes = {mode.key: mode for mode in profile.power_modes}
    there = modes.get(mode_key(name))
    if there is None:
        raise _no_such_mode(profile, name)
    if profile.peaks.power_mode is None:
        raise ProfileError(
            f"The profile of {profile.title} does not say which power mode its peaks hold in.",
            f"Peaks are scaled to '{there.name}' from the mode that `peaks.power_mode` names.",
            f"Name it in a profile of your own that extends {profile.name}.",
        )
    here = modes[mode_key(profile.peaks.power_mode)]
    title = profile.title.removesuffix(_in_words(here)) + _in_words(there)
    titled = profile.model_copy(update={"title": title})
    if here is there:
        return titled
    return titled.model_copy(
        update={
            "peaks": _peaks(profile, here, there),
            "memory_bandwidth_gb_s": _bandwidth(profile.memory_bandwidth_gb_s, here, there),
        }
    )


def _in_words(mode: PowerMode) -> str:
    return f" in mode {mode.name}"


def _peaks(profile: DeviceProfile, here: PowerMode, there: PowerMode) -> Peaks:
    clock, units, unit = ("cpu_mhz", "cpu_cores", "cores") if profile.kind == "cpu" else ("gpu_mhz", "gpu_sms", "SM")
    if (by_clock := _step(here, there, clock, "MHz")) is None:
        unknown = there if getattr(here, clock) else here
        raise ProfileError(
            f"The clock of power mode '{unknown.name}' of {profile.title} is not known.",
            f"Peaks are scaled from one power mode to another by {clock}.",
            f"Give {clock} of both modes in a profile of your own that extends {profile.name}.",
        )
    by_units = _step(here, there, units, unit)
    steps = [by_clock, by_units] if by_units else [by_clock]
    scaled = {
        name: _scaled(figure, here, steps)
        for name in Peaks.model_fields
        if isinstance(figure := getattr(profile.peaks, name), Figure)
    }
    return profile.peaks.model_copy(update=scaled | {"power_mode": there.name})


def _bandwidth(bandwidth: Figure | None, here: PowerMode, there: PowerMode) -> Figure | None:
    if bandwidth is None:
        return None
    if step := _step(here, there, "memory_mhz", "MHz"):
        return _scaled(bandwidth, here, [step])
    doubt = f"{UNVERIFIED} not scaled, as the memory clock of a mode is not known"
    return Figure(value=bandwidth.value, source=f"{doubt}; {_without_mark(bandwidth.source)}")


def _step(here: PowerMode, there: PowerMode, field: str, unit: str) -> _Step | None:
    old, new = getattr(here, field), getattr(there, field)
    return None if old is None or new is None else _Step(old, new, unit)


def _scaled(figure: Figure, here: PowerMode, steps: Sequence[_Step]) -> Figure:
    """The figure times new / old of every step, with its derivation as source."""
    changed = [step for step in steps if step.old.value != step.new.value]
    if not changed:
        return figure
    value = figure.value * math.prod(step.new.value / step.old.value for step in changed)
    words = " and ".join(f"{step.new.value:g} of {step.old.value:g} {step.unit}" for step in changed)
    source = f"scaled from {figure.value:g} in mode {here.name} by {words}; {_without_mark(figure.source)}"
    verified = figure.verified and all(step.old.verified and step.new.verified for step in changed)
    return Figure(value=float(f"{value:.4g}"), source=source if verified else f"{UNVERIFIED} {source}")


def _without_mark(source: str) -> str:
    return source.removeprefix(UNVERIFIED).strip()


def _no_such_mode(profile: DeviceProfile, name: str) -> ProfileError:
    listed = ", ".join(mode.name for mode in profile.power_modes)
    own = f"describe the mode in a profile of your own that extends {profile.name}"
    return ProfileError(
        f"{profile.title} has no power mode '{name}'.",
        f"Its power modes: {listed}." if listed else "Its profile lists no power modes.",
        f"Use one of these names, or {own}." if listed else f"Leave '@{name}' out, or {own}.",
    )
