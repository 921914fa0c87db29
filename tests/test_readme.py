"""The README is true: its commands parse, its links exist, its table is what the benchmark measured.

That its two commands work on a fresh machine is what `.ci/run` shows, which takes them from here.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from benchmarks import int8_calibration
from benchmarks.quality_table import difference, pages
from compressor.config import FLAGS
from compressor.errors import (
    EXIT_BUG,
    EXIT_GATE_FAILED,
    EXIT_INTERRUPTED,
    EXIT_OK,
    EnvironmentFault,
    InputRefused,
    StageFailed,
    UsageFault,
)
from compressor.inputs.card import TeacherCard
from compressor.methods import method_names
from compressor.students.architectures import teacher_architectures
from profiles.catalogue import load_target

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def commands() -> list[str]:
    return [line.split("#")[0].strip() for line in README.splitlines() if re.match(r"( {4})compress \w", line)]


def test_there_are_two_commands_and_make_knows_them() -> None:
    block = README.split("<!-- two commands -->")[1].split("<!-- end of the two commands -->")[0]
    targets = [line.split()[1] for line in block.splitlines() if line.startswith("make ")]
    assert targets == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert all(f"\n{target}:" in makefile for target in targets)


def test_the_commands_stand_on_the_first_screen() -> None:
    assert README.splitlines().index("<!-- two commands -->") < 25


@pytest.mark.parametrize("line", commands())
def test_flags_and_values_of_every_command_exist(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "compress"
    for word, value in zip(words[2:], [*words[3:], ""], strict=True):
        if word.startswith("--"):
            assert word in (*FLAGS.values(), "--nproc")
        if word == "--target":
            load_target(value)


def test_the_flag_table_is_right() -> None:
    named = re.findall(r"^\| `(--[\w-]+)", README, flags=re.MULTILINE)
    assert set(named) - {"--config", "--json", "--quiet", "--nproc"} <= set(FLAGS.values())
    assert all(f"`{name}`" in README for name in method_names())


def test_the_card_is_valid_and_its_architecture_a_teacher() -> None:
    block = re.search(r"```yaml\n(.*?)```", README, flags=re.DOTALL)
    assert block is not None
    card = TeacherCard.model_validate(yaml.safe_load(block[1]))
    assert card.architecture in teacher_architectures()


def test_exit_codes_are_those_of_the_code() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", README, flags=re.MULTILINE)}
    classes = (UsageFault, EnvironmentFault, InputRefused, StageFailed)
    used = {EXIT_OK, EXIT_GATE_FAILED, EXIT_BUG, EXIT_INTERRUPTED, *(kind.exit_code for kind in classes)}
    assert used <= documented


def test_links_and_named_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_quality_tables_are_what_was_measured() -> None:
    for page, text in pages().items():
        assert page.read_text() == text, f"{page.name}: run `make table`"


def test_paired_difference_is_students_t() -> None:
    # Differences 1, 2, 3: mean 2, standard deviation 1, half width 4.303 / sqrt(3) = 2.484.
    text = difference({0: 91.0, 1: 92.0, 2: 93.0}, {0: 90.0, 1: 90.0, 2: 90.0})
    assert text == "+2.0 (-0.5 to +4.5)"


def test_the_page_on_int8_is_what_was_measured() -> None:
    int8_calibration.write_page(check=True)  # exits where the page is another
