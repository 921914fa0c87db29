"""Durations: one meaning for each text, and one text for each number of seconds."""

from __future__ import annotations

import pytest

from compressor.durations import seconds_of, written


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1h0m5s", 3605), ("90m", 5400), ("007s", 7)],
)
def test_what_a_user_writes(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


def test_every_number_of_seconds_survives_the_way_there_and_back() -> None:
    # All short ones, and from there on steps that share no divisor with any unit.
    for seconds in (*range(1, 7300), *range(7300, 10**7, 7919)):
        assert seconds_of(written(seconds)) == seconds


@pytest.mark.parametrize("seconds", [59, 60, 61, 3599, 3600, 3661, 86400])
def test_what_is_written_is_as_short_as_it_can_be(seconds: int) -> None:
    assert not any(part.startswith("0") for part in written(seconds).replace("h", " ").replace("m", " ").split())


@pytest.mark.parametrize(
    "text", ["", "30", "1.5h", "30min", "30m1h", "-5m", "0s", "0h0m", " 30m", "30 m", "30M", "m", "1h30", "٣m", "inf"]
)
def test_what_could_mean_several_things_means_nothing(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        seconds_of(text)
