from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.yolo_skeletons import SKELETONS, yolo
from exporters.macs import count_macs, count_params

# (parameters, GFLOPs at 640 px) in the comments of yolov8.yaml, yolo11.yaml and yolo11-seg.yaml.
PUBLISHED = {
    ("v8", "n"): (3_157_200, 8.9),
    ("v8", "s"): (11_166_560, 28.8),
    ("v8", "m"): (25_902_640, 79.3),
    ("v8", "l"): (43_691_520, 165.7),
    ("v8", "x"): (68_229_648, 258.5),
    ("11", "n"): (2_624_080, 6.6),
    ("11", "s"): (9_458_752, 21.7),
    ("11", "m"): (20_114_688, 68.5),
    ("11", "l"): (25_372_160, 87.6),
    ("11", "x"): (56_966_176, 196.0),
}
# The same of YOLO26 in docs/macros/yolo-det-perf.md: millions of parameters of the fused model.
PUBLISHED_26 = {"n": (2.4, 5.4), "s": (9.5, 20.7), "m": (20.4, 68.2), "l": (24.8, 86.4), "x": (55.7, 193.9)}
# yolo11-seg.yaml and yolo26-cls.yaml: parameters, GFLOPs.
PUBLISHED_TASKS = {
    ("11", "n", "segment"): (2_876_848, 10.5),
    ("11", "s", "segment"): (10_113_248, 35.8),
    ("11", "m", "segment"): (22_420_896, 123.9),
    ("26", "n", "classify"): (2_812_104, 0.5),
    ("26", "s", "classify"): (6_724_008, 1.6),
    ("26", "m", "classify"): (11_634_216, 5.0),
    ("26", "l", "classify"): (14_115_624, 6.2),
    ("26", "x", "classify"): (29_637_064, 13.7),
}
SMALL = 160  # pixels; the work grows with the area, and a test need not wait for 640


def gflops(network: torch.nn.Module, size: int = 640) -> float:
    """Two operations for a multiply-accumulate, at `size`, from a run at `SMALL`."""
    return 2e-9 * count_macs(network, (3, SMALL, SMALL)) * (size / SMALL) ** 2


@pytest.mark.parametrize(("version", "scale"), PUBLISHED)
def test_detectors_have_the_published_size(version: Any, scale: str) -> None:
    parameters, published = PUBLISHED[version, scale]
    network = yolo(version, scale)
    assert count_params(network) == parameters
    assert gflops(network) == pytest.approx(published, rel=0.02)  # the published count adds the batch norms


@pytest.mark.parametrize("scale", PUBLISHED_26)
def test_yolo26_has_the_published_size(scale: str) -> None:
    millions, published = PUBLISHED_26[scale]
    network = yolo("26", scale)
    assert count_params(network) / 1e6 == pytest.approx(millions, rel=0.02)  # the published count is without the norms
    assert gflops(network) == pytest.approx(published, rel=0.02)


@pytest.mark.parametrize(("version", "scale", "task"), PUBLISHED_TASKS)
def test_other_tasks_have_the_published_parameters(version: Any, scale: str, task: Any) -> None:
    assert count_params(yolo(version, scale, task)) == PUBLISHED_TASKS[version, scale, task][0]


@pytest.mark.parametrize("scale", ["n", "s", "m"])
def test_a_classifier_does_the_published_work(scale: str) -> None:
    """The published count multiplies a count at 32 px by 49, the last linear layer too: it is added here as well."""
    network = yolo("26", scale, "classify").eval()
    work = 2e-9 * (count_macs(network, (3, 224, 224)) + 48 * 1280 * 1000)
    assert work == pytest.approx(PUBLISHED_TASKS["26", scale, "classify"][1], abs=0.1)


@pytest.mark.parametrize(
    ("version", "task", "shapes"),
    [
        ("v8", "detect", [(2, 84, 525)]),
        ("11", "detect", [(2, 84, 525)]),
        ("26", "detect", [(2, 300, 6)]),
        ("11", "segment", [(2, 116, 525), (2, 32, 40, 40)]),
        ("26", "classify", [(2, 1000)]),
    ],
)
def test_outputs_are_those_of_the_exported_models(version: Any, task: Any, shapes: list[tuple[int, ...]]) -> None:
    with torch.no_grad():
        given = yolo(version, "n", task).eval()(torch.zeros(2, 3, SMALL, SMALL))
    assert [tuple(tensor.shape) for tensor in (given if isinstance(given, tuple) else (given,))] == shapes


def test_what_has_no_skeleton_is_refused() -> None:
    assert ("v8", "segment") not in SKELETONS
    with pytest.raises(ValueError, match="no skeleton of YOLO v8 for the task segment"):
        yolo("v8", "n", "segment")
    with pytest.raises(KeyError):
        yolo("11", "xxl")
