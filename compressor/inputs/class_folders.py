"""Which class a folder's name stands for. Names decide, never the order of the folders (`10` sorts before `2`)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence


def match_class_folders(folders: Collection[str], class_names: Sequence[str]) -> tuple[dict[str, int], bool]:
    """Class index by folder name, for the folders that name a class.

    A folder stands for the class of exactly its name; else for the only class whose name is the same but for case,
    spaces, hyphens and underscores; else, where all classes are whole numbers, for the class of the same number. Where
    nothing matches, folders that are whole numbers are taken as class indices.

    Returns:
        the indices, and whether numbers were taken as indices, which deserves a warning.
    """
    by_name = {name: index for index, name in enumerate(class_names)}
    by_fold: dict[str, list[int]] = {}
    for index, name in enumerate(class_names):
        by_fold.setdefault(_fold(name), []).append(index)
    numbers = {int(name): index for index, name in enumerate(class_names) if _is_number(name)}
    numbered = len(numbers) == len(class_names)

    found: dict[str, int] = {}
    for folder in folders:
        alike = by_fold.get(_fold(folder), [])
        if folder in by_name:
            found[folder] = by_name[folder]
        elif len(alike) == 1:
            found[folder] = alike[0]
        elif numbered and _is_number(folder) and int(folder) in numbers:
            found[folder] = numbers[int(folder)]
    if found or numbered:
        return found, False
    indices = {folder: int(folder) for folder in folders if _is_number(folder) and int(folder) < len(class_names)}
    return indices, bool(indices)


def _fold(name: str) -> str:
    # NFKC, because macOS stores an accented letter as two characters and a card holds it as one.
    return re.sub(r"[\s_-]+", "", unicodedata.normalize("NFKC", name).casefold())


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()
