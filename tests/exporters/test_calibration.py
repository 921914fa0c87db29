"""Ranges of activations: one pass in any batches, bounded memory, and the three choices of where to clip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tiny_int8 import images, residual_net

from exporters.calibration import (
    ActivationRanges,
    collect_ranges,
    merge,
    range_agreement,
)
from exporters.errors import ExportError
from exporters.histograms import BINS, MAX_COUNTED, Histogram, entropy_threshold, percentile_range
from exporters.int8_placement import quantised_tensors
from exporters.onnx_files import load_onnx
from exporters.runners import OnnxRunner


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return residual_net(tmp_path_factory.mktemp("net") / "net.onnx")


def same(first: ActivationRanges, second: ActivationRanges) -> bool:
    return (
        first.num_images == second.num_images
        and first.min_max() == second.min_max()
        and all(
            seen.exponent == second.histograms[name].exponent
            and np.array_equal(seen.counts, second.histograms[name].counts)
            for name, seen in first.histograms.items()
        )
    )


def test_ranges_are_those_of_the_activations(net: Path) -> None:
    batch = images(20)
    ranges = collect_ranges(net, batch)
    assert ranges.num_images == 20
    assert tuple(ranges.histograms) == quantised_tensors(load_onnx(net))
    found = ranges.min_max()
    assert found["image"] == (float(batch.min()), float(batch.max()))
    with OnnxRunner(net) as runner:
        logits = runner.infer({"image": batch})["logits"]
    assert logits.shape == (20, 16)
    assert found["relu2"][0] == 0.0 < found["relu2"][1]
    assert found["conv3"][0] < 0.0 < found["conv3"][1]
    assert ranges.histograms["pool"].counts.sum() == 20 * 16 * 4 * 4  # every value of every image


def test_batches_do_not_matter_and_merge_is_one_pass(net: Path) -> None:
    batch = images(24)
    whole = collect_ranges(net, [batch])
    assert same(whole, collect_ranges(net, [batch[:1], batch[1:8], batch[8:]]))
    dark, bright = collect_ranges(net, batch[:10] * 0.01), collect_ranges(net, batch[10:])
    both = collect_ranges(net, [batch[:10] * 0.01, batch[10:]])
    assert dark.histograms["relu2"].exponent < bright.histograms["relu2"].exponent
    assert same(merge(dark, bright), both)
    assert same(merge(bright, dark), both)


def test_a_fixed_batch_gives_the_ranges_of_a_free_one(net: Path, tmp_path: Path) -> None:
    fixed = collect_ranges(residual_net(tmp_path / "fixed.onnx", batch=4), [images(7)])
    free = collect_ranges(net, [images(7)])
    assert fixed.num_images == 7
    for name, seen in free.histograms.items():
        assert fixed.histograms[name].counts.sum() == seen.counts.sum()
        assert fixed.min_max()[name] == pytest.approx(seen_range(seen), rel=1e-5, abs=1e-6)


def seen_range(seen: Histogram) -> tuple[float, float]:
    return seen.lowest, seen.highest


def test_one_pass_in_bounded_memory(net: Path) -> None:
    """The images come from a generator that is read once, and what is kept does not grow with them."""
    handed_out = []

    def stream() -> Iterator[NDArray[np.float32]]:
        for seed in range(6):
            handed_out.append(seed)
            yield images(5, seed)

    ranges = collect_ranges(net, stream())
    assert handed_out == [0, 1, 2, 3, 4, 5]
    assert ranges.num_images == 30
    assert {seen.counts.nbytes for seen in ranges.histograms.values()} == {2 * BINS * 8}
    many = Histogram.of(np.random.default_rng(0).standard_normal(10 * MAX_COUNTED).astype(np.float32))
    assert many.counts.sum() == MAX_COUNTED
    assert many.counts.nbytes == 2 * BINS * 8


def test_a_growing_histogram_counts_what_a_wide_one_counts() -> None:
    draw = np.random.default_rng(0)
    parts = [(draw.standard_normal(500) * scale).astype(np.float32) for scale in (1e-3, 0.1, 1, 700)]
    whole = Histogram.of(np.concatenate(parts))
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        total = Histogram.of(parts[order[0]])
        for index in order[1:]:
            total = total + Histogram.of(parts[index])
        assert (total.lowest, total.highest, total.exponent) == (whole.lowest, whole.highest, whole.exponent)
        np.testing.assert_array_equal(total.counts, whole.counts)
    reference, _ = np.histogram(np.concatenate(parts).astype(np.float64), bins=whole.edges)
    np.testing.assert_array_equal(whole.counts, reference)


def test_zeros_alone_are_a_range() -> None:
    zeros = Histogram.of(np.zeros(10, np.float32))
    assert percentile_range(zeros, 99.9) == (0.0, 0.0)
    assert entropy_threshold(zeros) == 0.0
    total = zeros + Histogram.of(np.array([-2.0, 1.5], np.float32))
    assert (total.lowest, total.highest, total.exponent) == (-2.0, 1.5, 2)
    assert total.counts[BINS] == 10


def test_percentile_clips_an_outlier_that_min_max_keeps() -> None:
    values = np.random.default_rng(0).uniform(-1, 1, 50_000).astype(np.float32)
    values[7] = 40.0
    ranges = ActivationRanges(1, {"x": Histogram.of(values)})
    assert ranges.min_max()["x"][1] == 40.0
    low, high = ranges.percentile(99.9)["x"]
    width = 64.0 / BINS  # of a bin
    assert low == pytest.approx(-0.999, abs=width)
    assert high == pytest.approx(0.999, abs=width)
    assert ranges.percentile(100.0)["x"] == (float(values.min()), 40.0)
    assert ranges.entropy()["x"][1] < 10.0


def test_percentile_of_the_positive_keeps_zero_as_its_end() -> None:
    values = np.maximum(np.random.default_rng(0).standard_normal(100_000), 0).astype(np.float32)
    low, high = percentile_range(Histogram.of(values), 99.0)
    assert low == 0.0
    assert high == pytest.approx(2.576, abs=0.02)  # half of the values are zero: 0.5 % lie beyond 2.576


def test_entropy_matches_the_divergence_written_out() -> None:
    """Against the textbook loop over levels and bins, on a small known histogram."""
    draw = np.random.default_rng(3)
    values = np.abs(np.concatenate([draw.standard_normal(20_000) * 0.05, draw.uniform(0.5, 0.99, 3)])).astype(
        np.float32
    )
    seen = Histogram.of(values)
    counts = seen.counts[BINS:].astype(float)
    counts[0] = counts[1]
    used = int(np.flatnonzero(counts)[-1]) + 1

    def divergence(kept: int) -> float:
        p = counts[:kept].copy()
        p[-1] += counts[kept:].sum()
        q = np.zeros(kept)
        for level in range(128):
            first, last = level * kept // 128, (level + 1) * kept // 128
            bins = [i for i in range(first, last) if counts[i] > 0]
            for i in bins:
                q[i] = counts[first:last].sum() / len(bins)
        q[-1] = max(q[-1], 1e-4 * counts[:kept].sum())
        p, q = p / p.sum(), q / q.sum()
        return float(sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a))

    candidates = [*range(128, used, 8), used]
    best = candidates[int(np.argmin([divergence(kept) for kept in candidates]))]
    assert entropy_threshold(seen) == best / BINS
    assert 0.15 < entropy_threshold(seen) < 0.5  # the bell stays whole, the far values are clipped


def test_entropy_keeps_a_uniform_histogram_whole() -> None:
    values = np.linspace(0, 0.999, 200_000, dtype=np.float32)
    assert entropy_threshold(Histogram.of(values)) >= 0.999


def test_entropy_of_values_far_from_zero() -> None:
    """Sigmoids and averages: no value is small, and the smallest thresholds would leave nothing."""
    values = np.linspace(0.7, 0.9, 20_000, dtype=np.float32)
    assert entropy_threshold(Histogram.of(values)) == pytest.approx(0.9, abs=0.01)


def test_agreement_is_the_overlap_of_the_ranges() -> None:
    def ranges(**values: tuple[float, float]) -> ActivationRanges:
        return ActivationRanges(1, {name: Histogram.of(np.array(ends, np.float32)) for name, ends in values.items()})

    real = ranges(a=(0, 4), b=(-1, 1), c=(0, 0), d=(1, 2))
    generated = ranges(a=(0, 3), b=(-1, 1), c=(0, 0), d=(3, 4))
    agreement = range_agreement(real, generated)
    assert agreement.median_ratio == pytest.approx((0.75 + 1.0) / 2)
    assert (agreement.lowest_ratio, agreement.lowest_tensor, agreement.num_tensors) == (0.0, "d", 4)
    assert range_agreement(real, real).lowest_ratio == 1.0


def test_ranges_of_two_graphs_are_not_mixed(net: Path) -> None:
    ranges = collect_ranges(net, images(1))
    other = ActivationRanges(1, {"elsewhere": ranges.histograms["image"]})
    for function in (merge, range_agreement):
        with pytest.raises(ExportError) as caught:
            function(ranges, other)
        assert "'conv3'" in caught.value.received
        assert "again" in caught.value.action


@pytest.mark.parametrize("batches", [[], [np.zeros((0, 3, 8, 8), np.float32)]])
def test_no_images_are_refused(net: Path, batches: list[NDArray[np.float32]]) -> None:
    with pytest.raises(ExportError) as caught:
        collect_ranges(net, batches)
    assert "net.onnx" in caught.value.received
    assert "generated" in caught.value.action


def test_values_that_are_not_finite_are_refused(net: Path) -> None:
    broken = images(2)
    broken[1, 0, 0, 0] = np.nan
    with pytest.raises(ExportError) as caught:
        collect_ranges(net, broken)
    assert "'image' of net.onnx is not finite" in caught.value.received
    assert "NaN" in caught.value.action


def test_images_of_another_size_are_refused(net: Path) -> None:
    with pytest.raises(ExportError) as caught:
        collect_ranges(net, np.zeros((1, 3, 9, 8), np.float32))
    assert "(1, 3, 9, 8)" in caught.value.received
    assert "sizes" in caught.value.action
