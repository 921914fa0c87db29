"""The two questions about a teacher that are asked of the samples before anything trains.

Which normalisation, where no card and no flag says it, which nothing but samples can answer; and whether
logits = classifier(mean of the feature map), on which classifier sharing rests.
"""

from __future__ import annotations

import torch
from torch import Tensor

from compressor.errors import InputRefused
from compressor.inputs.card import TeacherCard
from compressor.inputs.intake import TeacherSource
from compressor.inputs.normalisation import choose_normalisation
from compressor.inputs.samples import SampleSet
from compressor.inputs.teacher import Teacher, classifier_identity_error, layer_names, load_teacher
from exporters.causes import one_line

IDENTITY_TOLERANCE = 1e-3
NUM_RANDOM = 8


def provisional_card(source: TeacherSource) -> TeacherCard:
    """The card, or one that is good enough to read images by: reading them takes no mean and no deviation."""
    channels = int(source.card_facts["input_shape"][0])
    return source.card or source.card_with((0.0,) * channels, (1.0,) * channels)


def settled_card(source: TeacherSource, samples: SampleSet | None) -> tuple[TeacherCard, str, tuple[str, ...]]:
    """The card, where its normalisation comes from, and what the report must say of that.

    Raises:
        InputRefused: the normalisation is stated nowhere, and no samples or no batch norms could tell it.
    """
    if source.card is not None:
        return source.card, source.origin.get("mean", "default"), ()
    if samples is None:
        raise InputRefused(
            "The teacher's normalisation is stated nowhere, and there are no samples to try candidates on.",
            "The mean and standard deviation that it was trained with were expected, or images of its task.",
            "State --mean and --std, or mean and std in a card, or give --samples.",
        )
    choice = choose_normalisation(
        lambda mean, std, value_range: load_teacher(source.state_dict, source.card_with(mean, std, value_range)),
        samples.images,
        samples.labels,
        samples.images.shape[1],
    )
    card = source.card_with(choice.mean, choice.std, choice.value_range)
    return card, f"chosen on the samples: {choice.name}", (choice.sentence,)


def checked_identity(teacher: Teacher, samples: SampleSet | None) -> float | None:
    """The largest relative error of the identity, on the samples or else on random images.

    None for a segmentation, and for a teacher that has no layers: no method shares their classifier.

    Raises:
        InputRefused: it does not hold, so that the classifier cannot be shared.
    """
    if teacher.task == "segmentation" or not teacher.has_layers:
        return None
    feature_layer, classifier_layer = layer_names(teacher.card)
    images = _random_images(teacher.card) if samples is None else samples.images.float() / 255.0
    try:
        error = classifier_identity_error(teacher, images)
    except (RuntimeError, IndexError, ValueError, AssertionError) as fault:
        # The layers exist; their shapes do not fit each other, or the image is too small for as many strides.
        height, width = teacher.card.input_shape[1:]
        raise _not_shareable(
            f"On images of {height}x{width} pixels the output of {feature_layer} is no map that {classifier_layer} "
            f"takes: {one_line(fault)}."
        ) from fault
    if not error <= IDENTITY_TOLERANCE:  # NaN as well
        where = "random images" if samples is None else "the samples"
        raise _not_shareable(
            f"On {where}, the logits differ from {classifier_layer}(mean of {feature_layer}) by {error:.1%}."
        )
    return error


def _random_images(card: TeacherCard) -> Tensor:
    return torch.rand(NUM_RANDOM, *card.input_shape, generator=torch.Generator().manual_seed(0))


def _not_shareable(received: str) -> InputRefused:
    return InputRefused(
        received,
        "Classifier sharing needs a network that ends in a feature map, a global average pool and a linear layer.",
        "Name the layers of this teacher with --feature-layer and --classifier-layer, or leave wrong ones out; where "
        "the image is too small for the network, state its --input-size.",
    )
