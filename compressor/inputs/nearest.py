"""Did you mean ...? For file names, architectures, layers, keys and class folders alike."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """The question "Did you mean 'cat'?", or nothing when no option is near. Upper and lower case count as equal."""
    by_fold = {option.casefold(): option for option in options}
    near = difflib.get_close_matches(name.casefold(), by_fold, n=1)
    return f"Did you mean {by_fold[near[0]]!r}?" if near else ""
