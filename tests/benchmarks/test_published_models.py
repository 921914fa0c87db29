from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from torch import nn

from benchmarks.published_models import MODELS, kernels_of, write
from profiles.kernels import kernels_from_json, kernels_to_json, total_macs
from profiles.measurements import KERNELS, published_rows

SHIPPED = json.loads(KERNELS.read_text())["networks"]


@pytest.mark.parametrize("key", ["resnet18@224x224", "shufflenet_v2_x0_5@224x224"])
def test_the_shipped_kernels_are_those_of_the_code(key: str) -> None:
    """Both come from torchvision, which is always there; `python -m benchmarks.published_models` rewrites all."""
    name, _, size = key.partition("@")
    height, width = (int(pixels) for pixels in size.split("x"))
    assert kernels_to_json(kernels_of(name, height, width)) == SHIPPED[key]["kernels"]
    assert SHIPPED[key]["family"] == MODELS[name].family


def test_the_shipped_detector_is_that_of_the_code() -> None:
    assert kernels_to_json(kernels_of("yolo11n", 640, 640)) == SHIPPED["yolo11n@640x640"]["kernels"]


def test_timm_models_are_those_of_the_code() -> None:
    pytest.importorskip("timm")
    assert kernels_to_json(kernels_of("mobilenet_v1", 224, 224)) == SHIPPED["mobilenet_v1@224x224"]["kernels"]


def test_exactly_the_networks_of_rows_in_use_are_shipped() -> None:
    wanted = {f"{row.model}@{row.height}x{row.width}" for row in published_rows() if row.used and row.model in MODELS}
    assert set(SHIPPED) == wanted


def test_published_sizes() -> None:
    """Multiply-accumulates that the papers and model cards state, in 10^9."""
    for key, published in {
        "resnet50@224x224": 4.09,
        "vgg16@224x224": 15.5,
        "densenet121@224x224": 2.83,
        "mobilenet_v2@224x224": 0.30,
        "mobilenet_v1@224x224": 0.569,
        "efficientnet_b0@224x224": 0.386,
        "regnety_400m@224x224": 0.40,
        "vit_b_16@384x384": 55.5,
        "inception_v3@299x299": 5.71,
    }.items():
        assert total_macs(kernels_from_json(SHIPPED[key]["kernels"])) / 1e9 == pytest.approx(published, rel=0.01), key


def test_every_operator_of_the_published_networks_is_known() -> None:
    assert not [key for key, network in SHIPPED.items() for row in network["kernels"] if row[1] == "other"]


def test_the_file_is_written_one_network_a_line(tmp_path: Path) -> None:
    content = json.loads(KERNELS.read_text())
    write(tmp_path / "copy.json", content)
    assert (tmp_path / "copy.json").read_bytes() == KERNELS.read_bytes()
    assert len(KERNELS.read_text().splitlines()) == len(SHIPPED) + 2


def test_building_leaves_initialisation_as_it_was() -> None:
    before = Counter(id(kind.reset_parameters) for kind in (nn.Conv2d, nn.Linear))
    kernels_of("squeezenet1_1", 64, 64)
    assert Counter(id(kind.reset_parameters) for kind in (nn.Conv2d, nn.Linear)) == before
    assert nn.Linear(4, 4).weight.abs().sum() > 0
