"""A pruned copy of the teacher, by dependency graph (torch-pruning, Fang et al. 2023): channels leave, weights stay."""

from __future__ import annotations

import copy
import logging

import torch
from torch import Tensor, nn

from compressor.errors import InputRefused
from compressor.inputs.own_code import is_own_name
from compressor.inputs.teacher import Teacher, layer_names
from compressor.students.architectures import ARCHITECTURES, build_network, match_shapes, split_backbone
from compressor.students.importance import (
    BATCH,
    DENSE_BATCH_PIXELS,
    DENSE_IMAGES,
    NUM_IMAGES,
    LogitImportance,
    logit_changes,
    reestimate_batch_norms,
)
from compressor.students.student import Backbone
from exporters.causes import one_line

TRACED_SIDE = 64  # pixels, of a segmentation's image


class NothingPruned(InputRefused):
    """The ratio is so small that rounding keeps every channel."""


def pruned_backbone(teacher: Teacher, ratio: float, *, channel_multiple: int, images: Tensor | None = None) -> Backbone:
    """The teacher's body with `ratio` of the channels removed from every group of coupled layers.

    Which channels stay is decided by their part in the teacher's logits on `images` (`importance`), and the batch
    norms get the statistics that these images have in what is left. Without images it is decided by the L2 norm of the
    weights in a group (`GroupMagnitudeImportance`). How many stay depends on neither: it is rounded down to
    `channel_multiple`, below which the target's kernels gain nothing, and is never less than one such multiple; a group
    that is not wider than that stays whole. The classifier keeps its outputs.

    Args:
        images: real ones, (N, C, H, W) in [0, 1]; at most 128 of them are used, or 16 for a segmentation, where each
            has many answers, spread evenly. One is as good as none.

    Raises:
        InputRefused: torch-pruning cannot trace or prune this network.
        NothingPruned: nothing was left to remove.
    """
    import torch_pruning as tp

    card = teacher.card
    network = copy.deepcopy(teacher.network)
    _, classifier_layer = layer_names(card)
    logging.getLogger("torch_pruning").setLevel(logging.ERROR)
    importance = tp.importance.GroupMagnitudeImportance(p=2)
    few = None if images is None or len(images) < 2 else _few(teacher, images)
    if few is not None:
        importance = LogitImportance(logit_changes(network, few, _batch(teacher)), otherwise=importance)
    otherwise = f"Use --student {'width:0.5' if ARCHITECTURES[card.architecture].scales else 'auto'}"
    example = torch.zeros(1, card.input_shape[0], *_traced_sides(teacher))
    try:
        pruner = tp.pruner.MagnitudePruner(
            network.cpu().requires_grad_(True),
            example,
            importance=importance,
            pruning_ratio=ratio,
            pruning_ratio_dict=_narrow_layers(network, ratio, channel_multiple),
            round_to=channel_multiple,
            ignored_layers=[network.get_submodule(classifier_layer)],
        )
        pruner.step()
        with torch.no_grad():
            network.eval()(example)
        body = split_backbone(network, card.architecture)
        if is_own_name(card.architecture):
            _check_rebuilt(body, teacher, example)
    except Exception as error:  # torch-pruning raises whatever its tracing met
        raise InputRefused(
            f"Pruning {card.architecture} by {ratio} failed: {type(error).__name__}: {one_line(error)}.",
            "Pruning needs a network whose channel groups torch-pruning can trace.",
            f"{otherwise}, or name a smaller architecture.",
        ) from error
    if _num_channels(network) == _num_channels(teacher.network):
        raise NothingPruned(
            f"Pruning {card.architecture} by {ratio} removes no channel.",
            f"Channels leave down to a multiple of {channel_multiple}, the target's own, and no layer keeps fewer.",
            f"{otherwise}, or a larger ratio.",
        )
    if few is not None:
        reestimate_batch_norms(network, few.cpu())
    return Backbone(body, architecture=card.architecture, width=card.width, pruned=True)


def _check_rebuilt(body: nn.Sequential, teacher: Teacher, example: Tensor) -> None:
    """Of code that is not ours: whether the pruned body can be made again from its shapes, as every later stage does.

    Raises:
        Exception: it cannot, in whatever way.
    """
    card, weights = teacher.card, body.state_dict()
    network = build_network(card.architecture, card.num_classes, card.input_shape[0])
    rebuilt = match_shapes(split_backbone(network, card.architecture), weights)
    rebuilt.load_state_dict(weights, strict=True)
    with torch.no_grad():
        if not torch.allclose(rebuilt.eval()(example), body.eval()(example), rtol=1e-4, atol=1e-5):
            raise ValueError("the network made again from the shapes of its tensors answers differently")


def rows_to_look_at(teacher: Teacher, num_images: int) -> Tensor:
    """Which of so many images are enough to prune by: at most 128, or 16 for a segmentation, at even distances."""
    most = DENSE_IMAGES if teacher.task == "segmentation" else NUM_IMAGES
    return torch.linspace(0, num_images - 1, min(most, num_images)).round().long()


def _few(teacher: Teacher, images: Tensor) -> Tensor:
    """At most NUM_IMAGES, spread evenly, as the network takes them and where it is."""
    rows = rows_to_look_at(teacher, len(images))
    return teacher.normalise(images[rows.to(images.device)].to(teacher.classifier.weight.device))  # type: ignore[no-any-return]


def _batch(teacher: Teacher) -> int:
    """Images whose activations are held at the same time."""
    if teacher.task != "segmentation":
        return BATCH
    _, height, width = teacher.card.input_shape
    return min(BATCH, max(1, DENSE_BATCH_PIXELS // (height * width)))


def _traced_sides(teacher: Teacher) -> tuple[int, int]:
    """Height and width of the image on which torch-pruning finds the groups.

    They are the same at any size, and a small one saves most of the time of a search where images are large.
    """
    _, height, width = teacher.card.input_shape
    return (min(height, TRACED_SIDE), min(width, TRACED_SIDE)) if teacher.task == "segmentation" else (height, width)


def _narrow_layers(network: nn.Module, ratio: float, channel_multiple: int) -> dict[nn.Module, float]:
    """Ratios of their own for the convolutions that `ratio` would take below one multiple.

    WAR(torch-pruning 1.6): it rounds those to no channels at all, and then leaves the whole layer as it was.
    """
    narrow: dict[nn.Module, float] = {}
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and int(layer.out_channels * (1.0 - ratio)) < channel_multiple:
            # It keeps int(channels * (1 - ratio)) channels; the half keeps that from falling to the next number below.
            narrow[layer] = max(0.0, 1.0 - (channel_multiple + 0.5) / layer.out_channels)
    return narrow


def _num_channels(network: nn.Module) -> int:
    return sum(layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d))
