"""The image size that a user states for a teacher that is run from its file, beside what the file itself says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

from compressor.errors import InputRefused, UsageFault
from compressor.inputs.card_facts import FROM_FILE, FROM_FLAG, Facts

Side = int | str | None
"""Of a file: pixels; a name, or None, where it leaves that side open."""


@dataclass(frozen=True)
class StatedSize:
    """Height and width in pixels, and who states them.

    Attributes:
        source: FROM_FLAG, or the name of a card.
        channels: that a card states with them.
    """

    height: int
    width: int
    source: str
    channels: int | None = None

    def __str__(self) -> str:
        return f"{self.height}x{self.width}"


def stated_size(facts: Facts, input_size: object) -> StatedSize | None:
    """What the flag says, or else the card; None where nobody says anything.

    Args:
        input_size: the flag; pixels, or height and width, or None.

    Raises:
        InputRefused: the size that counts is none of images.
    """
    if input_size is None:
        shape = facts.image_shape()
        return None if shape is None else StatedSize(*shape[1:], facts.origin["input_shape"], shape[0])
    height, width = input_size if isinstance(input_size, list | tuple) else (input_size, input_size)
    try:
        shape = facts.image_shape()
    except InputRefused:  # the flag has the last word, whatever a card says
        shape = None
    facts.check_shape((3, height, width), FROM_FLAG)
    return StatedSize(height, width, FROM_FLAG, None if shape is None else shape[0])


def settled_sides(name: str, sides: Sequence[Side], stated: StatedSize | None) -> tuple[tuple[int, int], str]:
    """Height and width, and who says so: the file where it fixes both, else whoever stated them.

    Args:
        name: of the teacher's file.
        sides: its height and width, as it says them.

    Raises:
        InputRefused: one is open and nobody states it, or a card states another than the file's.
        UsageFault: the flag does.
    """
    height, width = sides
    if stated is None:
        if isinstance(height, int) and isinstance(width, int):
            return (height, width), FROM_FILE
        raise InputRefused(
            f"The teacher {name} leaves the size of its images open ({spelled(sides)}).",
            "The height and width that it was trained with were expected.",
            f"State them with --input-size, such as --input-size {_example(sides)}.",
        )
    wanted = (stated.height, stated.width)
    if any(isinstance(side, int) and side != pixels for side, pixels in zip(sides, wanted, strict=True)):
        _refuse_another(name, sides, stated)
    fixed = isinstance(height, int) and isinstance(width, int)
    return wanted, FROM_FILE if fixed else stated.source


def _refuse_another(name: str, sides: Sequence[Side], stated: StatedSize) -> NoReturn:
    takes = f"The teacher {name} takes {spelled(sides)}, which its file fixes."
    is_open = not all(isinstance(side, int) for side in sides)
    fitting = f"a size that fits, such as {_example(sides)}"
    if stated.source == FROM_FLAG:
        what = f"Give --input-size {fitting}" if is_open else "Leave --input-size out"
        raise UsageFault(
            f"--input-size states {stated} pixels.", takes, f"{what}, or export the file for another size."
        )
    what = f"State {fitting}" if is_open else "Correct it or leave it out"
    raise InputRefused(
        f"The card {stated.source} states {stated} pixels in input_shape.",
        takes,
        f"{what}, or export the file for another size.",
    )


def spelled(sides: Sequence[Side]) -> str:
    """As 32x32, with the word any for what is open."""
    return "x".join(str(side) if isinstance(side, int) else "any" for side in sides)


def _example(sides: Sequence[Side]) -> str:
    """What --input-size may be for these sides."""
    known = [side for side in sides if isinstance(side, int)]
    return "x".join(str(side if isinstance(side, int) else known[0]) for side in sides) if known else "224"
