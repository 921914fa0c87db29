"""The pictures: that they open, how large they are, and that what matters is drawn on them."""

from __future__ import annotations

from math import inf, isnan, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from compressor.report import drawing
from compressor.report.pictures import contact_sheet, curves_of, smoothed, teacher_captions, training_curves

DIGITS = torch.arange(10 * 64, dtype=torch.int32).remainder(256).to(torch.uint8).view(10, 1, 8, 8)


def opened(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        assert picture.format == "PNG"
        return picture.convert("RGB")


def test_small_images_are_enlarged_pixel_by_pixel(tmp_path: Path) -> None:
    contact_sheet(DIGITS, tmp_path / "sheet.png", [f"{i}\n98.0 %" for i in range(10)])
    picture = opened(tmp_path / "sheet.png")
    # Ten tiles of 8 px times 14 in two rows of eight columns, each over two lines of 18 px.
    assert picture.size == (2 * 24 + 8 * 112 + 7 * 14, 2 * 24 + 2 * (112 + 4 + 36) + 20)
    for index, (x, y) in {0: (24, 24), 9: (24 + 112 + 14, 24 + 152 + 20)}.items():
        tile = picture.crop((x, y, x + 112, y + 112)).getchannel(0)
        expected = DIGITS[index, 0].repeat_interleave(14, 0).repeat_interleave(14, 1)
        assert list(tile.tobytes()) == expected.flatten().tolist()


@pytest.mark.parametrize("side", [4, 8, 28, 32, 64, 224])
def test_tiles_are_never_too_small_to_see(tmp_path: Path, side: int) -> None:
    contact_sheet(torch.zeros(1, 3, side, side, dtype=torch.uint8), tmp_path / "sheet.png", ["a\nb"])
    picture = opened(tmp_path / "sheet.png")
    black = [x for x in range(picture.width) if picture.getpixel((x, 26)) == (0, 0, 0)]
    assert 48 <= len(black) <= 112


def test_more_images_than_fit_are_taken_evenly(tmp_path: Path) -> None:
    images = torch.arange(200, dtype=torch.uint8).view(200, 1, 1, 1).expand(-1, 3, 8, 8)
    contact_sheet(images, tmp_path / "sheet.png", ["a"] * 200, title="Samples", max_images=4)
    picture = opened(tmp_path / "sheet.png")
    shades = [picture.getpixel((24 + column * 126 + 50, 24 + 38 + 50)) for column in range(4)]
    assert shades == [(0, 0, 0), (50, 50, 50), (100, 100, 100), (150, 150, 150)]


def test_long_captions_stay_in_their_column(tmp_path: Path) -> None:
    images = torch.full((2, 3, 8, 8), 255, dtype=torch.uint8)
    contact_sheet(images, tmp_path / "sheet.png", ["W" * 500 + "\n" + "W" * 500, "i\n1.0 %"])
    picture = opened(tmp_path / "sheet.png")
    gap = picture.crop((24 + 112 + 1, 24 + 112, 24 + 112 + 14, picture.height))
    assert gap.getextrema() == ((255, 255),) * 3
    caption = picture.crop((24, 24 + 112, 24 + 112, picture.height))
    assert caption.getextrema() != ((255, 255),) * 3


def test_fitting_cuts_at_the_width() -> None:
    font = drawing.font(14)
    assert drawing.fitting("cat", font, 112) == "cat"
    cut = drawing.fitting("amphibian of the wet woods", font, 96)
    assert cut.endswith("…")
    assert "amphibian of the wet woods".startswith(cut[:-1])
    assert font.getlength(cut) <= 96


def test_captions_are_the_teachers_opinion() -> None:
    logits = torch.tensor([[0.8, 0.2], [0.0001, 0.9999], [0.1, 0.9]]).log()
    captions = teacher_captions(logits, ["cat", "dog\nhouse"])
    assert captions == ["cat\n80.0 %", "dog house\n> 99.9 %", "dog house\n90.0 %"]


def test_contact_sheet_refuses_nothing_and_strays(tmp_path: Path) -> None:
    for images, captions in ((DIGITS[:0], []), (DIGITS, ["a"])):
        with pytest.raises(ValueError, match=f"{len(captions)} captions for {len(images)} images"):
            contact_sheet(images, tmp_path / "sheet.png", captions)
    assert list(tmp_path.iterdir()) == []


def test_training_curves_have_a_panel_for_each_phase(tmp_path: Path) -> None:
    rows = [
        {"phase": phase, "step": step, "terms": {"a": 1.0 / (1 + step), "b": -0.5}}
        for phase in ("generator", "student")
        for step in range(0, 100, 5)
    ]
    training_curves(rows, tmp_path / "curves.png")
    assert opened(tmp_path / "curves.png").size == (1100, 2 * 420)
    first = (tmp_path / "curves.png").read_bytes()
    training_curves(rows, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").read_bytes() == first


@pytest.mark.parametrize("rows", [[], [{"event": "note"}]])
def test_training_curves_without_steps_are_still_a_picture(tmp_path: Path, rows: list[Any]) -> None:
    training_curves(rows, tmp_path / "curves.png")
    picture = opened(tmp_path / "curves.png")
    assert picture.size == (1100, 420)
    assert picture.getextrema() != ((255, 255),) * 3


def test_training_curves_survive_what_a_diverged_run_logs(tmp_path: Path) -> None:
    values = (1.0, nan, inf, None, 2.0)
    rows = [{"phase": "student", "step": step, "terms": {"$a_b$": value}} for step, value in enumerate(values)]
    training_curves(rows, tmp_path / "curves.png")
    assert opened(tmp_path / "curves.png").size == (1100, 420)


def test_curves_are_sorted_and_the_later_row_of_a_step_counts() -> None:
    rows = [
        {"phase": "student", "step": 2, "terms": {"kd": 9.0}},
        {"phase": "student", "step": 1, "terms": {"kd": 3.0}},
        {"phase": "student", "step": 2, "terms": {"kd": 2.0, "late": 5.0}},
    ]
    curves = curves_of(rows)["student"]
    assert (curves["kd"].steps, curves["kd"].values) == ([1, 2], [3.0, 2.0])
    assert (curves["late"].steps, curves["late"].values) == ([2], [5.0])


def test_smoothing_keeps_lines_and_levels_and_passes_over_gaps() -> None:
    assert smoothed([1.0, 2.0, 4.0]) == [1.0, 2.0, 4.0]
    line = [float(step) for step in range(240)]
    assert smoothed(line)[10:-10] == pytest.approx(line[10:-10])
    noisy = [(-1.0) ** step for step in range(240)]
    assert max(map(abs, smoothed(noisy))) < 0.35
    gappy = [3.0] * 120
    gappy[60] = nan
    assert smoothed(gappy) == pytest.approx([3.0] * 120)
    assert all(map(isnan, smoothed([nan, nan])))
