"""Distillation on a web pool that is not quite the teacher's task: KD3 (Tang et al., ICCV 2023, arXiv 2307.11469).

The student keeps the teacher's classifier and learns its feature map, on those images of a pool that teacher and
student together are sure of, with a threshold of its own for each class:

    keep i where max softmax(a T(x_i) + (1 - a) S(x_i)) > tau_{c_i},    a falling while the student learns
    L = mean w_i (P(S(x_i)) - T(x_i))^2  +  contrast_weight * NTXent(e(x_i), e(mix(x_i)))

with w_i = sigmoid(||S(x_i) - T(x_i)||_2) on logits, constant. Both terms train the student, the projector and the
embedding e, which is not kept. Where this differs from the released code and from the paper is said in DEPARTURES.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from compressor.distill.augment import Mirror, mirroring, mirroring_queries, student_augmentation
from compressor.distill.pool import Kept, selection_due, student_opinion, survey
from compressor.distill.pool_losses import (
    disagreement_weights,
    mix_distribution,
    style_contrast,
    weighted_feature_alignment,
)
from compressor.distill.selectors import class_balanced, mixed, teacher_share
from compressor.distill.training import Context, Stateful, cosine_schedule, parameter_groups
from compressor.inputs.teacher import Teacher, TeacherPart
from compressor.methods import Distilled, Need, Task, TrainingImages
from compressor.students.student import Backbone, Student, classifier_sharing

VERSION = 1
USES: tuple[TeacherPart, ...] = ("logits", "feature_map", "classifier")
TASKS: tuple[Task, ...] = ("classification",)
NEEDS: Need = "pool"
LOSS_TERMS: Mapping[str, str] = {"feature_alignment": "student", "style_contrast": "student"}

EMBEDDING_DIM = 128

DEPARTURES = (
    "Images are selected by their centred view, and the teacher is asked about it once; the released code asks about "
    "another random crop in every epoch.",
    "The teacher's share in the selection falls along the paper's curve to a floor of 0.1; the released code lets it "
    "jump to zero half-way. A quarter of the pool is always kept, and every image that is known to be of the task.",
    "The contrast is the student's alone: the released code's other half trains a layer that nothing uses, for as many "
    "queries again. It looks at the projected features, and mixed images are brought back to [0, 1].",
    "The teacher sees its own normalisation; the released code trains and tests with different ones.",
    "Beyond the paper: shifts instead of random crops, a larger learning rate, Nesterov momentum, a cosine schedule, "
    "no weight decay on norms and biases, a thinner projector where the paper's outweighs the backbone.",
)


class Config(BaseModel):
    """Settings of KD3; counts are optimiser updates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student_steps: int = Field(default=4000, ge=1, description="updates of the student")
    student_batch_size: int = Field(default=128, ge=2, description="images of the pool a step")
    student_lr: float = Field(default=0.5, gt=0, description="SGD with Nesterov momentum 0.9, cosine to zero")
    weight_decay: float = Field(default=5e-4, ge=0, description="of the student's weights, not of norms and biases")
    selection: Literal["teacher and student", "teacher", "off"] = Field(
        default="teacher and student", description="who decides which images are trained on"
    )
    num_selections: int = Field(default=12, ge=1, description="each looks at the whole pool with the student")
    weighting: Literal["on", "off"] = Field(default="on", description="weight images by how much the logits differ")
    contrast_weight: float = Field(default=1e-3, ge=0, description="invariance to the style of the image; 0: off")
    max_shift: int | None = Field(
        default=None, ge=0, description="pixels that images are moved by at most; none: an eighth of their width"
    )
    mirror: Mirror = Field(
        default="auto", description="mirror images left to right; auto: if the teacher does not mind"
    )


def defaults(effort: str, image_shape: tuple[int, int, int], device: str) -> dict[str, Any]:
    """HiDFD's number of student steps. The contrast doubles the cost of a step for a thousandth of its loss, so that a
    CPU goes without."""
    from compressor.methods import hidfd

    shared = hidfd.defaults(effort, image_shape, device)
    settings = {name: shared[name] for name in ("student_steps", "student_batch_size")}
    return settings | ({"contrast_weight": 0.0} if device == "cpu" else {})


def num_queries(config: Config, num_few: int, num_pool: int) -> int:
    """One for every image, two for each that is looked at in the mirror, one for every view trained on, and one to see
    the size of the teacher's map."""
    mirrored = mirroring_queries(config.mirror, num_few + num_pool)
    return num_few + num_pool + mirrored + 1 + config.student_steps * config.student_batch_size


def distill(
    teacher: Teacher, backbone: Backbone, images: TrainingImages, config: Config, context: Context
) -> Distilled:
    """Train a student on the few images and on what it and the teacher select of the pool."""
    everything = images.everything
    mirror, choice = mirroring(config.mirror, everything, lambda views: teacher(views.to(context.device)).logits)
    pool = survey(teacher, everything, len(images.few), context)
    kept = Kept(pool)

    student = classifier_sharing(backbone, teacher)
    embedding = nn.Linear(teacher.feature_dim, EMBEDDING_DIM)
    trained = nn.ModuleDict({"student": student, "embedding": embedding}).to(context.device)
    trained = trained.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(
        parameter_groups(trained, config.weight_decay), lr=config.student_lr, momentum=0.9, nesterov=True
    )
    schedule = cosine_schedule(optimiser, config.student_steps, warmup=config.student_steps // 20)

    num_selections = config.num_selections if config.selection == "teacher and student" else 1

    def loss_of(views: Tensor) -> Tensor:
        terms = student_terms(teacher, student, embedding, views, config, context)
        context.log(terms)
        loss = terms["feature_alignment"]
        if "style_contrast" in terms:
            loss = loss + config.contrast_weight * terms["style_contrast"]
        return loss

    state: dict[str, Stateful] = {"student": trained, "optimiser": optimiser, "schedule": schedule, "kept": kept}
    for step in context.steps("student", config.student_steps, state):
        if config.selection != "off" and selection_due(step, config.student_steps, num_selections):
            opinion = pool.logits
            if config.selection == "teacher and student":
                share = teacher_share(step / config.student_steps)
                opinion = mixed(pool.logits, student_opinion(student, pool, context), share)
            mask = class_balanced(opinion)
            context.world.take_over([mask])
            kept.choose(mask)

        views = pool.batch(kept.draw(config.student_batch_size, context.random))
        views = student_augmentation(views, context.random, flip=mirror, max_shift=config.max_shift)

        optimiser.zero_grad(set_to_none=True)
        context.backward(loss_of, views, divisible=config.contrast_weight == 0)
        optimiser.step()
        schedule.step()

    facts = {
        "choices": [choice],
        "departures": DEPARTURES,
        "num_images": len(everything),
        "kept_images": kept.history,
    }
    return Distilled(student.eval(), facts=facts)


def student_terms(
    teacher: Teacher, student: Student, embedding: nn.Linear, views: Tensor, config: Config, context: Context
) -> dict[str, Tensor]:
    """What trains the student on views (B, C, H, W) in [0, 1]: the teacher's map, and the same in another style."""
    with torch.no_grad(), context.autocast():
        target = teacher(views)
    with context.autocast():
        feature_map = student.feature_map(views)
    weights = torch.ones(len(views), device=views.device)
    if config.weighting == "on":
        with torch.no_grad():
            weights = disagreement_weights(student.classify(feature_map.float()), target.logits)
    terms = {"feature_alignment": weighted_feature_alignment(feature_map, target.feature_map, weights)}
    if config.contrast_weight > 0:
        with context.autocast():
            restyled = student.feature_map(mix_distribution(views, context.random))
        pooled = (embedding(each.float().mean(dim=(2, 3))) for each in (feature_map, restyled))
        terms["style_contrast"] = style_contrast(*pooled)
    return terms
