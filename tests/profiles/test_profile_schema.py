"""The schema: what a profile must say, and what it refuses."""

from typing import Any

import pytest
from pydantic import ValidationError

from profiles.schema import NO_SOURCE, DeviceProfile, Figure, VersionRange

BOARD: dict[str, Any] = {
    "name": "board",
    "title": "A board",
    "kind": "jetson",
    "runtime": "tensorrt",
    "compute_capability": "8.7",
    "jetpack": {"min": "6.1", "max": "7.2"},
    "tensorrt": {"min": "10.3", "max": "10.16"},
    "cuda": {"min": "12.6", "max": "13.2"},
    "precisions": ["fp32", "fp16", "int8"],
    "opset_ceiling": 20,
    "channel_multiple": 16,
    "power_modes": [{"name": "15W", "gpu_mhz": 612}, {"name": "25W", "gpu_mhz": 918}],
    "peaks": {"int8_tops": 33, "power_mode": "25W"},
    "memory_gib": 8,
}


def test_a_raspberry_pi_and_a_server_gpu_need_no_other_schema() -> None:
    common = {"title": "t", "precisions": ["fp32"], "opset_ceiling": 20, "channel_multiple": 8}
    pi = DeviceProfile.model_validate(
        common
        | {"name": "raspberry-pi-5", "kind": "cpu", "runtime": "onnxruntime"}
        | {
            "peaks": {"fp32_tflops": 0.154},
            "power_modes": [{"name": "stock", "cpu_mhz": 2400, "cpu_cores": 4}],
        }
    )
    assert [name for name, _ in pi.figures()] == [
        "peaks.fp32_tflops",
        "power_modes.stock.cpu_mhz",
        "power_modes.stock.cpu_cores",
    ]
    h200 = {key: value for key, value in BOARD.items() if key not in ("jetpack", "memory_gib")} | {
        "name": "h200",
        "kind": "gpu",
        "compute_capability": "9.0",
        "peaks": {"tf32_tflops": 494},
        "budget": {"max_latency_ms": 2.5},
    }
    assert DeviceProfile.model_validate(h200).budget is not None


def test_a_bare_number_is_a_figure_without_a_source() -> None:
    figure = Figure.model_validate(8)
    assert (figure.value, figure.source, figure.verified) == (8.0, NO_SOURCE, False)
    assert Figure(value=8, source="data sheet of the vendor").verified


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), True, "8", None, [8]])
def test_a_figure_is_a_positive_number(value: object) -> None:
    with pytest.raises(ValidationError):
        Figure.model_validate({"value": value, "source": "s"})


def test_a_version_range_includes_its_ends_and_what_its_maximum_abbreviates() -> None:
    versions = VersionRange(min="4.6.1", max="4.6")
    assert [v for v in ("4.5", "4.6", "4.6.0", "4.6.1", "4.6.6", "4.7", "5") if versions.admits(v)] == [
        "4.6.1",
        "4.6.6",
    ]
    assert VersionRange(min="10.3.0", max="10.16").admits("10.3")
    assert not VersionRange(min="10.3", max="10.16").admits("10.17.1")  # numbers, not text: 10.3 < 10.16
    with pytest.raises(ValidationError, match=r"min 10\.16 is above max 10\.3"):
        VersionRange(min="10.16", max="10.3")


def test_a_version_must_be_quoted() -> None:
    with pytest.raises(ValidationError, match="version in quotes"):
        VersionRange.model_validate({"min": 10.10, "max": "11"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"jetpack": None}, "jetpack: a jetson needs its JetPack range"),
        ({"kind": "gpu"}, "jetpack: only a jetson has one, not a gpu"),
        ({"kind": "cpu"}, "runtime: a cpu cannot run tensorrt"),
        ({"kind": "cpu"}, "compute_capability: a cpu has none"),
        ({"compute_capability": None}, "compute_capability: a jetson needs it"),
        ({"tensorrt": None}, "tensorrt: the runtime tensorrt needs its tensorrt range"),
        ({"cuda": None}, "cuda: the runtime tensorrt needs its cuda range"),
        ({"precisions": ["int8"]}, "precisions: must hold fp32, and each precision once"),
        ({"precisions": ["fp32", "fp32", "int8"]}, "precisions: must hold fp32, and each precision once"),
        ({"compute_capability": "5.3"}, "precisions: compute capability 5.3 has no int8 arithmetic"),
        ({"precisions": ["fp32"]}, "peaks.int8_tops: given, but int8 is not among the precisions"),
        (
            {"compute_capability": "7.5", "peaks": {"tf32_tflops": 8}},
            "TF32 needs compute capability 8.0 or later",
        ),
        ({"power_modes": [{"name": "25W"}] * 2}, "power_modes: names must differ"),
        ({"power_modes": [{"name": "25W"}, {"name": "MODE_25w"}]}, "power_modes: names must differ"),
        ({"peaks": {"power_mode": "40W"}}, "peaks.power_mode: '40W' is not among the power modes (15W, 25W)"),
        ({"workspace_mib": 9000}, "workspace_mib: 9000 MiB does not fit in 8 GiB of memory"),
    ],
)
def test_contradictions_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        DeviceProfile.model_validate(BOARD | change)
    assert message in str(refusal.value)


def test_contradictions_are_reported_together() -> None:
    with pytest.raises(ValidationError) as refusal:
        DeviceProfile.model_validate(BOARD | {"jetpack": None, "cuda": None, "precisions": ["fp32"]})
    assert str(refusal.value).count(";") == 2


@pytest.mark.parametrize("limit", [0, -1, float("nan"), float("inf")])
def test_a_wish_is_positive(limit: float) -> None:
    with pytest.raises(ValidationError, match="max_latency_ms"):
        DeviceProfile.model_validate(BOARD | {"budget": {"max_latency_ms": limit}})


def test_a_profile_is_frozen_and_knows_no_other_keys() -> None:
    profile = DeviceProfile.model_validate(BOARD)
    with pytest.raises(ValidationError, match="frozen"):
        profile.opset_ceiling = 21  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        DeviceProfile.model_validate(BOARD | {"memory_gb": 8})
