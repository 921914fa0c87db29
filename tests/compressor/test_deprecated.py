"""Names of earlier versions still work, and say what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_run
from tiny_run import Compress

from compressor import __version__, config, deprecated
from compressor.config import resolve
from compressor.deprecated import Former, current_words

RENAMED = Former("--new", "the word is shorter", until="9.0.0")
DROPPED = Former("", "it is always done", until="9.0.0")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["run", "--old", "3"], ["run", "--new", "3"]),
        (["run", "--old=3"], ["run", "--new=3"]),
        (["run", "--gone", "x"], ["run", "x"]),
        (["run", "--", "--old"], ["run", "--", "--old"]),
        (["run", "--older"], ["run", "--older"]),
    ],
)
def test_words_of_a_command_line(words: list[str], expected: list[str]) -> None:
    current, warnings = current_words(words, {"--old": RENAMED, "--gone": DROPPED})
    assert current == expected
    assert len(warnings) == (words != expected)


def test_what_is_said() -> None:
    assert RENAMED.warning("--old") == (
        "--old is of an earlier version: the word is shorter. From 9.0.0 on it is an error; use --new."
    )
    assert DROPPED.warning("--gone").endswith("From 9.0.0 on it is an error; leave it out.")


def test_a_renamed_setting_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "FORMER", {"distill.amount": Former("distill.effort", "it is one", until="9.0.0")})
    file = tmp_path / "run.yaml"
    file.write_text("teacher: {file: t.pt}\ndistill: {amount: full}\n")
    resolved = resolve({}, file)
    assert resolved.config.distill.effort == "full"
    assert resolved.origins["distill.effort"] == "run.yaml"
    assert resolved.warnings == (
        "'distill.amount' in run.yaml is of an earlier version: it is one. "
        "From 9.0.0 on it is an error; use distill.effort.",
    )


def test_a_command_with_a_former_flag(inputs: Path, tmp_path: Path, compress: Compress) -> None:
    outcome = compress("plan", *tiny_run.line(inputs, tmp_path / "run", "--export-generator")[1:])
    assert outcome.code == 0
    assert "  ! --export-generator is of an earlier version" in outcome.err


def test_no_row_has_outlived_its_version() -> None:
    """A name warns for one version, and is unknown from the next on."""

    def parts(version: str) -> tuple[int, ...]:
        return tuple(map(int, version.split(".")))

    for former in (*deprecated.SETTINGS.values(), *deprecated.FLAGS.values()):
        assert parts(former.until) > parts(__version__)
