"""Durations as a user writes them: `90s`, `30m`, `1h30m`. The report's words for them are in `report.text`."""

from __future__ import annotations

import re

UNITS = {"h": 3600, "m": 60, "s": 1}
_WRITTEN = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)


def seconds_of(text: str) -> int:
    """Whole seconds, at least one, of a duration with a unit behind every number, the largest first.

    Raises:
        ValueError: anything else, such as a number alone, which may mean seconds as well as minutes.
    """
    match = _WRITTEN.fullmatch(text)
    numbers = (0, 0, 0) if match is None else map(int, match.groups(default="0"))
    seconds = sum(number * size for number, size in zip(numbers, UNITS.values(), strict=True))
    if seconds == 0:
        raise ValueError(f"{text!r} is no duration such as 90s, 30m or 1h30m")
    return seconds


def written(seconds: int) -> str:
    """The one way in which `seconds_of` text is kept: 5400 is `1h30m`, and 90 is `1m30s`."""
    parts = []
    for unit, size in UNITS.items():
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts)
