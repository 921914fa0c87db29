"""`exporters` without `compressor`: a torch module of your own to fp32, fp16 and int8 files and a kit for a Jetson.

    python docs/export_alone.py OUT

Put your network and your images in the place of `network` and `images`; without calibration images like those that
the network will see, int8 is not worth having.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from exporters.device_kit import KitModel, write_kit
from exporters.golden import golden_patterns
from exporters.int8_search import search_int8
from exporters.onnx_to_fp16 import fp16_from_onnx, overflowing_nodes
from exporters.parity import check_parity
from exporters.routes import route_for
from exporters.runners import OnnxRunner, TorchRunner
from exporters.torch_to_onnx import onnx_from_torch
from profiles.catalogue import load_target


def network() -> nn.Module:
    """Images (B, 3, 32, 32) in [0, 1] to logits (B, 10), normalisation included."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        nn.Linear(64, 10),
    ).eval()


def images(count: int) -> NDArray[np.float32]:
    """(N, 3, 32, 32) float32 in [0, 1]: smooth patterns, only so that this runs by itself; noise is worse."""
    return golden_patterns(count, (3, 32, 32))


def main(out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    target, model = load_target("jetson"), network()
    fp32 = onnx_from_torch(model, (3, 32, 32), out / "model.onnx", opset_ceiling=target.opset_ceiling, metadata={})
    with TorchRunner(model) as torch_runner, OnnxRunner(fp32.path) as onnx_runner:
        print(check_parity(torch_runner, onnx_runner, [images(1), images(7)]))

    route = route_for(target, fp32.opset)
    hot = overflowing_nodes(fp32.path, [images(16)])
    fp16 = fp16_from_onnx(fp32.path, out / "model.fp16.onnx", keep_fp32=hot).file

    def rest_to_fp16(path: Path) -> None:
        fp16_from_onnx(path, path, keep_fp32=hot)

    int8 = search_int8(
        fp32.path,
        out / "model.int8.onnx",
        form=route.int8_form,
        calibration_sets=[images(64)],
        judge=images(100),
        max_drop=1.0,
        finish=rest_to_fp16 if route.int8_float == "fp16" else None,
        optimise=route.int8_float == "fp32",
    )
    print(f"int8 by {int8.method}: {int8.drop_points} points lost, in float: {int8.float_groups or 'nothing'}")

    files = {"fp32": fp32, "fp16": fp16, "int8": int8.file}
    models = [
        KitModel("student", precision, files[precision].path, files[precision].sha256) for precision in route.files
    ]
    kit = write_kit(out / "kit", target=target, route=route, models=models, metadata={"tool": "export_alone.py"})
    print(f"{kit.archive}: unpack it on {target.title} and run ./run_on_board.sh")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "export"))
