"""Columns line up, and a long last cell wraps below itself."""

from __future__ import annotations

from compressor.layout import columns


def test_cells_stand_below_each_other() -> None:
    assert columns([("name", "value", "from"), ("seed", "0", "default")], width=80) == [
        "name  value  from",
        "seed  0      default",
    ]


def test_the_last_cell_wraps_and_an_empty_one_leaves_no_trailing_spaces() -> None:
    rows = [("a", "one two three four five six seven"), ("bb", "")]
    assert columns(rows, indent=2, width=30) == [
        "  a   one two three four five",
        "      six seven",
        "  bb",
    ]


def test_a_word_that_does_not_fit_stays_whole() -> None:
    path = "/a/very/long/path/that/nobody/wants/to/be/cut/in/two"
    assert columns([("out", path)], width=20) == [f"out  {path}"]
