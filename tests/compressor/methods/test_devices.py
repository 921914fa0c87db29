"""Every method trains where it is told to, stops there and goes on: on the CPU, and marked `gpu` on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
import torch

from compressor.distill.training import Context, SilentObserver, best_precision
from compressor.errors import Interrupted
from compressor.inputs.teacher import Teacher
from compressor.methods import TrainingImages, load_method, method_names
from compressor.students.student import Backbone, Student

SIDE = 32  # where half precision begins to pay


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    return name


class Resumed(SilentObserver):
    """Remembers the steps at which phases began."""

    def __init__(self) -> None:
        self.first_steps: list[int] = []

    def phase_started(self, phase: str, num_steps: int, first_step: int) -> None:  # noqa: ARG002
        self.first_steps.append(first_step)


def distilled(
    name: str, folder: Path, device: str, parts: tuple[Teacher, Backbone, TrainingImages], *, stop_after: int = -1
) -> tuple[Student, list[int]]:
    """A method at this device's best precision; stopped after so many steps, if it has them."""
    teacher, backbone, images = parts
    method, observer, left = load_method(name), Resumed(), iter(range(stop_after))
    precision, _ = best_precision(torch.device(device), SIDE)
    context = Context(
        folder,
        device=device,
        precision=precision,
        observer=observer,
        should_stop=lambda: stop_after >= 0 and next(left, None) is None,
    )
    few, pool = images.few.to(device), images.pool.to(device)
    small = {"pool_size": 16} if "pool_size" in method.Config.model_fields else {}
    settings = tiny.settings(method.Config, **small)
    student = method.distill(teacher.to(device), backbone, TrainingImages(few, pool), settings, context).student
    return student, observer.first_steps


@pytest.mark.parametrize("name", method_names())
@pytest.mark.parametrize("stop_after", [1, 5])
def test_a_method_stops_and_goes_on_where_it_is_told_to_train(
    name: str, stop_after: int, device: str, tmp_path: Path
) -> None:
    def parts() -> tuple[Teacher, Backbone, TrainingImages]:
        shape = (3, SIDE, SIDE)
        return tiny.teacher(image_shape=shape), tiny.backbone(), tiny.training_images(12, shape, num_pool=12)

    try:
        student, _ = distilled(name, tmp_path, device, parts(), stop_after=stop_after)
    except Interrupted:
        student, first_steps = distilled(name, tmp_path, device, parts())
        assert any(first_steps)
    assert {value.device.type for value in student.state_dict().values()} == {device}
    assert all(value.dtype != torch.bfloat16 and value.isfinite().all() for value in student.state_dict().values())
    logits = student(torch.rand(2, 3, SIDE, SIDE, device=device))
    assert logits.shape == (2, tiny.NUM_CLASSES)


@pytest.mark.parametrize("name", [name for name in method_names() if "segmentation" in load_method(name).TASKS])
def test_so_does_one_that_answers_for_every_pixel(name: str, device: str, tmp_path: Path) -> None:
    def parts() -> tuple[Teacher, Backbone, TrainingImages]:
        shape = (3, SIDE, SIDE)
        teacher = tiny.teacher(tiny.DENSE, image_shape=shape)
        return teacher, tiny.dense_backbone(), tiny.training_images(12, shape, num_pool=12)

    try:
        student, _ = distilled(name, tmp_path, device, parts(), stop_after=1)
    except Interrupted:
        student, _ = distilled(name, tmp_path, device, parts())
    assert student(torch.rand(2, 3, SIDE, SIDE, device=device)).shape == (2, tiny.NUM_CLASSES, SIDE, SIDE)
