"""Measured latencies as the calibration takes them: published ones, and the user's own.

A row keeps, beside its place in the model, what a doubt or a sentence about it needs: how large the network was, which
kinds of kernels it had, in which power mode and with which runtime it ran.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

from profiles.calibration import Condition, Network, Observation
from profiles.catalogue import load_target, target_names
from profiles.errors import ProfileError
from profiles.kernels import Kernel, total_macs
from profiles.measurements import Measurement, published
from profiles.prediction import Anchor
from profiles.roofline import bandwidth_gb_s, clock_mhz, ideal_parts_ms, kernel_mix, peak_tflops
from profiles.schema import DeviceProfile, Precision

OWN = "own"
ANCHOR_NOISE_SD = 0.03  # log units: clocks and temperature differ between two sessions on one board
TYPICAL_BALANCE = 100.0  # operations a byte; only differences between devices matter


@dataclass(frozen=True)
class MeasuredRow:
    """One measured network; `macs` and `kinds` are of its kernels, `words` name it to a reader."""

    observation: Observation
    runtime: str
    batch_size: int
    macs: int
    kinds: frozenset[str]
    power_mode: str | None
    words: str

    @property
    def condition(self) -> Condition:
        return self.observation.network.condition


def published_row(row: Measurement) -> MeasuredRow:
    """A published measurement, with the ideal parts that the profile of its device gives.

    Its campaign is the repository or the document that published it, whatever the revision.
    """
    profile = _profile(row.device)
    network = network_on(row.kernels, profile, row.precision, campaign=row.source.partition("@")[0])
    words = (
        f"{row.key.replace('@', ' at ')} on {profile.title} in {row.precision}, batch {row.batch_size}: "
        f"{row.latency_ms:.3g} ms ({row.source})"
    )
    return _row(Observation(network, row.latency_ms), row.kernels, profile, row.runtime, row.batch_size, words)


def own_row(anchor: Anchor, profile: DeviceProfile) -> MeasuredRow:
    """A measurement of the user's own on the device of `profile`."""
    network = network_on(anchor.kernels, profile, anchor.precision, campaign=OWN)
    words = (
        f"your own measurement: {anchor.source} in {anchor.precision}, batch {anchor.batch_size}: "
        f"{anchor.latency_p50_ms:.3g} ms"
    )
    observation = Observation(network, anchor.latency_p50_ms, ANCHOR_NOISE_SD)
    return _row(observation, anchor.kernels, profile, profile.runtime, anchor.batch_size, words)


@cache
def published_rows_for(kind: str) -> tuple[MeasuredRow, ...]:
    """All published rows that calibrate a device of this kind: CPUs and GPUs share nothing; Jetsons are GPUs."""
    rows = published().measurements
    return tuple(merged(published_row(row) for row in rows if is_cpu(row.device) == (kind == "cpu")))


def is_cpu(device: str) -> bool:
    return _profile(device).kind == "cpu"


def merged(rows: Iterable[MeasuredRow]) -> list[MeasuredRow]:
    """Repeats of one network on one condition by one publication as one row: the geometric mean of their latencies."""
    groups: dict[Network, list[MeasuredRow]] = {}
    for row in rows:
        groups.setdefault(row.observation.network, []).append(row)
    return [_mean(group) for group in groups.values()]


def network_on(kernels: Sequence[Kernel], profile: DeviceProfile, precision: Precision, *, campaign: str) -> Network:
    """A network on a device at a precision, as the calibration sees it.

    Its name is made of its kernels, so that equal networks are one, whatever they are called.

    Raises:
        PredictionRefused: the profile lacks a peak or the bandwidth.
    """
    values = sum(kernel.input_elements + kernel.weight_elements + kernel.output_elements for kernel in kernels)
    return Network(
        condition_of(profile, precision, campaign=campaign),
        tuple(ideal_parts_ms(kernels, profile, precision).tolist()),
        tuple(kernel_mix(kernels).tolist()),
        f"{len(kernels)} kernels, {total_macs(kernels)} macs, {values} values",
    )


def condition_of(profile: DeviceProfile, precision: Precision, *, campaign: str) -> Condition:
    """Where a row was measured, and by whom.

    Architecture is the compute capability: such devices have the same multiprocessors.
    """
    operations_a_byte = peak_tflops(profile, precision) * 1e3 / bandwidth_gb_s(profile)
    architecture = profile.compute_capability or profile.kind
    balance = math.log(operations_a_byte / TYPICAL_BALANCE)
    return Condition(device_of(profile), architecture, precision, balance, campaign)


def device_of(profile: DeviceProfile) -> str:
    """The device whose measurements are the profile's own: the shipped one that it extends, where no peak, bandwidth or
    clock is another than that one's in the same power mode; else itself.
    """
    if profile.extends is None:
        return profile.name
    shipped, mode = _profile(profile.extends), profile.peaks.power_mode
    if mode is not None and mode != shipped.peaks.power_mode:
        try:
            shipped = shipped.in_power_mode(mode)
        except ProfileError:  # a mode of the user's own
            return profile.name
    precisions = profile.precisions
    return shipped.name if _speed(profile, precisions) == _speed(shipped, precisions) else profile.name


def described_mode(profile: DeviceProfile) -> str | None:
    """The power mode that the figures of the shipped device hold in, whichever mode the profile is in."""
    device = profile.extends or profile.name
    return _profile(device).peaks.power_mode if device in target_names() else None


def _speed(profile: DeviceProfile, precisions: Sequence[Precision]) -> tuple[object, ...]:
    """All that a prediction at these precisions takes from a profile."""
    peaks = profile.peaks
    figures = [peaks.fp32_tflops, peaks.tf32_tflops, profile.memory_bandwidth_gb_s]
    figures += [peaks.fp16_tflops] * ("fp16" in precisions) + [peaks.int8_tops] * ("int8" in precisions)
    return profile.compute_capability, clock_mhz(profile), *(figure and figure.value for figure in figures)


@cache
def _profile(device: str) -> DeviceProfile:
    return load_target(device)


def _row(
    observation: Observation,
    kernels: Sequence[Kernel],
    profile: DeviceProfile,
    runtime: str,
    batch_size: int,
    words: str,
) -> MeasuredRow:
    kinds = frozenset(kernel.kind for kernel in kernels)
    mode = profile.peaks.power_mode
    return MeasuredRow(observation, runtime, batch_size, total_macs(kernels), kinds, mode, words)


def _mean(rows: Sequence[MeasuredRow]) -> MeasuredRow:
    first = rows[0]
    log_ms = math.fsum(math.log(row.observation.latency_ms) for row in rows) / len(rows)
    return replace(first, observation=replace(first.observation, latency_ms=math.exp(log_ms)))
