"""Networks that classify every pixel: torchvision's weights and answers, and the one form that all of them have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import segmentation

from compressor.students.architectures import build_network, feature_shape, split_backbone
from compressor.students.dense import LiteRASPP, UNet, upsample

MOBILE = "deeplabv3_mobilenet_v3_large"
LITE = "lraspp_mobilenet_v3_large"


@pytest.mark.parametrize(("name", "options"), [(MOBILE, {"aux_loss": True}), (LITE, {})])
def test_torchvisions_weights_fit_and_give_its_answers(name: str, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    theirs = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=5, **options).eval()
    ours = build_network(name, 5).eval()
    tensors = {key: value for key, value in theirs.state_dict().items() if not key.startswith("aux_classifier.")}
    assert list(tensors) == list(ours.state_dict())
    ours.load_state_dict(tensors)
    images = torch.rand(2, 3, 33, 50)
    with torch.no_grad():
        assert torch.equal(ours(images), theirs(images)["out"])


@pytest.mark.parametrize("name", ["deeplabv3_resnet50", "deeplabv3_resnet101"])
def test_the_large_ones_have_torchvisions_keys_and_shapes(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=21, aux_loss=False)
        ours = build_network(name, 21)
    forms = [{key: value.shape for key, value in network.state_dict().items()} for network in (theirs, ours)]
    assert forms[0] == forms[1]


@pytest.mark.parametrize("name", [MOBILE, "unet8"])
def test_logits_are_the_upsampled_classifier_on_the_map(name: str) -> None:
    torch.manual_seed(0)
    network = build_network(name, 5).eval()
    classifier = network.get_submodule("classifier.4" if name == MOBILE else "classifier")
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        rebuilt = upsample(classifier(split_backbone(network, name)(images)), (32, 48))
        torch.testing.assert_close(rebuilt, network(images))


def test_the_two_classifiers_of_lite_raspp_are_one_on_the_maps_side_by_side() -> None:
    torch.manual_seed(0)
    network = build_network(LITE, 5).eval()
    assert isinstance(network, LiteRASPP)
    low, high = network.classifier.low_classifier, network.classifier.high_classifier
    joined = nn.Conv2d(168, 5, 1)
    joined.load_state_dict(
        {"weight": torch.cat([low.weight, high.weight], dim=1), "bias": low.bias + high.bias}  # type: ignore[list-item, operator]
    )
    images = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        maps = split_backbone(network, LITE)(images)
        assert maps.shape == (2, 168, 4, 6)
        torch.testing.assert_close(upsample(joined(maps), (32, 48)), network(images))


def test_the_unet_has_four_levels() -> None:
    network = build_network("unet", 5)
    assert isinstance(network, UNet)
    channels = [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert channels == [32, 32, 64, 64, 128, 128, 256, 256, 128, 128, 64, 64, 32, 32, 5]
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_948_421


@pytest.mark.parametrize("sides", [(4, 4), (5, 7), (17, 4), (45, 60), (64, 96)])
def test_the_unet_takes_any_side(sides: tuple[int, int]) -> None:
    network = build_network("unet8", 3, in_channels=1).eval()
    assert network(torch.rand(1, 1, *sides)).shape == (1, 3, *sides)
    assert feature_shape(split_backbone(network, "unet8"), (1, *sides)) == (8, *sides)


def test_a_unet_by_name_is_one_by_width() -> None:
    half, named = build_network("unet", 3, width=0.5), build_network("unet16", 3)
    assert [value.shape for value in half.state_dict().values()] == [v.shape for v in named.state_dict().values()]
