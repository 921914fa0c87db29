"""The CamVid benchmark: counts by hand, crops that keep image and mask together, and a page that is made by it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import camvid
from benchmarks.camvid import (
    BEGIN,
    END,
    NUM_FEW,
    ORIGINAL,
    PAGE,
    RESULTS,
    SIZES,
    STUDENTS,
    TEACHER,
    confusion,
    few_images,
    judgement,
    mean_iou,
    random_crops,
    tables,
)
from benchmarks.packs import MaskPack
from benchmarks.tiny_packs import write_tiny_packs

VOID = 255


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_counts_are_by_image_with_the_masks_class_first_and_without_void() -> None:
    masks = torch.tensor([[[0, 0], [1, VOID]], [[2, 2], [2, 2]]], dtype=torch.uint8)
    maps = torch.tensor([[[0, 1], [1, 2]], [[2, 2], [0, 2]]])
    counts = confusion(maps, masks, 3)
    assert counts[0].tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]
    assert counts[1].tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 3]]


def test_miou_is_the_mean_over_the_classes_that_the_masks_hold() -> None:
    # Class 0: 6 of 6 + 2 + 1; class 1: 3 of 3 + 1 + 2 + 1; class 2 is only ever predicted.
    counts = torch.tensor([[6.0, 2.0, 0.0], [1.0, 3.0, 1.0], [0.0, 0.0, 0.0]])
    assert float(mean_iou(counts)) == pytest.approx((6 / 9 + 3 / 7) / 2)


def test_a_judgement_of_the_masks_themselves_is_whole_and_certain() -> None:
    masks = torch.randint(3, (5, 4, 4), generator=generator()).to(torch.uint8)
    found = judgement(masks.long(), 2 - masks.long(), masks, 3)
    assert (found["miou"], found["miou_low"], found["miou_high"], found["pixel_accuracy"]) == (1.0, 1.0, 1.0, 1.0)
    assert found["agreement"] == pytest.approx(float((masks == 1).float().mean()))
    assert found["num_judged"] == 5


def test_an_interval_holds_the_value() -> None:
    masks = torch.randint(3, (20, 4, 4), generator=generator()).to(torch.uint8)
    found = judgement(torch.randint(3, (20, 4, 4), generator=generator(1)), masks.long(), masks, 3)
    assert found["miou_low"] < found["miou"] < found["miou_high"]


@pytest.mark.parametrize("name", list(SIZES))
def test_a_crop_has_the_networks_size_and_moves_image_and_mask_alike(name: str) -> None:
    size = SIZES[name]
    rows = torch.arange(float(size.image[0]))[:, None].expand(size.image)
    columns = torch.arange(float(size.image[1])).expand(size.image)
    crops = random_crops(torch.stack([rows, columns, rows]).expand(30, -1, -1, -1), size, generator())
    assert crops.shape == (30, 3, *size.crop)
    assert torch.equal(crops[:, 0], crops[:, 2])
    middle = (slice(None), slice(size.margin, -size.margin or None), slice(size.margin, -size.margin or None))
    assert (crops[:, 0][middle].diff(dim=1) == 1).all()
    assert (crops[:, 1][middle].diff(dim=2) == 1).all()
    assert len(crops[:, 0].flatten(1).unique(dim=0)) > 5


def test_so_many_images_as_asked_and_crops_of_larger_ones() -> None:
    pack = MaskPack(torch.randint(256, (30, 3, 48, 64)).to(torch.uint8), torch.zeros(30, 48, 64), ("a", "b"))
    assert few_images(pack, SIZES["small"], NUM_FEW, 0).shape == (20, 3, 48, 64)
    assert len(few_images(pack, SIZES["small"], None, 0)) == 30
    assert few_images(pack, SIZES["small"], 0, 0).shape == (0, 3, 48, 64)
    large = MaskPack(torch.zeros(3, 3, 180, 240, dtype=torch.uint8), torch.zeros(3, 180, 240), ("a", "b"))
    assert few_images(large, SIZES["full"], 2, 0).shape == (16, 3, 128, 128)


def row(student: str, part: str = "test", **changed: Any) -> dict[str, Any]:
    return {
        "size": "small", "part": part, "student": student, "changes": {}, "seed": 0, "miou": 0.5, "miou_low": 0.45,
        "miou_high": 0.55, "pixel_accuracy": 0.8, "agreement": 1.0, "num_judged": 233, **changed,
    }  # fmt: skip


def test_the_table_compares_with_the_teacher_of_the_same_seed() -> None:
    cost: dict[str, Any] = {"processor_seconds": 61.7, "teacher_queries": 12_345, "num_images": 0}
    student = row("dfad", miou=0.4, agreement=0.75, **cost)
    text = tables([row(TEACHER), student, row("dfad", part="val", changes={"generator": "b"}, agreement=0.7)])
    assert "| teacher | 367 with masks | 0.500 (0.450 to 0.550) | 1.00 | 80.0 | 100.0 |  |  | 0 |" in text
    assert "| dfad | 0 | 0.400 (0.450 to 0.550) | 0.80 | 80.0 | 75.0 | 62 | 12,345 | 0 |" in text
    assert "| dfad | generator b | 70.0 |" in text


def test_the_page_holds_the_tables_of_the_results() -> None:
    printed = f"{BEGIN}\n{tables(json.loads(RESULTS.read_text()))}\n{END}"
    assert printed in PAGE.read_text()


def test_every_row_says_where_it_comes_from() -> None:
    rows = json.loads(RESULTS.read_text())
    for found in rows:
        assert {"device", "torch", "python", "revision", "date", "seed"} <= set(found)
        assert ("seconds" in found) == (found["student"] != TEACHER)
    assert {found["student"] for found in rows if found["part"] == "test"} >= {TEACHER, ORIGINAL, *STUDENTS}


@pytest.mark.parametrize("size", [[], pytest.param(["--full"], marks=pytest.mark.slow)])
def test_the_program_runs_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: list[str]
) -> None:
    data = write_tiny_packs(tmp_path / "packs")
    words = ["--data", f"{data}", "--try", "--device", "cpu", "--only", TEACHER, ORIGINAL, "dfad", *size]
    monkeypatch.setattr(sys, "argv", ["camvid", *words])
    camvid.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [found["student"] for found in rows] == [TEACHER, ORIGINAL, "dfad"]
