"""The names and shapes of every known architecture, as digests, so that weights are recognised without building each.

What a user may choose, the classes and the image channels, is in a few dimensions of a few tensors. With these left
open, an architecture is one digest; `known_forms.json` holds them, and `written_forms` makes that file anew. A digest
only proposes: whoever finds a name here compares key by key with the network itself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("known_forms.json")

Shapes = Mapping[str, tuple[tuple[int, ...], bool]]
"""Shape of every tensor by its name, and whether it holds fractions; without the counters of batch norms."""


@dataclass(frozen=True)
class KnownForm:
    """One architecture.

    Attributes:
        free: by tensor name the dimension that classes or image channels decide.
        num_tensors: without the counters of batch norms.
        parts: first components of its names.
    """

    free: tuple[tuple[str, int], ...]
    num_tensors: int
    parts: frozenset[str]
    digest: str


def form_of(small: Shapes, large: Shapes) -> KnownForm:
    """The form of a network, from its shapes with two different numbers of classes and of image channels."""
    free = tuple(
        (name, dimension)
        for name, (shape, _) in small.items()
        for dimension, length in enumerate(shape)
        if length != large[name][0][dimension]
    )
    return KnownForm(free, len(small), frozenset(_parts(small)), digest(small, free))


def digest(shapes: Shapes, free: Iterable[tuple[str, int]]) -> str:
    """A short digest of names and shapes, with the free dimensions left open; '' where one of them does not exist."""
    opened = {name: list(shape) for name, (shape, _) in shapes.items()}
    for name, dimension in free:
        if name not in opened or dimension >= len(opened[name]):
            return ""
        opened[name][dimension] = 0
    lines = sorted(f"{name} {opened[name]} {floating:d}" for name, (_, floating) in shapes.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def proposals(shapes: Shapes) -> set[str]:
    """Architectures of exactly these names and shapes."""
    found = {free: digest(shapes, free) for free in {form.free for form in known_forms().values()}}
    return {name for name, form in known_forms().items() if found[form.free] == form.digest}


def nearest_names(shapes: Shapes) -> tuple[str, ...]:
    """Architectures that share first components with these tensors; those that look most like them come first."""
    parts = _parts(shapes)

    def likeness(name: str) -> tuple[float, float]:
        form = known_forms()[name]
        shared = len(form.parts & parts) / max(1, len(form.parts | parts))
        return shared, -abs(form.num_tensors - len(shapes))

    ranked = sorted(known_forms(), key=likeness, reverse=True)
    return tuple(name for name in ranked if known_forms()[name].parts & parts)


@lru_cache(maxsize=1)
def known_forms() -> Mapping[str, KnownForm]:
    """By architecture name."""
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    free = [tuple((name, dimension) for name, dimension in pattern) for pattern in table["free"]]
    return {
        name: KnownForm(free[pattern], num_tensors, frozenset(parts.split()), code)
        for name, (pattern, num_tensors, parts, code) in table["forms"].items()
    }


def written_forms(forms: Mapping[str, KnownForm]) -> str:
    """The text of the table."""
    free = sorted({form.free for form in forms.values()})
    rows: dict[str, Any] = {
        name: [free.index(form.free), form.num_tensors, " ".join(sorted(form.parts)), form.digest]
        for name, form in forms.items()
    }
    patterns = ",\n".join(f"  {json.dumps(pattern)}" for pattern in free)
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in rows.items())
    return f'{{"free": [\n{patterns}\n], "forms": {{\n{lines}\n}}}}\n'


def _parts(shapes: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in shapes}
