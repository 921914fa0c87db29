"""Builds the networks of `profiles/measurements.csv` and writes their kernels to `profiles/published_kernels.json`.

    python -m benchmarks.published_models            # all networks, some minutes
    python -m benchmarks.published_models resnet18   # prints one network's kernels

The shipped predictor is calibrated on published latencies. It needs the shapes behind them, and neither torchvision nor
timm is needed (or installed) where it runs: so every network is built here once, untrained, exported to ONNX and
reduced to its kernels at batch size 1.

Networks come from torchvision and timm, detectors from our own shape skeletons (`benchmarks.yolo_skeletons`). A network
that none of them has exactly is not approximated: its rows are counted as unbuildable.
"""

from __future__ import annotations

import io
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import nn

from benchmarks.yolo_skeletons import yolo
from profiles.kernels import Kernel, fused_kernels, kernels_to_json
from profiles.measurements import KERNELS, published_rows

OPSET = 17


@dataclass(frozen=True)
class Published:
    """A network by its name in measurements.csv.

    Attributes:
        family: networks of one design, which are left out together when a prediction is tested.
        build: for an image size (height, width).
        origin: where its layers come from; networks of one origin are one network, whatever they were trained for.
    """

    family: str
    build: Callable[[tuple[int, int]], nn.Module]
    origin: str


def _torchvision(family: str, name: str, **options: Any) -> Published:
    def build(_size: tuple[int, int]) -> nn.Module:
        from torchvision import models

        return getattr(models, name)(weights=None, **options)

    return Published(family, build, f"torchvision {name}")


def _timm(family: str, name: str, *, sized: bool = False) -> Published:
    def build(size: tuple[int, int]) -> nn.Module:
        import timm

        # Attention is written as products and softmax: what any opset of the exporter can say.
        timm.layers.set_fused_attn(False)
        return timm.create_model(name, **({"img_size": size} if sized else {}))

    return Published(family, build, f"timm {name}")


def _yolo(version: Any, scale: str, task: Any = "detect") -> Published:
    number = {"v8": "yolov8", "11": "yolo11", "26": "yolo26"}[version]
    origin = f"shape skeleton of {number}{scale}, {task}"
    return Published(number, lambda _size: yolo(version, scale, task), origin)


def _fcn_resnet18(classes: int) -> Published:
    """FCN-ResNet18 of jetson-inference: ResNet-18 at stride 32 and a small head, whose map is upsampled outside.

    unverified: that the head is torchvision's, one 3x3 convolution and one 1x1; it is under 2 % of the arithmetic.
    """

    def build(_size: tuple[int, int]) -> nn.Module:
        from torchvision import models
        from torchvision.models.segmentation.fcn import FCNHead

        body = list(models.resnet18(weights=None).children())[:-2]
        return nn.Sequential(*body, FCNHead(512, classes))

    return Published("resnet", build, "torchvision resnet18 and FCNHead")


MODELS: dict[str, Published] = {
    "alexnet": _torchvision("alexnet", "alexnet"),
    **{f"vgg{n}": _torchvision("vgg", f"vgg{n}") for n in (11, 13, 16, 19)},
    **{f"vgg{n}_bn": _torchvision("vgg", f"vgg{n}_bn") for n in (13, 16, 19)},
    **{f"resnet{n}": _torchvision("resnet", f"resnet{n}") for n in (18, 34, 50, 101, 152)},
    "resnext50_32x4d": _torchvision("resnet", "resnext50_32x4d"),
    "se_resnet50": _timm("resnet", "seresnet50"),
    **{f"densenet{n}": _torchvision("densenet", f"densenet{n}") for n in (121, 161, 169, 201)},
    **{f"squeezenet1_{n}": _torchvision("squeezenet", f"squeezenet1_{n}") for n in (0, 1)},
    "mobilenet_v1": _timm("mobilenet", "mobilenetv1_100"),
    "mobilenet_v2": _torchvision("mobilenet", "mobilenet_v2"),
    "mobilenet_v3_large": _torchvision("mobilenet", "mobilenet_v3_large"),
    "mobilenet_v3_small": _torchvision("mobilenet", "mobilenet_v3_small"),
    "mnasnet1_0": _torchvision("mobilenet", "mnasnet1_0"),
    "mnasnet1_3": _torchvision("mobilenet", "mnasnet1_3"),
    **{f"shufflenet_v2_x{n}": _torchvision("shufflenet", f"shufflenet_v2_x{n}") for n in ("0_5", "1_0", "1_5", "2_0")},
    "efficientnet_b0": _torchvision("efficientnet", "efficientnet_b0"),
    "efficientnet_b3": _torchvision("efficientnet", "efficientnet_b3"),
    "efficientnetv2_b0": _timm("efficientnet", "tf_efficientnetv2_b0"),
    "regnety_400m": _timm("regnet", "regnety_004"),
    "inception_v3": _torchvision("inception", "inception_v3", aux_logits=False, init_weights=False),
    "vit_b_32": _timm("vit", "vit_base_patch32_clip_224"),
    "vit_b_16": _timm("vit", "vit_base_patch16_224", sized=True),
    "fcn_resnet18_cityscapes": _fcn_resnet18(21),
    "fcn_resnet18_deepscene": _fcn_resnet18(5),
    "fcn_resnet18_mhp": _fcn_resnet18(21),
    "fcn_resnet18_voc": _fcn_resnet18(21),
    "fcn_resnet18_sun": _fcn_resnet18(21),
    **{f"yolov8{scale}": _yolo("v8", scale) for scale in "nsmlx"},
    **{f"yolo11{scale}": _yolo("11", scale) for scale in "nsmlx"},
    **{f"yolo11{scale}-seg": _yolo("11", scale, "segment") for scale in "nsm"},
    **{f"yolo26{scale}": _yolo("26", scale) for scale in "nsmlx"},
    **{f"yolo26{scale}-cls": _yolo("26", scale, "classify") for scale in "nsmlx"},
}


def kernels_of(name: str, height: int, width: int) -> tuple[Kernel, ...]:
    """The kernels of a published network for one image.

    Raises:
        KeyError: no such network in `MODELS`.
    """
    with _uninitialised():
        network = MODELS[name].build((height, width)).eval()
    return fused_kernels(_exported(network, torch.zeros(1, 3, height, width)))


def document() -> dict[str, Any]:
    """Content of published_kernels.json: every network and image size of the rows in use."""
    networks: dict[str, Any] = {}
    wanted = sorted({(row.model, row.height, row.width) for row in published_rows() if row.used})
    for name, height, width in wanted:
        if name in MODELS:
            print(f"{name} {height}x{width}", file=sys.stderr, flush=True)
            networks[f"{name}@{height}x{width}"] = {
                "family": MODELS[name].family,
                "origin": MODELS[name].origin,
                "kernels": kernels_to_json(kernels_of(name, height, width)),
            }
    return {"schema_version": "1.0", "batch_size": 1, "networks": networks}


def write(path: Path, content: dict[str, Any]) -> None:
    """One network a line, so that a change shows where it is."""
    lines = [f"  {json.dumps(key)}: {_compact(value)}" for key, value in content["networks"].items()]
    head = {key: value for key, value in content.items() if key != "networks"}
    path.write_text(_compact(head)[:-1] + ',"networks":{\n' + ",\n".join(lines) + "\n}}\n", encoding="utf-8")


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _exported(network: nn.Module, images: torch.Tensor) -> onnx.ModelProto:
    """Traced at a fixed size: the graph of a deployed engine, in which every shape is a number."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (images,), buffer, dynamo=False, opset_version=OPSET, input_names=["image"])
    return onnx.load_from_string(buffer.getvalue())


@contextmanager
def _uninitialised() -> Iterator[None]:
    """Leave out the random weights of convolutions and linear layers: only their shapes are looked at."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    originals = [kind.reset_parameters for kind in kinds]
    try:
        for kind in kinds:
            kind.reset_parameters = lambda self: [nn.init.zeros_(p) for p in self.parameters(recurse=False)]
        yield
    finally:
        for kind, original in zip(kinds, originals, strict=True):
            kind.reset_parameters = original


def main(arguments: list[str]) -> None:
    """Regenerate the file, or print the kernels of the networks that are named (name or name@HxW)."""
    if not arguments:
        write(KERNELS, document())
    for argument in arguments:
        name, _, size = argument.partition("@")
        height, width = (int(n) for n in (size or "224x224").split("x"))
        for kernel in kernels_of(name, height, width):
            print(kernel)


if __name__ == "__main__":
    main(sys.argv[1:])
