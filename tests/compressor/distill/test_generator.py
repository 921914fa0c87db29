"""Generator and discriminator: every image size, gradients to the latent, and statistics of an averaged generator."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.distill.generator import (
    ConditionalBatchNorm,
    ConditionalGenerator,
    Discriminator,
    DownBlock,
    Generator,
    GeneratorShape,
    UpBlock,
    bounded_resolution,
    conv_of_upsampled,
    halved_conv,
    standing_statistics,
)
from compressor.distill.training import update_average

SIZES = [
    (4, 4),
    (5, 7),
    (8, 8),
    (16, 16),
    (28, 28),
    (30, 30),
    (32, 32),
    (48, 48),
    (64, 64),
    (96, 96),
    (12, 20),
    (80, 40),
]


def make_generator(height: int, width: int, channels: int = 3, num_classes: int = 3) -> Generator:
    torch.manual_seed(0)
    shape = GeneratorShape(
        (channels, height, width), bounded_resolution(height, width, 64), num_classes, latent_dim=4, width=8
    )
    return ConditionalGenerator(shape)


def draw(generator: Generator, count: int = 2, seed: int = 0) -> tuple[Tensor, Tensor]:
    return generator.latents(count, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("size", "resolution"),
    [
        ((8, 8), (8, 8)),
        ((64, 64), (64, 64)),
        ((96, 96), (64, 64)),
        ((224, 224), (64, 64)),
        ((80, 40), (64, 32)),
        ((4096, 4), (64, 4)),
    ],
)
def test_resolution_is_bounded(size: tuple[int, int], resolution: tuple[int, int]) -> None:
    assert bounded_resolution(*size, 64) == resolution


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_images_have_the_shape_and_range_of_the_teachers_input(size: tuple[int, int]) -> None:
    generator = make_generator(*size)
    images = generator(*draw(generator))
    assert images.shape == (2, 3, *size)
    assert images.dtype == torch.float32
    assert ((images >= 0) & (images <= 1)).all()
    assert all(side >= min(4, math.ceil(min(size) / 2)) for side in generator.base)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_discriminator_takes_every_size(size: tuple[int, int]) -> None:
    discriminator = Discriminator(1, bounded_resolution(*size, 64), num_classes=3, feature_dim=5, width=8)
    verdict = discriminator(torch.rand(2, 1, *size))
    assert verdict.score.shape == (2,)
    assert verdict.class_logits.shape == (2, 6)
    assert verdict.features.shape == (2, 5)


@pytest.mark.parametrize("side", [8, 96, 224])
def test_the_gradient_reaches_the_generator_from_the_teachers_input_size(side: int) -> None:
    generator = make_generator(side, side)
    images = generator(*draw(generator))
    weight = torch.rand(images.shape, generator=torch.Generator().manual_seed(1))
    (images * weight).sum().backward()
    for name, parameter in generator.named_parameters():
        if name.endswith(("original", "gain.weight")):
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name


def test_maps_above_32_pixels_have_half_of_the_channels() -> None:
    assert make_generator(64, 64).norm.num_features == 4
    assert make_generator(32, 32).norm.num_features == 8


def test_a_class_has_gains_and_biases_of_its_own() -> None:
    generator = make_generator(8, 8).eval()
    with torch.no_grad():
        for module in generator.modules():
            if isinstance(module, nn.Embedding):
                module.weight.normal_(generator=torch.Generator().manual_seed(2))
        z = torch.ones(3, 4)
        images = generator(z, torch.tensor([0, 0, 1]))
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_latents_are_normal_and_labels_uniform() -> None:
    generator = make_generator(8, 8)
    z, labels = draw(generator, 3000)
    assert z.mean().abs() < 0.05
    assert abs(float(z.std()) - 1.0) < 0.05
    assert all(900 < count < 1100 for count in labels.bincount(minlength=3).tolist())
    again = draw(generator, 3000)
    assert torch.equal(z, again[0])
    assert torch.equal(labels, again[1])


def test_weights_start_orthogonal_and_spectral_normalisation_keeps_them_so() -> None:
    generator = make_generator(8, 8).train()
    generator(*draw(generator))
    weight = generator.stem.weight  # (out, in), more rows than columns
    assert torch.allclose(weight.T @ weight, torch.eye(4), atol=1e-5)


def test_spectral_normalisation_bounds_the_largest_singular_value() -> None:
    discriminator = Discriminator(1, (8, 8), num_classes=3, feature_dim=5, width=8).train()
    with torch.no_grad():
        discriminator.score.get_parameter("parametrizations.weight.original").mul_(100.0)
        for _ in range(20):
            discriminator(torch.rand(2, 1, 8, 8))
    assert torch.linalg.matrix_norm(discriminator.score.weight, ord=2).item() == pytest.approx(1.0, abs=1e-3)


def test_spectral_normalisation_iterates_in_float32_under_autocast() -> None:
    generator = make_generator(8, 8).train()
    half: list[bool] = []
    for name, module in generator.named_modules():
        if name.endswith("parametrizations.weight.0.inner"):
            module.register_forward_hook(lambda *_: half.append(torch.is_autocast_enabled("cpu")))
    with torch.autocast("cpu", torch.bfloat16):
        images = generator(*draw(generator))
    assert len(half) == 5  # stem, two convolutions and a shortcut, the image
    assert not any(half)
    assert images.dtype == torch.float32


def test_the_image_itself_passes_no_relu() -> None:
    # With a ReLU before its first convolution the discriminator would not see what is darker than mid-grey.
    discriminator = Discriminator(1, (8, 8), num_classes=3, feature_dim=5, width=8).eval()
    dark, darker = discriminator(torch.full((1, 1, 8, 8), 0.3)), discriminator(torch.full((1, 1, 8, 8), 0.1))
    assert not torch.equal(dark.score, darker.score)


@pytest.mark.parametrize("size", [(2, 2), (5, 7), (8, 8)], ids=str)
def test_a_convolution_of_what_was_upsampled_or_before_a_mean_is_one_convolution(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 5, 3, padding=1).double(), torch.randn(2, 3, *size, dtype=torch.float64)
    torch.testing.assert_close(conv_of_upsampled(conv, x), conv(F.interpolate(x, scale_factor=2.0, mode="nearest")))
    torch.testing.assert_close(halved_conv(conv, x), F.avg_pool2d(conv(x), 2))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_maps_keep_the_precision_and_the_layout_that_convolutions_want(precision: torch.dtype) -> None:
    generator = make_generator(16, 16).to(memory_format=torch.channels_last).train()
    discriminator = Discriminator(3, (16, 16), 3, 5, width=8).to(memory_format=torch.channels_last)
    maps: list[Tensor] = []
    for block in [*generator.blocks, *discriminator.blocks]:  # type: ignore[misc, union-attr]
        for layer in block.modules():
            if isinstance(layer, UpBlock | DownBlock | ConditionalBatchNorm | nn.Conv2d):
                layer.register_forward_hook(lambda _layer, _inputs, output: maps.append(output))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        discriminator(generator(*draw(generator)))
    assert len(maps) > 10
    for found in maps:
        assert found.dtype == precision
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_the_feature_head_sees_features_of_unit_scale() -> None:
    discriminator = Discriminator(3, (32, 32), num_classes=3, feature_dim=5, width=16)
    features = discriminator(torch.rand(8, 3, 32, 32)).features.detach()
    assert 0.1 < float(features.norm(dim=1).mean()) < 10.0


def test_averaging_moves_parameters_and_copies_buffers() -> None:
    average, current = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        current.weight.fill_(3.0)  # the average starts at 1
    current(torch.tensor([[0.0, 2.0], [2.0, 6.0]]))
    update_average(average, current, decay=0.75)
    assert average.weight.tolist() == [1.5, 1.5]
    for name, buffer in average.named_buffers():
        assert torch.equal(buffer, current.get_buffer(name)), name


def test_averaging_a_generator_copies_its_spectral_vectors() -> None:
    current = make_generator(8, 8).train()
    average = copy.deepcopy(current).requires_grad_(False)
    current(*draw(current))
    update_average(average, current, decay=0.5)
    for name, buffer in average.named_buffers():
        assert torch.equal(buffer, current.get_buffer(name)), name


def test_standing_statistics_are_the_mean_over_fresh_batches() -> None:
    generator = make_generator(8, 8)
    norm = generator.norm
    norm.running_mean.fill_(7.0)  # type: ignore[union-attr]
    seen: list[Tensor] = []
    handle = norm.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].mean(dim=(0, 2, 3))))
    standing_statistics(generator, torch.Generator().manual_seed(0), batch_size=16, num_batches=5)
    handle.remove()
    assert len(seen) == 5
    assert torch.allclose(norm.running_mean, torch.stack(seen).mean(dim=0), atol=1e-5)  # type: ignore[arg-type]
    assert all(not module.training for module in generator.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.momentum == 0.1
