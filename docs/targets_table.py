"""Writes the table of docs/targets.md from the profiles that ship.

python docs/targets_table.py
"""

from __future__ import annotations

from pathlib import Path

from profiles.catalogue import load_target, target_names
from profiles.sheet import target_markdown

PAGE = Path(__file__).parent / "targets.md"
START, END = "<!-- targets -->\n", "<!-- /targets -->\n"


def page(text: str) -> str:
    """The page with a current table between its markers."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    table = target_markdown(load_target(name) for name in target_names())
    return f"{before}{START}\n" + "".join(f"{line}\n" for line in table) + f"\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
