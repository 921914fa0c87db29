"""The two questions about a teacher that only the samples can answer, asked before anything trains.

Which normalisation, where no card and no flag says it; and whether logits = classifier(mean of the feature map), on
which classifier sharing rests.
"""

from __future__ import annotations

from compressor.errors import InputRefused
from compressor.inputs.card import TeacherCard
from compressor.inputs.intake import TeacherSource
from compressor.inputs.normalisation import choose_normalisation
from compressor.inputs.samples import SampleSet
from compressor.inputs.teacher import Teacher, classifier_identity_error, layer_names, load_teacher

IDENTITY_TOLERANCE = 1e-3


def provisional_card(source: TeacherSource) -> TeacherCard:
    """The card, or one that is good enough to read images by: reading them takes no mean and no deviation."""
    channels = int(source.card_facts["input_shape"][0])
    return source.card or source.card_with((0.0,) * channels, (1.0,) * channels)


def settled_card(source: TeacherSource, samples: SampleSet) -> tuple[TeacherCard, str, tuple[str, ...]]:
    """The card, where its normalisation comes from, and what the report must say of that."""
    if source.card is not None:
        return source.card, source.origin.get("mean", "default"), ()
    choice = choose_normalisation(
        lambda mean, std, value_range: load_teacher(source.state_dict, source.card_with(mean, std, value_range)),
        samples.images,
        samples.labels,
        samples.images.shape[1],
    )
    card = source.card_with(choice.mean, choice.std, choice.value_range)
    return card, f"chosen on the samples: {choice.name}", (choice.sentence,)


def checked_identity(teacher: Teacher, samples: SampleSet) -> float:
    """The largest relative error of the identity on the samples.

    Raises:
        InputRefused: it does not hold, so that the classifier cannot be shared.
    """
    feature_layer, classifier_layer = layer_names(teacher.card)
    try:
        error = classifier_identity_error(teacher, samples.images.float() / 255.0)
    except (RuntimeError, IndexError) as fault:  # the layers exist; their shapes do not fit each other
        raise _not_shareable(
            f"The output of {feature_layer} is no map that {classifier_layer} takes: {fault}."
        ) from fault
    if not error <= IDENTITY_TOLERANCE:  # NaN as well
        raise _not_shareable(
            f"On the samples, the logits differ from {classifier_layer}(mean of {feature_layer}) by {error:.1%}."
        )
    return error


def _not_shareable(received: str) -> InputRefused:
    return InputRefused(
        received,
        "Classifier sharing needs a network that ends in a feature map, a global average pool and a linear layer.",
        "Name the layers of this teacher with --feature-layer and --classifier-layer, or leave wrong ones out.",
    )
