"""What no measurement covers: said in sentences, and paid for with a wider interval.

That a device, a precision or a kind of kernel was never measured needs no extra width: the posterior of the calibration
is wide there by itself. Sizes, batches, power modes and runtimes are not in its model; what they add are judgements.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from profiles.kernels import Kernel, total_macs
from profiles.measured_rows import MeasuredRow
from profiles.prediction import Basis
from profiles.roofline import ARITHMETIC, ASSUMED_MHZ, clock_mhz
from profiles.schema import DeviceProfile, Precision

# Standard deviations in log units (0.1 is about 10 %).
PER_DOUBLING_SD = 0.05  # of size or batch beyond the measured range
POWER_MODE_SD = 0.1
OTHER_RUNTIME_SD = 0.25
UNKNOWN_KERNEL_SD = 0.1
NOTABLE_SHARE = 0.1  # of the time, from which on a kind of kernel that nobody measured is worth a sentence

Doubt = tuple[str, float]  # the sentence, and the deviation that it adds


def doubts_of(
    kernels: Sequence[Kernel],
    profile: DeviceProfile,
    precision: Precision,
    batch_size: int,
    basis: Basis,
    parts_ms: dict[str, float],
    here: Sequence[MeasuredRow],
) -> tuple[tuple[str, ...], float]:
    """Sentences, and the variance of the log latency that they add; `here` are the rows measured on this device."""
    found = [*_of_the_device(profile, precision, basis, here), *_of_the_network(kernels)]
    if here:
        found += _of_kinds(kernels, parts_ms, here)
        found += [*_of_ranges(kernels, batch_size, here), *_of_setup(profile, here)]
    return tuple(sentence for sentence, _ in found), math.fsum(deviation**2 for _, deviation in found)


def _of_the_device(
    profile: DeviceProfile, precision: Precision, basis: Basis, here: Sequence[MeasuredRow]
) -> list[Doubt]:
    found: list[Doubt] = []
    if basis == "transferred":
        carrier = "its other precisions" if here else "other devices of its architecture"
        found.append((f"No network was measured on {profile.title} in {precision}: {carrier} stand in.", 0.0))
    if basis == "roofline":
        sentence = f"No network was measured on {profile.title} or its architecture: only its peaks speak for it."
        found.append((sentence, 0.0))
    if basis != "calibrated" and (names := _unverified(profile)):
        found.append((f"Not verified in the profile, and no measurement corrects it: {', '.join(names)}.", 0.0))
    if clock_mhz(profile) is None:
        found.append((f"The profile names no clock; kernels count as started at {ASSUMED_MHZ:g} MHz.", 0.0))
    return found


def _unverified(profile: DeviceProfile) -> list[str]:
    used = ("peaks.", "memory_bandwidth")
    return [name for name, figure in profile.figures() if name.startswith(used) and not figure.verified]


def _of_the_network(kernels: Sequence[Kernel]) -> list[Doubt]:
    unknown = sorted({kernel.name for kernel in kernels if kernel.kind == "other"})
    if not unknown:
        return []
    return [(f"Operators without a rule count as memory traffic alone: {', '.join(unknown)}.", UNKNOWN_KERNEL_SD)]


def _of_kinds(kernels: Sequence[Kernel], parts_ms: dict[str, float], here: Sequence[MeasuredRow]) -> list[Doubt]:
    measured = {kind for row in here for kind in row.kinds}
    total_ms = math.fsum(parts_ms.values())
    found: list[Doubt] = []
    for part in dict.fromkeys(ARITHMETIC.values()):
        kinds = {kernel.kind for kernel in kernels if ARITHMETIC.get(kernel.kind) == part}
        share = parts_ms[part] / total_ms
        if share >= NOTABLE_SHARE and not kinds & measured:
            names = " or ".join(sorted(kinds))
            sentence = f"No network with {names} kernels was measured on this device; they are {share:.0%} of the time."
            found.append((sentence, 0.0))
    return found


def _of_ranges(kernels: Sequence[Kernel], batch_size: int, here: Sequence[MeasuredRow]) -> list[Doubt]:
    found: list[Doubt] = []
    sizes = [row.macs / row.batch_size / 1e9 for row in here]
    size = total_macs(kernels) / batch_size / 1e9
    if doublings := _doublings_beyond(size, min(sizes), max(sizes)):
        span = f"{min(sizes):.3g} to {max(sizes):.3g}"
        sentence = f"The network has {size:.3g} GMACs an image; those measured on this device have {span}."
        found.append((sentence, PER_DOUBLING_SD * doublings))
    largest = max(row.batch_size for row in here)
    if doublings := _doublings_beyond(batch_size, 1, largest):
        sentence = f"Batch {batch_size} was asked for; batches up to {largest} were measured on this device."
        found.append((sentence, PER_DOUBLING_SD * doublings))
    return found


def _doublings_beyond(value: float, low: float, high: float) -> float:
    """How many factors of two a value lies outside a range; 0 within it."""
    tiny = 1e-6
    return max(0.0, math.log2(max(low, tiny) / max(value, tiny)), math.log2(max(value, tiny) / max(high, tiny)))


def _of_setup(profile: DeviceProfile, here: Sequence[MeasuredRow]) -> list[Doubt]:
    found: list[Doubt] = []
    mode, modes = profile.peaks.power_mode, sorted({row.power_mode for row in here if row.power_mode})
    if mode and modes and mode not in modes:
        found.append((f"Power mode {mode} was asked for; {' and '.join(modes)} was measured.", POWER_MODE_SD))
    runtimes = sorted({row.runtime for row in here})
    if profile.runtime not in runtimes:
        names = " and ".join(runtimes)
        sentence = f"The networks on this device were measured with {names}, not {profile.runtime}."
        found.append((sentence, OTHER_RUNTIME_SD))
    return found
