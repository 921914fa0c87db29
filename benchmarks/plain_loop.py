"""HiDFD's two steps as research code writes them: what benchmarks/speed.py compares the product's loops with.

Same networks, losses, batch sizes and optimisers, but float32, NCHW and eager; upsampling, pooling and conditional
batch norm as they are written in the papers; images as PIL images that a DataLoader transforms one by one; a teacher
that nobody has frozen, so that the generator's backward pass also makes gradients of its weights; and the losses read
with `.item()` in every step, for the log.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms
from torchvision.transforms.functional import to_pil_image

from compressor.distill import losses
from compressor.distill.augment import differentiable_augmentation, draw_views, student_augmentation
from compressor.distill.generator import (
    ConditionalBatchNorm,
    ConditionalGenerator,
    Discriminator,
    DownBlock,
    UpBlock,
)
from compressor.distill.stage_maps import StagePairs
from compressor.distill.training import Context, parameter_groups, update_average
from compressor.inputs.teacher import Teacher
from compressor.methods.hidfd import NUM_SCALED, Config, student_terms
from compressor.students.student import Student

# --- networks --------------------------------------------------------------------------------------------------------


class PlainUpBlock(nn.Module):
    """An `UpBlock` in three operations where that has one."""

    def __init__(self, block: UpBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        block = self.block
        shortcut = block.shortcut(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = torch.relu(plain_norm(block.norm1, x, labels))
        x = block.conv1(F.interpolate(x, scale_factor=2.0, mode="nearest"))
        x = block.conv2(torch.relu(plain_norm(block.norm2, x, labels)))
        return x + shortcut  # type: ignore[no-any-return]


class PlainDownBlock(nn.Module):
    """A `DownBlock` that pools after its second convolution."""

    def __init__(self, block: DownBlock) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        block = self.block
        residual = block.conv2(torch.relu(block.conv1(x if block.first else torch.relu(x))))
        if block.halve:
            residual, x = F.avg_pool2d(residual, 2), F.avg_pool2d(x, 2)
        return residual + block.shortcut(x)  # type: ignore[no-any-return]


class PlainGenerator(nn.Module):
    """The layers of a `ConditionalGenerator`, for images of 8, 16, 32 or 64 px."""

    def __init__(self, generator: ConditionalGenerator) -> None:
        super().__init__()
        self.base = generator.base
        self.stem = generator.stem
        self.blocks = nn.ModuleList(PlainUpBlock(block) for block in generator.blocks if isinstance(block, UpBlock))
        self.norm = generator.norm
        self.to_image = generator.to_image

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        x = self.stem(z).view(len(z), -1, *self.base)
        for block in self.blocks:
            x = block(x, labels)
        return (torch.tanh(self.to_image(torch.relu(self.norm(x)))) + 1.0) / 2.0


def plain_norm(norm: ConditionalBatchNorm, x: Tensor, labels: Tensor) -> Tensor:
    """(B, C, h, w) and (B,) to the normalised map, scaled and shifted by class."""
    gain, bias = norm.gain(labels), norm.bias(labels)
    return norm.norm(x) * gain[:, :, None, None] + bias[:, :, None, None]  # type: ignore[no-any-return]


def plain_discriminator(discriminator: Discriminator) -> Discriminator:
    """A copy with `PlainDownBlock`s."""
    plain = copy.deepcopy(discriminator).to(memory_format=torch.contiguous_format)
    plain.blocks = nn.Sequential(*(PlainDownBlock(block) for block in plain.blocks if isinstance(block, DownBlock)))
    return plain


def plain_generator(generator: ConditionalGenerator) -> PlainGenerator:
    """A copy with `PlainUpBlock`s."""
    return PlainGenerator(copy.deepcopy(generator).to(memory_format=torch.contiguous_format))


def unfrozen(teacher: Teacher) -> Teacher:
    """A copy whose weights want gradients, in evaluation mode."""
    return copy.deepcopy(teacher).to(memory_format=torch.contiguous_format).requires_grad_(True)


# --- images ----------------------------------------------------------------------------------------------------------


class PilImages(Dataset[tuple[Tensor, int]]):
    """Images (N, C, H, W) uint8 as a list of PIL images, each transformed whenever it is asked for."""

    def __init__(self, images: Tensor, labels: Tensor, transform: Callable[[Any], Tensor]) -> None:
        self.images = [to_pil_image(image) for image in images.cpu()]
        self.labels = labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.images[index]), self.labels[index]


def endless_batches(
    images: Tensor,
    labels: Tensor,
    transform: Callable[[Any], Tensor],
    batch_size: int,
    workers: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Random batches in [0, 1] with their labels, on the device."""
    dataset = PilImages(images, labels, transform)
    sampler = RandomSampler(dataset, replacement=True, num_samples=10**9)
    loader = DataLoader(
        dataset, batch_size, sampler=sampler, num_workers=workers, pin_memory=device.type == "cuda", drop_last=True
    )
    for batch, classes in loader:
        yield batch.to(device, non_blocking=True), classes.to(device, non_blocking=True)


def student_transform(side: int) -> transforms.Compose:
    """The usual crop of a padded image, and its mirror image."""
    return transforms.Compose(
        [
            transforms.RandomCrop(side, padding=max(1, side // 8), padding_mode="edge"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )


# --- the two steps ---------------------------------------------------------------------------------------------------


class PlainGanStep:
    """One update of the discriminator and one of the generator.

    Args:
        separate: make other synthetic images for the generator's half than for the discriminator's, as the published
            code does; that is other mathematics. False: one batch serves both, as in the product.
    """

    def __init__(
        self,
        teacher: Teacher,
        generator: ConditionalGenerator,
        discriminator: Discriminator,
        images: Tensor,
        labels: Tensor,
        feature_norm: float,
        frequency: losses.ClassFrequency,
        config: Config,
        *,
        separate: bool,
        workers: int,
        seed: int,
    ) -> None:
        self.teacher = unfrozen(teacher)
        self.generator, self.discriminator = plain_generator(generator), plain_discriminator(discriminator)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)
        self.latents = generator.latents
        self.frequency = copy.deepcopy(frequency)
        self.feature_norm, self.config, self.separate = feature_norm, config, separate
        device = images.device
        self.random = torch.Generator(device).manual_seed(seed)
        self.batches = endless_batches(
            images, labels, transforms.ToTensor(), config.generator_batch_size, workers, device
        )
        self.size = (images.shape[2], images.shape[3])
        self.generator_optimiser = torch.optim.Adam(
            self.generator.parameters(), lr=config.generator_lr, betas=(0.0, 0.999)
        )
        self.discriminator_optimiser = torch.optim.Adam(
            self.discriminator.parameters(), lr=config.discriminator_lr, betas=(0.0, 0.999)
        )
        self.num_steps = 0

    def __call__(self) -> dict[str, float]:
        """Take the step; returns its losses."""
        real, real_labels = next(self.batches)
        z, labels = self.latents(len(real), self.random)
        real_views, views = (draw_views(len(real), self.size, self.random, flip=True) for _ in range(2))
        real = differentiable_augmentation(real, real_views)

        with torch.set_grad_enabled(not self.separate):
            synthetic = differentiable_augmentation(self.generator(z, labels), views)
            of_synthetic = self.teacher(synthetic)
        with torch.no_grad():
            of_real = self.teacher(real)
        self.discriminator.requires_grad_(True)
        self.discriminator_optimiser.zero_grad(set_to_none=True)
        terms = plain_discriminator_terms(
            self.discriminator,
            real,
            real_labels,
            synthetic.detach(),
            labels,
            of_real.features / self.feature_norm,
            of_synthetic.features.detach() / self.feature_norm,
        )
        weighted(terms, self.config).backward()
        self.discriminator_optimiser.step()
        log = {name: value.item() for name, value in terms.items()}

        if self.separate:
            z, labels = self.latents(len(real), self.random)
            views = draw_views(len(real), self.size, self.random, flip=True)
            synthetic = differentiable_augmentation(self.generator(z, labels), views)
            of_synthetic = self.teacher(synthetic)
        self.discriminator.requires_grad_(False)
        self.generator_optimiser.zero_grad(set_to_none=True)
        terms = plain_generator_terms(self.discriminator, synthetic, labels, of_synthetic.logits, self.frequency)
        weighted(terms, self.config).backward()
        self.generator_optimiser.step()
        log |= {name: value.item() for name, value in terms.items()}

        self.frequency.observe(of_synthetic.logits.detach().argmax(dim=1), self.num_steps)
        update_average(self.average, self.generator, 0.999)
        self.num_steps += 1
        return log


def plain_discriminator_terms(
    discriminator: Discriminator,
    real: Tensor,
    real_labels: Tensor,
    synthetic: Tensor,
    labels: Tensor,
    features_real: Tensor,
    features_synthetic: Tensor,
) -> dict[str, Tensor]:
    """Of images (B, C, H, W), their classes (B,) and the teacher's features of them (B, D), of unit scale."""
    verdict = discriminator(torch.cat([real, synthetic]))
    (score, other_score), (logits, other_logits), heads = (
        value.split(len(real)) for value in (verdict.score, verdict.class_logits, verdict.features)
    )
    features = (features_real, features_synthetic, *heads)
    return {
        "discriminator_hinge": losses.hinge_discriminator(score, other_score),
        "discriminator_class": losses.class_discriminator(logits, real_labels, other_logits, labels),
        "feature_integration_matched": losses.feature_integration_matched(*features),
        "feature_integration_crossed": losses.feature_integration_crossed(*features),
    }


def plain_generator_terms(
    discriminator: Discriminator,
    synthetic: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    frequency: losses.ClassFrequency,
) -> dict[str, Tensor]:
    """Of images (B, C, H, W) with a graph, the classes asked for (B,), and the teacher's logits of them (B, K)."""
    verdict = discriminator(synthetic)
    marginal = frequency.marginal(teacher_logits.softmax(dim=1))
    return {
        "generator_hinge": losses.hinge_generator(verdict.score),
        "generator_class": losses.class_generator(verdict.class_logits, labels),
        "category_frequency_smoothing": losses.category_frequency_smoothing(marginal, frequency.class_weights),
    }


def weighted(terms: Mapping[str, Tensor], config: Config) -> Tensor:
    """The loss of one half of the generator phase, or of the student phase."""
    weights = {
        "discriminator_hinge": 1.0,
        "discriminator_class": config.class_weight,
        "feature_integration_matched": config.matched_weight,
        "feature_integration_crossed": config.crossed_weight,
        "generator_hinge": 1.0,
        "generator_class": config.class_weight,
        "category_frequency_smoothing": config.smoothing_weight,
        "feature_alignment": 1.0,
        "stage_alignment": config.stage_weight,
    }
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


class PlainStudentStep:
    """One update of the student on real and synthetic images. Its loss is `hidfd.student_terms`, which is plain code.

    Args:
        context: of float32.
        drawn: synthetic images (N, C, H, W) uint8 that were made before, and come through the DataLoader like the
            real ones, as in the published code; None: new ones from the generator in every step, as in the product.
        stages: learn the maps of earlier stages too.
    """

    def __init__(
        self,
        teacher: Teacher,
        student: Student,
        generator: ConditionalGenerator,
        images: Tensor,
        config: Config,
        context: Context,
        *,
        drawn: Tensor | None,
        stages: bool,
        workers: int,
        seed: int,
    ) -> None:
        self.teacher = unfrozen(teacher)
        self.student = copy.deepcopy(student).to(memory_format=torch.contiguous_format)
        self.pairs = None
        if stages:
            self.pairs = StagePairs(self.student, self.teacher, images[:NUM_SCALED].float() / 255.0)
            self.pairs.to(images.device).train()
        self.context, self.config = context, config
        self.generator = None if drawn is not None else plain_generator(generator).eval()
        self.latents = generator.latents
        self.random = torch.Generator(images.device).manual_seed(seed)
        num_real = round(config.student_batch_size * config.real_fraction)
        self.num_synthetic = config.student_batch_size - num_real

        def batches(images: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
            labels, transform = torch.zeros(len(images), dtype=torch.long), student_transform(images.shape[-1])
            return endless_batches(images, labels, transform, count, workers, self.random.device)

        self.real = batches(images, num_real)
        self.drawn = None if drawn is None else batches(drawn, self.num_synthetic)
        trained = nn.ModuleList([self.student] if self.pairs is None else [self.student, self.pairs])
        self.optimiser = torch.optim.SGD(
            parameter_groups(trained, config.weight_decay), lr=config.student_lr, momentum=0.9, nesterov=True
        )

    def __call__(self) -> dict[str, float]:
        """Take the step; returns its loss."""
        images, _ = next(self.real)
        if self.drawn is not None:
            synthetic, _ = next(self.drawn)
        else:
            assert self.generator is not None
            with torch.no_grad():
                synthetic = self.generator(*self.latents(self.num_synthetic, self.random))
                synthetic = student_augmentation(synthetic, self.random, flip=True)
        images = torch.cat([images, synthetic])
        terms = student_terms(self.student, self.teacher, images, self.context, self.pairs, align=True, distil=False)
        self.optimiser.zero_grad(set_to_none=True)
        weighted(terms, self.config).backward()
        self.optimiser.step()
        return {name: value.item() for name, value in terms.items()}
