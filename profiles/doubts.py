"""What no measurement covers: said in sentences, and paid for with a wider interval.

That a device, a precision or a kind of kernel was never measured needs no extra width: the posterior of the calibration
is wide there by itself. Sizes, batches, power modes and runtimes are not in its model; what they add are judgements,
added whichever measurements a prediction leans on: those of the device, or of others where it has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Carriers:
    """The measurements that a prediction leans on; `where` says in words on which devices they were made, and `modes`
    for which power modes of this device they speak.
    """

    rows: Sequence[MeasuredRow]
    where: str
    modes: frozenset[str]


def doubts_of(
    kernels: Sequence[Kernel],
    profile: DeviceProfile,
    precision: Precision,
    batch_size: int,
    basis: Basis,
    parts_ms: dict[str, float],
    here: Sequence[MeasuredRow],
    carriers: Carriers,
) -> tuple[tuple[str, ...], float]:
    """Sentences, and the variance of the log latency that they add; `here` are the rows measured on this device, and
    the carriers are those where there are any.
    """
    found = [*_of_the_device(profile, precision, basis, here), *_of_the_network(kernels)]
    found += _of_kinds(kernels, parts_ms, carriers)
    found += [*_of_ranges(kernels, batch_size, carriers), *_of_setup(profile, carriers)]
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


def _of_kinds(kernels: Sequence[Kernel], parts_ms: dict[str, float], carriers: Carriers) -> list[Doubt]:
    measured = {kind for row in carriers.rows for kind in row.kinds}
    total_ms = math.fsum(parts_ms.values())
    found: list[Doubt] = []
    for part in dict.fromkeys(ARITHMETIC.values()):
        kinds = {kernel.kind for kernel in kernels if ARITHMETIC.get(kernel.kind) == part}
        share = parts_ms[part] / total_ms
        if share >= NOTABLE_SHARE and not kinds & measured:
            names = " or ".join(sorted(kinds))
            where = f"was measured on {carriers.where}"
            sentence = f"No network with {names} kernels {where}; they are {share:.0%} of the time."
            found.append((sentence, 0.0))
    return found


def _of_ranges(kernels: Sequence[Kernel], batch_size: int, carriers: Carriers) -> list[Doubt]:
    found: list[Doubt] = []
    sizes = [row.macs / row.batch_size for row in carriers.rows]
    size = total_macs(kernels) / batch_size
    if doublings := _doublings_beyond(size, min(sizes), max(sizes)):
        span = f"{_in_words(min(sizes))} to {_in_words(max(sizes))}"
        sentence = f"The network has {_in_words(size)} MACs an image; those measured on {carriers.where} have {span}."
        found.append((sentence, PER_DOUBLING_SD * doublings))
    largest = max(row.batch_size for row in carriers.rows)
    if doublings := _doublings_beyond(batch_size, 1, largest):
        sentence = f"Batch {batch_size} was asked for; batches up to {largest} were measured on {carriers.where}."
        found.append((sentence, PER_DOUBLING_SD * doublings))
    return found


def _in_words(macs: float) -> str:
    """`1.82 G`, `12.3 M` or `80.1 k`."""
    scale, unit = next(((s, unit) for s, unit in ((1e9, "G"), (1e6, "M")) if macs >= s), (1e3, "k"))
    return f"{macs / scale:.3g} {unit}"


def _doublings_beyond(value: float, low: float, high: float) -> float:
    """How many factors of two a value lies outside a range; 0 within it."""
    return max(0.0, math.log2(max(low, 1) / max(value, 1)), math.log2(max(value, 1) / max(high, 1)))


def _of_setup(profile: DeviceProfile, carriers: Carriers) -> list[Doubt]:
    found: list[Doubt] = []
    mode, modes = profile.peaks.power_mode, sorted(carriers.modes)
    if mode and modes and mode not in modes:
        sentence = f"Power mode {mode} was asked for; the measurements speak for {' and '.join(modes)}."
        found.append((sentence, POWER_MODE_SD))
    runtimes = sorted({row.runtime for row in carriers.rows})
    if profile.runtime not in runtimes:
        names = " and ".join(runtimes)
        sentence = f"The networks on {carriers.where} were measured with {names}, not {profile.runtime}."
        found.append((sentence, OTHER_RUNTIME_SD))
    return found
