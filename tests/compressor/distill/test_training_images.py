"""Where the images of a training are: the student is the same wherever, and nothing large is copied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import tiny
import torch

from compressor.distill import training_images
from compressor.distill.training import Context
from compressor.distill.training_images import Placement, TrainingImages, place
from compressor.inputs.pixels import StoredImages, whole
from compressor.methods import load_method

CPU = torch.device("cpu")
CHANGES: Mapping[str, Mapping[str, object]] = {
    "vanilla": {},
    "pool": {"selector": "class_balanced"},
    "kd3": {},
    "hidfd": {},
}


def stored() -> tuple[StoredImages, StoredImages]:
    """Some rows of the samples, and a pool."""
    return StoredImages((tiny.images(20), torch.tensor([17, 2, 3, 5, 19, 0, 11, 8]))), whole(tiny.images(24, seed=9))


def placed(share: float, monkeypatch: pytest.MonkeyPatch, *, with_pool: bool) -> tuple[TrainingImages, Placement]:
    monkeypatch.setattr(training_images, "RESIDENT_SHARE", share)
    return place(*stored(), CPU, with_pool=with_pool)


@pytest.mark.parametrize("with_pool", [False, True])
def test_small_sets_are_copied_once_and_large_ones_are_not(with_pool: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    few, pool = stored()
    expected = torch.cat([few[:], pool[:]])
    for share, held in ((1.0, "memory"), (0.0, "file")):
        images, placement = placed(share, monkeypatch, with_pool=with_pool)
        assert placement.held == held
        assert placement.num_bytes == few.nbytes + (pool.nbytes if with_pool else 0)
        assert isinstance(images.few, torch.Tensor) == (held == "memory")
        assert torch.equal(images.few[:], few[:])
        assert torch.equal(images.pool[:], pool[:])
        assert torch.equal(images.everything[:], expected)
    resident, _ = placed(1.0, monkeypatch, with_pool=True)
    assert isinstance(resident.few, torch.Tensor)
    assert isinstance(resident.everything, torch.Tensor)
    assert resident.everything.data_ptr() == resident.few.data_ptr(), "few and pool are views of one copy"


def test_the_limit_is_a_share_of_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    few, pool = stored()
    monkeypatch.setattr(training_images, "free_bytes", lambda: 4 * few.nbytes)
    assert place(few, pool, CPU, with_pool=False)[1] == Placement(
        "memory",
        few.nbytes,
        "the images that are trained on take 1.50 KiB, at most 25% of the 6.00 KiB that are free on the host: "
        "they are copied there once",
    )
    assert place(few, pool, CPU, with_pool=True)[1].sentence == (
        "the images that are trained on take 6.00 KiB, more than 25% of the 6.00 KiB that are free on the host: "
        "they stay in the run folder and are read batch by batch"
    )


@pytest.mark.parametrize("method", CHANGES)
def test_the_student_is_bitwise_the_same_wherever_the_images_are(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, students = load_method(method), []
    for share in (1.0, 0.0):
        images, _ = placed(share, monkeypatch, with_pool=method in ("pool", "kd3"))
        folder = tmp_path / str(share)
        folder.mkdir()
        config = tiny.settings(module.Config, **CHANGES[method])
        distilled = module.distill(tiny.teacher(), tiny.backbone(), images, config, Context(folder))
        students.append(distilled.student.state_dict())
    assert tiny.equal(*students)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_beside_a_gpu_batches_are_gathered_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    few, pool = stored()
    device, draw = torch.device("cuda"), torch.tensor([3, 0, 30, 9], device="cuda")
    expected = torch.cat([few[:], pool[:]])[draw.cpu()]
    for share, held in ((1.0, "device"), (0.0, "file")):
        monkeypatch.setattr(training_images, "RESIDENT_SHARE", share)
        images, placement = place(few, pool, device, with_pool=True)
        assert placement.held == held
        batch = images.everything[draw]
        assert batch.device.type == "cuda"
        assert torch.equal(batch.cpu(), expected)
