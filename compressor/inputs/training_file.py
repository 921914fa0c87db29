"""Which tensors of a training checkpoint are the network's weights.

Training loops save a dict of anything: the weights under a key, an average of them beside, optimiser states, metrics,
options. The rule:

1. Mappings whose entries are tensors by name are candidates, at most three levels down; optimiser states are not.
2. A moving average (EMA) is taken before the weights that it averages, since it is what such a training evaluates and
   ships. It counts as one if a part of its key says so and its names are those of the weights.
3. Of the rest, the one with most values is taken.

`--weights KEY` takes another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

DEEPEST = 3
SHOWN = 5
AVERAGE = re.compile(r"(^|[._])(ema|swa|averaged?)([._]|$)", re.IGNORECASE)
NOT_WEIGHTS = re.compile(r"optim|sched|scaler|^state$|momentum|exp_avg", re.IGNORECASE)
COUNTERS = ("n_averaged", "num_updates", "decay", "initted", "step")
"""What wrappers of an average keep beside the tensors of the network."""


class NoWeights(ValueError):
    """There are none; the message is a clause without a period."""


@dataclass(frozen=True)
class Weights:
    """A network's tensors by name, where they were, and what they were chosen between.

    Attributes:
        key: such as `state_dict`, or `ema.model`; '' for the outermost dict.
    """

    tensors: dict[str, Tensor]
    key: str
    notes: tuple[str, ...]


def holds_tensors(value: object) -> bool:
    """Whether it is a mapping of nothing but tensors by name."""
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def find_weights(payload: Mapping[Any, Any], key: str | None = None) -> Weights:
    """The weights in what a training loop saved.

    Args:
        key: take these, instead of those that the rule above finds.

    Raises:
        NoWeights: there are none, or none under this key.
    """
    candidates = dict(_candidates(payload))
    if key is not None:
        return Weights(_under(candidates, key), key, ())
    if not candidates:
        raise NoWeights(f"it holds a dict without tensors by name (keys: {_some(payload)})")
    plain = {name: tensors for name, tensors in candidates.items() if not AVERAGE.search(name)} or candidates
    chosen = max(plain, key=lambda name: _size(plain[name]))
    averages = [
        name
        for name, tensors in candidates.items()
        if AVERAGE.search(name) and name not in plain and _last_names(tensors) >= _last_names(plain[chosen])
    ]
    notes = []
    if averages:
        average = max(averages, key=lambda name: _size(candidates[name]))
        notes.append(
            f"The file holds weights under '{chosen}' and their moving average under '{average}': the average was "
            f"taken, and --weights {chosen} takes the other."
        )
        chosen = average
    elif others := [
        name for name in plain if name != chosen and _last_names(plain[name]) == _last_names(plain[chosen])
    ]:
        notes.append(
            f"The file holds weights of the same names under '{chosen}' and {_some(others)}: those under '{chosen}' "
            "were taken, and --weights KEY takes others."
        )
    return Weights(candidates[chosen], chosen, tuple(notes))


def _under(candidates: Mapping[str, dict[str, Tensor]], key: str) -> dict[str, Tensor]:
    """The tensors under a key, or under a prefix of names within one: `state_dict.teacher`, or `teacher` alone."""
    if key in candidates:
        return candidates[key]
    for path, tensors in candidates.items():
        prefix = f"{key.removeprefix(f'{path}.')}."
        if inner := {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}:
            return inner
    found = f"tensors by name are under {_some(candidates)}" if any(candidates) else "it has tensors at its top alone"
    raise NoWeights(f"it has no weights under '{key}' ({found if candidates else 'it holds no tensors by name'})")


def _candidates(payload: Mapping[Any, Any], path: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Mappings that are mostly tensors by name, each with its path; inner ones first."""
    if depth < DEEPEST:
        for name, value in payload.items():
            if isinstance(name, str) and isinstance(value, Mapping) and not NOT_WEIGHTS.search(name):
                yield from _candidates(value, f"{path}.{name}" if path else name, depth + 1)
    tensors = {
        name: value
        for name, value in payload.items()
        if isinstance(name, str) and isinstance(value, Tensor) and name not in COUNTERS
    }
    # Beside the tensors of a network there may be a few numbers or options; among numbers a few tensors are none.
    if tensors and 2 * len(tensors) > len(payload) and any(value.ndim >= 2 for value in tensors.values()):
        yield path, tensors


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())


def _last_names(tensors: Mapping[str, Tensor]) -> set[str]:
    """The last two parts of every name, which no wrapper changes."""
    return {".".join(name.split(".")[-2:]) for name in tensors}


def _some(names: Mapping[Any, Any] | list[str]) -> str:
    shown = ", ".join(str(name)[:40] for name in list(names)[:SHOWN])
    return f"{shown}, ..." if len(names) > SHOWN else shown or "none"
