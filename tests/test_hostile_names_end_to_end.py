"""A run of a 1,000-class teacher whose class names and files mean harm: what it leaves is right, safe and small."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import html_page
import pytest
import tiny
import tiny_run
import torch
from PIL import Image
from tiny_run import Compress

from compressor.inputs.intake import save_checkpoint
from compressor.report.schema import read_report

NUM_CLASSES = 1_000
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "`$(touch pwned)`| a | b |",
    "::error::pwned",
    "\u202egnp.exe",
    "\x1b[31mred\x07",
    '"]]>--><!--&lt;',
    "{{ 7 * 7 }}{% for x in y %}",
    "[link](javascript:alert(1)) @everyone #1",
    "x" * 5_000,
)
FILE = "<img src=x onerror=alert(1)>&`touch pwned`;--gate=x\u202e.png"
MOST_BYTES = 3_000_000


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """t.pt, and few/ and val/ with hostile files, some of them broken."""
    folder = tmp_path_factory.mktemp("hostile")
    names = (*HOSTILE, *(f"class {k}" for k in range(len(HOSTILE), NUM_CLASSES)))
    teacher = tiny.teacher(num_classes=NUM_CLASSES, class_names=names)
    save_checkpoint(folder / "t.pt", teacher.network.state_dict(), teacher.card)
    for part, count, seed in (("few", 12, 2), ("val", 30, 3)):
        (folder / part).mkdir()
        for index, image in enumerate(tiny.images(count, seed=seed)):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / part / f"{index:02d}{FILE}")
        (folder / part / f"broken{FILE}").write_bytes(b"\x89PNG\r\n\x1a\nno more")
    return folder


@pytest.mark.slow
def test_a_run(inputs: Path, tmp_path: Path, compress: Compress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    folder = tmp_path / "run"
    words = ("--target", "jetson", "--eval", f"{inputs}/val", "--gate", "agreement:min=99%")
    outcome = compress(*tiny_run.line(inputs, folder, *words))
    assert outcome.code == 1, outcome.err
    assert not list(Path.cwd().glob("pwned"))
    assert "\x1b[31m" not in outcome.out + outcome.err
    commands = [line for line in outcome.err.splitlines() if line.lstrip().startswith("::")]
    assert {line.lstrip().split("::")[1].split(" ")[0] for line in commands} <= {
        "group",
        "endgroup",
        "error",
        "warning",
    }
    assert not any(line.endswith("pwned") for line in commands)

    report = read_report(folder / "report.json")
    assert report.teacher_source.class_names[: len(HOSTILE)] == HOSTILE
    assert len(report.teacher_source.class_names) == NUM_CLASSES
    assert [skipped.file for skipped in report.samples.skipped] == [f"broken{FILE}"]

    page = (folder / "report.html").read_text()
    assert len(page.encode()) < MOST_BYTES
    parsed = html_page.parsed(page)
    assert not html_page.differing(html_page.numbers(parsed), report)
    for element in parsed.all():
        assert element.tag not in ("script", "iframe", "object", "embed", "form", "base", "foreignobject")
        assert not any(name.startswith("on") for name in element.attributes)
        assert not element.attributes.get("href", "#").startswith(("javascript:", "http", "//"))
        assert element.attributes.get("src", "data:").startswith("data:")
    assert "\u202e" not in page
    assert "\x1b" not in page

    markdown = (folder / "report.md").read_text()
    assert len(markdown) < 65_536
    for text in (markdown, (folder / "model-card.md").read_text()):
        assert "<script" not in text
        assert "<img" not in text
        assert "](javascript:" not in text
        assert "@everyone" not in text
        assert not set("\u202e\x1b\x07") & set(text)

    suite = ElementTree.parse(folder / "junit.xml").getroot()
    assert len(suite.findall(".//failure")) == 1
    assert (folder / "metrics.txt").read_text().endswith("# EOF\n")
    assert json.loads((folder / "manifest.json").read_text())["teacher_sha256"] == report.teacher_source.sha256
    assert compress("verify", f"{folder}").code == 0


def test_the_names_are_those_of_a_teacher(inputs: Path) -> None:
    """What the test above feeds in does reach the tool unchanged."""
    card = torch.load(inputs / "t.pt", weights_only=True)
    assert any(HOSTILE[0] in str(value) for value in card.values() if isinstance(value, str | dict | list))
