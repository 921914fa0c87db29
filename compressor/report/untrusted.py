"""Words from outside, made harmless: names of classes and files, and sentences that quote them.

They may hold line breaks, terminal escapes, markup, or ten thousand letters.
"""

from __future__ import annotations

import re
import unicodedata

ELLIPSIS = "…"
NAME_LIMIT = 80
PROSE_LIMIT = 500

# They reorder the text around them, so that one name can pose as another (Trojan Source, CVE-2021-42574).
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

# Characters that nothing acts on inside backticks, with single spaces between them.
_PLAIN = r"[\w.,:;+/()%=…–×-]"
_PLAIN_NAME = re.compile(rf"{_PLAIN}+( {_PLAIN}+)*")

# Characters of prose that renderers act on, with their surroundings where only those give them a meaning: an
# underscore inside a word and a `#` or `@` before a space are plain text everywhere.
_MARKUP = re.compile(r"[&<>|`*~$\\\[\]{}]|(?<!\w)_|_(?!\w)|[#@](?=\S)|:(?=//)|(?<=[Ww]{3})\.")
# What begins a list, a rule or a heading when it stands first.
_BLOCK_START = re.compile(r"^(?:[-+=#]|\d+[.)](?= |$))")


def without_controls(text: str) -> str:
    """Control characters (terminal escapes among them) and bidirectional overrides become U+FFFD."""
    return "".join(
        "\ufffd" if char in _BIDI_CONTROLS or unicodedata.category(char) in ("Cc", "Cs") else char for char in text
    )


def without_commands(line: str) -> str:
    """A line of a log that no build server takes for an order to itself.

    GitHub's runner reads `::name::` at the start of a line, spaces left aside, and `##[name]` anywhere in it; Azure's
    reads `##vso[name]`. One space more and it is text.
    """
    line = re.sub(r"##(?=\[|vso\[)", "## ", line)
    return re.sub(r"^(\s*):(?=:)", r"\1: ", line)


def printable(text: str, limit: int) -> str:
    """One line of at most `limit` characters for terminals and pictures; white space is single spaces.

    What is too long ends after a word, or within one that would take more than half of the line with it.
    """
    line = without_controls(" ".join(text.split()))
    if len(line) <= limit:
        return line
    cut = line[:limit].rfind(" ")
    return line[: cut if cut > limit // 2 else limit - 1] + ELLIPSIS


def code(name: str) -> str:
    """A name as a Markdown code span, in which no renderer looks for links, mentions or HTML; fit for tables.

    Plain names get backticks. In any other, each unusual character becomes an entity inside <code>, so that
    no backtick, pipe or angle bracket of the name reaches the renderer.
    """
    text = printable(name, NAME_LIMIT) or "\ufffd"
    if _PLAIN_NAME.fullmatch(text):
        return f"`{text}`"
    return f"<code>{re.sub('[^0-9A-Za-z ]', _entity, text)}</code>"


def prose(text: str) -> str:
    """A sentence that may quote names, as one line of Markdown that is nothing but text; fit for tables."""
    text = _MARKUP.sub(_entity, printable(text, PROSE_LIMIT))
    # Hosts look for mentions and mail addresses after decoding entities; a zero-width space ends those.
    text = text.replace("&#64;", "&#64;&#8203;")
    return _BLOCK_START.sub(lambda match: f"{match[0][:-1]}&#{ord(match[0][-1])};", text)


def fenced(command: str) -> str:
    """Shell lines as a Markdown code block, kept to the letter but for control characters."""
    lines = "\n".join(without_controls(line) for line in command.splitlines())
    longest = max((len(run) for run in re.findall("`+", lines)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}sh\n{lines}\n{fence}"


def _entity(match: re.Match[str]) -> str:
    return f"&#{ord(match[0])};"
