"""docs/effort.md is as its program makes it, and the arithmetic of its estimates."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.effort_times import (
    CALL_US,
    SHARE,
    batch_ratios,
    counted_calls,
    counted_flops,
    estimated_seconds,
    measured_seconds,
    smaller,
)
from compressor.methods import load_method, method_names
from profiles.catalogue import load_target

ROOT = Path(__file__).parents[2]
COUNTED: dict[str, Any] = {
    "steps": {"generator": 1000, "student": 2000},
    "step_flops": {"generator": 1e12, "student": 1.0},
    "step_calls": {"generator": 1.0, "student": 5000.0},
}


def test_the_page_is_as_its_program_makes_it() -> None:
    spec = importlib.util.spec_from_file_location("effort_table", ROOT / "docs" / "effort_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs" / "effort.md").read_text(encoding="utf-8")
    assert module.page(text) == text, "run: python docs/effort_table.py"
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(method_names())
    assert "not measured yet" in text


def test_an_estimate_is_what_takes_longer_phase_by_phase() -> None:
    peak = load_target("t4").peaks.fp32_tflops
    assert peak is not None
    bound_by_operations = 1000 * 1e12 / (SHARE["fp32"] * peak.value * 1e12)
    bound_by_calls = 2000 * 5000 * CALL_US / 1e6
    assert estimated_seconds(COUNTED, "t4") == pytest.approx(bound_by_operations + bound_by_calls)
    assert estimated_seconds(COUNTED, "h200") < estimated_seconds(COUNTED, "a100") < estimated_seconds(COUNTED, "t4")


def test_measured_steps_are_multiplied() -> None:
    row = {"steps": {"generator": 10, "student": 20}, "step_s": {"student": 0.5}}  # a phase that was left out
    assert measured_seconds(row) == 10.0


def test_operations_grow_with_the_batch_and_calls_do_not() -> None:
    found = {}
    for batch in (2, 6):
        network, images = torch.nn.Conv2d(3, 4, 3), torch.rand(batch, 3, 8, 8)
        with counted_flops() as flops:
            network(images).sum().backward()
            operations = flops()
        with counted_calls() as calls:
            network(images).sum().backward()
            found[batch] = (operations, calls())
    assert found[6][0] == 3 * found[2][0] > 0
    assert found[6][1] == found[2][1] > 0


@pytest.mark.parametrize("name", method_names())
def test_every_phase_of_every_method_has_a_batch_to_scale_by(name: str) -> None:
    method = load_method(name)
    settings = method.Config(**method.defaults("standard", (3, 32, 32), "cuda"))
    assert all(ratio >= 1.0 for ratio in batch_ratios(settings).values())
    small = smaller(settings, "_batch_size", 2)
    assert {value for field, value in small if field.endswith("_batch_size")} == {2}
    assert {k: v for k, v in small if not k.endswith("_batch_size")} == {
        k: v for k, v in settings if not k.endswith("_batch_size")
    }
