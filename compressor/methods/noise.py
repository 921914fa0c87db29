"""Distillation on images of pure noise: the control that every data-free method has to beat.

    L = MAE(S(x), T(x)),  x = clamp(noise)        trains the student

DFAD (Fang et al. 2019, arXiv 1912.11006) prints it as RANDOM: what a student learns from its teacher's output alone,
where no image says which output matters. It needs no image and makes no generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from compressor.distill.batch_norm_match import has_batch_norm
from compressor.distill.losses import discrepancy
from compressor.distill.noise_images import noise_images
from compressor.distill.training import Context, Stateful, cosine_schedule, parameter_groups
from compressor.inputs.teacher import Teacher, TeacherPart
from compressor.methods import Distilled, Need, Task, TrainingImages
from compressor.students.student import Backbone, own_classifier

VERSION = 1
USES: tuple[TeacherPart, ...] = ("logits",)
TASKS: tuple[Task, ...] = ("classification", "segmentation", "regression")
NEEDS: Need = "nothing"
LOSS_TERMS: Mapping[str, str] = {"discrepancy": "student"}


class Config(BaseModel):
    """Settings of the control; counts are optimiser updates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student_steps: int = Field(default=40_000, ge=1, description="updates of the student")
    student_batch_size: int = Field(default=256, ge=2, description="images of noise a step")
    student_lr: float | None = Field(
        default=None, gt=0, description="SGD with Nesterov momentum 0.9, cosine; none: 0.1, or 0.01 without batch norm"
    )
    weight_decay: float = Field(default=5e-4, ge=0, description="of the student's weights, not of norms and biases")


def defaults(effort: str, image_shape: tuple[int, int, int], device: str) -> dict[str, Any]:
    """The same number of student steps as DFAD has, so that the two can be compared."""
    from compressor.methods import dfad

    shared = dfad.defaults(effort, image_shape, device)
    return {name: shared[name] for name in ("student_steps", "student_batch_size")}


def num_queries(config: Config, num_few: int, num_pool: int) -> int:  # noqa: ARG001
    """One batch a step."""
    return config.student_steps * config.student_batch_size


def distill(
    teacher: Teacher,
    backbone: Backbone,
    images: TrainingImages,  # noqa: ARG001
    config: Config,
    context: Context,
) -> Distilled:
    """Train a student on noise; no image is looked at."""
    student = own_classifier(backbone, teacher).to(context.device).to(memory_format=torch.channels_last).train()
    lr = config.student_lr or (0.1 if has_batch_norm(student) else 0.01)
    optimiser = torch.optim.SGD(parameter_groups(student, config.weight_decay), lr=lr, momentum=0.9, nesterov=True)
    schedule = cosine_schedule(optimiser, config.student_steps, warmup=config.student_steps // 20)

    def loss_of(noise: Tensor) -> Tensor:
        with torch.no_grad(), context.autocast():
            target = teacher(noise).logits
        with context.autocast():
            output = student(noise)
        loss = discrepancy(output, target)
        context.log({"discrepancy": loss})
        return loss

    state: dict[str, Stateful] = {"student": student, "optimiser": optimiser, "schedule": schedule}
    for _ in context.steps("student", config.student_steps, state):
        noise = noise_images(config.student_batch_size, teacher.card, context.random)

        optimiser.zero_grad(set_to_none=True)
        context.backward(loss_of, noise)
        optimiser.step()
        schedule.step()

    return Distilled(student.eval())
