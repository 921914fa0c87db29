"""The class-conditional generator and its discriminator: BigGAN (Brock et al. 2019), sized for few images (HiDFD).

Images are [0, 1]. Shapes: B batch, Z latent, K classes, D teacher features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.parametrize import is_parametrized

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class _Float32(nn.Module):
    """Runs a weight parametrisation outside autocast: power iteration in half precision does not converge."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, weight: Tensor) -> Tensor:
        with torch.autocast(weight.device.type, enabled=False):
            return self.inner(weight)  # type: ignore[no-any-return]


def _spectral(module: ModuleT) -> ModuleT:
    """Spectral normalisation (Miyato et al. 2018), one power iteration a training forward, always in float32."""
    parametrizations.spectral_norm(module)
    chain = cast(nn.ModuleList, module.get_submodule("parametrizations.weight"))
    chain[0] = _Float32(chain[0])
    return module


class ConditionalBatchNorm(nn.Module):
    """Batch norm whose gain and bias are looked up by class: (B, C, h, w), (B,) -> (B, C, h, w)."""

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(num_classes, channels)
        self.bias = nn.Embedding(num_classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        x = self.norm(x)
        # In the map's own precision: a float32 gain would make a float32 map of a bf16 one, of twice the memory.
        gain, bias = self.gain(labels).to(x.dtype), self.bias(labels).to(x.dtype)
        return torch.addcmul(bias[:, :, None, None], x, gain[:, :, None, None])


def _all_shifts(kernel: Tensor) -> Tensor:
    """The mean of a kernel (O, I, 3, 3) over the four positions that it can have in a 4x4 window: (O, I, 4, 4)."""
    return F.avg_pool2d(F.pad(kernel, (1, 1, 1, 1)), 2, stride=1)


def conv_of_upsampled(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """`conv` (3x3, padding 1) of the nearest-upsampled x, (B, C, h, w) -> (B, C', 2h, 2w), for 4/9 of the arithmetic.

    Upsampling is a transposed convolution of stride 2 with 2x2 ones, and two convolutions in a row are one.
    """
    kernel = 4.0 * _all_shifts(conv.weight.flip(2, 3)).transpose(0, 1)
    return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)


def halved_conv(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """The 2x2 means of `conv` (3x3, padding 1) of x, (B, C, h, w) -> (B, C', h/2, w/2), for 4/9 of the arithmetic."""
    return F.conv2d(x, _all_shifts(conv.weight), conv.bias, stride=2, padding=1)


class UpBlock(nn.Module):
    """Residual block that doubles the resolution: (B, C, h, w), (B,) -> (B, C', 2h, 2w)."""

    def __init__(self, in_channels: int, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm1 = ConditionalBatchNorm(in_channels, num_classes)
        self.conv1 = _spectral(nn.Conv2d(in_channels, channels, 3, padding=1))
        self.norm2 = ConditionalBatchNorm(channels, num_classes)
        self.conv2 = _spectral(nn.Conv2d(channels, channels, 3, padding=1))
        self.shortcut = _spectral(nn.Conv2d(in_channels, channels, 1))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        # The 1x1 shortcut commutes with nearest upsampling, and before it costs a quarter.
        shortcut = F.interpolate(self.shortcut(x), scale_factor=2.0, mode="nearest")
        x = conv_of_upsampled(self.conv1, torch.relu_(self.norm1(x, labels)))
        x = self.conv2(torch.relu_(self.norm2(x, labels)))
        return x + shortcut


class DownBlock(nn.Module):
    """Residual block of the discriminator, (B, C, h, w) -> (B, C', h, w), with h and w halved if asked."""

    def __init__(self, in_channels: int, channels: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.first = first  # the image itself must not pass a ReLU before its first convolution
        self.halve = halve
        self.conv1 = _spectral(nn.Conv2d(in_channels, channels, 3, padding=1))
        self.conv2 = _spectral(nn.Conv2d(channels, channels, 3, padding=1))
        self.shortcut: nn.Module = nn.Identity()
        if in_channels != channels or halve:
            self.shortcut = _spectral(nn.Conv2d(in_channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        residual = torch.relu_(self.conv1(x if self.first else torch.relu(x)))
        if self.halve:
            return halved_conv(self.conv2, residual) + self.shortcut(F.avg_pool2d(x, 2))  # type: ignore[no-any-return]
        return self.conv2(residual) + self.shortcut(x)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class GeneratorShape:
    """What a generator needs to be rebuilt.

    Attributes:
        image_shape: (C, H, W) of the teacher's input.
        resolution: (H, W) at which images are made; they are brought to `image_shape` by bilinear interpolation.
        width: channels of the maps up to 32 px; larger maps have half of them.
    """

    image_shape: tuple[int, int, int]
    resolution: tuple[int, int]
    num_classes: int
    latent_dim: int
    width: int


def bounded_resolution(height: int, width: int, bound: int) -> tuple[int, int]:
    """The generator's (H, W) for the teacher's input: the same, or scaled down so that no side exceeds `bound`."""
    scale = min(1.0, bound / max(height, width))
    return max(4, round(height * scale)), max(4, round(width * scale))


class Generator(nn.Module):
    """Whatever makes images: z (B, Z) and labels (B,) -> (B, C, H, W) in [0, 1], at the teacher's input size.

    Attributes:
        shape: a dataclass with what `load_generator` needs to rebuild it.
        aims_at_realism: its images look like the real ones, so that they may stand in for them, as in calibration.
    """

    shape: Any
    aims_at_realism: bool

    def latents(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Latents (count, Z) and labels (count,), drawn from `random` on its device."""
        raise NotImplementedError


class ConditionalGenerator(Generator):
    """BigGAN's: images of the classes that the labels ask for."""

    aims_at_realism = True

    def __init__(self, shape: GeneratorShape) -> None:
        super().__init__()
        self.shape: GeneratorShape = shape
        height, width = shape.resolution
        num_blocks = max(1, int(math.log2(min(height, width) / 4)))
        self.base = (math.ceil(height / 2**num_blocks), math.ceil(width / 2**num_blocks))
        channels = [
            shape.width if min(height, width) >> (num_blocks - i) <= 32 else shape.width // 2
            for i in range(num_blocks + 1)
        ]
        self.stem = _spectral(nn.Linear(shape.latent_dim, channels[0] * self.base[0] * self.base[1]))
        self.blocks = nn.ModuleList(UpBlock(before, after, shape.num_classes) for before, after in pairwise(channels))
        self.norm = nn.BatchNorm2d(channels[-1])
        self.to_image = _spectral(nn.Conv2d(channels[-1], shape.image_shape[0], 3, padding=1))
        _initialise(self)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        x = self.stem(z).view(len(z), -1, *self.base).contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x, labels)
        # sigmoid(2x) is tanh(x) moved from [-1, 1] to [0, 1].
        images = torch.sigmoid(self.to_image(torch.relu_(self.norm(x))).float() * 2.0)
        # Sizes that are no multiple of a power of two are cropped, so that no pixel is resampled needlessly.
        height, width = self.shape.resolution
        images = images[:, :, :height, :width]
        if (height, width) != self.shape.image_shape[1:]:
            images = F.interpolate(images, self.shape.image_shape[1:], mode="bilinear", align_corners=False)
        return images

    def latents(self, count: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Normal latents (count, Z) and uniform labels (count,), drawn from `random` on its device."""
        z = torch.randn(count, self.shape.latent_dim, generator=random, device=random.device)
        labels = torch.randint(self.shape.num_classes, (count,), generator=random, device=random.device)
        return z, labels


def load_generator(weights: Mapping[str, Tensor], shape: Mapping[str, Any]) -> Generator:
    """A generator from its `state_dict` and the fields of its shape, in evaluation mode on the CPU."""
    from compressor.distill.adversarial_generator import AdversarialGenerator, AdversarialShape

    fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in shape.items()}
    generator: Generator
    if "layout" in fields:
        generator = AdversarialGenerator(AdversarialShape(**fields))
    else:
        generator = ConditionalGenerator(GeneratorShape(**fields))
    generator.load_state_dict(weights)
    return generator.eval().requires_grad_(False)


@dataclass(frozen=True)
class Verdict:
    """What the discriminator says of B images: score (B,), class_logits (B, 2K), features (B, D)."""

    score: Tensor
    class_logits: Tensor
    features: Tensor


class Discriminator(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> Verdict, looking at the generator's resolution.

    The pooled features are averaged over positions and layer-normalised before the feature head, so that the teacher's
    (unit-scale) features are within its reach from the first step: a sum over positions starts two orders of magnitude
    too large. The paper's two linear layers without a nonlinearity between them are one linear map, written as one.
    """

    def __init__(
        self, image_channels: int, resolution: tuple[int, int], num_classes: int, feature_dim: int, width: int
    ) -> None:
        super().__init__()
        self.resolution = resolution
        smallest = min(resolution)
        num_halvings = max(1, round(math.log2(smallest / 8))) if smallest >= 8 else 0
        num_blocks = num_halvings + (2 if smallest >= 16 else 1)  # four at 32 px, as in the paper
        self.blocks = nn.Sequential(
            *(
                DownBlock(image_channels if i == 0 else width, width, halve=i < num_halvings, first=i == 0)
                for i in range(num_blocks)
            )
        )
        self.score = _spectral(nn.Linear(width, 1))
        self.class_logits = _spectral(nn.Linear(width, 2 * num_classes))
        self.feature_norm = nn.LayerNorm(width)
        self.feature_head = nn.Linear(width, feature_dim)
        _initialise(self)

    def forward(self, images: Tensor) -> Verdict:
        x = images * 2.0 - 1.0
        if x.shape[-2:] != self.resolution:
            x = F.interpolate(x, self.resolution, mode="bilinear", align_corners=False, antialias=True)
        x = torch.relu(self.blocks(x)).float()
        pooled = x.mean(dim=(2, 3))
        # Scores are bounded by the spectral norm; the square root of the positions keeps them in the hinge's reach.
        scaled = pooled * math.sqrt(x.shape[2] * x.shape[3])
        return Verdict(
            self.score(scaled)[:, 0], self.class_logits(scaled), self.feature_head(self.feature_norm(pooled))
        )


def _initialise(network: nn.Module) -> None:
    """Orthogonal weights (BigGAN), which spectral normalisation then leaves almost as they are."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            name = "parametrizations.weight.original" if is_parametrized(module) else "weight"
            nn.init.orthogonal_(module.get_parameter(name))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


@torch.no_grad()
def standing_statistics(
    generator: Generator, random: torch.Generator, *, batch_size: int, num_batches: int = 16
) -> None:
    """Recompute the batch norms' running statistics for the current weights, as a plain mean over fresh batches.

    An averaged generator never ran forward in training, so that the statistics that it holds belong to other weights.
    The same holds for the vectors of its spectral norms, which these forward passes iterate if it is in training mode.
    """
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
        norm.train()
    for _ in range(num_batches):
        generator(*generator.latents(batch_size, random))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()
