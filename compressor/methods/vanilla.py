"""Knowledge distillation on the few real images alone (Hinton, Vinyals and Dean 2015, arXiv 1503.02531).

    L = T^2 KL(softmax(teacher / T) || softmax(student / T))        trains the student, T = 4
    L = mean (student - teacher)^2                                  instead, where the output is numbers

The baseline: no generator, no labels, a student with a classifier of its own. What a method adds is what it gains over
this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from compressor.distill.augment import Mirror, mirroring, mirroring_queries, student_augmentation
from compressor.distill.losses import knowledge_distillation, squared_error
from compressor.distill.training import Context, Stateful, cosine_schedule, parameter_groups
from compressor.inputs.teacher import Teacher, TeacherPart
from compressor.methods import Distilled, Need, Task, TrainingImages
from compressor.students.student import Backbone, own_classifier

VERSION = 1
USES: tuple[TeacherPart, ...] = ("logits",)
TASKS: tuple[Task, ...] = ("classification", "segmentation", "regression")
NEEDS: Need = "few"
LOSS_TERMS: Mapping[str, str] = {"knowledge_distillation": "student"}
LARGEST_SMALL_SIDE = 64


class Config(BaseModel):
    """Settings of vanilla distillation; counts are optimiser updates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student_steps: int = Field(default=3000, ge=1, description="updates of the student")
    student_batch_size: int = Field(default=128, ge=2, description="real images a step")
    student_lr: float = Field(default=0.05, gt=0, description="SGD with Nesterov momentum 0.9, cosine to zero")
    weight_decay: float = Field(default=5e-4, ge=0, description="of the weights, not of norms and biases")
    temperature: float = Field(default=4.0, gt=0, description="softens both predictions")
    mirror: Mirror = Field(
        default="auto", description="mirror images left to right; auto: if the teacher does not mind"
    )


def defaults(effort: str, image_shape: tuple[int, int, int], device: str) -> dict[str, Any]:
    """The same number of student steps as HiDFD has, so that the two can be compared; of large images, of which a
    network keeps every layer's maps for the backward pass, smaller batches."""
    from compressor.methods import hidfd

    shared = hidfd.defaults(effort, image_shape, device)
    settings = {name: shared[name] for name in ("student_steps", "student_batch_size")}
    if max(image_shape[1:]) > LARGEST_SMALL_SIDE:
        settings["student_batch_size"] = 64 if device == "cuda" else 16
    return settings


def num_queries(config: Config, num_few: int, num_pool: int) -> int:  # noqa: ARG001
    """The question whether to mirror, and the steps."""
    return mirroring_queries(config.mirror, num_few) + config.student_steps * config.student_batch_size


def distill(
    teacher: Teacher, backbone: Backbone, images: TrainingImages, config: Config, context: Context
) -> Distilled:
    """Train a student on the few images."""
    real_images = images.few
    student = own_classifier(backbone, teacher).to(context.device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(
        parameter_groups(student, config.weight_decay), lr=config.student_lr, momentum=0.9, nesterov=True
    )
    schedule = cosine_schedule(optimiser, config.student_steps, warmup=config.student_steps // 20)
    numbers = teacher.task == "regression"
    mirror, choice = mirroring(config.mirror, real_images, lambda batch: teacher(batch).logits, numbers=numbers)

    def loss_of(batch: Tensor) -> Tensor:
        with torch.no_grad(), context.autocast():
            target = teacher(batch).logits
        with context.autocast():
            output = student(batch)
        loss = squared_error(output, target) if numbers else knowledge_distillation(output, target, config.temperature)
        context.log({"knowledge_distillation": loss})
        return loss

    state: dict[str, Stateful] = {"student": student, "optimiser": optimiser, "schedule": schedule}
    for _ in context.steps("student", config.student_steps, state):
        rows = torch.randint(
            len(real_images), (config.student_batch_size,), generator=context.random, device=context.device
        )
        batch = student_augmentation(real_images[rows].float() / 255.0, context.random, flip=mirror)

        optimiser.zero_grad(set_to_none=True)
        context.backward(loss_of, batch)
        optimiser.step()
        schedule.step()

    return Distilled(student.eval(), facts={"choices": [choice]})
