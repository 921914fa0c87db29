"""A student that starts from its teacher's blocks, where it has blocks of the same shapes.

A shallower network of the same family and widths repeats, stage by stage, blocks of one shape. Each of its blocks takes
the weights of one of the teacher's in the same stage: the first those of the first, the last those of the last, the
ones between at even distances (DistilBERT takes every second layer of its teacher, Sanh et al. 2019, arXiv 1910.01108).
What has no counterpart of the same shapes keeps its random weights, as all of a narrower network does.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

MOST_DIFFERENT = 0.5  # share of the parameters that may find no counterpart, before nothing is taken


@torch.no_grad()
def inherit_weights(body: nn.Module, teacher_body: nn.Module) -> float:
    """Copy the teacher's weights and buffers into `body`, in place; returns the share of its parameters that have them.

    Less than half of a body is not worth having: the statistics of a copied batch norm belong to what comes before it.
    """
    pairs = list(_counterparts(body, teacher_body))
    num_params = sum(parameter.numel() for parameter in body.parameters())
    share = sum(parameter.numel() for own, _ in pairs for parameter in own.parameters()) / max(1, num_params)
    if share < MOST_DIFFERENT:
        return 0.0
    for own, other in pairs:
        own.load_state_dict(other.state_dict())
    return share


def _counterparts(own: nn.Module, other: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Parts of one kind and of equal shapes in the same place of two bodies, as large as they are equal."""
    others = dict(other.named_children())
    names = list(others)
    repeats = _is_chain(own) and _is_chain(other)
    for index, (name, part) in enumerate(own.named_children()):
        if repeats:  # a stage of more or fewer blocks
            last = max(1, len(list(own.children())) - 1)
            name = names[round(index * (len(names) - 1) / last)]
        counterpart = others.get(name)
        if type(part) is not type(counterpart):
            continue
        if _shapes(part) == _shapes(counterpart):
            yield part, counterpart
        else:
            yield from _counterparts(part, counterpart)


def _is_chain(module: nn.Module) -> bool:
    """Whether it is a plain sequence, whose parts have numbers for names."""
    return isinstance(module, nn.Sequential) and all(name.isdigit() for name, _ in module.named_children())


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}
