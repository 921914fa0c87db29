"""The ideal parts of a latency, by hand."""

import math

import numpy as np
import pytest

from profiles.catalogue import load_target
from profiles.kernels import Kernel, KernelKind
from profiles.roofline import PARTS, PredictionRefused, ideal_parts_ms, kernel_mix
from profiles.schema import DeviceProfile, Figure, Peaks, PowerMode, VersionRange


def device(**changes: object) -> DeviceProfile:
    """1 TFLOP/s in fp32, 8 in TF32, 16 in fp16, 100 GB/s, 1 GHz."""
    figures = {"fp32_tflops": 1.0, "tf32_tflops": 8.0, "fp16_tflops": 16.0}
    given = {
        "name": "board",
        "title": "A board",
        "kind": "gpu",
        "runtime": "tensorrt",
        "compute_capability": "8.0",
        "peaks": Peaks(**{name: Figure(value=value) for name, value in figures.items()}, power_mode="MAXN"),
        "memory_bandwidth_gb_s": Figure(value=100.0),
        "power_modes": (PowerMode(name="MAXN", gpu_mhz=Figure(value=1000.0)),),
        "tensorrt": VersionRange(min="10.3", max="10.3"),
        "cuda": VersionRange(min="12.6", max="12.6"),
        "precisions": ("fp32", "fp16", "int8"),
        "opset_ceiling": 20,
        "channel_multiple": 8,
    }
    return DeviceProfile.model_validate(given | changes)


def kernel(kind: KernelKind, macs: int = 4_000_000, elements: tuple[int, int, int] = (1000, 2000, 4000)) -> Kernel:
    return Kernel("k", kind, macs, *elements, input_channels=1, output_channels=1, positions=4000)


def parts(kernels: list[Kernel], profile: DeviceProfile, precision: str) -> dict[str, float]:
    return dict(zip(PARTS, ideal_parts_ms(kernels, profile, precision), strict=True))  # type: ignore[arg-type]


def test_a_convolution_at_fp16() -> None:
    found = parts([kernel("convolution")], device(), "fp16")
    assert found["dense"] == pytest.approx(2 * 4e6 / 16e12 * 1e3)
    assert found["memory"] == pytest.approx(7000 * 2 / 100e9 * 1e3)
    assert found["launch"] == pytest.approx(1000 / 1e9 * 1e3)
    assert found["depth"] == pytest.approx(1000 / 1e9 * 1e3)  # 4,000,000 macs for 4,000 values
    assert found["fixed"] == 0.1
    assert found["pointwise"] == found["grouped"] == found["product"] == 0


def test_fp32_means_tf32_where_there_is_one() -> None:
    assert parts([kernel("gemm")], device(), "fp32")["product"] == pytest.approx(2 * 4e6 / 8e12 * 1e3)
    assert parts([kernel("gemm")], load_target("t4"), "fp32")["product"] == pytest.approx(2 * 4e6 / 8.1e12 * 1e3)


def test_depthwise_runs_on_the_plain_cores_and_grouped_on_the_tensor_cores() -> None:
    assert parts([kernel("depthwise")], device(), "fp32")["grouped"] == pytest.approx(2 * 4e6 / 1e12 * 1e3)
    assert parts([kernel("depthwise")], device(), "fp16")["grouped"] == pytest.approx(2 * 4e6 / 2e12 * 1e3)
    assert parts([kernel("grouped")], device(), "fp16")["grouped"] == pytest.approx(2 * 4e6 / 16e12 * 1e3)


def test_what_computes_nothing_costs_its_traffic_and_its_launch() -> None:
    found = parts([kernel("movement", macs=0), kernel("pool", macs=0)], device(), "fp32")
    assert found["memory"] == pytest.approx(2 * 7000 * 4 / 100e9 * 1e3)
    assert found["launch"] == pytest.approx(2e-3)
    assert found["depth"] == found["dense"] == 0


def test_a_slower_mode_slows_every_part_but_the_fixed_one() -> None:
    jetson = load_target("jetson")
    fast, slow = (ideal_parts_ms([kernel("convolution")], p, "fp16") for p in (jetson, jetson.in_power_mode("15W")))
    assert slow[0] / fast[0] == pytest.approx(1020 / 612, rel=1e-3)
    assert slow[PARTS.index("memory")] / fast[PARTS.index("memory")] == pytest.approx(3199 / 2133, rel=1e-3)
    assert slow[-1] == fast[-1]


def test_no_peak_is_refused_with_what_there_is() -> None:
    with pytest.raises(PredictionRefused) as refused:
        ideal_parts_ms([], device(), "int8")
    assert "A board gives no int8 peak" in refused.value.received
    assert refused.value.expected == "It gives peaks for fp32, fp16."
    assert "extends board" in refused.value.action
    with pytest.raises(PredictionRefused) as refused:
        ideal_parts_ms([], device(peaks=Peaks()), "fp32")
    assert refused.value.expected == "It gives no peaks at all."


def test_no_bandwidth_is_refused() -> None:
    with pytest.raises(PredictionRefused, match="no memory bandwidth") as refused:
        ideal_parts_ms([], device(memory_bandwidth_gb_s=None), "fp32")
    assert "Measure on the device itself" in refused.value.action


def test_the_mix_forgets_size_and_order() -> None:
    small = [kernel("convolution", 10), kernel("pointwise", 30), kernel("pool", 0)]
    large = [kernel("pool", 0), kernel("pointwise", 300), kernel("convolution", 100)]
    assert np.array_equal(kernel_mix(small), kernel_mix(large))
    assert np.sum(kernel_mix(small) ** 2) == pytest.approx(2)  # shares of macs and of kernels, each summing to 1


def test_disjoint_mixes_are_2_apart() -> None:
    apart = np.linalg.norm(kernel_mix([kernel("convolution")]) - kernel_mix([kernel("gemm")]))
    assert apart == pytest.approx(2.0)
    assert math.isfinite(float(kernel_mix([]).sum()))
