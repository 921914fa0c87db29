"""The benchmark of pruning: turns, ratios and the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import pruning_latency
from benchmarks.pruning_latency import VARIANTS, ratios, table, timed, with_interval


def test_files_take_turns_and_ratios_are_of_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def window(path: Path, _side: int, _threads: int, _window_s: float) -> float:
        asked.append(path.stem)
        slowdown = 1.0 + len(asked[:-1]) // 3  # every round is slower than the one before
        return {"teacher": 4.0, "rounded": 1.0, "default": 2.0}[path.stem] * slowdown

    monkeypatch.setattr(pruning_latency, "window_median_ms", window)
    found = timed({name: Path(f"{name}.onnx") for name in VARIANTS}, 32, 1, 6, 0.0)
    assert asked[:6] == ["teacher", "rounded", "default", "rounded", "default", "teacher"]
    assert found["latency_ms"]["rounded"] == with_interval([1, 2, 3, 4, 5, 6])
    assert found["rounded_over_teacher"] == {"median": 0.25, "low": 0.25, "high": 0.25, "confidence": 1 - 2 / 2**6}
    assert found["rounded_over_default"]["median"] == 0.5


def test_ratios_need_equal_numbers_of_rounds() -> None:
    assert ratios([1.0, 3.0], [2.0, 4.0]) == [0.5, 0.75]
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        ratios([1.0, 3.0], [2.0])


def test_the_table_has_a_line_for_each_row() -> None:
    value = {"median": 0.5, "low": 0.4, "high": 0.6, "confidence": 0.97}
    row = {
        "network": "resnet34",
        "ratio": 0.3,
        "threads": 2,
        "macs_g": {"teacher": 3.66, "rounded": 1.73, "default": 1.84},
        "latency_ms": dict.fromkeys(VARIANTS, value),
        **dict.fromkeys(("rounded_over_teacher", "default_over_teacher", "rounded_over_default"), value),
    }
    *_, line = table([row, row]).splitlines()
    quotient = "0.50 (0.40 to 0.60)"
    assert line == ("| resnet34, 0.3, 2 | 3.66, 1.73, 1.84 | 0.5 | 0.5 | 0.5 | " + " | ".join([quotient] * 3) + " |")
    assert len(table([row, row]).splitlines()) == 4
