"""Data-Free Adversarial Distillation (DFAD, Fang et al. 2019, arXiv 1912.11006), repaired; it needs no image.

A generator makes the images on which student and teacher differ most, and the student learns the teacher's output on
them. The gap on images that nobody has is thereby bounded by the gap on the hardest that could be found. Micaelli and
Storkey (2019, arXiv 1905.09768) published the same game earlier.

    student half, `generator_every` times, on fresh images x = G(z) (generator constant):
        L_S = discrepancy_weight * MAE(S(x), T(x))  [ + knowledge_distillation_weight * KL ]
    generator half, once (student constant):
        L_G = adversarial_weight * -MAE(S(x), T(x))  [ or -log(MAE + 1) ]
              [ + batch_norm_distance_weight * distance of batch statistics to those that the teacher keeps
                + own_class_weight * CE(T(x), argmax T(x)) + class_balance_weight * sum_k p_k log p_k
                - activation_weight * mean |features| ]

The terms in brackets are switched off here; `ddad`, `dfq` and `dafl` are this loop with other weights. MAE runs over
all elements of the output, whatever they are: logits of classes or of pixels, or the numbers of a regression.

Where this differs from the released code is said in DEPARTURES, which every report repeats.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils import clip_grad_norm_

from compressor.distill import losses
from compressor.distill.adversarial_generator import AdversarialGenerator, adversarial_shape
from compressor.distill.batch_norm_match import has_batch_norm, recorded_statistics
from compressor.distill.monitor import OutputMonitor
from compressor.distill.training import Context, Stateful, cosine_schedule, parameter_groups
from compressor.errors import InputRefused, UsageFault
from compressor.inputs.teacher import Teacher, TeacherPart
from compressor.methods import Distilled, Need, Task, TrainingImages
from compressor.students.student import Backbone, Student, own_classifier

VERSION = 1
USES: tuple[TeacherPart, ...] = ("logits", "input_gradient")
TASKS: tuple[Task, ...] = ("classification", "segmentation", "regression")
NEEDS: Need = "nothing"
LOSS_TERMS: Mapping[str, str] = {
    "discrepancy": "student",
    "knowledge_distillation": "student",
    "adversarial": "generator",
    "batch_norm_distance": "generator",
    "own_class": "generator",
    "class_balance": "generator",
    "activation": "generator",
}

DEPARTURES = (
    "The last weights ship; the released code keeps those that did best on the test set.",
    "In the generator's half the student normalises by its batch, but keeps its running statistics and drops nothing; "
    "the released code lets the generator's images into the statistics.",
    "The teacher is frozen, and the student's images are made without a graph; the released code computes both "
    "gradients and throws them away.",
    "Images are in [0, 1] and the teacher normalises them itself; the released generators end in normalised values, "
    "which may be darker than black.",
    "Beyond the paper: a cosine schedule with a warm-up for both networks, Nesterov momentum, no weight decay on norms "
    "and biases, and a bound on the generator's gradient.",
)
EVEN_ENOUGH = 0.7  # of the entropy of equal shares; below, the report warns


class Config(BaseModel):
    """Settings of DFAD; counts are optimiser updates, sizes are channels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student_steps: int = Field(default=40_000, ge=1, description="updates of the student")
    student_batch_size: int = Field(default=256, ge=2, description="generated images a step, for either network")
    student_lr: float | None = Field(
        default=None, gt=0, description="SGD with Nesterov momentum 0.9, cosine; none: 0.1, or 0.01 without batch norm"
    )
    weight_decay: float = Field(default=5e-4, ge=0, description="of the student's weights, not of norms and biases")
    discrepancy_weight: float = Field(default=1.0, ge=0, description="student: MAE of its output to the teacher's")
    knowledge_distillation_weight: float = Field(
        default=0.0, ge=0, description="student: KL of the softened predictions"
    )
    temperature: float = Field(default=4.0, gt=0, description="softens both predictions in the KL")

    generator_every: int = Field(default=5, ge=1, description="updates of the student for one of the generator, k")
    generator_lr: float = Field(default=1e-3, gt=0, description="Adam, cosine to zero")
    generator_clip: float = Field(default=10.0, gt=0, description="bound on the norm of the generator's gradient")
    generator: Literal["a", "b", "auto"] = Field(default="auto", description="its layout; auto: b above 64 px")
    generator_width: int = Field(default=64, ge=4, description="channels of its largest map")
    latent_dim: int = Field(default=256, ge=2, description="numbers that an image is generated from")
    largest_side: int = Field(
        default=256, ge=4, description="pixels; images beyond are brought to size by interpolation"
    )
    adversarial_form: Literal["mae", "log", "auto"] = Field(
        default="auto", description="log: -log(MAE + 1), slower where the gap is large; auto: log for segmentation"
    )
    adversarial_weight: float = Field(default=1.0, ge=0, description="generator: where student and teacher differ")
    batch_norm_distance_weight: float = Field(
        default=0.0, ge=0, description="generator: batch statistics as the teacher's own"
    )
    own_class_weight: float = Field(default=0.0, ge=0, description="generator: images that the teacher is sure of")
    class_balance_weight: float = Field(default=0.0, ge=0, description="generator: all classes equally often")
    activation_weight: float = Field(default=0.0, ge=0, description="generator: large features in the teacher")


def defaults(effort: str, image_shape: tuple[int, int, int], device: str) -> dict[str, Any]:
    """Sizes and steps that fit the effort and the device. `full` on a GPU is the paper's size for CIFAR."""
    level = ("quick", "standard", "full").index(effort)
    small = max(image_shape[1:]) <= 64
    if device == "cuda":
        return {
            "student_steps": (10_000, 40_000, 125_000)[level],
            "student_batch_size": 256 if small else 64,
        }
    return {
        "student_steps": (2_000, 6_000, 20_000)[level],
        "student_batch_size": 64 if small else 16,
        "generator_width": 16,
        "latent_dim": 100,
    }


def num_queries(config: Config, num_few: int, num_pool: int) -> int:  # noqa: ARG001
    """(k + 1) batches for every k updates of the student."""
    return (config.student_steps + config.student_steps // config.generator_every) * config.student_batch_size


def distill(
    teacher: Teacher,
    backbone: Backbone,
    images: TrainingImages,  # noqa: ARG001
    config: Config,
    context: Context,
) -> Distilled:
    """Train generator and student against each other; no image is looked at.

    Raises:
        InputRefused: a term is switched on that this teacher has no layers or no classes for.
        UsageFault: no term is left to train one of the two networks.
    """
    check_terms(teacher, config)
    card, device = teacher.card, context.device
    student = own_classifier(backbone, teacher).to(device).to(memory_format=torch.channels_last).train()
    shape = adversarial_shape(
        config.generator,
        card,
        largest_side=config.largest_side,
        latent_dim=config.latent_dim,
        width=config.generator_width,
    )
    generator = AdversarialGenerator(shape).to(device).to(memory_format=torch.channels_last).train()
    lr = config.student_lr or (0.1 if has_batch_norm(student) else 0.01)
    student_optimiser = torch.optim.SGD(
        parameter_groups(student, config.weight_decay), lr=lr, momentum=0.9, nesterov=True
    )
    generator_optimiser = torch.optim.Adam(generator.parameters(), lr=config.generator_lr)
    num_generator_steps = config.student_steps // config.generator_every
    student_schedule = cosine_schedule(student_optimiser, config.student_steps, warmup=config.student_steps // 20)
    generator_schedule = cosine_schedule(generator_optimiser, num_generator_steps, warmup=num_generator_steps // 20)
    monitor = OutputMonitor(card.num_classes, device, judged=card.task == "classification")

    def student_loss(synthetic: Tensor) -> Tensor:
        terms = student_terms(student, teacher, synthetic, config, context, monitor)
        context.log(terms)
        return weighted_sum(terms, config)

    def generator_loss(z: Tensor, labels: Tensor) -> Tensor:
        with context.autocast():
            synthetic = generator(z, labels)
        terms = generator_terms(student, teacher, synthetic, config, context)
        context.log(terms)
        return weighted_sum(terms, config)

    # These terms are no means over images: they are about the batch as a whole.
    about_batch = config.batch_norm_distance_weight, config.class_balance_weight, takes_log(teacher, config)
    divisible = not any(about_batch)
    state: dict[str, Stateful] = {
        "student": student,
        "generator": generator,
        "student_optimiser": student_optimiser,
        "generator_optimiser": generator_optimiser,
        "student_schedule": student_schedule,
        "generator_schedule": generator_schedule,
        "monitor": monitor,
    }
    for step in context.steps("student", config.student_steps, state):
        # Student half: the generator is a constant.
        with torch.no_grad(), context.autocast():
            synthetic = generator(*generator.latents(config.student_batch_size, context.random))
        student_optimiser.zero_grad(set_to_none=True)
        context.backward(student_loss, synthetic)
        student_optimiser.step()
        student_schedule.step()
        if (step + 1) % config.generator_every:
            continue

        # Generator half: the student is a constant.
        latents = generator.latents(config.student_batch_size, context.random)
        generator_optimiser.zero_grad(set_to_none=True)
        context.backward(generator_loss, *latents, divisible=divisible)
        clip_grad_norm_(generator.parameters(), config.generator_clip)
        generator_optimiser.step()
        generator_schedule.step()

    return Distilled(student.eval(), generator.eval().requires_grad_(False), facts_of(teacher, generator, monitor))


# --- the two halves ---------------------------------------------------------------------------------------------------


def student_terms(
    student: Student, teacher: Teacher, images: Tensor, config: Config, context: Context, monitor: OutputMonitor
) -> dict[str, Tensor]:
    """What trains the student on images (B, C, H, W), which are constants."""
    with torch.no_grad(), context.autocast():
        target = teacher(images).logits
    monitor.observe(target)
    with context.autocast():
        output = student(images)
    terms = {}
    if config.discrepancy_weight > 0:
        terms["discrepancy"] = losses.discrepancy(output, target)
    if config.knowledge_distillation_weight > 0:
        terms["knowledge_distillation"] = losses.knowledge_distillation(output, target, config.temperature)
    return terms


def generator_terms(
    student: Student, teacher: Teacher, images: Tensor, config: Config, context: Context
) -> dict[str, Tensor]:
    """What trains the generator of images (B, C, H, W), through the teacher and through the student."""
    terms = {}
    with recorded_statistics(teacher.network) as statistics, context.autocast():
        said = teacher(images)
    if config.adversarial_weight > 0:
        with held_constant(student), context.autocast():
            output = student(images)
        log_form = takes_log(teacher, config)
        adversarial = losses.negative_log_discrepancy if log_form else losses.negative_discrepancy
        terms["adversarial"] = adversarial(output, said.logits)
    if config.batch_norm_distance_weight > 0:
        terms["batch_norm_distance"] = losses.batch_norm_distance(statistics)
    if config.own_class_weight > 0:
        terms["own_class"] = losses.own_class(said.logits)
    if config.class_balance_weight > 0:
        terms["class_balance"] = losses.class_balance(said.logits)
    if config.activation_weight > 0:
        terms["activation"] = losses.activation(said.features)
    return terms


def takes_log(teacher: Teacher, config: Config) -> bool:
    """Whether the adversarial term is -log(MAE + 1)."""
    return {"mae": False, "log": True, "auto": teacher.task == "segmentation"}[config.adversarial_form]


def weighted_sum(terms: Mapping[str, Tensor], config: Config) -> Tensor:
    """The loss of one half: every term with the setting that is named after it."""
    return torch.stack([getattr(config, f"{name}_weight") * term for name, term in terms.items()]).sum()


@contextmanager
def held_constant(student: nn.Module) -> Iterator[None]:
    """The student as a constant function of the whole batch: no gradient to its weights, batch statistics that leave
    no trace, and nothing dropped.

    With its running statistics it would be another network than the one that is trained, early on a very different one;
    with dropout the generator would chase the noise.
    """
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    norms = [module for module in student.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    dropouts = [module for module in student.modules() if isinstance(module, _DropoutNd) and module.training]
    for parameter in trained:
        parameter.requires_grad_(False)
    for norm in norms:
        norm.track_running_stats = False
    for dropout in dropouts:
        dropout.eval()
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        for norm in norms:
            norm.track_running_stats = True
        for dropout in dropouts:
            dropout.train()


# --- before and after -------------------------------------------------------------------------------------------------


def check_terms(teacher: Teacher, config: Config) -> None:
    """Refuse terms that this teacher has nothing for, and a network without any.

    Raises:
        InputRefused, UsageFault: see `distill`.
    """
    about_classes = [
        name
        for name in ("knowledge_distillation_weight", "own_class_weight", "class_balance_weight")
        if getattr(config, name) > 0
    ]
    if teacher.task == "regression" and about_classes:
        raise InputRefused(
            f"{' and '.join(about_classes)} are above 0, and the teacher's task is regression.",
            "These terms read the teacher's output as classes, which numbers are not.",
            f"Set {', '.join(f'{name}=0' for name in about_classes)}.",
        )
    if config.batch_norm_distance_weight > 0 and not has_batch_norm(teacher):
        raise InputRefused(
            f"batch_norm_distance_weight is {config.batch_norm_distance_weight}, and the teacher "
            f"({teacher.card.architecture}) has no batch norm.",
            "The term matches the statistics that batch norm layers keep of the training images.",
            "Set batch_norm_distance_weight=0, or use --method dfad, which does without.",
        )
    if config.activation_weight > 0 and "features" not in teacher.gives:
        raise InputRefused(
            f"activation_weight is {config.activation_weight}, and the teacher ({teacher.card.architecture}) gives no "
            "features.",
            "The term asks for large features, and a teacher that is run from its own file has none to look at.",
            "Set activation_weight=0.",
        )
    for network in ("student", "generator"):
        names = [f"{term}_weight" for term, trained in LOSS_TERMS.items() if trained == network]
        if all(getattr(config, name) == 0 for name in names):
            raise UsageFault(
                f"Nothing trains the {network}: {', '.join(names)} are all 0.",
                "At least one of them must be above 0.",
                f"Set {names[0]}=1.",
            )


def facts_of(teacher: Teacher, generator: AdversarialGenerator, monitor: OutputMonitor) -> dict[str, Any]:
    """What the report says of the generator, which is no likeness of any image and is not judged as one."""
    height, width = generator.shape.resolution
    magnitude = monitor.mean_magnitude()
    note = (
        f"Images are generated at {height}x{width} to be hard for the student, not to look real. "
        f"The mean absolute output of the teacher on the last of them is {magnitude:.3g}"
    )
    facts: dict[str, Any] = {
        "generator_resolution": (height, width),
        "teacher_output_magnitude": magnitude,
        "departures": DEPARTURES,
    }
    if teacher.task == "regression":
        return facts | {"generator_note": f"{note}."}
    evenness = monitor.class_evenness()
    note += f"; the entropy of the classes that it sees is {evenness:.0%} of a uniform one's."
    if evenness < EVEN_ENOUGH:
        note += " Classes that it hardly sees, the student hardly learns: class_balance_weight evens them."
    return facts | {"generator_note": note, "synthetic_class_entropy": evenness}
