"""Data-free distillation in minutes (FastMeta, Fang et al., AAAI 2022, arXiv 2112.15278): images from a few updates.

For when minutes matter and there is no image. A round tunes a copy of the generator on one batch, in a handful of
updates, and adds that batch's best images to a pool; the student learns from the pool as if it were data.

    round, on x = G'(z) with classes y at random (student constant):
        L_G = batch_norm_weight * distance of batch statistics to those that the teacher keeps
              + class_weight * CE(T(x), y) + adversarial_weight * -KL(T(x) || S(x)) as far as both agree
    student, `synthesis_every` steps a round:
        L_S = T^2 KL(softmax(teacher / T) || softmax(student / T)),    T = 20

The published figures are within a point and a half of methods that take a hundred times as long. Where this differs
from the released code is said in DEPARTURES.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from compressor.distill.augment import Mirror, mirroring, mirroring_queries, student_augmentation
from compressor.distill.batch_norm_match import recorded_statistics
from compressor.distill.losses import batch_norm_distance, knowledge_distillation
from compressor.distill.meta_generator import BlendedStatistics, MetaGenerator, add_gradients, boundary_adversarial
from compressor.distill.monitor import OutputMonitor
from compressor.distill.synthetic_pool import SyntheticPool
from compressor.distill.training import Context, Stateful, cosine_schedule, parameter_groups
from compressor.inputs.teacher import Teacher, TeacherPart
from compressor.methods import Distilled, Need, Task, TrainingImages
from compressor.students.student import Backbone, Student, own_classifier

VERSION = 1
USES: tuple[TeacherPart, ...] = ("logits", "input_gradient", "batch_norm")
TASKS: tuple[Task, ...] = ("classification",)
NEEDS: Need = "nothing"
LOSS_TERMS: Mapping[str, str] = {
    "batch_norm_distance": "tuned_generator",
    "asked_class": "tuned_generator",
    "boundary_adversarial": "tuned_generator",
    "knowledge_distillation": "student",
}

MEMORY = 0.9  # share of earlier rounds in the statistics that are compared
FRESH_START = 0.6  # of the rounds, after which the generator's first layer begins anew
BETAS = (0.5, 0.999)
POOL_BYTES = 2**28  # on the device and in every checkpoint; 60,000 images of 32 px are less
NUM_KEPT = 1_024  # images of the pool that stay in the run

DEPARTURES = (
    "The last weights ship; the released code keeps those that did best on the test set.",
    "The adversarial term is weighted by how probable the student finds the teacher's class; the released code takes "
    "it where both name the same class.",
    "Images are kept as bytes on the device; the released code writes picture files and reads them back.",
    "For the student shifts instead of random crops, Nesterov momentum, a warm-up, no weight decay on norms, biases.",
)


class Config(BaseModel):
    """Settings of FastMeta; counts are optimiser updates, sizes are channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator_steps: int = Field(default=20, ge=0, description="rounds before the student begins")
    generator_batch_size: int = Field(default=256, ge=2, description="images of a round")
    generator_width: int = Field(default=64, ge=4, description="channels of its largest map")
    latent_dim: int = Field(default=256, ge=2, description="numbers that an image is generated from")
    tuning: int = Field(default=10, ge=1, description="updates of the copy in a round: 2, 5 or 10 in the paper")
    generator_lr: float = Field(
        default=2e-3, gt=0, description="of the copy, Adam; `tuning` times it for the generator"
    )
    latent_lr: float = Field(default=0.01, gt=0, description="of the latents, which are tuned as well")
    batch_norm_weight: float = Field(default=10.0, ge=0, description="batch statistics as the teacher's own")
    class_weight: float = Field(default=0.5, ge=0, description="the classes that were asked for")
    adversarial_weight: float = Field(
        default=1.33, ge=0, description="where student and teacher agree on the class and differ otherwise"
    )
    pool_size: int = Field(default=60_000, ge=2, description="images that are kept, the last ones, as bytes")

    student_steps: int = Field(default=80_000, ge=1, description="updates of the student")
    student_batch_size: int = Field(default=256, ge=2, description="images of the pool a step")
    synthesis_every: int = Field(default=400, ge=1, description="updates of the student for one round")
    student_lr: float = Field(default=0.2, gt=0, description="SGD with Nesterov momentum 0.9, cosine to zero")
    weight_decay: float = Field(default=1e-4, ge=0, description="of the student's weights, not of norms and biases")
    temperature: float = Field(default=20.0, gt=0, description="softens both predictions")
    mirror: Mirror = Field(
        default="auto", description="mirror images; auto: if the teacher does not mind on the few real ones, if any"
    )


def defaults(effort: str, image_shape: tuple[int, int, int], device: str) -> dict[str, Any]:
    """Fast-2, Fast-5 and Fast-10 of the paper on a GPU; fewer rounds, and a thinner generator, on a CPU."""
    level = ("quick", "standard", "full").index(effort)
    pool_size = min(60_000, max(1_000, POOL_BYTES // math.prod(image_shape)))
    tuning, lr, latent_lr = ((2, 5e-3, 0.015), (5, 4e-3, 0.01), (10, 2e-3, 0.01))[level]
    if device == "cuda":
        steps = (20_000, 40_000, 80_000)[level]
        return {
            "tuning": tuning,
            "generator_lr": lr,
            "latent_lr": latent_lr,
            "student_steps": steps,
            "synthesis_every": steps // 200,
            "pool_size": pool_size,
        }
    steps = (1_500, 4_000, 12_000)[level]
    return {
        "generator_steps": 10,
        "generator_batch_size": 128,
        "generator_width": 32 if max(image_shape[1:]) <= 32 else 16,
        "latent_dim": 100,
        "tuning": (5, 5, 10)[level],
        "generator_lr": (4e-3, 4e-3, 2e-3)[level],
        "student_steps": steps,
        "student_batch_size": 128,
        "synthesis_every": steps // 50,
        "pool_size": pool_size,
    }


def num_queries(config: Config, num_few: int, _num_pool: int) -> int:
    """Every update of every round, every step, and the question whether to mirror."""
    rounds = config.generator_steps + -(-config.student_steps // config.synthesis_every)
    synthesis = rounds * config.tuning * config.generator_batch_size
    asked = mirroring_queries(config.mirror, num_few)
    return synthesis + config.student_steps * config.student_batch_size + asked


def distill(
    teacher: Teacher, backbone: Backbone, images: TrainingImages, config: Config, context: Context
) -> Distilled:
    """Fill a pool, train the student on it, and go on adding to it; the few images only decide whether to mirror."""
    card, device = teacher.card, context.device
    mirror, choice = False, {"name": "mirror images", "value": "off", "reason": "there is no image to ask about"}
    if config.mirror != "auto" or len(images.few) > 0:
        mirror, choice = mirroring(config.mirror, images.few, lambda views: teacher(views).logits)

    generator = MetaGenerator(card.input_shape, config.latent_dim, config.generator_width).to(device).train()
    pool = SyntheticPool(config.pool_size, card.input_shape, device)
    maker = Maker(teacher, generator, pool, mirror, config, context)
    for _ in context.steps("generator", config.generator_steps, maker.state):
        maker.round(None)

    student = own_classifier(backbone, teacher).to(device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(
        parameter_groups(student, config.weight_decay), lr=config.student_lr, momentum=0.9, nesterov=True
    )
    schedule = cosine_schedule(optimiser, config.student_steps, warmup=config.student_steps // 20)
    num_rounds = -(-config.student_steps // config.synthesis_every)

    def loss_of(views: Tensor) -> Tensor:
        with torch.no_grad(), context.autocast():
            teacher_logits = teacher(views).logits
        with context.autocast():
            student_logits = student(views)
        loss = knowledge_distillation(student_logits, teacher_logits, config.temperature)
        context.log({"knowledge_distillation": loss})
        return loss

    state = {**maker.state, "student": student, "optimiser": optimiser, "schedule": schedule}
    for step in context.steps("student", config.student_steps, state):
        if step % config.synthesis_every == 0:
            if step // config.synthesis_every == int(FRESH_START * num_rounds) > 0:
                generator.stem.reset_parameters()
            maker.round(student)

        views = student_augmentation(pool.draw(config.student_batch_size, context.random), context.random, flip=mirror)

        optimiser.zero_grad(set_to_none=True)
        context.backward(loss_of, views)
        optimiser.step()
        schedule.step()

    facts = {"choices": [choice], "departures": DEPARTURES, "pool_images": len(pool)}
    kept = torch.randperm(len(pool), generator=context.random, device=context.random.device)[:NUM_KEPT]
    return Distilled(student.eval(), images=pool.images[kept].cpu(), facts=facts)


class Maker:
    """One round after the other: what makes images, and all that it changes."""

    def __init__(
        self,
        teacher: Teacher,
        generator: MetaGenerator,
        pool: SyntheticPool,
        mirror: bool,
        config: Config,
        context: Context,
    ) -> None:
        self.teacher, self.generator, self.pool = teacher, generator, pool
        self.mirror, self.config, self.context = mirror, config, context
        self.tuned = copy.deepcopy(generator)
        self.optimiser = torch.optim.Adam(generator.parameters(), lr=config.generator_lr * config.tuning, betas=BETAS)
        self.statistics = BlendedStatistics(MEMORY)
        self.monitor = OutputMonitor(teacher.card.num_classes, context.device, judged=True)
        self.state: dict[str, Stateful] = {
            "generator": generator,
            "tuned_generator": self.tuned,
            "generator_optimiser": self.optimiser,
            "statistics": self.statistics,
            "pool": pool,
            "monitor": self.monitor,
        }

    def round(self, student: Student | None) -> None:
        """Tune a copy on one batch, keep its best images, and move the generator. The student, if any, is constant."""
        config, context, random = self.config, self.context, self.context.random
        if student is not None:
            student.eval().requires_grad_(False)
        size = (config.generator_batch_size, config.latent_dim)
        z = torch.randn(size, generator=random, device=random.device).requires_grad_()
        labels = torch.randint(self.teacher.card.num_classes, size[:1], generator=random, device=random.device)
        self.tuned.load_state_dict(self.generator.state_dict())
        groups: list[dict[str, Any]] = [
            {"params": list(self.tuned.parameters()), "lr": config.generator_lr * context.rate_factor},
            {"params": [z], "lr": config.latent_lr * context.rate_factor},
        ]
        tuner = torch.optim.Adam(groups, betas=BETAS)
        self.optimiser.zero_grad(set_to_none=True)
        best = torch.empty(0, device=random.device)
        best_loss = torch.full((), torch.inf, device=random.device)
        for _ in range(config.tuning):
            with context.autocast():
                images = self.tuned(z)
            terms, blended = self.terms(images, labels, student)
            context.log(terms)
            loss = config.batch_norm_weight * terms["batch_norm_distance"] + config.class_weight * terms["asked_class"]
            if "boundary_adversarial" in terms:
                loss = loss + config.adversarial_weight * terms["boundary_adversarial"]
            with torch.no_grad():
                best = torch.where(loss < best_loss, images, best) if len(best) else images.detach()
                best_loss = torch.minimum(loss, best_loss)
            tuner.zero_grad(set_to_none=True)
            loss.backward()
            add_gradients(self.generator, self.tuned)
            tuner.step()
        self.statistics.remember(blended)
        self.optimiser.step()
        self.pool.add(best)
        context.agree(self.state)
        if student is not None:
            student.train().requires_grad_(True)

    def terms(self, images: Tensor, labels: Tensor, student: Student | None) -> tuple[dict[str, Tensor], list[Any]]:
        """What tunes the copy on its images (B, C, H, W), and the statistics that it was judged by."""
        views = student_augmentation(images, self.context.random, flip=self.mirror)
        with self.context.autocast(), recorded_statistics(self.teacher) as statistics:
            teacher_logits = self.teacher(views).logits
        self.monitor.observe(teacher_logits)
        blended = self.statistics.blend(statistics)
        terms = {
            "batch_norm_distance": batch_norm_distance(blended),
            "asked_class": F.cross_entropy(teacher_logits.float(), labels),
        }
        if student is not None:
            with self.context.autocast():
                student_logits = student(views)
            terms["boundary_adversarial"] = boundary_adversarial(student_logits, teacher_logits)
        return terms, blended
