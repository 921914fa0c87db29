"""Which channels a network can do without, judged by a few images and the network itself.

Removing a channel takes its activations a from every layer that reads them. To first order logit k of image n changes
by

    delta_nk = sum over those layers and all positions of (a - mean of a) * d logit_nk / d a

and the channel's importance is the sum of delta_nk^2 over k, averaged over the images. Labels are not needed. The mean
of a channel is no loss: batch norm statistics that are estimated anew (`reestimate_batch_norms`) put it back.

For a network that classifies every pixel, k runs over the classes of all pixels, and what it costs is bounded by
fewer images (`DENSE_IMAGES`), each of which has many answers.

One backward pass for each of K logits would be too many. For random signs s_k the expectation of
(sum_k s_k delta_nk)^2 is the sum of delta_nk^2 (Hutchinson 1990), so a few passes with random signs stand for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

NUM_IMAGES = 128  # on which importance is judged, at most
DENSE_IMAGES = 16
NUM_PROBES = 8
BATCH = 16
DENSE_BATCH_PIXELS = 16 * 128**2  # of all images of a batch

Changes: TypeAlias = Mapping[nn.Module, Tensor]
"""By a layer that reads channels: the change of the logits (P, N, C) without each, for P probes and N images."""


class LogitImportance:
    """Importance (C,) of the channels of a group of coupled layers, as torch-pruning asks for it.

    Args:
        changes: what `logit_changes` found for the layers of the network that is pruned.
        otherwise: importance of a group that none of these layers reads.
    """

    def __init__(self, changes: Changes, otherwise: Callable[[Any], Tensor | None]) -> None:
        self._changes, self._otherwise = changes, otherwise

    def __call__(self, group: Any) -> Tensor | None:
        import torch_pruning as tp

        readers = (tp.prune_conv_in_channels, tp.prune_linear_in_channels)
        total: Tensor | None = None
        for (dependency, channels), root in zip(group, (item.root_idxs for item in group), strict=True):
            changes = self._changes.get(dependency.layer)
            if dependency.pruning_fn not in readers or changes is None or changes.shape[2] != _width(dependency.layer):
                continue
            if total is None:
                total = changes.new_zeros(*changes.shape[:2], len(group[0].idxs))
            # Readers lose the channel together, so their changes add up before they are squared.
            total.index_add_(2, torch.tensor(root), changes[:, :, channels])
        if total is None:
            return self._otherwise(group)
        return total.square().mean(dim=(0, 1))


def logit_changes(network: nn.Module, images: Tensor, batch: int = BATCH) -> Changes:
    """What taking a channel from a layer does to the logits, for every convolution and linear layer.

    Convolutions in groups are left out: their channels are read by whoever comes next. The network stays as it is.

    Args:
        network: in evaluation mode, normalised images (N, C, H, W) to logits (N, K) or (N, K, H, W).
        images: normalised, on the network's device.
        batch: images that are looked at together.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear) or _is_dense(layer)]
    read: list[tuple[nn.Module, Tensor]] = []

    def watch(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        # A copy of its own: what other layers do with the same activations is not this layer's gradient.
        copy = inputs[0].clone() if inputs[0].requires_grad else inputs[0].clone().requires_grad_()
        read.append((layer, copy))
        return (copy, *inputs[1:])

    generator = torch.Generator().manual_seed(0)
    found: dict[nn.Module, list[_Batch]] = {}
    handles = [layer.register_forward_pre_hook(watch) for layer in layers]
    try:
        for part in images.split(batch):
            read.clear()
            with torch.enable_grad():
                logits = network(part)
            activations = [activation for _, activation in read]
            by_probe = [_probe(logits, activations, generator) for _ in range(NUM_PROBES)]
            for (layer, activation), probes in zip(read, zip(*by_probe, strict=True), strict=True):
                mean = activation.detach().transpose(0, 1).flatten(1).mean(1)
                weighted, plain = (torch.stack(parts) for parts in zip(*probes, strict=True))
                found.setdefault(layer, []).append(_Batch(weighted.cpu(), plain.cpu(), mean.cpu() * len(part)))
    finally:
        for handle in handles:
            handle.remove()
    return {layer: _changes(batches, len(images)) for layer, batches in found.items()}


@torch.no_grad()
def reestimate_batch_norms(network: nn.Module, images: Tensor) -> None:
    """Set the running statistics of every batch norm to those of these images (N, C, H, W), normalised; N > 1."""
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean
        norm.train()
    network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


class _Batch(NamedTuple):
    """Of one layer and some images: sums over positions of a * d logit / d a and of d logit / d a, and of its means."""

    weighted: Tensor  # (P, n, C)
    plain: Tensor  # (P, n, C)
    mean: Tensor  # (C,), times n


def _probe(logits: Tensor, activations: list[Tensor], generator: torch.Generator) -> list[tuple[Tensor, Tensor]]:
    """For each activation (n, C, ...) the two sums of a batch, (n, C), of one random combination of the logits."""
    signs = torch.randint(0, 2, logits.shape, generator=generator).to(logits) * 2 - 1
    signs -= signs.mean(dim=1, keepdim=True)  # a shift of all logits changes nothing
    gradients = torch.autograd.grad(logits, activations, signs, retain_graph=True)
    return [
        ((activation.detach() * gradient).flatten(2).sum(2), gradient.flatten(2).sum(2))
        if gradient.ndim > 2
        else (activation.detach() * gradient, gradient)
        for activation, gradient in zip(activations, gradients, strict=True)
    ]


def _changes(batches: list[_Batch], num_images: int) -> Tensor:
    mean = torch.stack([batch.mean for batch in batches]).sum(0) / num_images
    weighted, plain = (torch.cat(parts, 1) for parts in ([b.weighted for b in batches], [b.plain for b in batches]))
    return weighted - mean * plain


def _is_dense(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == 1


def _width(layer: nn.Module) -> int:
    """Channels that a layer reads now; where groups meet in one layer, an earlier one may have taken some."""
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features  # type: ignore[return-value]
