"""DFAD's generators: the published sizes, every image size, the range of the images."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import nn

from compressor.distill.adversarial_generator import AdversarialGenerator, AdversarialShape, Layout, adversarial_shape
from compressor.distill.generator import load_generator


def shape_of(layout: Layout, channels: int, height: int, width: int, *, latent_dim: int, maps: int) -> AdversarialShape:
    card = tiny.card(image_shape=(channels, height, width))
    return adversarial_shape(layout, card, largest_side=256, latent_dim=latent_dim, width=maps)


def make(layout: Layout, channels: int, height: int, width: int, *, latent_dim: int = 4) -> AdversarialGenerator:
    torch.manual_seed(0)
    return AdversarialGenerator(shape_of(layout, channels, height, width, latent_dim=latent_dim, maps=8))


def num_params(layout: Layout, side: int, channels: int, latent_dim: int, width: int) -> int:
    shape = shape_of(layout, channels, side, side, latent_dim=latent_dim, maps=width)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in AdversarialGenerator(shape).parameters())


@pytest.mark.parametrize(
    ("layout", "side", "channels", "latent_dim", "width", "millions"),
    [
        ("a", 32, 1, 100, 64, 1.05),
        ("a", 32, 3, 256, 64, 2.33),
        ("a", 32, 3, 256, 16, 0.54),
        ("b", 128, 3, 256, 64, 11.24),
        ("b", 128, 3, 256, 16, 2.28),
    ],
)
def test_the_sizes_are_those_of_the_released_code(
    layout: Layout, side: int, channels: int, latent_dim: int, width: int, millions: float
) -> None:
    assert num_params(layout, side, channels, latent_dim, width) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("layout", ["a", "b"])
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 8, 12), (3, 5, 7), (1, 28, 28)])
def test_images_of_every_size_are_in_range_and_follow_the_latent(
    layout: Layout, channels: int, height: int, width: int
) -> None:
    generator = make(layout, channels, height, width).train()
    z, labels = generator.latents(4, torch.Generator().manual_seed(0))
    z.requires_grad_()
    images = generator(z, labels)
    assert images.shape == (4, channels, height, width)
    assert ((images >= 0.0) & (images <= 1.0)).all()
    images.square().sum().backward()
    assert z.grad is not None
    assert (z.grad.norm(dim=1) > 0).all()


def test_labels_are_not_looked_at() -> None:
    generator = make("a", 3, 8, 8).eval()
    z, labels = generator.latents(3, torch.Generator().manual_seed(0))
    assert torch.equal(generator(z, labels), generator(z, labels + 1))


@pytest.mark.parametrize(
    ("layout", "image_shape", "expected", "resolution"),
    [
        ("auto", (3, 32, 32), "a", (32, 32)),
        ("auto", (3, 64, 48), "a", (64, 48)),
        ("auto", (3, 64, 65), "b", (64, 65)),
        ("auto", (3, 512, 256), "b", (256, 128)),
        ("a", (3, 128, 128), "a", (128, 128)),
        ("b", (1, 32, 32), "b", (32, 32)),
    ],
)
def test_the_layout_follows_the_size(
    layout: Layout, image_shape: tuple[int, int, int], expected: str, resolution: tuple[int, int]
) -> None:
    shape = adversarial_shape(layout, tiny.card(image_shape=image_shape), largest_side=256, latent_dim=4, width=8)
    assert (shape.layout, shape.resolution) == (expected, resolution)


def test_beyond_the_largest_side_images_are_brought_to_size() -> None:
    card = tiny.card(image_shape=(3, 40, 20))
    shape = adversarial_shape("auto", card, largest_side=16, latent_dim=4, width=8)
    generator = AdversarialGenerator(shape).eval()
    z, labels = generator.latents(2, torch.Generator().manual_seed(0))
    assert shape.resolution == (16, 8)
    assert generator(z, labels).shape == (2, 3, 40, 20)


def test_layout_b_begins_as_the_released_code_does() -> None:
    generator = make("b", 3, 32, 32, latent_dim=64)
    weights = [m.weight for m in generator.modules() if isinstance(m, nn.Linear | nn.ConvTranspose2d)]
    assert all(weight.std().item() == pytest.approx(0.02, rel=0.05) for weight in weights)
    gains = torch.cat([m.weight for m in generator.modules() if isinstance(m, nn.BatchNorm2d)])
    assert gains.mean().item() == pytest.approx(1.0, abs=0.01)
    assert gains.std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("layout", ["a", "b"])
def test_it_is_rebuilt_from_its_weights_and_shape(layout: Layout) -> None:
    generator = make(layout, 3, 8, 8).eval()
    rebuilt = load_generator(generator.state_dict(), {**vars(generator.shape), "image_shape": [3, 8, 8]})
    z, labels = generator.latents(3, torch.Generator().manual_seed(0))
    assert isinstance(rebuilt, AdversarialGenerator)
    assert torch.equal(rebuilt(z, labels), generator(z, labels))
    assert not rebuilt.aims_at_realism


def test_layout_a_shows_the_teacher_what_a_normalised_data_set_would() -> None:
    # Far from black and white nothing is clamped, and the teacher sees mean 0 and deviation 1.
    teacher = tiny.teacher(image_shape=(3, 16, 16), mean=(0.4, 0.5, 0.6), std=(0.05, 0.1, 0.08), channel_order="BGR")
    shape = adversarial_shape("a", teacher.card, largest_side=16, latent_dim=4, width=8)
    torch.manual_seed(0)
    generator = AdversarialGenerator(shape).train()
    seen = teacher.normalise(generator(*generator.latents(32, torch.Generator().manual_seed(0))))
    assert torch.allclose(seen.mean(dim=(0, 2, 3)), torch.zeros(3), atol=0.05)
    assert torch.allclose(seen.std(dim=(0, 2, 3)), torch.ones(3), atol=0.05)
