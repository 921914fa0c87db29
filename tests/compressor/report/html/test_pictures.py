"""The run's pictures inside of the page: few enough bytes, none from elsewhere, and none missing in silence."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from full_report import full_report, phases
from html_page import Element, parsed
from PIL import Image
from report_samples import build_report

from compressor.report.html import report_html
from compressor.report.html.pictures import MOST_BYTES
from compressor.report.schema import Picture, Report

SHEET = Picture(path="samples/sheet.png", title="The <samples>")
CURVES = Picture(path="report/curves.png", title="Training curves")


def write(folder: Path, picture: Picture, *, noise: int = 0) -> None:
    """A small grey picture, or one of random pixels, which no PNG makes smaller."""
    path = folder / picture.path
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (noise, noise, 3), dtype=np.uint8)
    (Image.fromarray(pixels) if noise else Image.new("L", (64, 48), 128)).save(path, "PNG")


def shown(report: Report, folder: Path | None) -> tuple[list[Element], str]:
    (section,) = parsed(report_html(report, folder)).find("section", id="images")
    return section.find("img"), section.text


def test_a_small_picture_is_there_to_the_byte(tmp_path: Path) -> None:
    write(tmp_path, SHEET)
    (image,), _ = shown(full_report(pictures=(SHEET,)), tmp_path)
    assert image.attributes["alt"] == "The <samples>"
    assert (image.attributes["width"], image.attributes["height"]) == ("64", "48")
    content = base64.b64decode(image.attributes["src"].removeprefix("data:image/png;base64,"))
    assert content == (tmp_path / SHEET.path).read_bytes()


def test_curves_are_a_picture_only_where_they_are_not_drawn(tmp_path: Path) -> None:
    for picture in (SHEET, CURVES):
        write(tmp_path, picture)
    drawn, _ = shown(full_report(pictures=(SHEET, CURVES)), tmp_path)
    assert [image.attributes["alt"] for image in drawn] == ["The <samples>"]
    pictured, _ = shown(build_report(pictures=(SHEET, CURVES)), tmp_path)
    assert [image.attributes["alt"] for image in pictured] == ["The <samples>", "Training curves"]
    assert any(phase.curve for phase in phases())


def test_large_pictures_are_made_smaller(tmp_path: Path) -> None:
    pictures = tuple(SHEET.model_copy(update={"path": f"samples/{index}.png"}) for index in range(3))
    for picture in pictures:
        write(tmp_path, picture, noise=900)
    images, _ = shown(full_report(pictures=pictures), tmp_path)
    assert len(images) == 3
    assert sum(len(image.attributes["src"]) for image in images) <= MOST_BYTES
    content = base64.b64decode(images[0].attributes["src"].partition(",")[2])
    with Image.open(io.BytesIO(content)) as smaller:
        assert smaller.size[0] >= 320


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "samples").mkdir(parents=True)
    write(tmp_path, SHEET)
    (folder / "samples" / "link.png").symlink_to(tmp_path / SHEET.path)
    (folder / "samples" / "text.png").write_text("<svg onload=alert(1)>")
    pictures = [Picture(path=f"samples/{name}.png", title=name) for name in ("link", "text", "missing")]
    images, text = shown(full_report(pictures=tuple(pictures)), folder)
    assert images == []
    assert "link: left out, its file lies outside of the run folder." in text
    assert "text: left out, its file is no PNG of a usual size." in text
    assert "missing: left out, its file is missing." in text


def test_without_a_folder_there_are_none() -> None:
    images, text = shown(full_report(pictures=(SHEET,)), None)
    assert images == []
    assert "left out" not in text
