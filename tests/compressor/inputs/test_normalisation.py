"""Choosing a normalisation nobody stated; a network that has just seen images under one stands for a teacher."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import InputRefused
from compressor.inputs.card import TeacherCard
from compressor.inputs.normalisation import (
    COLOUR,
    GREY,
    OWN,
    Constants,
    MakeTeacher,
    NormalisationChoice,
    choose_normalisation,
)
from compressor.inputs.teacher import Normalise, Teacher, load_teacher
from compressor.students.architectures import build_network

UNLABELLED = torch.full((40,), -1)


def card(constants: Constants) -> TeacherCard:
    mean, std, value_range = constants
    channels = len(mean)
    return TeacherCard(
        architecture="cifar_resnet8",
        num_classes=4,
        class_names=("a", "b", "c", "d"),
        input_shape=(channels, 12, 12),
        channel_order="L" if channels == 1 else "RGB",
        mean=mean,
        std=std,
        value_range=value_range,
    )


def some_images(channels: int, seed: int, centre: tuple[float, ...], spread: float = 45.0) -> Tensor:
    """Smooth colour blobs around a mean per channel, uint8 (40, C, 12, 12)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(40, channels, 3, 3, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=12, mode="bilinear")
    return (smooth * spread * 1.5 + torch.tensor(centre).view(1, -1, 1, 1)).clamp(0, 255).to(torch.uint8)


def trained_under(constants: Constants, images: Tensor) -> MakeTeacher:
    """Makes teachers whose batch norms remember `images` (N, C, H, W) under `constants`."""
    torch.manual_seed(0)
    network = build_network("cifar_resnet8", 4, images.shape[1])
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    normalise = Normalise(card(constants))
    network.train()(normalise(images.float() / 255))
    state_dict = network.state_dict()
    return lambda mean, std, value_range: load_teacher(state_dict, card((mean, std, value_range)))


COLOUR_CENTRE, GREY_CENTRE = (125.0, 118.0, 104.0), (40.0,)


@pytest.mark.parametrize("name", COLOUR)
def test_the_normalisation_of_training_is_found_in_colour(name: str) -> None:
    maker = trained_under(COLOUR[name], some_images(3, 0, COLOUR_CENTRE))
    choice = choose_normalisation(maker, some_images(3, 0, COLOUR_CENTRE), UNLABELLED, 3)
    assert choice.name == name
    assert (choice.mean, choice.std, choice.value_range) == COLOUR[name]


@pytest.mark.parametrize("name", GREY)
def test_the_normalisation_of_training_is_found_in_grey(name: str) -> None:
    maker = trained_under(GREY[name], some_images(1, 0, GREY_CENTRE))
    assert choose_normalisation(maker, some_images(1, 1, GREY_CENTRE), UNLABELLED, 1).name == name


def test_a_data_sets_own_statistics_are_found() -> None:
    seen = some_images(3, 0, (60.0, 180.0, 120.0), spread=20.0)
    pixels = seen.float() / 255
    own: Constants = (tuple(pixels.mean((0, 2, 3)).tolist()), tuple(pixels.std((0, 2, 3)).tolist()), (0.0, 1.0))
    choice = choose_normalisation(
        trained_under(own, seen), some_images(3, 1, (60.0, 180.0, 120.0), 20.0), UNLABELLED, 3
    )
    assert choice.name == OWN
    assert choice.mean == pytest.approx(own[0], abs=0.02)


def without_batch_norm(task: str) -> MakeTeacher:
    state_dict = build_network("lenet5", 4, 1).state_dict()

    def maker(mean: tuple[float, ...], std: tuple[float, ...], value_range: tuple[float, float]) -> Teacher:
        lenet = card((mean, std, value_range)).model_copy(update={"architecture": "lenet5", "task": task})
        return load_teacher(state_dict, lenet)

    return maker


def test_numbers_without_batch_norm_tell_nothing() -> None:
    with pytest.raises(InputRefused, match="lenet5 has no batch norm"):
        choose_normalisation(without_batch_norm("regression"), some_images(1, 0, GREY_CENTRE), UNLABELLED, 1)


def test_a_classifier_without_batch_norm_is_judged_by_its_answers() -> None:
    choice = choose_normalisation(without_batch_norm("classification"), some_images(1, 0, GREY_CENTRE), UNLABELLED, 1)
    assert {candidate.measure for candidate in choice.evidence} == {"doubt"}
    assert "doubt" in choice.sentence
    assert "less surely than batch norms" in choice.sentence


def test_a_regression_has_no_confidence() -> None:
    maker = trained_under(COLOUR["half"], some_images(3, 0, COLOUR_CENTRE))

    def of_numbers(mean: tuple[float, ...], std: tuple[float, ...], value_range: tuple[float, float]) -> Teacher:
        made = maker(mean, std, value_range)
        return Teacher(made.network, made.card.model_copy(update={"task": "regression"}))

    choice = choose_normalisation(of_numbers, some_images(3, 1, COLOUR_CENTRE), UNLABELLED, 3)
    assert choice.name == "half"
    assert choice.evidence[0].confidence is None
    assert "confidence" not in choice.sentence


def choice_of(labels: Tensor = UNLABELLED) -> NormalisationChoice:
    maker = trained_under(COLOUR["half"], some_images(3, 0, COLOUR_CENTRE))
    return choose_normalisation(maker, some_images(3, 1, COLOUR_CENTRE), labels, 3)


def test_the_evidence_is_whole_ordered_and_in_the_sentence() -> None:
    choice = choice_of()
    assert {candidate.name for candidate in choice.evidence} == {*COLOUR, OWN}
    mismatches = [candidate.score for candidate in choice.evidence if candidate.name != OWN]
    assert mismatches == sorted(mismatches)
    best, second = choice.evidence[:2]
    assert best.score < 0.02 < second.score
    for part in (
        f"'{best.name}' (mean 0.5 0.5 0.5, std 0.5 0.5 0.5",
        "40 samples",
        f"before '{second.name}'",
        "--mean",
    ):
        assert part in choice.sentence
    assert choice.to_dict()["evidence"][0]["name"] == "half"


def test_confidence_does_not_decide() -> None:
    choice = choice_of()
    most_confident = max(choice.evidence, key=lambda candidate: candidate.confidence or 0.0)
    assert most_confident.name == "raw bytes"
    assert choice.name == "half"


def test_the_mismatch_is_the_divergence_of_gaussians() -> None:
    images = some_images(3, 1, COLOUR_CENTRE)
    maker = trained_under(COLOUR["half"], some_images(3, 0, COLOUR_CENTRE))
    teacher = maker(*COLOUR["none"])
    expected, weight = 0.0, 0
    for name, layer in teacher.network.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            inputs: list[Tensor] = []
            handle = layer.register_forward_pre_hook(lambda _layer, args, inputs=inputs: inputs.append(args[0]))
            teacher(images.float() / 255)
            handle.remove()
            values = inputs[0].double().transpose(0, 1).flatten(1)
            assert layer.running_mean is not None, name
            assert layer.running_var is not None, name
            seen = torch.distributions.Normal(values.mean(1), (values.var(1, correction=0) + layer.eps).sqrt())
            memory = torch.distributions.Normal(
                layer.running_mean.double(), (layer.running_var.double() + layer.eps).sqrt()
            )
            expected += float(torch.distributions.kl_divergence(seen, memory).mean()) * values.shape[1]
            weight += values.shape[1]
    found = next(candidate for candidate in choice_of().evidence if candidate.name == "none")
    assert found.score == pytest.approx(expected / weight, rel=1e-5)


def test_labels_put_clearly_inaccurate_candidates_last() -> None:
    """The labels are what the network says under 'none', although its batch norms remember 'half'."""
    images = some_images(3, 1, COLOUR_CENTRE)
    remembering = trained_under(COLOUR["half"], some_images(3, 0, COLOUR_CENTRE))
    with torch.no_grad():
        features = remembering(*COLOUR["none"])(images.float() / 255).features
    # A fresh classifier hardly tells images apart; this one sorts them by their distance from the mean features.
    axis = torch.linalg.svd(features - features.mean(0)).Vh[0]
    position = features @ axis

    def maker(mean: tuple[float, ...], std: tuple[float, ...], value_range: tuple[float, float]) -> Teacher:
        teacher = remembering(mean, std, value_range)
        with torch.no_grad():
            teacher.classifier.weight.copy_(torch.stack([axis, -axis, axis * 0, axis * 0]))
            teacher.classifier.bias.copy_(torch.tensor([-position.median(), position.median(), -1e6, -1e6]))
        return teacher

    labels = (position < position.median()).long()
    choice = choose_normalisation(maker, images, labels, 3)
    accuracies = {candidate.name: candidate.accuracy for candidate in choice.evidence}
    assert accuracies["none"] is not None
    assert accuracies["none"] > 0.95  # of 40: one may lie on the border, and falls to either side by rounding
    assert accuracies["half"] is not None
    assert accuracies["half"] < 0.8
    assert choice.name == "none"
    assert re.search(r"accuracy (9[78]|100)%", choice.sentence)
    assert choose_normalisation(maker, images, UNLABELLED, 3).name == "half"


def test_few_labels_show_no_accuracy() -> None:
    labels = UNLABELLED.clone()
    labels[:9] = 0
    assert all(candidate.accuracy is None for candidate in choice_of(labels).evidence)
    labels[:10] = 0
    choice = choice_of(labels)
    assert all(candidate.accuracy is not None for candidate in choice.evidence)
    assert "on 10 samples" in choice.sentence


def test_unlike_samples_are_pointed_out() -> None:
    maker = trained_under(COLOUR["half"], some_images(3, 0, COLOUR_CENTRE))
    choice = choose_normalisation(maker, some_images(3, 1, (250.0, 5.0, 5.0), 3.0), UNLABELLED, 3)
    assert "Even this fits poorly" in choice.sentence


def test_images_of_one_colour_and_a_pair_are_enough() -> None:
    maker = trained_under(COLOUR["half"], some_images(3, 0, COLOUR_CENTRE))
    images = torch.full((2, 3, 12, 12), 128, dtype=torch.uint8)
    assert choose_normalisation(maker, images, torch.tensor([-1, -1]), 3).evidence[0].score >= 0
