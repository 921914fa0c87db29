"""docs/errors.md is the code's: every exit path, with an example that was really said.

That the tests walk every path, no single one of them can see: `.ci/run` has a whole run of them note what it hears, and
asks `python docs/errors_page.py --walked FOLDER --check`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from tiny_run import Compress

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import errors_page
from errors_page import Example, ExitPath, best, exit_paths, known_examples

PATHS = exit_paths()
EXAMPLES = known_examples()
LONGEST = 600  # characters of one sentence; what quotes a file is cut before


def test_the_page_is_up_to_date() -> None:
    assert errors_page.PAGE.read_text(encoding="utf-8") == errors_page.page(EXAMPLES)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.key)
def test_every_exit_path_has_an_example_that_a_user_can_act_on(path: ExitPath) -> None:
    assert path.key in EXAMPLES, "run the tests with WALKED_REFUSALS, then errors_page.py"
    example = EXAMPLES[path.key]
    assert path.exit_codes
    for sentence in example:
        assert re.search(r"[.?!)`…]$", sentence), sentence
        assert len(sentence) <= LONGEST, sentence
        assert not re.search(r"\bNone\b(?! of)|<[a-z_.]+ object at|Traceback", sentence), sentence
        assert "pytest-" not in sentence, "the name of a test's folder is nobody's"
    assert len(set(example)) == len(example)


def test_a_command_says_what_the_page_says(tmp_path: Path, compress: Compress) -> None:
    outcome = compress("run", "--teacher", f"{tmp_path}/t.pt", "--out", f"{tmp_path}/run")
    lines = [line.removeprefix("error: ").strip() for line in outcome.err.splitlines()]
    (path,) = (path for path in PATHS if path.says(Example(*lines)) and path.module == "compressor.inputs.refusals")
    assert path.exit_codes == (outcome.code,)


def test_a_sentence_becomes_a_pattern_and_is_matched() -> None:
    source = """
def f(kind, x):
    error = UsageFault if x else InputRefused
    raise error(f"The {kind} is {x!r}." if x else "Nothing came.", "A number " + "was due.", hint(x) or "Give one.")
"""
    (path,) = errors_page._paths_of("somewhere", errors_page.ast.parse(source))
    assert path.kinds == ("InputRefused", "UsageFault")
    assert path.exit_codes == (2, 4)
    assert path.says(Example("The card is 'a'.", "A number was due.", "Give one."))
    assert path.says(Example("Nothing came.", "A number was due.", "Did you mean 3?"))
    assert not path.says(Example("Something came.", "A number was due.", "Give one."))


def test_the_plainest_example_is_taken() -> None:
    short, long, odd = (Example(word, "b", "c") for word in ("a", "aaaa", "é"))
    assert best([long, odd, short]) == short
    assert best([odd, long]) == long
