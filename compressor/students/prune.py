"""A pruned copy of the teacher, by dependency graph (torch-pruning, Fang et al. 2023): whole channels leave, weights stay."""

from __future__ import annotations

import copy
import logging

import torch

from compressor.errors import InputRefused
from compressor.inputs.teacher import Teacher, layer_names
from compressor.students.architectures import split_backbone
from compressor.students.student import Backbone


def pruned_backbone(teacher: Teacher, ratio: float, *, channel_multiple: int) -> Backbone:
    """The teacher's body with `ratio` of the channels removed from every group of coupled layers.

    Channels are ranked by the L2 norm of their weights within a group (`GroupMagnitudeImportance`) and rounded to
    `channel_multiple`, below which the target's kernels gain nothing. The classifier keeps its outputs.

    Raises:
        InputRefused: torch-pruning cannot trace or prune this network.
    """
    import torch_pruning as tp

    card = teacher.card
    network = copy.deepcopy(teacher.network).cpu().requires_grad_(True)
    _, classifier_layer = layer_names(card)
    logging.getLogger("torch_pruning").setLevel(logging.ERROR)
    try:
        pruner = tp.pruner.MagnitudePruner(
            network,
            torch.zeros(1, *card.input_shape),
            importance=tp.importance.GroupMagnitudeImportance(p=2),
            pruning_ratio=ratio,
            round_to=channel_multiple,
            ignored_layers=[network.get_submodule(classifier_layer)],
        )
        pruner.step()
        with torch.no_grad():
            network.eval()(torch.zeros(1, *card.input_shape))
    except Exception as error:  # torch-pruning raises whatever its tracing met
        raise InputRefused(
            f"Pruning {card.architecture} by {ratio} failed: {type(error).__name__}: {error}.",
            "Pruning needs a network whose channel groups torch-pruning can trace.",
            "Use --student width:0.5, or name a smaller architecture.",
        ) from error
    body = split_backbone(network, card.architecture)
    return Backbone(body, architecture=card.architecture, width=card.width, pruned=True)
