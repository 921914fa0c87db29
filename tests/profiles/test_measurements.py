from __future__ import annotations

import re
import time
from collections import Counter

import pytest

from profiles import measurements
from profiles.kernels import total_macs
from profiles.measurements import KERNELS, NOT_BUILDABLE, PublishedRow, published, published_rows

CPU_RUNTIMES = {"ncnn", "xnnpack", "onnxruntime"}


def test_every_row_counts_or_says_why_not() -> None:
    rows = published_rows()
    assert len(rows) == 811
    assert all(row.used or re.fullmatch(r"no: .{10,}", row.use) for row in rows)
    assert sum(row.used for row in rows) == 203


def test_rows_hold_what_their_columns_promise() -> None:
    for row in published_rows():
        assert row.latency_ms > 0
        assert row.precision in ("fp32", "fp16", "int8")
        assert min(row.height, row.width, row.batch_size) >= 1
        assert row.source
        assert row.board
        assert re.fullmatch(r"[a-z0-9-]+", row.device) or not row.used


def test_only_the_runtime_of_a_profile_counts() -> None:
    for row in (row for row in published_rows() if row.used):
        expected = CPU_RUNTIMES if row.device.startswith("raspberry-pi") else {"tensorrt"}
        assert row.runtime in expected, row


RULES = {
    "PyTorch": lambda row: row.runtime in ("pytorch", "torchscript"),
    "Paddle": lambda row: row.runtime == "paddle",
    "DLA": lambda row: "DLA" in row.note,
    "end-to-end": lambda row: "jkjung-avt" in row.source,
    "MLPerf": lambda row: "MLPerf" in row.note,
    "one thread": lambda row: row.version.startswith("ncnn, 1 thread"),
    "coarse": lambda row: "jetson-inference" in row.source and row.latency_ms > 100,
    "processors without a profile": lambda row: row.device.startswith("x86"),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_holds_for_every_row_that_it_meets(rule: str) -> None:
    met = [row for row in published_rows() if RULES[rule](row)]
    assert met
    assert not any(row.used for row in met)


def row_of(device: str, model: str, precision: str, **more: object) -> PublishedRow:
    wanted = {"device": device, "model": model, "precision": precision, "use": "yes", **more}
    (row,) = [row for row in published_rows() if all(getattr(row, key) == value for key, value in wanted.items())]
    return row


def test_known_rows() -> None:
    assert row_of("jetson-nano", "resnet18", "fp16").latency_ms == 11.4
    assert row_of("t4", "resnet50", "int8", batch_size=1).latency_ms == 1.21
    batch = row_of("jetson-orin-nano", "resnet18", "fp16")
    assert (batch.batch_size, batch.latency_ms) == (8, 5.97)
    wide = row_of("jetson-nano", "fcn_resnet18_cityscapes", "fp16", width=512)  # published as width x height
    assert (wide.height, wide.latency_ms) == (256, pytest.approx(1000 / 48, rel=1e-5))
    # The table calls it 224 px; ncnn's benchmark runs its vision transformer at 384 px.
    assert row_of("raspberry-pi-4", "vit_b_16", "fp32").height == 384


def test_left_out_rows_and_measurements_are_all_rows() -> None:
    found = published()
    assert len(found.measurements) + sum(found.left_out.values()) == len(published_rows())
    assert len(found.measurements) == 169
    assert found.left_out[NOT_BUILDABLE] == 34


def test_a_measurement_has_the_kernels_of_its_batch() -> None:
    found = published().measurements
    nano = next(m for m in found if (m.device, m.key) == ("jetson-nano", "resnet18@224x224"))
    assert (nano.family, nano.batch_size, total_macs(nano.kernels)) == ("resnet", 1, 1_814_073_344)
    batch = next(m for m in found if (m.device, m.key) == ("jetson-orin-nano", "resnet18@224x224"))
    assert total_macs(batch.kernels) == 8 * total_macs(nano.kernels)
    assert all(total_macs(m.kernels) > 0 for m in found)


def test_families_join_networks_of_one_design() -> None:
    families = {m.model: m.family for m in published().measurements}
    assert families["resnet152"] == families["se_resnet50"] == "resnet"
    assert families["mobilenet_v1"] == families["mnasnet1_3"] == "mobilenet"
    assert families["yolo11n"] == "yolo11" != families["yolov8n"]
    assert Counter(families.values())["vgg"] == 6


def test_the_shipped_kernels_are_small_and_read_quickly() -> None:
    assert KERNELS.stat().st_size < 500_000
    measurements._networks.cache_clear()
    measurements._kernels.cache_clear()
    start = time.process_time()
    found = {(row.model, row.height, row.width) for row in published_rows()}
    for model, height, width in found:
        if (key := f"{model}@{height}x{width}") in measurements._networks():
            measurements._kernels(key, 1)
    assert time.process_time() - start < 0.5  # 0.03 s on the machine that wrote this
