"""The files of one network in each precision, and a precision that cannot be made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compressor.deploy import precisions
from compressor.deploy.calibration_images import CalibrationImages, gather
from compressor.deploy.precisions import Made, make_precisions
from compressor.deploy.variants import Variant
from compressor.inputs.card import Task
from exporters.logits import onnx_logits
from exporters.onnx_files import load_onnx
from exporters.parity import explained
from exporters.torch_to_onnx import onnx_from_torch
from profiles.catalogue import load_target
from profiles.schema import Precision

ALL: tuple[Precision, ...] = ("fp32", "fp16", "int8")
Make = Callable[..., Made]


def images(count: int, seed: int) -> np.ndarray:
    """Smooth, since noise looks the same to every network."""
    draw = torch.rand(count, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(draw, (12, 12), mode="bilinear").numpy()


def network(width: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)),
    ).eval()


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(target: str, *, width: int = 32, precisions: tuple[Precision, ...] = ALL) -> Made:
        for stage in ("onnx", "precision"):
            (tmp_path / stage).mkdir()
        source = tmp_path / "onnx" / "student.onnx"
        profile = load_target(target)
        onnx_from_torch(network(width), (3, 12, 12), source, opset_ceiling=profile.opset_ceiling, metadata={})
        empty = np.empty((0, 3, 12, 12), np.float32)
        found = CalibrationImages(images(40, 0), images(24, 1), images(50, 2), empty, "drawn", ("few",))
        lines: list[str] = []
        result = make_precisions(
            source, tmp_path / "precision", "student", profile, precisions, found, max_drop=2.0, note=lines.append
        )
        assert len(lines) == sum(variant.file is not None for variant in result.variants)
        return result

    return made


def kinds(path: Path) -> set[str]:
    return {node.op_type for node in load_onnx(path).graph.node}


def by_precision(made: Made) -> dict[str, Variant]:
    return {variant.precision: variant for variant in made.variants}


@pytest.mark.parametrize("target", ["cpu", "jetson"])
def test_every_precision_of_the_target(target: str, make: Make, tmp_path: Path) -> None:
    made = make(target)
    rows = by_precision(made)
    assert [(row.file, row.note) for row in rows.values()] == [
        ("onnx/student.onnx", None),
        ("precision/student.fp16.onnx", rows["fp16"].note),
        ("precision/student.int8.onnx", rows["int8"].note),
    ]
    assert made.parity["student.fp32"].max_abs == 0.0
    assert 0 < made.parity["student.fp16"].max_rel < 0.01
    assert 0 < made.parity["student.int8"].max_rel < 0.2
    assert made.int8 is not None
    assert (made.int8["num_real"], made.int8["num_generated"], made.int8["num_judged"]) == (40, 24, 50)
    assert made.int8["judged_on"] == "50 select + 0 generated images"
    assert made.warnings == ("few", "The int8 calibration is chosen on only 50 images, one of which is 2.0 points.")
    assert 0 < made.int8["range_agreement_lowest"] <= made.int8["range_agreement_median"] <= 1
    # int8 beside fp16 must not be optimised by ONNX Runtime, which then computes it wrongly.
    assert rows["int8"].optimise == (target == "cpu")
    mixed = "Cast" in kinds(tmp_path / "precision/student.int8.onnx")
    assert mixed == (target == "jetson")


def test_tensorrt_8_builds_fp16_from_the_fp32_file(make: Make, tmp_path: Path) -> None:
    made = make("jetson-nano")
    rows = by_precision(made)
    assert set(rows) == {"fp32", "fp16"}
    assert rows["fp16"].file == rows["fp32"].file == "onnx/student.onnx"
    assert rows["fp16"].made_for == "TensorRT 8 with --fp16"
    assert rows["fp16"].file_precision == "fp32"
    assert not rows["fp16"].judged  # what the device makes of it is not known here
    assert "student.fp16" not in made.parity
    assert "nothing of it was judged here" in str(rows["fp16"].note)
    assert made.int8 is None
    assert made.warnings == ()  # those about calibration are for int8 alone
    assert list((tmp_path / "precision").iterdir()) == []


def test_what_cannot_be_made_is_a_row_with_the_reason(make: Make, tmp_path: Path) -> None:
    made = make("jetson", width=6)  # too narrow for TensorRT's int8 kernels
    row = by_precision(made)["int8"]
    assert row.file is None
    assert row.note is not None
    assert row.note.startswith("not made: ")
    assert made.int8 is None
    assert any("student int8 was not made" in warning for warning in made.warnings)
    assert not (tmp_path / "precision/student.int8.onnx").exists()


def test_a_file_whose_logits_are_no_numbers_is_not_kept(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = precisions.onnx_logits

    def logits(path: Path, images: np.ndarray, *, optimise: bool = True) -> np.ndarray:
        found = real(path, images, optimise=optimise)
        return np.full_like(found, np.nan) if "fp16" in path.name else found

    monkeypatch.setattr(precisions, "onnx_logits", logits)
    row = by_precision(make("cpu", precisions=("fp32", "fp16")))["fp16"]
    assert row.file is None
    assert "Logits of student.fp16.onnx are not finite" in str(row.note)
    assert list((tmp_path / "precision").iterdir()) == []


def test_only_the_precisions_that_were_asked_for(make: Make) -> None:
    assert set(by_precision(make("cpu", precisions=("fp32", "fp16")))) == {"fp32", "fp16"}


def dense_network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 4, 3, padding=1)).eval()


@pytest.mark.parametrize("task", ["segmentation", "regression"])
def test_other_tasks_are_judged_by_their_own_agreement(task: Task, tmp_path: Path) -> None:
    for stage in ("onnx", "precision"):
        (tmp_path / stage).mkdir()
    source, cpu = tmp_path / "onnx" / "student.onnx", load_target("cpu")
    module = dense_network() if task == "segmentation" else network(32)
    onnx_from_torch(module, (3, 12, 12), source, opset_ceiling=cpu.opset_ceiling, metadata={})
    found = CalibrationImages(images(40, 0), images(24, 1), images(50, 2), images(30, 3), "drawn", ())
    lines: list[str] = []
    made = make_precisions(
        source, tmp_path / "precision", "student", cpu, ALL, found, max_drop=5.0, note=lines.append, task=task
    )
    assert "The int8 calibration is chosen on only 80 images." in made.warnings
    said = "of the pixels of 64 images" if task == "segmentation" else "of its variance on 64 images"
    assert all(said in line for line in lines)
    assert made.int8 is not None
    assert 0 < made.int8["drop_points"] < 5
    assert made.int8["limit_held"]
    filtered = "which the network is as sure of" in made.int8["judged_on"]
    assert filtered == (task == "segmentation")  # outputs that are no logits say nothing of sureness
    outputs = [onnx_logits(tmp_path / str(row.file), found.select) for row in made.variants]
    if task == "segmentation":
        assert (outputs[0].argmax(axis=1) == outputs[2].argmax(axis=1)).mean() > 0.95
    else:
        assert explained(outputs[0], outputs[2]) > 0.95


def test_without_a_real_image_int8_comes_from_patterns_and_says_so(tmp_path: Path) -> None:
    for stage in ("onnx", "precision"):
        (tmp_path / stage).mkdir()
    source, cpu = tmp_path / "onnx" / "student.onnx", load_target("cpu")
    onnx_from_torch(network(32), (3, 12, 12), source, opset_ceiling=cpu.opset_ceiling, metadata={})
    none = torch.empty(0, 3, 12, 12, dtype=torch.uint8)
    found = gather(none, none, None, num_synthetic=64, seed=0)
    made = make_precisions(
        source, tmp_path / "precision", "student", cpu, ALL, found, max_drop=5.0, note=lambda _: None
    )
    assert all(row.file is not None for row in made.variants)
    assert made.int8 is not None
    assert (made.int8["num_real"], made.int8["num_generated"], made.int8["num_patterns"]) == (0, 0, 128)
    assert made.int8["range_agreement_median"] is None
    assert made.int8["judged_on"] == "0 select + 128 smooth random patterns"
    assert any("check it on some before it ships" in warning for warning in made.warnings)


def test_a_pool_in_the_place_of_real_images_is_counted_as_one(tmp_path: Path) -> None:
    for stage in ("onnx", "precision"):
        (tmp_path / stage).mkdir()
    source, cpu = tmp_path / "onnx" / "student.onnx", load_target("cpu")
    onnx_from_torch(network(32), (3, 12, 12), source, opset_ceiling=cpu.opset_ceiling, metadata={})
    none = torch.empty(0, 3, 12, 12, dtype=torch.uint8)
    pool = torch.randint(256, (40, 3, 12, 12), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = gather(none, none, None, num_synthetic=64, seed=0, pool=pool)
    made = make_precisions(
        source, tmp_path / "precision", "student", cpu, ALL, found, max_drop=5.0, note=lambda _: None
    )
    assert made.int8 is not None
    assert (made.int8["num_real"], made.int8["num_pool"], made.int8["num_judged"]) == (0, 20, 20)
    assert made.int8["judged_on"] == "20 pool images + 0 generated images"
    assert any("pool images of unknown relation" in warning for warning in made.warnings)
