"""The page in a browser, without a network: it loads alone, reads well with a screen reader and fits a phone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from full_report import full_regression, full_report, full_segmentation
from html_page import Shown, differing
from PIL import Image
from report_samples import build_report

from compressor.report.html import report_html
from compressor.report.schema import Picture, Report

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next((found for name in BROWSERS if (found := shutil.which(name))), None)

if BROWSER is None:
    pytest.skip(f"none of {', '.join(BROWSERS)} is installed", allow_module_level=True)

from axe_playwright_python.sync_playwright import Axe  # noqa: E402
from playwright.sync_api import Browser, Page, sync_playwright  # noqa: E402

REPORTS: dict[str, Callable[[], Report]] = {
    "full": full_report,
    "small": build_report,
    "segmentation": full_segmentation,
    "regression": full_regression,
}
PHONE, NARROW, DESKTOP, PAPER = 390, 360, 1280, 688  # px; paper is A4 without its margins
SHEET = Picture(path="samples/sheet.png", title="Samples with the teacher's opinion of them")


@dataclass
class Loaded:
    """A page that is open, and all that its loading asked for and said."""

    page: Page
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each report as report.html, the full one with a picture."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "samples").mkdir()
    Image.new("RGB", (1200, 900), "#888").save(folder / SHEET.path)
    written = {}
    for name, build in REPORTS.items():
        report = build()
        report = report.model_copy(update={"pictures": (SHEET,)}) if name == "full" else report
        written[name] = folder / f"{name}.html"
        written[name].write_text(report_html(report, folder), encoding="utf-8")
    return written


@pytest.fixture
def load(browser: Browser) -> Iterator[Callable[..., Loaded]]:
    contexts = []

    def open_page(file: Path, width: int = DESKTOP, scheme: Literal["light", "dark"] = "light") -> Loaded:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        loaded = Loaded(context.new_page())
        context.on("request", lambda request: loaded.requests.append(request.url))
        loaded.page.on("console", lambda message: loaded.messages.append(f"{message.type}: {message.text}"))
        loaded.page.on("pageerror", lambda error: loaded.messages.append(str(error)))
        loaded.page.goto(file.as_uri())
        return loaded

    yield open_page
    for context in contexts:
        context.close()


def evaluated(loaded: Loaded, script: str) -> Any:
    return loaded.page.evaluate(script)


@pytest.mark.parametrize("name", REPORTS)
def test_it_loads_alone_and_in_silence(name: str, files: dict[str, Path], load: Callable[..., Loaded]) -> None:
    loaded = load(files[name])
    assert [url for url in loaded.requests if not url.startswith("data:image/png;")] == [files[name].as_uri()]
    assert loaded.messages == []
    broken = "[...document.images].filter(image => !image.naturalWidth).length"
    assert evaluated(loaded, broken) == 0
    assert evaluated(loaded, "document.images.length") == (name == "full")


def test_what_a_page_asks_for_would_be_seen(tmp_path: Path, load: Callable[..., Loaded]) -> None:
    """The same check of a page that does load something, and whose policy forbids it."""
    page = report_html(full_report()).replace("<main", '<img src="https://example.invalid/x.png" alt=""><main')
    (tmp_path / "loading.html").write_text(page, encoding="utf-8")
    loaded = load(tmp_path / "loading.html")
    assert any("Content Security Policy" in message for message in loaded.messages)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [
        ("full", DESKTOP, "light"),
        ("full", DESKTOP, "dark"),
        ("full", PHONE, "light"),
        ("full", PHONE, "dark"),
        ("segmentation", DESKTOP, "light"),
    ],
)
def test_axe_finds_nothing(
    name: str, width: int, scheme: str, files: dict[str, Path], load: Callable[..., Loaded]
) -> None:
    loaded = load(files[name], width, scheme)
    evaluated(loaded, "document.querySelectorAll('details').forEach(one => one.open = true)")
    found = Axe().run(loaded.page).response
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]][:3]) for one in found["violations"]] == []
    assert len(found["passes"]) > 20


def test_axe_finds_a_faint_text(tmp_path: Path, load: Callable[..., Loaded]) -> None:
    page = report_html(full_report()).replace("--faint: #57606a", "--faint: #c0c4c8")
    (tmp_path / "faint.html").write_text(page, encoding="utf-8")
    violations = Axe().run(load(tmp_path / "faint.html").page).response["violations"]
    assert "color-contrast" in {one["id"] for one in violations}


@pytest.mark.parametrize("width", [NARROW, PHONE, DESKTOP])
@pytest.mark.parametrize("name", REPORTS)
def test_nothing_reaches_beyond_the_window(
    name: str, width: int, files: dict[str, Path], load: Callable[..., Loaded]
) -> None:
    loaded = load(files[name], width)
    evaluated(loaded, "document.querySelectorAll('details').forEach(one => one.open = true)")
    assert evaluated(loaded, "document.documentElement.scrollWidth") == width
    assert evaluated(loaded, OUTSIDE) == []


# Whatever is wider than the window and in no region that scrolls by itself.
OUTSIDE = """() => [...document.querySelectorAll('main *, header *, nav *, footer *')]
  .filter(one => !one.closest('.scroll') && !one.closest('pre'))
  .filter(one => one.getBoundingClientRect().right > innerWidth + 1 || one.getBoundingClientRect().left < -1)
  .map(one => `${one.tagName} ${one.textContent.slice(0, 60)}`)"""

# Texts of one drawing whose boxes share more than a corner.
COVERED = """() => [...document.querySelectorAll('svg.chart')].flatMap(svg => {
  const texts = [...svg.querySelectorAll('text')].map(one => [one.textContent, one.getBoundingClientRect()])
  return texts.flatMap(([said, box], index) => texts.slice(index + 1)
    .filter(([_, other]) => Math.min(box.right, other.right) - Math.max(box.left, other.left) > 1
                         && Math.min(box.bottom, other.bottom) - Math.max(box.top, other.top) > 5)
    .map(([other]) => `${said} / ${other}`))
})"""


@pytest.mark.parametrize("width", [NARROW, DESKTOP])
@pytest.mark.parametrize("name", ["full", "segmentation", "regression"])
def test_no_text_of_a_drawing_covers_another(
    name: str, width: int, files: dict[str, Path], load: Callable[..., Loaded]
) -> None:
    assert evaluated(load(files[name], width), COVERED) == []


@pytest.mark.parametrize("name", REPORTS)
def test_the_browser_shows_the_numbers_of_report_json(
    name: str, files: dict[str, Path], load: Callable[..., Loaded]
) -> None:
    found = evaluated(
        load(files[name]),
        "[...document.querySelectorAll('[data-path]')].map(one => "
        "[one.textContent, one.dataset.value, one.dataset.as ?? 'count', one.dataset.path])",
    )
    assert len(found) > 100
    assert differing([Shown(*one) for one in found], REPORTS[name]()) == []


def test_tables_wider_than_a_phone_scroll_and_can_be_reached_by_keyboard(
    files: dict[str, Path], load: Callable[..., Loaded]
) -> None:
    regions = evaluated(
        load(files["full"], NARROW),
        "[...document.querySelectorAll('.scroll')].map(one => [one.scrollWidth > one.clientWidth, one.tabIndex])",
    )
    assert any(scrolls for scrolls, _ in regions)
    assert all(tab_index == 0 for _, tab_index in regions)


def test_print_opens_what_is_closed_and_is_light(files: dict[str, Path], load: Callable[..., Loaded]) -> None:
    loaded = load(files["full"], scheme="dark")
    closed = "[...document.querySelectorAll('details:not([open]) table')]"
    seen = evaluated(loaded, f"{closed}.map(one => one.checkVisibility())")
    assert seen
    assert not any(seen)
    loaded.page.emulate_media(media="print")
    assert all(evaluated(loaded, f"{closed}.map(one => one.checkVisibility())"))
    assert all(height > 20 for height in evaluated(loaded, f"{closed}.map(one => one.getBoundingClientRect().height)"))
    assert evaluated(loaded, "getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    loaded.page.set_viewport_size({"width": PAPER, "height": 1000})
    assert evaluated(loaded, "document.documentElement.scrollWidth") == PAPER


def test_it_follows_the_theme(files: dict[str, Path], load: Callable[..., Loaded]) -> None:
    colours = [
        evaluated(load(files["full"], scheme=scheme), "getComputedStyle(document.body).backgroundColor")
        for scheme in ("light", "dark")
    ]
    assert colours == ["rgb(247, 247, 245)", "rgb(20, 23, 26)"]
