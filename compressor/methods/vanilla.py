"""Knowledge distillation on the few real images alone (Hinton, Vinyals and Dean 2015, arXiv 1503.02531).

    L = T^2 KL(softmax(teacher / T) || softmax(student / T))        trains the student, T = 4

The baseline: no generator, no labels, a student with a classifier of its own. What a method adds is what it gains over
this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from compressor.distill.augment import Mirror, mirroring, student_augmentation
from compressor.distill.losses import knowledge_distillation
from compressor.distill.training import Context, Stateful, cosine_schedule, parameter_groups
from compressor.inputs.teacher import Teacher
from compressor.methods import Distilled
from compressor.students.student import Backbone, own_classifier

VERSION = 1
USES = ("logits",)
LOSS_TERMS: Mapping[str, str] = {"knowledge_distillation": "student"}


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
    """The same number of student steps as HiDFD has, so that the two can be compared."""
    from compressor.methods import hidfd

    shared = hidfd.defaults(effort, image_shape, device)
    return {name: shared[name] for name in ("student_steps", "student_batch_size")}


def distill(teacher: Teacher, backbone: Backbone, real_images: Tensor, config: Config, context: Context) -> Distilled:
    """Train a student on real_images (N, C, H, W), uint8 on the context's device."""
    student = own_classifier(backbone, teacher).to(context.device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(
        parameter_groups(student, config.weight_decay), lr=config.student_lr, momentum=0.9, nesterov=True
    )
    schedule = cosine_schedule(optimiser, config.student_steps, warmup=config.student_steps // 20)
    mirror, choice = mirroring(config.mirror, real_images, lambda images: teacher(images).logits)

    state: dict[str, Stateful] = {"student": student, "optimiser": optimiser, "schedule": schedule}
    for _ in context.steps("student", config.student_steps, state):
        rows = torch.randint(
            len(real_images), (config.student_batch_size,), generator=context.random, device=context.device
        )
        images = real_images[rows].float() / 255.0
        images = student_augmentation(images, context.random, flip=mirror)
        with torch.no_grad(), context.autocast():
            teacher_logits = teacher(images).logits
        with context.autocast():
            student_logits = student(images)
        loss = knowledge_distillation(student_logits, teacher_logits, config.temperature)
        context.log({"knowledge_distillation": loss})

        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()

    return Distilled(student.eval(), facts={"choices": [choice]})
