"""The picture of the candidates: which networks it shows where, and that it can be drawn of any search."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from matplotlib.transforms import Bbox
from PIL import Image

from compressor.report import candidate_picture as module
from compressor.report.candidate_picture import candidate_picture, points_of
from compressor.report.student_search import Candidate, StudentLimits, StudentSearch
from profiles.latency import LatencyStats

Searcher = Callable[..., StudentSearch]
Maker = Callable[..., Candidate]


def drawn(search: StudentSearch, path: Path, wish_ms: float | None = None) -> Image.Image:
    candidate_picture(search, path, wish_ms=wish_ms)
    with Image.open(path) as picture:
        assert (picture.format, picture.size) == ("PNG", (1100, 660))
        return picture.convert("RGB")


def test_points_are_latency_against_the_share_of_the_teachers_macs(student_search: Searcher) -> None:
    timed, points = points_of(student_search())
    assert timed
    # The one that could not be made has no place.
    assert [(p.name, p.kind, p.fits, p.chosen) for p in points] == [
        ("cifar_resnet20", "teacher", True, False),
        ("prune:0.2", "pruned", False, False),
        ("prune:0.5", "pruned", True, True),
        ("prune:0.7", "pruned", True, False),
    ]
    assert [p.y for p in points] == pytest.approx([100, 64, 26, 10])
    assert (points[2].x, points[2].span) == (0.31, (0.75 * 0.31, 1.25 * 0.31))


def test_without_latencies_the_points_are_macs_against_parameters(student_search: Searcher, candidate: Maker) -> None:
    timed, points = points_of(
        student_search(
            teacher=candidate("resnet18", "teacher", 1.0, 0.6),
            candidates=(candidate("prune:0.5", "pruned", 0.5, None, params_m=0.2719 * 0.4),),
        )
    )
    assert not timed
    assert [p.x for p in points] == pytest.approx([100, 50])
    assert [p.y for p in points] == pytest.approx([100, 40])
    assert points[1].span == (points[1].x, points[1].x)


def test_a_latency_without_an_interval_has_no_bar(
    student_search: Searcher, candidate: Maker, latency: Callable[..., LatencyStats]
) -> None:
    merged = latency(0.2, is_target=True, origin="merged", latency_p50_interval_ms=None)
    _, points = points_of(student_search(candidates=(candidate("prune:0.5", "pruned", 0.5, None, latency=merged),)))
    assert points[1].span == (0.2, 0.2)


def test_the_same_search_gives_the_same_picture_and_another_limit_another(
    student_search: Searcher, tmp_path: Path
) -> None:
    first = drawn(student_search(), tmp_path / "a.png").tobytes()
    assert drawn(student_search(), tmp_path / "b.png").tobytes() == first
    assert drawn(student_search(limits=StudentLimits()), tmp_path / "c.png").tobytes() != first
    # The user's limit stands before the wish of the target.
    assert drawn(student_search(), tmp_path / "d.png", wish_ms=0.2).tobytes() == first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png", "d.png"]


@pytest.mark.parametrize("wish_ms", [0.5, 33.3])
def test_a_near_bound_is_a_line_and_a_far_one_only_words(
    student_search: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wish_ms: float
) -> None:
    from matplotlib.axes import Axes

    lines: list[float] = []
    words: list[str] = []
    write = Axes.text

    def written(axes: Axes, x: float, y: float, text: str, **style: Any) -> Any:
        words.append(text)
        return write(axes, x, y, text, **style)

    monkeypatch.setattr(Axes, "axvline", lambda _, x, **__: lines.append(x))
    monkeypatch.setattr(Axes, "text", written)
    drawn(student_search(limits=StudentLimits()), tmp_path / "a.png", wish_ms=wish_ms)
    assert lines == ([0.5] if wish_ms == 0.5 else [])
    assert words == [
        " the target's wish 0.5 ms" if wish_ms == 0.5 else "the target's wish 33.3 ms → ",
        "1 not drawn,\nsee the table",
    ]


def test_any_search_is_a_picture(student_search: Searcher, candidate: Maker, tmp_path: Path) -> None:
    hostile = "$\\frac{a}$ <b>\x1b[2J" + "ñ漢" * 40
    nothing = {"params_m": None, "macs_g": None, "size_mib": None}
    for search in (
        student_search(candidates=()),
        student_search(candidates=(candidate("x", "other", 1.0, None, failure="cannot be made", **nothing),)),
        student_search(teacher=candidate("t", "teacher", 1.0, None, **nothing)),
        student_search(teacher=candidate("t", "teacher", 1.0, None)),
        student_search(candidates=tuple(candidate("prune:0.5", "pruned", 0.5, 0.3) for _ in range(30))),
    ):
        picture = drawn(search, tmp_path / "any.png")
        assert picture.getextrema() != ((255, 255),) * 3
    drawn(student_search(candidates=(candidate(hostile, "other", 0.5, 0.3),), chosen=hostile), tmp_path / "any.png")


def test_names_do_not_cover_each_other_where_there_is_room(
    student_search: Searcher, candidate: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.text import Annotation

    placed: list[Annotation] = []
    name = module._name

    def recorded(*args: object) -> Annotation:
        placed.append(name(*args))  # type: ignore[arg-type]
        return placed[-1]

    monkeypatch.setattr(module, "_name", recorded)
    # Steps of three per cent: a name to the right would cover the next candidate's bar.
    rows = [candidate(f"prune:0.{i}", "pruned", 0.9 - 0.07 * i, 0.5 - 0.04 * i) for i in range(10)]
    candidate_picture(student_search(candidates=tuple(rows)), tmp_path / "a.png")
    kept = [one for one in placed if one.axes is not None and one in one.axes.texts]
    assert len(kept) == 11
    boxes: list[Bbox] = [module._box(one) for one in kept]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    # Without room the two that everyone looks for keep their names, and no name stands on another.
    placed.clear()
    crowd = [candidate(f"prune:0.{i}", "pruned", 0.3 + 0.005 * i, 0.3) for i in range(20)]
    candidate_picture(student_search(candidates=tuple(crowd), chosen="prune:0.7"), tmp_path / "b.png")
    kept = [one for one in placed if one.axes is not None and one in one.axes.texts]
    assert {"cifar_resnet20", "prune:0.7"} < {one.get_text() for one in kept}
    assert len(kept) < 21
    boxes = [module._box(one) for one in kept]
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
