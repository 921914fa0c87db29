"""Networks of the timm package, by `timm:NAME`; the package is an extra, and its weights are never downloaded.

Of every network timm says which layer classifies. What that layer reads is taken as the feature map, of one position:
that holds for each of its heads. As a body a network gives what its `forward_features` makes, if that is a map.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from functools import lru_cache
from typing import Any

from torch import Tensor, nn

from compressor.students.architecture import Architecture

PREFIX = "timm:"


class _Features(nn.Module):
    """Normalised images (B, C, H, W) to the network's last map (B, D, h, w); its classifier is left out."""

    def __init__(self, network: nn.Module, classifier_layer: str) -> None:
        super().__init__()
        self.network: Any = without_layer(network, classifier_layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.network.forward_features(x)  # type: ignore[no-any-return]


def without_layer(network: nn.Module, layer: str) -> nn.Module:
    """The same network, weights shared, with nothing in the place of one layer."""
    name, _, rest = layer.partition(".")
    other = copy.copy(network)
    other._modules = dict(network._modules)
    other._modules[name] = without_layer(network.get_submodule(name), rest) if rest else nn.Identity()
    return other


@lru_cache(maxsize=16)
def timm_architecture(name: str) -> Architecture | None:
    """The network `timm:NAME`; None where timm is not installed, or has no such network with one linear classifier."""
    try:
        import timm
    except ImportError:
        return None
    model = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or not timm.is_model(model) or ":" in model:
        return None
    settings = timm.get_pretrained_cfg(model)
    classifier = getattr(settings, "classifier", None)
    if not isinstance(classifier, str):  # some have two
        return None

    def build(num_classes: int, in_channels: int, _width: float) -> nn.Module:
        network: nn.Module = timm.create_model(
            model, pretrained=False, num_classes=num_classes, in_chans=in_channels, scriptable=False
        )
        return network

    def split(network: nn.Module) -> nn.Sequential:
        return nn.Sequential(OrderedDict(features=_Features(network, classifier)))

    return Architecture(
        build,
        classifier,
        classifier,
        (),
        family="timm",
        split=split,
        scales=False,
        only_size=settings.input_size[-1] if settings.fixed_input_size else None,
        is_candidate=False,
    )
