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

# What is recognised by names and shapes. Of twins that compute the same (deit_small is vit_small) one is here; of those
# that do not (`tf_` pads otherwise, `aa` and `blur` filter before they stride) all are, so that weights that fit
# several are noticed.
_COMMON = """
resnet10t resnet14t resnet18d resnet26 resnet26d resnet26t resnet34d resnetaa34d resnet50d resnetaa50d
resnetblur50d resnet101d resnetaa101d resnetblur101d seresnet50 seresnext50_32x4d
convnext_atto convnext_femto convnext_pico convnext_nano convnext_tiny convnext_small convnext_base
convnextv2_atto convnextv2_femto convnextv2_pico convnextv2_nano convnextv2_tiny
efficientnet_b0 efficientnet_blur_b0 tf_efficientnet_b0 efficientnet_b1 tf_efficientnet_b1 efficientnet_b2
tf_efficientnet_b2 efficientnet_b3 tf_efficientnet_b3 efficientnet_b4 tf_efficientnet_b4 efficientnet_lite0
tf_efficientnet_lite0 efficientnet_lite1 tf_efficientnet_lite1 efficientnet_lite2 tf_efficientnet_lite2
efficientnetv2_s tf_efficientnetv2_s efficientnetv2_rw_t efficientnetv2_rw_s
mobilenetv2_035 mobilenetv2_050 mobilenetv2_075 mobilenetv2_100 mobilenetv2_110d mobilenetv2_120d
mobilenetv2_140 mobilenetv3_small_050 mobilenetv3_small_075 tf_mobilenetv3_small_075 mobilenetv3_small_100
tf_mobilenetv3_small_100 mobilenetv3_large_075 tf_mobilenetv3_large_075 mobilenetv3_large_100
tf_mobilenetv3_large_100 mobilenetv4_conv_small mobilenetv4_conv_medium mobilenetv4_conv_aa_medium
mobilenetv4_conv_blur_medium mobilenetv4_conv_large mobilenetv4_conv_aa_large
mnasnet_small mnasnet_050 mnasnet_100 fbnetc_100 spnasnet_100 mixnet_s tf_mixnet_s mixnet_m tf_mixnet_m
ghostnet_100
edgenext_xx_small edgenext_x_small edgenext_small mobilevit_xxs mobilevit_xs mobilevit_s mobilevitv2_050
mobilevitv2_100 fastvit_t8 fastvit_t12 tiny_vit_5m_224 tiny_vit_11m_224 tiny_vit_21m_224
regnetx_002 regnetx_004 regnetx_008 regnety_002 regnety_004 regnety_008 regnety_016 regnety_032
vit_tiny_patch16_224 vit_small_patch16_224 vit_small_patch32_224 vit_base_patch16_224 vit_base_patch32_224
swin_tiny_patch4_window7_224 swin_small_patch4_window7_224 swin_base_patch4_window7_224
"""
RECOGNISED = tuple(f"{PREFIX}{name}" for name in _COMMON.split())


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
        only_size=settings.input_size[-1] if settings is not None and settings.fixed_input_size else None,
        is_candidate=False,
    )
