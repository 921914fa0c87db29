"""Hybrid Data-Free Knowledge Distillation (HiDFD, AAAI 2025, arXiv 2412.13525), repaired.

A conditional GAN learns the few real images, guided by the teacher. The student then learns the teacher's feature map
on real and synthetic images in a fixed proportion, and keeps the teacher's classifier. No label of the user is used: a
real image's class is the teacher's opinion of it.

    generator phase, discriminator half (generator constant):
        L_D = hinge + class_weight * class + matched_weight * L_trans + crossed_weight * L_blend
    generator phase, generator half (discriminator constant):
        L_G = hinge + class_weight * class + smoothing_weight * L_reg
    student phase (generator constant):
        L_S = mean (P(S(x)) - T(x))^2 + stage_weight * L_stages  [ + logit_weight * KL ]

Where this differs from the released code and from the paper is said in DEPARTURES, which every report repeats.

B batch, K classes, D teacher features, Z latent.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.utils import parametrize

from compressor.distill import losses
from compressor.distill.augment import (
    Mirror,
    differentiable_augmentation,
    draw_views,
    mirroring,
    mirroring_queries,
    student_augmentation,
)
from compressor.distill.generator import (
    ConditionalGenerator,
    Discriminator,
    Generator,
    GeneratorShape,
    bounded_resolution,
    standing_statistics,
)
from compressor.distill.monitor import class_evenness
from compressor.distill.stage_maps import StagePairs, recorded_maps
from compressor.distill.training import Context, Stateful, cosine_schedule, parameter_groups, update_average
from compressor.inputs.pixels import Images
from compressor.inputs.teacher import Teacher, TeacherOutput, TeacherPart
from compressor.methods import Distilled, Need, Task, TrainingImages
from compressor.students.student import Backbone, Student, classifier_sharing, own_classifier

VERSION = 2
USES: tuple[TeacherPart, ...] = ("logits", "features", "feature_map", "classifier", "input_gradient")
TASKS: tuple[Task, ...] = ("classification",)
NEEDS: Need = "few"
LOSS_TERMS: Mapping[str, str] = {
    "discriminator_hinge": "discriminator",
    "discriminator_class": "discriminator",
    "feature_integration_matched": "discriminator",
    "feature_integration_crossed": "discriminator",
    "generator_hinge": "generator",
    "generator_class": "generator",
    "category_frequency_smoothing": "generator",
    "feature_alignment": "student",
    "stage_alignment": "student",
    "knowledge_distillation": "student",
}

DEPARTURES = (
    "Feature integration has a gradient, and targets of unit scale; the released code computes it without one.",
    "The class weights of frequency smoothing are updated, by inverse frequency; the released code never updates them.",
    "The teacher sees its own normalisation in every phase; the released code feeds it three different ones.",
    "The averaged generator is used, in its native range, with batch statistics of its own.",
    "The discriminator averages its features over positions, where the released code sums them; its feature head is "
    "one linear layer, which is what the paper's two without a nonlinearity amount to.",
    "Beyond the paper: differentiable augmentation, one synthetic batch for both halves of a step, fresh synthetic "
    "images instead of a fixed set; for the student shifts instead of random crops, a larger learning rate, Nesterov "
    "momentum, a cosine schedule, no weight decay on norms and biases, and a thinner projector where the paper's "
    "outweighs the backbone.",
)
HINTS = (
    "Beyond the paper: the student also learns the teacher's maps of earlier stages, through convolutions that do not "
    "ship (FitNets)."
)
NO_PROJECTOR = (
    "Beyond the paper: there is no projector, since the student starts from its teacher's blocks and its map has the "
    "shape that the classifier reads."
)

# What makes of our recipe the paper's method with its defects mended; --option takes each of them.
PAPER: Mapping[str, Any] = {"projector": "on", "stage_weight": 0.0}

GENERATOR_SIDE = 64  # pixels; docs/quality.md compares 32 and 128 on photographs of 128
NUM_JUDGED = 512  # images on which the trained generator is described
NUM_SCALED = 64  # real images, at most, by which the scales of the stages are set


class Config(BaseModel):
    """Settings of HiDFD; counts are optimiser updates, sizes are channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    generator_steps: int = Field(default=20_000, ge=0, description="0: no generator, real images only")
    generator_batch_size: int = Field(default=100, ge=2, description="real images, and as many synthetic ones, a step")
    generator_width: int = Field(default=256, ge=8, description="channels of the maps up to 32 px")
    discriminator_width: int = Field(default=256, ge=8, description="channels of every map")
    generator_side: int = Field(
        default=GENERATOR_SIDE, ge=4, description="longest side of generated images; larger ones by interpolation"
    )
    latent_dim: int = Field(default=128, ge=2, description="numbers that an image is generated from")
    generator_lr: float = Field(default=2e-4, gt=0, description="Adam, betas (0, 0.999)")
    discriminator_lr: float = Field(default=2e-4, gt=0, description="Adam, betas (0, 0.999)")
    class_weight: float = Field(default=1.0, ge=0, description="class terms of generator and discriminator")
    matched_weight: float = Field(default=0.1, ge=0, description="feature integration, L_trans")
    crossed_weight: float = Field(default=0.1, ge=0, description="feature integration, L_blend")
    smoothing_weight: float = Field(default=0.1, ge=0, description="category frequency smoothing, L_reg")
    augment: Literal["on", "off"] = Field(default="on", description="differentiable augmentation of the GAN")

    student_steps: int = Field(default=60_000, ge=1, description="updates of the student")
    student_batch_size: int = Field(default=128, ge=2, description="real and synthetic images together")
    student_lr: float = Field(default=0.5, gt=0, description="SGD with Nesterov momentum 0.9, cosine to zero")
    weight_decay: float = Field(default=5e-4, ge=0, description="of the student's weights, not of norms and biases")
    real_fraction: float = Field(default=0.5, ge=0, le=1, description="data inflation: share of real images in a batch")
    classifier_sharing: Literal["on", "off"] = Field(
        default="on", description="off: a classifier of the student's own, trained by KL on logits alone"
    )
    projector: Literal["auto", "on"] = Field(
        default="auto", description="auto: none where the student's map can be the teacher's own, beyond the paper"
    )
    stage_weight: float = Field(default=1.0, ge=0, description="beyond the paper: maps of earlier stages")
    logit_weight: float = Field(default=0.0, ge=0, description="beyond the paper: KL on logits at temperature 4")
    mirror: Mirror = Field(
        default="auto", description="mirror images left to right; auto: if the teacher does not mind"
    )


def defaults(effort: str, image_shape: tuple[int, int, int], device: str) -> dict[str, Any]:
    """Sizes and steps that fit the image, the effort and the device. `full` on a GPU is the paper's own size."""
    level = ("quick", "standard", "full").index(effort)
    side = min(image_shape[1], image_shape[2], GENERATOR_SIDE)
    if device == "cuda":
        return {
            "generator_steps": (5_000, 10_000, 20_000)[level],
            "generator_width": (128, 256, 256)[level],
            "discriminator_width": (128, 256, 256)[level],
            "student_steps": (8_000, 25_000, 80_000)[level],
            "student_batch_size": (128, 256, 256)[level],
        }
    width = 32 if side <= 20 else 64
    return {
        "generator_steps": (1_200, 3_000, 10_000)[level],
        "generator_batch_size": 64,
        "generator_width": width,
        "discriminator_width": width,
        "latent_dim": 32 if side <= 20 else 64,
        "student_steps": (1_500, 4_000, 12_000)[level],
        "student_batch_size": 128,
    }


def num_queries(config: Config, num_few: int, num_pool: int) -> int:  # noqa: ARG001
    """The survey of the real images, real and synthetic ones of every generator step, its quality, the student."""
    queries = mirroring_queries(config.mirror, num_few) + config.student_steps * config.student_batch_size
    if config.generator_steps > 0 and config.real_fraction < 1.0:
        queries += num_few + config.generator_steps * 2 * config.generator_batch_size + NUM_JUDGED
    if config.stage_weight > 0:
        queries += min(num_few, NUM_SCALED)
    return queries + (config.classifier_sharing == "on")  # one image shows the size of the teacher's map


def distill(
    teacher: Teacher, backbone: Backbone, images: TrainingImages, config: Config, context: Context
) -> Distilled:
    """Train a generator on the few images, then the student on both."""
    real_images = images.few
    mirror, choice = mirroring(config.mirror, real_images, lambda images: teacher(images).logits)
    facts: dict[str, Any] = {"choices": [choice]}
    generator = None
    with teacher.folded():
        if config.generator_steps > 0 and config.real_fraction < 1.0:
            generator, generator_facts = train_generator(teacher, real_images, mirror, config, context)
            facts |= generator_facts
        with parametrize.cached():  # the generator's normalised weights, which are constants from here on
            student = train_student(teacher, backbone, real_images, generator, mirror, config, context)
    facts["departures"] = (
        *DEPARTURES,
        *([HINTS] if config.stage_weight > 0 else []),
        *([NO_PROJECTOR] if config.classifier_sharing == "on" and not student.card.projector else []),
    )
    return Distilled(student, generator, facts)


# --- generator phase -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GanBatch:
    """What one step of the generator phase looks at: B real and B synthetic images, and the teacher's opinion of them.

    Attributes:
        real, synthetic: (B, C, H, W) in [0, 1]. `synthetic` and what the teacher says of it keep the graph to the
            generator; the discriminator half detaches both.
        real_labels, labels: (B,), the teacher's class of the real images, and the classes asked of the generator.
    """

    real: Tensor
    real_labels: Tensor
    teacher_real: TeacherOutput
    synthetic: Tensor
    labels: Tensor
    teacher_synthetic: TeacherOutput


def train_generator(
    teacher: Teacher, real_images: Images, mirror: bool, config: Config, context: Context
) -> tuple[Generator, dict[str, Any]]:
    """The teacher-guided conditional GAN; returns the averaged generator in evaluation mode, and facts about it."""
    card, device = teacher.card, context.device
    channels, height, width = card.input_shape
    resolution = bounded_resolution(height, width, config.generator_side)
    shape = GeneratorShape(card.input_shape, resolution, card.num_classes, config.latent_dim, config.generator_width)
    generator = ConditionalGenerator(shape).to(device).to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(generator).requires_grad_(False)
    discriminator = Discriminator(
        channels, resolution, card.num_classes, teacher.feature_dim, config.discriminator_width
    )
    discriminator = discriminator.to(device).to(memory_format=torch.channels_last)
    generator_optimiser = torch.optim.Adam(
        generator.parameters(), lr=config.generator_lr, betas=(0.0, 0.999), fused=True
    )
    discriminator_optimiser = torch.optim.Adam(
        discriminator.parameters(), lr=config.discriminator_lr, betas=(0.0, 0.999), fused=True
    )

    pseudo_labels, feature_norm = survey(teacher, real_images)
    period = max(1, min(500, config.generator_steps // 50))
    # The prior is what one period would count if the generator copied the real images' classes.
    histogram = torch.bincount(pseudo_labels, minlength=card.num_classes)
    prior = histogram / histogram.sum() * period * config.generator_batch_size
    frequency = losses.ClassFrequency(prior, period)
    seen: list[GanBatch] = []  # by the discriminator in this step

    def discriminator_loss(*draws: Tensor) -> Tensor:
        with torch.set_grad_enabled(context.num_parts == 1):
            batch = gan_batch(teacher, generator, *draws, config=config, context=context)
        seen.append(batch)
        terms = discriminator_terms(discriminator, batch, feature_norm, context)
        context.log(terms)
        return (
            terms["discriminator_hinge"]
            + config.class_weight * terms["discriminator_class"]
            + config.matched_weight * terms["feature_integration_matched"]
            + config.crossed_weight * terms["feature_integration_crossed"]
        )

    def generator_loss(judged: Tensor, *draws: Tensor) -> Tensor:
        # One batch serves both halves, unless there is no room for its graph.
        kept = context.num_parts == 1
        batch = seen[0] if kept else gan_batch(teacher, generator, *draws, config=config, context=context)
        terms = generator_terms(discriminator, batch, frequency, context, judged if context.divides else None)
        context.log(terms)
        return (
            terms["generator_hinge"]
            + config.class_weight * terms["generator_class"]
            + config.smoothing_weight * terms["category_frequency_smoothing"]
        )

    state: dict[str, Stateful] = {
        "generator": generator,
        "average": average,
        "discriminator": discriminator,
        "generator_optimiser": generator_optimiser,
        "discriminator_optimiser": discriminator_optimiser,
        "frequency": frequency,
    }
    for step in context.steps("generator", config.generator_steps, state):
        rows = torch.randint(len(real_images), (config.generator_batch_size,), generator=context.random, device=device)
        views = (draw_views(len(rows), (height, width), context.random, flip=mirror) for _ in range(2))
        draws = (
            real_images[rows],
            pseudo_labels[rows],
            *generator.latents(config.generator_batch_size, context.random),
            *views,
        )
        seen.clear()

        # Discriminator half: the generator is a constant.
        discriminator.requires_grad_(True)
        discriminator_optimiser.zero_grad(set_to_none=True)
        if not context.backward(discriminator_loss, *draws):
            continue
        discriminator_optimiser.step()
        judged = context.whole(teacher_logits(seen), config.generator_batch_size)
        if context.divides:
            frequency.remember(judged.float().softmax(dim=1))

        # Generator half: the discriminator is a constant.
        discriminator.requires_grad_(False)
        generator_optimiser.zero_grad(set_to_none=True)
        context.backward(partial(generator_loss, judged), *draws)
        generator_optimiser.step()

        frequency.observe(judged.argmax(dim=1), step)
        # The average follows the last twentieth of the run, and less at its start.
        decay = min(1.0 - 20.0 / config.generator_steps, (1.0 + step) / (10.0 + step))
        update_average(average, generator, max(0.0, decay))

    standing_statistics(average, context.random, batch_size=config.generator_batch_size)
    consistency, balance = synthetic_quality(teacher, average, context)
    size = f"{resolution[0]}x{resolution[1]}"
    upsampled = "" if resolution == (height, width) else f", brought to the teacher's {height}x{width} by interpolation"
    return average.eval(), {
        "generator_resolution": resolution,
        "generator_note": f"Images are generated at {size}{upsampled}. The teacher sees the class that was asked for "
        f"in {consistency:.0%} of 512 of them; the entropy of the classes that it sees is {balance:.0%} of a uniform "
        "one's.",
        "synthetic_class_consistency": consistency,
        "synthetic_class_entropy": balance,
        "class_weights": [round(value, 4) for value in frequency.class_weights.tolist()],
    }


def gan_batch(
    teacher: Teacher,
    generator: Generator,
    real_images: Tensor,
    real_labels: Tensor,
    z: Tensor,
    labels: Tensor,
    real_views: Tensor,
    synthetic_views: Tensor,
    *,
    config: Config,
    context: Context,
) -> GanBatch:
    """Real images (B, C, H, W) uint8, as many synthetic ones, and the teacher on the view that the discriminator will
    get; the views (B, 5) are those of `draw_views`."""
    real = real_images.float() / 255.0
    with context.autocast():
        synthetic = generator(z, labels)
        if config.augment == "on":
            real = differentiable_augmentation(real, real_views)
            synthetic = differentiable_augmentation(synthetic, synthetic_views)
        teacher_synthetic = teacher(synthetic)  # with a graph: the generator half needs the gradient to the image
        with torch.no_grad():
            teacher_real = teacher(real)
    return GanBatch(real, real_labels, teacher_real, synthetic, labels, teacher_synthetic)


def discriminator_terms(
    discriminator: Discriminator, batch: GanBatch, feature_norm: float, context: Context
) -> dict[str, Tensor]:
    """What trains the discriminator; `feature_norm` brings the teacher's features to unit scale."""
    with context.autocast():
        verdict = discriminator(torch.cat([batch.real, batch.synthetic.detach()]))
    on_real, on_synthetic = slice(None, len(batch.real)), slice(len(batch.real), None)
    features = (
        batch.teacher_real.features.float() / feature_norm,
        batch.teacher_synthetic.features.detach().float() / feature_norm,
        verdict.features[on_real],
        verdict.features[on_synthetic],
    )
    return {
        "discriminator_hinge": losses.hinge_discriminator(verdict.score[on_real], verdict.score[on_synthetic]),
        "discriminator_class": losses.class_discriminator(
            verdict.class_logits[on_real], batch.real_labels, verdict.class_logits[on_synthetic], batch.labels
        ),
        "feature_integration_matched": losses.feature_integration_matched(*features),
        "feature_integration_crossed": losses.feature_integration_crossed(*features),
    }


def generator_terms(
    discriminator: Discriminator,
    batch: GanBatch,
    frequency: losses.ClassFrequency,
    context: Context,
    whole: Tensor | None = None,
) -> dict[str, Tensor]:
    """What trains the generator, through the discriminator and through the teacher.

    Args:
        whole: where `batch` is a part of a step's, the teacher's logits (B, K) on all of that.
    """
    with context.autocast():
        verdict = discriminator(batch.synthetic)
    probabilities = batch.teacher_synthetic.logits.float().softmax(dim=1)
    marginal = frequency.marginal(probabilities, None if whole is None else whole.float().softmax(dim=1))
    return {
        "generator_hinge": losses.hinge_generator(verdict.score),
        "generator_class": losses.class_generator(verdict.class_logits, batch.labels),
        "category_frequency_smoothing": losses.category_frequency_smoothing(marginal, frequency.class_weights),
    }


def teacher_logits(batches: Sequence[GanBatch]) -> Tensor:
    """What the teacher says of the synthetic images of a step, (B, K), as constants."""
    return torch.cat([batch.teacher_synthetic.logits.detach() for batch in batches])


@torch.no_grad()
def survey(teacher: Teacher, real_images: Images) -> tuple[Tensor, float]:
    """The teacher's class of every real image, (N,), and the mean norm of its features, which sets their scale."""
    labels, norms = [], []
    for batch in real_images.split(256):
        output = teacher(batch.float() / 255.0)
        labels.append(output.logits.argmax(dim=1))
        norms.append(output.features.norm(dim=1))
    return torch.cat(labels), max(float(torch.cat(norms).mean()), 1e-6)


@torch.no_grad()
def synthetic_quality(teacher: Teacher, generator: Generator, context: Context) -> tuple[float, float]:
    """Two shares over 512 generated images: how often the teacher sees the class that was asked for, and how even the
    classes are that it sees (the entropy of their histogram over log K: near 0 the generator has collapsed)."""
    predictions, wanted = [], []
    for _ in range(4):
        z, labels = generator.latents(NUM_JUDGED // 4, context.random)
        predictions.append(teacher(generator(z, labels)).logits.argmax(dim=1))
        wanted.append(labels)
    predicted, asked = torch.cat(predictions), torch.cat(wanted)
    histogram = torch.bincount(predicted, minlength=teacher.card.num_classes)
    return float((predicted == asked).float().mean()), class_evenness(histogram)


# --- student phase ---------------------------------------------------------------------------------------------------


def train_student(
    teacher: Teacher,
    backbone: Backbone,
    real_images: Images,
    generator: Generator | None,
    mirror: bool,
    config: Config,
    context: Context,
) -> Student:
    """Classifier sharing and feature alignment on inflated data: a fixed share of every batch is real."""
    device, random = context.device, context.random
    sharing = config.classifier_sharing == "on"
    if sharing:
        student = classifier_sharing(backbone, teacher, projector=config.projector)
    else:
        student = own_classifier(backbone, teacher)
    student = student.to(device).to(memory_format=torch.channels_last).train()
    pairs = None
    if config.stage_weight > 0:
        pairs = StagePairs(student, teacher, real_images[:NUM_SCALED].float() / 255.0).to(device).train()
    trained = nn.ModuleList([student] if pairs is None else [student, pairs])
    optimiser = torch.optim.SGD(
        parameter_groups(trained, config.weight_decay), lr=config.student_lr, momentum=0.9, nesterov=True, fused=True
    )
    schedule = cosine_schedule(optimiser, config.student_steps, warmup=config.student_steps // 20)
    num_real = round(config.student_batch_size * (config.real_fraction if generator is not None else 1.0))
    num_synthetic = config.student_batch_size - num_real
    logit_weight = config.logit_weight if sharing else 1.0

    def loss_of(images: Tensor) -> Tensor:
        terms = student_terms(student, teacher, images, context, pairs, align=sharing, distil=logit_weight > 0)
        context.log(terms)
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

    weights = {
        "feature_alignment": 1.0,
        "stage_alignment": config.stage_weight,
        "knowledge_distillation": logit_weight,
    }
    state: dict[str, Stateful] = {"student": trained, "optimiser": optimiser, "schedule": schedule}
    for _ in context.steps("student", config.student_steps, state):
        # Data inflation: the generator is a constant.
        rows = torch.randint(len(real_images), (num_real,), generator=random, device=device)
        images = real_images[rows].float() / 255.0
        if generator is not None and num_synthetic > 0:
            with torch.no_grad(), context.autocast():
                synthetic = generator(*generator.latents(num_synthetic, random))
            images = torch.cat([images, synthetic])
        images = student_augmentation(images, random, flip=mirror)

        optimiser.zero_grad(set_to_none=True)
        context.backward(loss_of, images)
        optimiser.step()
        schedule.step()

    return student.eval()


def student_terms(
    student: Student,
    teacher: Teacher,
    images: Tensor,
    context: Context,
    pairs: StagePairs | None,
    *,
    align: bool,
    distil: bool,
) -> dict[str, Tensor]:
    """What trains the student on images (B, C, H, W): the teacher's feature map, the maps of the stages before it, and
    its softened logits, or some of these."""
    teacher_stages, student_stages = ((), ()) if pairs is None else (pairs.teacher_stages, pairs.student_stages)
    with torch.no_grad(), context.autocast(), recorded_maps(teacher_stages) as teacher_maps:
        target = teacher(images)
    with context.autocast(), recorded_maps(student_stages) as student_maps:
        feature_map = student.feature_map(images)
        adapted = [] if pairs is None else pairs(student_maps)
    terms = {}
    if align:
        terms["feature_alignment"] = losses.feature_alignment(feature_map, target.feature_map)
    if pairs is not None and adapted:
        terms["stage_alignment"] = losses.stage_alignment(adapted, teacher_maps, pairs.scales)
    if distil:
        logits = student.classify(feature_map.float())
        terms["knowledge_distillation"] = losses.knowledge_distillation(logits, target.logits, temperature=4.0)
    return terms
