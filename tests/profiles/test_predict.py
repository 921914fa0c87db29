"""Predictions from the shipped measurements: what they say, what they lean on, and what they refuse."""

import math
import time
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from profiles.catalogue import load_target
from profiles.errors import ProfileError
from profiles.kernels import Kernel, at_batch, total_macs
from profiles.measurements import published
from profiles.predict import Anchor, Prediction, PredictionRefused, expected_parts_ms, predict_latency
from profiles.roofline import PARTS
from profiles.schema import DeviceProfile, Figure, Peaks

JETSON = load_target("jetson")
target = cache(load_target)  # a file is read once


def network(model: str = "resnet34") -> tuple[Kernel, ...]:
    return next(m.kernels for m in published().measurements if m.model == model and m.batch_size == 1)


def width(prediction: Prediction) -> float:
    low, high = prediction.latency_p50_interval_ms
    return math.log(high / low)


def test_what_was_measured_is_predicted_within_its_interval() -> None:
    inside = []
    for row in published().measurements:
        if row.device.startswith("jetson"):
            found = predict_latency(row.kernels, target(row.device), row.precision, batch_size=row.batch_size)
            low, high = found.latency_p50_interval_ms
            assert low < found.latency_p50_ms < high
            inside.append(low <= row.latency_ms <= high)
    assert sum(inside) / len(inside) >= 0.9


def test_a_calibrated_device_names_its_nearest_measurements() -> None:
    found = predict_latency(network(), load_target("jetson-nano"), "fp16")
    assert found.basis == "calibrated"
    assert found.doubts == ()
    assert found.interval_confidence == 0.9
    assert len(found.anchors) == 3
    assert found.anchors[0].startswith(
        "resnet34 at 224x224 on NVIDIA Jetson Nano 4 GB in fp16, batch 1: 20.2 ms (NVIDIA-AI"
    )
    assert found.num_measurements >= 20
    assert Prediction.model_validate(found.to_dict()) == found


def test_confidence_falls_from_calibrated_to_transferred_to_roofline() -> None:
    calibrated, transferred, roofline = (
        predict_latency(network(), load_target(name), "fp16") for name in ("jetson-nano", "jetson-xavier-nx", "h100")
    )
    assert [p.basis for p in (calibrated, transferred, roofline)] == ["calibrated", "transferred", "roofline"]
    assert width(calibrated) < width(transferred) < width(roofline)
    assert "other devices of its architecture stand in" in transferred.doubts[0]
    assert any("Jetson AGX Xavier" in words for words in transferred.anchors)
    assert "only its peaks speak for it" in roofline.doubts[0]
    assert roofline.anchors == ()
    assert roofline.num_measurements == 0


def test_larger_networks_and_batches_and_slower_precisions_take_longer() -> None:
    def p50(model: str, precision: str = "fp16", batch: int = 1) -> float:
        kernels = at_batch(network(model), batch)
        return predict_latency(kernels, JETSON, precision, batch_size=batch).latency_p50_ms  # type: ignore[arg-type]

    assert p50("resnet18") < p50("resnet34") < p50("resnet50")
    assert p50("resnet34", "int8") < p50("resnet34") < p50("resnet34", "fp32")
    assert p50("resnet34") < p50("resnet34", batch=8) < 8 * p50("resnet34")


def test_a_users_own_measurement_dominates() -> None:
    teacher = Anchor(network("resnet50"), "fp16", 1, 9.0, "my teacher")
    without = predict_latency(network("resnet50"), JETSON, "fp16")
    same = predict_latency(network("resnet50"), JETSON, "fp16", anchors=[teacher])
    smaller = predict_latency(network("resnet34"), JETSON, "fp16", anchors=[teacher])
    assert without.latency_p50_ms < 6  # the board of the user is far slower than what is published
    assert same.latency_p50_ms == pytest.approx(9.0, rel=0.1)
    assert width(same) < width(without)
    assert smaller.latency_p50_ms > 1.3 * predict_latency(network("resnet34"), JETSON, "fp16").latency_p50_ms
    assert same.anchors[0] == "your own measurement: my teacher in fp16, batch 1: 9 ms"
    assert same.num_measurements == without.num_measurements + 1


def test_a_small_anchor_tells_how_the_user_measures() -> None:
    """An almost empty network that takes 0.8 ms: the rest is the user's harness, which a small network feels most."""
    tiny = tuple(replace(kernel, macs=kernel.macs // 1000) for kernel in network("resnet18")[:3])
    anchor = Anchor(tiny, "fp16", 1, 0.8, "three layers")
    small, large = (
        [predict_latency(network(model), JETSON, "fp16", anchors=anchors) for anchors in ((), (anchor,))]
        for model in ("squeezenet1_1", "yolo11m")
    )
    assert width(small[1]) < 0.5 * width(small[0])
    assert width(large[1]) == pytest.approx(width(large[0]), rel=0.15)
    assert large[1].latency_p50_ms == pytest.approx(large[0].latency_p50_ms, rel=0.05)


def test_an_anchor_at_another_precision_helps_too() -> None:
    teacher = Anchor(network("resnet50"), "fp32", 1, 20.0, "my teacher")
    before, after = (predict_latency(network("resnet50"), JETSON, "fp16", anchors=a) for a in ((), (teacher,)))
    assert after.latency_p50_ms > 1.2 * before.latency_p50_ms


def test_an_anchor_makes_an_unmeasured_device_a_calibrated_one() -> None:
    l4 = load_target("l4")
    anchor = Anchor(network("resnet50"), "fp16", 1, 0.8, "my teacher")
    assert predict_latency(network(), l4, "fp16", anchors=[anchor]).basis == "calibrated"
    assert predict_latency(network(), l4, "int8", anchors=[anchor]).basis == "transferred"


def test_the_parts_add_up() -> None:
    parts = expected_parts_ms(network(), JETSON, "fp16")
    assert tuple(parts) == PARTS
    assert sum(parts.values()) == pytest.approx(predict_latency(network(), JETSON, "fp16").latency_p50_ms)


def test_twenty_candidates_take_less_than_a_second_and_repeat_exactly() -> None:
    first = predict_latency(network(), JETSON, "int8")
    start = time.process_time()
    others = [predict_latency(network(), JETSON, "int8") for _ in range(20)]
    assert time.process_time() - start < 1
    assert set(others) == {first}


@pytest.mark.parametrize(
    ("scale", "sentence"),
    [
        (100, "The network has 366 G MACs an image; those measured on this device have "),
        (1e-4, "The network has 366 k MACs an image; "),
    ],
)
def test_a_size_that_nobody_measured_is_a_doubt_and_widens(scale: float, sentence: str) -> None:
    within = predict_latency(network(), JETSON, "fp16")
    kernels = tuple(replace(kernel, macs=int(kernel.macs * scale)) for kernel in network())
    assert total_macs(network()) == pytest.approx(3.66e9, rel=0.005)
    beyond = predict_latency(kernels, JETSON, "fp16")
    assert any(sentence in doubt for doubt in beyond.doubts)
    assert width(beyond) > width(within)


def test_a_batch_that_nobody_measured_is_a_doubt_and_widens() -> None:
    sixteen = predict_latency(at_batch(network(), 16), JETSON, "fp16", batch_size=16)
    assert "Batch 16 was asked for; batches up to 1 were measured on this device." in sixteen.doubts
    assert width(sixteen) > width(predict_latency(network(), JETSON, "fp16"))


def test_another_power_mode_is_a_doubt_and_widens() -> None:
    large = network("yolo11m")  # beside which the fixed cost, uncertain and blind to clocks, is nothing
    slow = predict_latency(large, load_target("jetson@15W"), "fp16")
    full = predict_latency(large, JETSON, "fp16")
    assert slow.basis == "calibrated"
    assert slow.doubts == ("Power mode 15W was asked for; the measurements speak for MAXN_SUPER.",)
    assert width(slow) > width(full)
    assert 1.3 * full.latency_p50_ms < slow.latency_p50_ms < 2 * full.latency_p50_ms


def own_profile(folder: Path, text: str) -> DeviceProfile:
    path = folder / "mine.yaml"
    path.write_text(f"extends: jetson\n{text}\n", encoding="utf-8")
    return load_target(str(path))


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("model", ["resnet34", "squeezenet1_1", "yolo11x"])
def test_a_profile_that_only_changes_a_wish_is_predicted_as_what_it_extends(
    tmp_path: Path, model: str, batch: int
) -> None:
    mine, kernels = own_profile(tmp_path, "budget: {max_latency_ms: 5}"), at_batch(network(model), batch)
    here, there = (predict_latency(kernels, profile, "fp16", batch_size=batch) for profile in (mine, JETSON))
    assert here.num_measurements == there.num_measurements > 0
    assert here == there.model_copy(update={"device": "mine", "doubts": here.doubts})
    slow = predict_latency(kernels, mine.in_power_mode("15W"), "fp16", batch_size=batch)
    assert slow.num_measurements == there.num_measurements
    assert slow.basis == "calibrated"


@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("peak", [9, 17.01, 30])
@pytest.mark.parametrize("model", ["resnet34", "squeezenet1_1", "yolo11x"])
def test_a_device_with_other_peaks_is_a_relative_and_never_surer(
    tmp_path: Path, model: str, peak: float, batch: int
) -> None:
    mine, kernels = own_profile(tmp_path, f"peaks: {{fp16_tflops: {peak}}}"), at_batch(network(model), batch)
    here, there = (predict_latency(kernels, profile, "fp16", batch_size=batch) for profile in (mine, JETSON))
    assert (here.basis, here.num_measurements) == ("transferred", 0)
    assert width(here) > width(there)


def test_what_relatives_do_not_cover_is_paid_for_too() -> None:
    xavier = load_target("jetson-xavier-nx")
    one, sixteen = (predict_latency(at_batch(network(), n), xavier, "fp16", batch_size=n) for n in (1, 16))
    assert any("were measured on devices of its architecture." in doubt for doubt in sixteen.doubts)
    assert width(sixteen) > width(one)
    low = predict_latency(network(), load_target("jetson-xavier-nx@10W_4CORE"), "fp16")
    assert any(doubt.startswith("Power mode MODE_10W_4CORE was asked for") for doubt in low.doubts)


def test_a_kind_of_kernel_that_nobody_measured_is_a_doubt() -> None:
    kernels = tuple(replace(kernel, kind="grouped") for kernel in network())
    found = predict_latency(kernels, JETSON, "fp16")
    assert any("No network with grouped kernels was measured on this device" in doubt for doubt in found.doubts)
    assert width(found) > width(predict_latency(network(), JETSON, "fp16"))


def test_an_operator_without_a_rule_is_a_doubt() -> None:
    odd = replace(network()[0], name="/head/NonZero", kind="other", macs=0)
    found = predict_latency((*network(), odd), JETSON, "fp16")
    assert "Operators without a rule count as memory traffic alone: /head/NonZero." in found.doubts


def test_a_cpu_says_which_runtime_was_measured() -> None:
    found = predict_latency(network(), load_target("raspberry-pi-5"), "fp16")
    assert any("were measured with ncnn, not onnxruntime." in doubt for doubt in found.doubts)
    assert all("Raspberry" in words for words in found.anchors)


def test_a_profile_of_ones_own_without_a_clock_is_a_doubt() -> None:
    own = JETSON.model_copy(update={"name": "mine", "title": "Mine", "power_modes": (), "peaks": Peaks(
        fp32_tflops=Figure(value=2.0), fp16_tflops=Figure(value=16.0))})  # fmt: skip
    found = predict_latency(network(), own, "fp16")
    assert found.basis == "transferred"
    assert "The profile names no clock; kernels count as started at 1000 MHz." in found.doubts
    assert any("Not verified in the profile" in doubt and "peaks.fp16_tflops" in doubt for doubt in found.doubts)


def test_this_host_is_measured_not_predicted() -> None:
    with pytest.raises(PredictionRefused) as refused:
        predict_latency(network(), load_target("cpu"), "fp32")
    assert "This computer's CPU" in refused.value.received
    assert refused.value.action == "Measure it with `compress profile` on this machine."
    assert isinstance(refused.value, ProfileError)


def test_a_precision_that_the_device_lacks_is_refused() -> None:
    with pytest.raises(PredictionRefused) as refused:
        predict_latency(network(), load_target("jetson-nano"), "int8")
    assert "int8 was to be predicted for NVIDIA Jetson Nano" in refused.value.received
    assert refused.value.expected == "It runs fp32, fp16."
    assert refused.value.action == "Choose one of these precisions."


def test_a_device_without_peaks_is_refused_even_for_no_kernels() -> None:
    bare = JETSON.model_copy(update={"peaks": Peaks()})
    with pytest.raises(PredictionRefused, match="gives no fp16 peak"):
        predict_latency((), bare, "fp16")
