"""The quality benchmark: its rows differ in what their names say, it goes on where it stopped, its tables by hand."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality import (
    CONFIGURATIONS,
    CPU_SETTINGS,
    CUDA_SETTINGS,
    MAIN_ROWS,
    ORIGINAL,
    ORIGINAL_FROM_BLOCKS,
    OURS,
    PARTS,
    REPAIRED,
    Bench,
    tiny,
)
from benchmarks.quality_table import parts_tables, settings_table
from benchmarks.tiny_packs import write_tiny_packs
from compressor.errors import Interrupted
from compressor.methods import hidfd
from compressor.students.architectures import ARCHITECTURES, teacher_architectures

FIRST = next(iter(CPU_SETTINGS))
SETTINGS = {**CPU_SETTINGS, **CUDA_SETTINGS}


def options(folder: Path, **changes: Any) -> argparse.Namespace:
    values = {
        "data": folder, "device": "cpu", "precision": "fp32", "minutes": float("inf"), "tiny": True,
        "configurations": None, "out": folder / "quality.json", "work": folder / "work",
    }  # fmt: skip
    return argparse.Namespace(**{**values, **changes})


def rows_of(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / "quality.json").read_text())
    return rows


@pytest.mark.parametrize("name", SETTINGS)
def test_the_networks_of_every_setting_exist(name: str) -> None:
    setting = SETTINGS[name]
    assert setting.teacher[0] in teacher_architectures()
    assert setting.student[0] in ARCHITECTURES
    assert set(setting.options) <= set(hidfd.Config.model_fields)


def test_each_part_is_taken_away_alone() -> None:
    bench = Bench(options(Path(), tiny=False))
    setting = CPU_SETTINGS[FIRST]
    ours = bench.config(setting, CONFIGURATIONS[OURS]).model_dump()
    for part, configuration in PARTS.items():
        settings = bench.config(setting, configuration).model_dump()
        changed = {key for key in ours if settings[key] != ours[key]}
        assert changed == set(configuration.options), part
        assert changed or not configuration.from_blocks, part


def test_what_makes_the_paper_of_ours_is_what_ours_adds() -> None:
    assert CONFIGURATIONS[REPAIRED].options == hidfd.PAPER
    assert not CONFIGURATIONS[REPAIRED].from_blocks
    config = hidfd.Config(**hidfd.PAPER)
    assert (config.stage_weight, config.logit_weight, config.projector) == (0.0, 0.0, "on")


@pytest.mark.slow
def test_rows_are_made_once_share_a_generator_and_start_where_their_names_say(tmp_path: Path) -> None:
    write_tiny_packs(tmp_path)
    setting = tiny(CPU_SETTINGS[FIRST])
    names = [ORIGINAL, ORIGINAL_FROM_BLOCKS, REPAIRED, OURS]
    Bench(options(tmp_path, configurations=names)).run(FIRST, setting, 0)
    rows = {row["configuration"]: row for row in rows_of(tmp_path)}
    assert list(rows) == names
    assert {name: rows[name]["inherited"] for name in names} == {
        ORIGINAL: 0.0, ORIGINAL_FROM_BLOCKS: 1.0, REPAIRED: 0.0, OURS: 1.0
    }  # fmt: skip
    assert rows[OURS]["student_params_m"] < rows[REPAIRED]["student_params_m"]  # which has a projector
    assert rows[OURS]["synthetic_class_consistency"] == rows[REPAIRED]["synthetic_class_consistency"]
    Bench(options(tmp_path, configurations=[*names, "teacher"])).run(FIRST, setting, 0)
    assert [row["configuration"] for row in rows_of(tmp_path)] == [*names, "teacher"]


@pytest.mark.slow
def test_the_time_is_kept_and_what_was_begun_goes_on(tmp_path: Path) -> None:
    write_tiny_packs(tmp_path)
    setting = tiny(CPU_SETTINGS[FIRST])
    with pytest.raises(Interrupted):
        Bench(options(tmp_path, minutes=0.0)).run(FIRST, setting, 0)
    assert not (tmp_path / "quality.json").exists()
    Bench(options(tmp_path, configurations=["teacher"])).run(FIRST, setting, 0)
    assert [row["configuration"] for row in rows_of(tmp_path)] == ["teacher"]


def row(configuration: str, seed: int, accuracy: float) -> dict[str, Any]:
    return {
        "setting": FIRST, "configuration": configuration, "seed": seed, "accuracy": accuracy, "agreement": accuracy,
        "seconds": 10.0,
    }  # fmt: skip


def test_the_table_of_settings_by_hand() -> None:
    rows = [row(name, seed, 0.5 + 0.01 * seed) for name in MAIN_ROWS for seed in (0, 1, 2)]
    rows += [row(OURS, 3, 0.9)]  # a seed that nothing else has changes no difference
    line = settings_table([r for r in rows if r["seed"] < 3]).splitlines()[2]
    assert line == f"| {FIRST} | 3 | {'51.0 ± 1.0 | ' * 6}+0.0 (+0.0 to +0.0) | +0.0 (+0.0 to +0.0) |"
    assert settings_table(rows).splitlines()[2].endswith("| +0.0 (+0.0 to +0.0) | +0.0 (+0.0 to +0.0) |")
    assert len(settings_table(rows[:3]).splitlines()) == 2  # without ours there is nothing to compare


def test_the_table_of_parts_by_hand() -> None:
    rows = [row(OURS, seed, 0.8) for seed in (0, 1)]
    rows += [row("ours without stage alignment", seed, value) for seed, value in ((0, 0.7), (1, 0.6))]
    lines = parts_tables(rows).splitlines()
    assert lines[2] == "| ours | 80.0 ± 0.0 |  | 80.0 ± 0.0 |  | 10 |"
    assert lines[3].startswith("| ours without stage alignment | 65.0 ± 7.1 | -15.0 (-78.5 to +48.5) |")
    assert parts_tables(rows[:2]) == ""
