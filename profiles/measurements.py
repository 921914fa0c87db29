"""Latencies that others measured and published: what calibrates the predictor.

`measurements.csv` holds them one a row, each with its source, and says in its column `use` whether a row counts
("yes") or why it does not. The rules are general; none looks at how well a row is predicted:

    another runtime       PyTorch (eager, TorchScript or compiled) and Paddle Inference are not what a profile runs, and
                          their overhead is of the size of a small network. The same holds for an ONNX Runtime or ncnn
                          row on the CPU of a device whose profile is its GPU. One exception: on a Raspberry Pi rows of
                          ncnn and XNNPACK count although its profile runs ONNX Runtime: both are compiled engines, and
                          we found no rows of ONNX Runtime itself. A prediction that leans on them says so and is wider.
    no profile            desktop and server processors, of which no profile exists.
    not one inference     throughput of GPU and accelerators together, and pipelines of two networks.
    more than inference   frames a second that include reading and preparing images in Python.
    coarse                whole frames a second below ten: rounding alone is an error above 5 %.
    hand-tuned            MLPerf submissions use plugins and layouts made for one network: lower bounds.
    one thread            a CPU measured with one thread where the profile has all its cores.

A row that was published in frames a second carries 1000 / fps, and with a batch above one 1000 x batch / fps. Sizes are
height and width, whatever order a source prints. Where a source was found to say something else than its table (ncnn
runs its vision transformer at 384 px), the note says so.

`published_kernels.json` holds the kernels of the networks that could be built (`benchmarks.published_models` writes
it). Both files ship with the package and are read once.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from profiles.kernels import Kernel, at_batch, kernels_from_json
from profiles.schema import Precision

ROWS = Path(__file__).parent / "measurements.csv"
KERNELS = Path(__file__).parent / "published_kernels.json"
NOT_BUILDABLE = "neither torchvision, timm nor a skeleton of ours has this network"


@dataclass(frozen=True)
class PublishedRow:
    """One row of measurements.csv.

    Attributes:
        device: name of our profile; where there is none, the board's name as published.
        board: as published.
        runtime: tensorrt, onnxruntime, ncnn, xnnpack, pytorch, torchscript or paddle.
        version: of the runtime or of the software around it, as published.
        model: name in `benchmarks.published_models`, or as published.
        height, width: pixels.
        batch_size: images of one inference.
        precision: fp32 (TF32 on GPUs from Ampere on), fp16 or int8.
        latency_ms: of the whole batch.
        source: repository@commit and path, or a document's title.
        note: how it was measured.
        use: "yes", or "no: " and the reason.
    """

    device: str
    board: str
    runtime: str
    version: str
    model: str
    height: int
    width: int
    batch_size: int
    precision: Precision
    latency_ms: float
    source: str
    note: str
    use: str

    @property
    def used(self) -> bool:
        return self.use == "yes"


@dataclass(frozen=True)
class Measurement:
    """A published latency together with the kernels that took it (of the whole batch).

    `family` joins networks of one design by their published name, such as resnet or yolo11; `origin` says where the
    layers come from, and equal origins are one network under whatever names (fcn_resnet18_voc is fcn_resnet18_sun, but
    for what it was trained on); `model` is the published name, `key` that name at one image size.
    """

    device: str
    runtime: str
    precision: Precision
    batch_size: int
    latency_ms: float
    kernels: tuple[Kernel, ...]
    family: str
    origin: str
    model: str
    key: str
    source: str


@dataclass(frozen=True)
class Published:
    """What the two files hold together.

    Attributes:
        measurements: rows in use whose network could be built, in the order of the file.
        left_out: number of the other rows by reason.
    """

    measurements: tuple[Measurement, ...]
    left_out: Mapping[str, int]


@cache
def published() -> Published:
    """All published measurements that count, with kernels; read once in a process."""
    networks = _networks()
    measurements = []
    left_out: Counter[str] = Counter()
    for row in published_rows():
        key = f"{row.model}@{row.height}x{row.width}"
        if not row.used:
            left_out[row.use.removeprefix("no: ")] += 1
        elif key not in networks:
            left_out[NOT_BUILDABLE] += 1
        else:
            measurements.append(
                Measurement(
                    device=row.device,
                    runtime=row.runtime,
                    precision=row.precision,
                    batch_size=row.batch_size,
                    latency_ms=row.latency_ms,
                    kernels=_kernels(key, row.batch_size),
                    family=networks[key]["family"],
                    origin=networks[key]["origin"],
                    model=row.model,
                    key=key,
                    source=row.source,
                )
            )
    return Published(tuple(measurements), dict(left_out))


@cache
def published_rows() -> tuple[PublishedRow, ...]:
    """Every row of measurements.csv, used or not."""
    with ROWS.open(encoding="utf-8", newline="") as file:
        return tuple(_row(record) for record in csv.DictReader(file))


@cache
def _networks() -> dict[str, Any]:
    networks: dict[str, Any] = json.loads(KERNELS.read_text(encoding="utf-8"))["networks"]
    return networks


@cache
def _kernels(key: str, batch_size: int) -> tuple[Kernel, ...]:
    return at_batch(kernels_from_json(_networks()[key]["kernels"]), batch_size)


def _row(record: dict[str, str]) -> PublishedRow:
    numbers = {name: int(record.pop(name)) for name in ("height", "width", "batch_size")}
    latency_ms = float(record.pop("latency_ms"))
    return PublishedRow(**record, **numbers, latency_ms=latency_ms)  # type: ignore[arg-type]
