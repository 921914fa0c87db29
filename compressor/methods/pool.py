"""Knowledge distillation on a pool of unlabelled images (Hinton et al. 2015, arXiv 1503.02531; DFND, Chen et al. 2021).

    L = T^2 KL(softmax(teacher / T) || softmax(student / T))        trains the student, T = 4

The images need not all belong to the task, because the teacher says something of any image; but a pool without any that
does teaches little (docs/experiments.md). A selector may drop images. None does so by default: on pools of a few
thousand, throwing images away costs as much as it cleans.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from compressor.distill.augment import Mirror, mirroring, mirroring_queries, student_augmentation
from compressor.distill.batch_norm_match import has_batch_norm
from compressor.distill.losses import knowledge_distillation
from compressor.distill.pool import Kept, selection_due, student_opinion, survey
from compressor.distill.selectors import Selector, asks_the_student, select
from compressor.distill.training import Context, Stateful, cosine_schedule, parameter_groups
from compressor.inputs.teacher import Teacher, TeacherPart
from compressor.methods import Distilled, Need, Task, TrainingImages
from compressor.students.student import Backbone, own_classifier

VERSION = 1
USES: tuple[TeacherPart, ...] = ("logits",)
TASKS: tuple[Task, ...] = ("classification",)
NEEDS: Need = "pool"
LOSS_TERMS: Mapping[str, str] = {"knowledge_distillation": "student"}


class Config(BaseModel):
    """Settings of distillation on a pool; counts are optimiser updates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student_steps: int = Field(default=4000, ge=1, description="updates of the student")
    student_batch_size: int = Field(default=128, ge=2, description="images of the pool a step")
    student_lr: float | None = Field(
        default=None, gt=0, description="SGD with Nesterov momentum 0.9, cosine; none: 0.05, or 0.01 without batch norm"
    )
    weight_decay: float = Field(default=5e-4, ge=0, description="of the weights, not of norms and biases")
    temperature: float = Field(default=4.0, gt=0, description="softens both predictions")
    selector: Selector = Field(default="none", description="which images of the pool to train on")
    keep_fraction: float = Field(default=0.5, gt=0, le=1, description="share that a ranking selector keeps")
    num_selections: int = Field(default=12, ge=1, description="by the selectors that look at the student as well")
    max_shift: int | None = Field(
        default=None, ge=0, description="pixels that images are moved by at most; none: an eighth of their width"
    )
    mirror: Mirror = Field(
        default="auto", description="mirror images left to right; auto: if the teacher does not mind"
    )


def defaults(effort: str, image_shape: tuple[int, int, int], device: str) -> dict[str, Any]:
    """The same number of student steps as HiDFD has, so that the two can be compared."""
    from compressor.methods import hidfd

    shared = hidfd.defaults(effort, image_shape, device)
    return {name: shared[name] for name in ("student_steps", "student_batch_size")}


def num_queries(config: Config, num_few: int, num_pool: int) -> int:
    """One for every image, two for each that is looked at in the mirror, and one for every view trained on."""
    mirrored = mirroring_queries(config.mirror, num_few + num_pool)
    return num_few + num_pool + mirrored + config.student_steps * config.student_batch_size


def distill(
    teacher: Teacher, backbone: Backbone, images: TrainingImages, config: Config, context: Context
) -> Distilled:
    """Train a student on the few images and the pool together."""
    everything = images.everything
    mirror, choice = mirroring(config.mirror, everything, lambda views: teacher(views.to(context.device)).logits)
    pool = survey(teacher, everything, len(images.few), context)
    kept = Kept(pool)

    student = own_classifier(backbone, teacher).to(context.device).to(memory_format=torch.channels_last).train()
    lr = config.student_lr or (0.05 if has_batch_norm(student) else 0.01)
    optimiser = torch.optim.SGD(parameter_groups(student, config.weight_decay), lr=lr, momentum=0.9, nesterov=True)
    schedule = cosine_schedule(optimiser, config.student_steps, warmup=config.student_steps // 20)

    dynamic = asks_the_student(config.selector)
    num_selections = config.num_selections if dynamic else 1

    def loss_of(views: Tensor) -> Tensor:
        with torch.no_grad(), context.autocast():
            teacher_logits = teacher(views).logits
        with context.autocast():
            student_logits = student(views)
        loss = knowledge_distillation(student_logits, teacher_logits, config.temperature)
        context.log({"knowledge_distillation": loss})
        return loss

    state: dict[str, Stateful] = {"student": student, "optimiser": optimiser, "schedule": schedule, "kept": kept}
    for step in context.steps("student", config.student_steps, state):
        if selection_due(step, config.student_steps, num_selections):
            opinion = student_opinion(student, pool, context) if dynamic else None
            progress = step / config.student_steps
            mask = select(config.selector, pool.logits, opinion, progress, config.keep_fraction)
            context.world.take_over([mask])
            kept.choose(mask)

        views = pool.batch(kept.draw(config.student_batch_size, context.random))
        views = student_augmentation(views, context.random, flip=mirror, max_shift=config.max_shift)

        optimiser.zero_grad(set_to_none=True)
        context.backward(loss_of, views)
        optimiser.step()
        schedule.step()

    facts = {"choices": [choice], "num_images": len(everything), "kept_images": kept.history}
    return Distilled(student.eval(), facts=facts)
