"""The table of all methods: its numbers by hand, its pools, what was measured, and a page that is made by it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import methods
from benchmarks.methods import (
    BEGIN,
    BENCHES,
    END,
    NEEDS_BEGIN,
    NEEDS_END,
    NO_POOL,
    ORIGINAL,
    PAGE,
    RESULTS,
    Bench,
    in_grey,
    needs_table,
    pool_images,
    spread,
    table,
)
from benchmarks.tiny_packs import write_tiny_packs
from compressor.methods import load_method, method_names

ROWS: list[dict[str, Any]] = json.loads(RESULTS.read_text())


def row(method: str, seed: int, accuracy: float, **changed: Any) -> dict[str, Any]:
    return {
        "task": "mnist", "pool": "none", "method": method, "seed": seed, "teacher_accuracy": 0.98, "num_test": 2_000,
        "num_few": 20, "accuracy": accuracy, "agreement": accuracy, "processor_seconds": 10.0, "teacher_queries": 1_000,
        **changed,
    }  # fmt: skip


def test_a_spread_is_the_mean_and_the_deviation_of_a_sample() -> None:
    assert spread([0.5]) == "50.0"
    assert spread([0.5, 0.7]) == "60.0 ± 14.1"


def test_what_a_resumed_row_does_not_know_is_left_out() -> None:
    unknown = {"processor_seconds": None, "teacher_queries": None}
    assert "| dfad | none | 50.0 | 50.0 |  |  | 1 |" in table([row("dfad", 0, 0.5, **unknown)])
    assert "| 50.0 ± 0.0 | 10 | 1,000 | 2 |" in table([row("dfad", 0, 0.5, **unknown), row("dfad", 1, 0.5)])


def test_the_table_has_one_line_for_each_method_and_pool_with_the_anchor_first() -> None:
    rows = [
        row("pool", 0, 0.95, pool="unrelated"),
        row("pool", 0, 0.97, pool="related"),
        row("dfad", 0, 0.96),
        row("dfad", 1, 0.98, processor_seconds=20.0),
        row("ddad", 0, 0.0, refused="It has no batch norm."),
        row(ORIGINAL, 0, 0.981),
    ]
    lines = table(rows).splitlines()
    assert lines[0] == "**mnist**: teacher 98.0 ± 0.0 %, 20 few images, 2,000 test images"
    assert lines[4:] == [
        "| student on original data | none | 98.1 | 98.1 | 10 | 1,000 | 1 |",
        "| ddad | none | refused: It has no batch norm. | | | | |",
        "| dfad | none | 97.0 ± 1.4 | 97.0 ± 1.4 | 15 | 1,000 | 2 |",
        "| pool | related | 97.0 | 97.0 | 10 | 1,000 | 1 |",
        "| pool | unrelated | 95.0 | 95.0 | 10 | 1,000 | 1 |",
    ]


@pytest.fixture
def bench() -> Bench:
    """Related images are white and unrelated ones black."""

    def images(value: int) -> Tensor:
        return torch.full((7_000, 1, 2, 2), value, dtype=torch.uint8)

    def no_task(_data: Path, _seed: int) -> Any:
        raise AssertionError

    return Bench(no_task, lambda _data: images(255), lambda _data: images(0), {}, {})


@pytest.mark.parametrize(
    ("pool", "white", "black"),
    [("related", 6_000, 0), ("mixed", 1_500, 4_500), ("unrelated", 0, 4_500), (NO_POOL, 0, 0)],
)
def test_a_quarter_of_a_mixed_pool_is_related(bench: Bench, pool: str, white: int, black: int) -> None:
    images = pool_images(bench, pool, Path(), 0, like=torch.zeros(3, 1, 2, 2, dtype=torch.uint8))
    values = images[:, 0, 0, 0]
    assert (int((values == 255).sum()), int((values == 0).sum())) == (white, black)


def test_grey_weighs_the_channels_and_keeps_white() -> None:
    colours = torch.tensor([[255, 255, 255], [255, 0, 0], [0, 255, 0]], dtype=torch.uint8)
    grey = in_grey(colours[:, :, None, None].expand(-1, -1, 32, 32), 8)
    assert grey.shape == (3, 1, 8, 8)
    assert grey[:, 0, 0, 0].tolist() == [255, 76, 150]


def test_the_page_holds_the_tables_of_the_results_and_what_methods_declare() -> None:
    page = PAGE.read_text()
    assert f"{BEGIN}\n{table(ROWS)}\n{END}" in page
    assert f"{NEEDS_BEGIN}\n{needs_table()}\n{NEEDS_END}" in page


def test_what_a_method_needs_is_in_its_line() -> None:
    lines = needs_table().splitlines()
    assert len(lines) == 2 + len(method_names())
    assert "| `vanilla` | few, of the task | logits | classification, segmentation, regression |" in lines
    assert "| `ddad` | none | logits, gradients to the image, batch norm | " in needs_table()


def test_every_row_says_where_it_comes_from() -> None:
    for found in ROWS:
        assert {"device", "torch", "python", "revision", "date", "seed"} <= set(found)
        assert "refused" in found or {"seconds", "processor_seconds", "teacher_queries"} <= set(found)


# What a method had not yet when its rows were made, switched off.
EARLIER: dict[str, dict[str, Any]] = {"hidfd": {"stage_weight": 0.0}}


def test_queries_are_those_that_a_method_announces() -> None:
    for found in ROWS:
        if found["method"] != ORIGINAL and found.get("teacher_queries") is not None:
            method = load_method(found["method"])
            config = method.Config(**EARLIER.get(found["method"], {}) | found["settings"])
            assert found["teacher_queries"] == method.num_queries(config, found["num_few"], found["num_pool"])


def test_every_method_is_measured_and_the_controls_everywhere() -> None:
    assert {found["method"] for found in ROWS} == {ORIGINAL, *method_names()}
    for task in BENCHES:
        assert {ORIGINAL, "vanilla", "noise"} <= {found["method"] for found in ROWS if found["task"] == task}


def accuracies(method: str, pool: str) -> list[float]:
    wanted = ("mnist", method, pool)
    return [found["accuracy"] for found in ROWS if (found["task"], found["method"], found["pool"]) == wanted]


@pytest.mark.parametrize(("method", "pool", "least"), [("dfad", NO_POOL, 0.94), ("kd3", "mixed", 0.95)])
def test_what_was_aimed_at_on_mnist(method: str, pool: str, least: float) -> None:
    found = accuracies(method, pool)
    assert len(found) == 3
    assert sum(found) / 3 >= least


def test_noise_is_no_method() -> None:
    assert max(accuracies("noise", NO_POOL)) < 0.5


def test_the_program_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = write_tiny_packs(tmp_path / "packs"), tmp_path / "rows.json"
    words = ["--data", f"{data}", "--only", "cifar10", "--methods", ORIGINAL, "dfad", "kd3", "--pools", "mixed"]
    monkeypatch.setattr(sys, "argv", ["methods", *words, "--tiny", "--out", f"{out}", "--work", f"{tmp_path}/work"])
    methods.main()
    rows = json.loads(out.read_text())
    assert [(found["method"], found["pool"]) for found in rows] == [
        (ORIGINAL, NO_POOL),
        ("dfad", NO_POOL),
        ("kd3", "mixed"),
    ]
    methods.main()  # finished rows are skipped
    assert json.loads(out.read_text()) == rows
