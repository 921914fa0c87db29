"""Hostile names through a real Markdown parser: they come out as the text that they are, nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from compressor.report.untrusted import NAME_LIMIT, PROSE_LIMIT, code, fenced, printable, prose

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a | b || c",
    "a\\|b",
    "`rm -rf`",
    "``two``",
    "[link](https://evil.example)",
    "![picture](https://evil.example/x.png)",
    "https://evil.example and www.evil.example",
    "<https://evil.example>",
    "# heading",
    "- item",
    "1. item",
    "***",
    "---",
    "===",
    "> quote",
    "*em* _em_ **strong** ~~gone~~",
    "&lt;b&gt; &#42;",
    "</code><b>",
    "$x^2$ {{ template }}",
    "    indented",
    "back\\slash",
    "@everyone and #1",
]


def tokens(markdown: str) -> Iterator[Token]:
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    for token in parser.parse(markdown):
        yield token
        yield from token.children or ()


def shown(markdown: str) -> str:
    """The text that a reader sees."""
    return "".join(t.content for t in tokens(markdown) if t.type in ("text", "text_special", "code_inline"))


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_code_and_nothing_else(name: str) -> None:
    html = [t.content for t in tokens(code(name)) if t.type.startswith("html")]
    assert html in ([], ["<code>", "</code>"])
    kinds = {t.type for t in tokens(code(name))} - {"html_inline", "text_special"}
    assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text", "code_inline"}
    assert shown(code(name)) == " ".join(name.split())


@pytest.mark.parametrize("text", HOSTILE)
def test_prose_is_text_and_nothing_else(text: str) -> None:
    kinds = {t.type for t in tokens(prose(text))}
    assert kinds <= {"paragraph_open", "paragraph_close", "inline", "text", "text_special"}
    assert shown(prose(text)).replace("\u200b", "") == " ".join(text.split())


@pytest.mark.parametrize("name", HOSTILE)
def test_names_keep_a_table_in_shape(name: str) -> None:
    table = f"| a | b |\n| --- | --- |\n| {code(name)} | {prose(name)} |"
    cells = [t.type for t in tokens(table) if t.type == "td_open"]
    assert len(cells) == 2
    assert shown(table).replace("\u200b", "") == "ab" + " ".join(name.split()) * 2


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_of_a_name_is_left_that_hosts_turn_into_links_or_mentions(name: str) -> None:
    # Inside backticks no host looks for anything.
    for text in (code(name) if code(name)[0] != "`" else "", prose(name)):
        assert re.search(r"://|www\.|@\w|(?<!&)#\d", text) is None


def test_plain_names_stay_plain() -> None:
    assert code("golden retriever") == "`golden retriever`"
    assert code("few/7/IMG_0012 (2).png") == "`few/7/IMG_0012 (2).png`"
    assert code("кошка") == "`кошка`"
    assert prose("Example CPU @ 2.70GHz, snake_case, 95.0 % of --eval.") == (
        "Example CPU @ 2.70GHz, snake_case, 95.0 % of --eval."
    )


def test_a_name_never_vanishes() -> None:
    assert code("") == code(" \n ") == "<code>&#65533;</code>"


def test_controls_and_overrides_become_visible() -> None:
    assert printable("a\x1b[31mred\x07\u202egnp.exe", 80) == "a\ufffd[31mred\ufffd\ufffdgnp.exe"
    assert printable(" two\n\tlines \r", 80) == "two lines"


def test_long_text_ends_in_an_ellipsis() -> None:
    assert printable("word " * 10, 12) == printable("word " * 10, 10) == "word word…"
    assert printable("a " + "x" * 20, 10) == "a xxxxxxx…"
    assert max(len(printable("word " * 10, limit)) - limit for limit in range(1, 40)) == 0
    assert len(printable("x" * 10_000, NAME_LIMIT)) == NAME_LIMIT
    assert shown(prose("x" * 10_000)) == "x" * (PROSE_LIMIT - 1) + "…"


def test_a_command_cannot_leave_its_block() -> None:
    command = "compress run --teacher 'a  b.pt' \\\n  --out '```'\x1b[2J"
    blocks = [t for t in tokens(fenced(command)) if t.type == "fence"]
    assert [block.content for block in blocks] == [command.replace("\x1b", "\ufffd") + "\n"]
