"""What a network would cost on a device that reached its peaks: the parts that a latency is made of.

    latency = sum over parts of  e^x[part] * ideal[part]

`ideal` follows from the kernels and the device's profile alone and stands in this module; the factors e^x, which are
1 / efficiency, are estimated from measurements in `profiles.calibration`. Arithmetic and memory traffic of a kernel add
up, where the classic roofline takes the larger of both: a kernel of a batch of one overlaps them badly, and the
measurements support the sum.

    dense, pointwise, product   2 macs / peak of the precision (tensor cores, where there are any)
    grouped                     the same for grouped convolutions; depthwise ones run on the plain cores: twice the fp32
                                rate in fp16 and int8
    memory                      (inputs + weights + outputs) x bytes of a value / bandwidth, of every kernel
    launch                      1,000 clock cycles for every kernel
    depth                       one clock cycle for every multiply-add that one output value waits for: with few values
                                to compute a large device idles, and a kernel lasts as long as one of its tiles
    fixed                       0.1 ms for every inference
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from profiles.errors import ProfileError
from profiles.kernels import KINDS, Kernel, KernelKind
from profiles.schema import DeviceProfile, Figure, Precision

PARTS = ("dense", "pointwise", "grouped", "product", "memory", "launch", "depth", "fixed")
ARITHMETIC: dict[KernelKind, str] = {
    "convolution": "dense",
    "pointwise": "pointwise",
    "grouped": "grouped",
    "depthwise": "grouped",
    "gemm": "product",
    "attention": "product",
}
BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}
LAUNCH_CYCLES = 1000
FIXED_MS = 0.1
ASSUMED_MHZ = 1000.0

Vector = NDArray[np.float64]


class PredictionRefused(ProfileError):
    """A latency that would be a guess: the profile does not say how fast the device is."""


def ideal_parts_ms(kernels: Iterable[Kernel], profile: DeviceProfile, precision: Precision) -> Vector:
    """Milliseconds of each of `PARTS` at the device's peaks, (8,), for the batch that the kernels are counted for.

    Raises:
        PredictionRefused: the profile has no peak for this precision, or no memory bandwidth.
    """
    peak = peak_tflops(profile, precision)
    plain = profile.peaks.fp32_tflops.value if profile.peaks.fp32_tflops else peak
    plain_peak = min(peak, plain * (1 if precision == "fp32" else 2))
    bandwidth = bandwidth_gb_s(profile)
    cycle_ms = 1e-3 / (clock_mhz(profile) or ASSUMED_MHZ)
    parts = dict.fromkeys(PARTS, 0.0)
    for kernel in kernels:
        values = kernel.input_elements + kernel.weight_elements + kernel.output_elements
        parts["memory"] += values * BYTES[precision] / (bandwidth * 1e6)
        parts["launch"] += LAUNCH_CYCLES * cycle_ms
        if kernel.kind in ARITHMETIC:
            rate = plain_peak if kernel.kind == "depthwise" else peak
            parts[ARITHMETIC[kernel.kind]] += 2 * kernel.macs / (rate * 1e9)
            parts["depth"] += kernel.macs / max(kernel.output_elements, 1) * cycle_ms
    parts["fixed"] = FIXED_MS
    return np.array([parts[part] for part in PARTS])


def peak_tflops(profile: DeviceProfile, precision: Precision) -> float:
    """The dense peak that a network of this precision meets, in 10^12 operations a second; TF32 where fp32 means that.

    Raises:
        PredictionRefused: the profile has none.
    """
    peaks = profile.peaks
    figures: dict[Precision, Figure | None] = {
        "fp32": peaks.tf32_tflops or peaks.fp32_tflops,
        "fp16": peaks.fp16_tflops,
        "int8": peaks.int8_tops,
    }
    if figure := figures[precision]:
        return figure.value
    known = [name for name, other in figures.items() if other]
    raise PredictionRefused(
        f"The profile of {profile.title} gives no {precision} peak, so a latency in {precision} would be a guess.",
        f"It gives peaks for {', '.join(known)}." if known else "It gives no peaks at all.",
        f"Measure on the device itself, or add the peak in a profile of your own that extends {profile.name}.",
    )


def bandwidth_gb_s(profile: DeviceProfile) -> float:
    """Memory bandwidth in 10^9 bytes a second.

    Raises:
        PredictionRefused: the profile has none.
    """
    if profile.memory_bandwidth_gb_s:
        return profile.memory_bandwidth_gb_s.value
    raise PredictionRefused(
        f"The profile of {profile.title} gives no memory bandwidth, so a latency would be a guess.",
        "A prediction needs memory_bandwidth_gb_s and the peak of the precision.",
        f"Measure on the device itself, or add the figure in a profile of your own that extends {profile.name}.",
    )


def clock_mhz(profile: DeviceProfile) -> float | None:
    """The clock of what computes, in the power mode that the peaks hold in; None where the profile does not say."""
    mode = next((mode for mode in profile.power_modes if mode.name == profile.peaks.power_mode), None)
    clock = mode and (mode.cpu_mhz if profile.kind == "cpu" else mode.gpu_mhz)
    return clock.value if clock else None


def kernel_mix(kernels: Sequence[Kernel]) -> Vector:
    """What a network is made of, whatever its size: (2 * kinds,), the square roots of the shares of each kind of kernel
    in the multiply-accumulates and in the number of kernels. Equal mixes are 0 apart, disjoint ones 2 (Hellinger).
    """
    shares = np.zeros((2, len(KINDS)))
    for kernel in kernels:
        column = KINDS.index(kernel.kind)
        shares[:, column] += kernel.macs, 1
    return np.asarray(np.sqrt(shares / np.maximum(shares.sum(axis=1, keepdims=True), 1)).reshape(-1))
