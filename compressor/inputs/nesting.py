"""How far a value that a file gave unfolds: lists may hold one another many times over, or themselves.

A pickle of a few hundred bytes can hold a list that has 2^60 values in it. Whatever goes through such a list one by one
(a search, `repr`, a copy) never ends, so files are measured before anything does.
"""

from __future__ import annotations

import pickletools
from collections.abc import Mapping

MOST_DEPTH = 100
MOST_VALUES = 2_000_000  # a training checkpoint of 1,000 tensors with its optimiser has 50,000
MOST_CARD_DEPTH, MOST_CARD_VALUES = 20, 200_000
MOST_BITS = 1024  # of a whole number; the largest of a float's has as many

# By instruction: whether it takes all above a mark, how many more it takes, and how many it leaves.
_EFFECTS = {
    opcode.name: (
        pickletools.markobject in opcode.stack_before,
        len(opcode.stack_before[: opcode.stack_before.index(pickletools.markobject)])
        if pickletools.markobject in opcode.stack_before
        else len(opcode.stack_before),
        len(opcode.stack_after),
    )
    for opcode in pickletools.opcodes
}
_SAME = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")
_GET, _PUT = ("GET", "BINGET", "LONG_BINGET"), ("PUT", "BINPUT", "LONG_BINPUT")


class Unfolded(ValueError):
    """A value is nested deeper, or holds more, than any that is meant well."""


def check_nesting(value: object, *, most_depth: int = MOST_DEPTH, most_values: int = MOST_VALUES) -> None:
    """Count what a value holds, what it holds twice counted twice.

    Raises:
        Unfolded: it is too deep, too many, or holds itself.
    """
    counted: dict[int, int] = {}  # by id: what is shared is gone through once

    def count(value: object, depth: int) -> int:
        if not isinstance(value, Mapping | list | tuple | set):
            return 1
        if depth > most_depth:
            raise Unfolded(f"it is nested more than {most_depth} deep")
        if id(value) not in counted:
            parts = (*value.keys(), *value.values()) if isinstance(value, Mapping) else tuple(value)
            counted[id(value)] = 1 + sum(count(part, depth + 1) for part in parts)
        if counted[id(value)] > most_values:
            raise Unfolded(f"it unfolds to more than {most_values:,} values")
        return counted[id(value)]

    count(value, 0)


def is_plain(value: object) -> bool:
    """Whether a value is what a card holds: texts, numbers, lists and mappings of them, and not too many."""
    try:
        check_nesting(value, most_depth=MOST_CARD_DEPTH, most_values=MOST_CARD_VALUES)
    except Unfolded:
        return False
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, Mapping):
            left += [*part.keys(), *part.values()]
        elif isinstance(part, list | tuple):
            left += part
        elif isinstance(part, int):
            if part.bit_length() > MOST_BITS:
                return False
        elif isinstance(part, str):
            if not _is_text(part):
                return False
        elif not isinstance(part, float | None):
            return False
    return True


def _is_text(text: str) -> bool:
    """A text may hold halves of letters, which no file and no terminal takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class PickleSizes:
    """What the values of a pickle unfold to, found while it is disassembled and before any of them is made.

    A tuple that is a key of a dict is gone through while the pickle is read. Lists that are filled after they were put
    into others are counted too low here, which `check_nesting` makes good: they are no keys.
    """

    def __init__(self) -> None:
        self._stack: list[list[int] | None] = []  # sizes in boxes, since lists grow; None is a mark
        self._memo: dict[int, list[int]] = {}

    def follow(self, name: str, argument: object) -> None:
        """One instruction.

        Raises:
            Unfolded: a value became too large.
        """
        number = argument if isinstance(argument, int) else 0
        to_mark, num_more, num_left = _EFFECTS[name]
        if name == "MARK":
            self._stack.append(None)
        elif name in _GET:
            self._stack.append(self._memo.get(number, [1]))
        elif name in _PUT or name == "MEMOIZE":
            self._memo[len(self._memo) if name == "MEMOIZE" else number] = self._top()
        elif not to_mark and not num_more:
            self._stack += [[1] for _ in range(num_left)]
        else:
            taken = self._taken(num_more, to_mark=to_mark)
            total = 1 + sum(box[0] for box in taken)
            if total > MOST_VALUES:
                raise Unfolded(f"it unfolds to more than {MOST_VALUES:,} values")
            if name in _SAME and taken:
                taken[0][0] = total
                self._stack.append(taken[0])
            elif name == "DUP":
                self._stack += taken * 2
            elif num_left:
                self._stack.append([total])

    def _taken(self, number: int, *, to_mark: bool) -> list[list[int]]:
        """What an instruction takes off the stack, lowest first; less where there is less."""
        taken: list[list[int]] = []
        while to_mark and self._stack and (box := self._stack.pop()) is not None:
            taken.append(box)
        for _ in range(number):
            if self._stack and (box := self._stack.pop()) is not None:
                taken.append(box)
        return taken[::-1]

    def _top(self) -> list[int]:
        return (self._stack[-1] if self._stack else None) or [1]
