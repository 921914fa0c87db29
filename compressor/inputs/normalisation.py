"""Which normalisation a teacher was trained with, when nobody says: tried on the samples, chosen by evidence.

A batch norm remembers the mean m and variance v of what it saw in training, channel by channel. Under the right
normalisation the samples reproduce them, so the mismatch of a candidate is the divergence of the two Gaussians

    KL( N(sample mean, sample variance) || N(m, v) )    averaged over channels, then over layers by values per channel.

Confidence looks like the natural measure and is a trap: images in 0..255 saturate any network. Tried on five CIFAR-10
teachers with five normalisations, 20 and 200 samples, images of their own kind and of another collection, ten draws
each: mean confidence chose 0..255 in all 200 trials. The mismatch found 'half', 'none' and 'raw bytes' in 120 of 120;
'imagenet' and 'cifar10', which lie close together, in 62 of 80, and otherwise chose a neighbour, 'cifar100' or the
samples' own. Where labels exist, a candidate that is clearly less accurate is out before the mismatch decides.

Of a teacher without batch norms, and of one whose layers are not known, there are answers alone: `answer_doubt`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compressor.errors import InputRefused
from compressor.inputs.answer_doubt import answer_doubt
from compressor.inputs.teacher import Teacher

MAX_IMAGES = 64
MIN_LABELLED = 10
CLOSE = 2.0  # mismatches within this factor of each other are hard to tell apart
POOR_FIT = 0.1  # true normalisations stayed below 0.03 even on images of another collection, wrong ones were above 0.15

MakeTeacher = Callable[[tuple[float, ...], tuple[float, ...], tuple[float, float]], Teacher]

# name: mean, std, value range; one number per channel.
UNIT, BYTES = (0.0, 1.0), (0.0, 255.0)
Constants = tuple[tuple[float, ...], tuple[float, ...], tuple[float, float]]
COLOUR: dict[str, Constants] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), UNIT),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), UNIT),
    "cifar100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), UNIT),
    "half": ((0.5,) * 3, (0.5,) * 3, UNIT),
    "none": ((0.0,) * 3, (1.0,) * 3, UNIT),
    "raw bytes": ((0.0,) * 3, (1.0,) * 3, BYTES),
}
GREY: dict[str, Constants] = {
    "mnist": ((0.1307,), (0.3081,), UNIT),
    "half": ((0.5,), (0.5,), UNIT),
    "none": ((0.0,), (1.0,), UNIT),
    "raw bytes": ((0.0,), (1.0,), BYTES),
}
FOUR: dict[str, Constants] = {
    "half": ((0.5,) * 4, (0.5,) * 4, UNIT),
    "none": ((0.0,) * 4, (1.0,) * 4, UNIT),
    "raw bytes": ((0.0,) * 4, (1.0,) * 4, BYTES),
}
TABLES = {1: GREY, 3: COLOUR, 4: FOUR}
OWN = "samples"


@dataclass(frozen=True)
class Candidate:
    """A normalisation and what the samples say of it.

    Attributes:
        measure: what was measured: `mismatch`, the divergence from the batch norms' memory; or the `doubt` of answers.
        score: that, in nats; 0 is perfect.
        confidence: mean of the largest probability; shown, never decided on. None where the output is numbers.
        accuracy: share of the labelled samples that are classified rightly; None below MIN_LABELLED of them.
    """

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, float]
    score: float
    confidence: float | None
    accuracy: float | None
    measure: Literal["mismatch", "doubt"] = "mismatch"


@dataclass(frozen=True)
class NormalisationChoice:
    """The chosen candidate, every candidate from best to worst, and the sentences for the report."""

    name: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    value_range: tuple[float, float]
    evidence: tuple[Candidate, ...]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """The choice as plain data for JSON."""
        return asdict(self)


def choose_normalisation(
    make_teacher: MakeTeacher, images: Tensor, labels: Tensor, channels: int
) -> NormalisationChoice:
    """Try every candidate on at most MAX_IMAGES samples, spread over all of them.

    Args:
        make_teacher: (mean, std, value_range) -> teacher with that normalisation.
        images: uint8 (N, C, H, W).
        labels: int64 (N,), -1 where unknown.
        channels: C, 1, 3 or 4.

    Raises:
        InputRefused: the teacher has no batch norm and its answers are no classes, so that the samples cannot tell.
    """
    known = (labels >= 0).nonzero().flatten()
    labelled = len(known) >= MIN_LABELLED
    pool = known if labelled else torch.arange(len(images))
    chosen = pool[torch.linspace(0, len(pool) - 1, min(len(pool), MAX_IMAGES)).round().long()]
    pixels = images[chosen].float() / 255
    truth = labels[chosen] if labelled else None

    table = TABLES[channels] | {OWN: _own_constants(pixels)}
    tried = [_try(name, make_teacher(*constants), constants, pixels, truth) for name, constants in table.items()]
    ranking = sorted(tried, key=lambda candidate: _merit(candidate, tried, len(chosen)))
    best = ranking[0]
    sentence = _sentence(best, ranking[1], len(chosen))
    return NormalisationChoice(best.name, best.mean, best.std, best.value_range, tuple(ranking), sentence)


def _own_constants(pixels: Tensor) -> Constants:
    mean = pixels.mean(dim=(0, 2, 3))
    std = pixels.std(dim=(0, 2, 3)).clamp_min(1 / 255)
    return tuple(round(x, 4) for x in mean.tolist()), tuple(round(x, 4) for x in std.tolist()), UNIT


@torch.no_grad()
def _try(name: str, teacher: Teacher, constants: Constants, pixels: Tensor, truth: Tensor | None) -> Candidate:
    """Pass the pixels (B, C, H, W) in [0, 1] through and compare what the batch norms see with their memory."""
    fits: list[tuple[float, int]] = []

    def compare(layer: nn.BatchNorm2d, inputs: tuple[Tensor]) -> None:
        seen = inputs[0].double()
        assert layer.running_mean is not None
        assert layer.running_var is not None
        variance, memory = seen.var(dim=(0, 2, 3), correction=0) + layer.eps, layer.running_var.double() + layer.eps
        shift = (seen.mean(dim=(0, 2, 3)) - layer.running_mean) ** 2
        divergence = 0.5 * ((variance + shift) / memory - 1 - (variance / memory).log())
        fits.append((float(divergence.mean()), seen[:, 0].numel()))

    norms = [layer for layer in teacher.network.modules() if isinstance(layer, nn.BatchNorm2d)]
    if not norms:
        return _by_answers(name, teacher, constants, pixels, truth)
    handles = [layer.register_forward_pre_hook(compare) for layer in norms]
    try:
        logits = teacher(pixels.to(norms[0].weight.device)).logits.cpu()
    finally:
        for handle in handles:
            handle.remove()
    mismatch = sum(fit * count for fit, count in fits) / sum(count for _, count in fits)
    return _candidate(name, teacher, constants, mismatch, logits, truth)


def _by_answers(name: str, teacher: Teacher, constants: Constants, pixels: Tensor, truth: Tensor | None) -> Candidate:
    if teacher.task != "classification":
        raise InputRefused(
            f"The teacher's normalisation is stated nowhere, and {teacher.card.architecture} has no batch norm.",
            f"The samples tell that of a {teacher.task} by what batch norms remember of the training images.",
            "State --mean and --std, or mean and std in a card.",
        )
    doubt, logits = answer_doubt(teacher, pixels.to(teacher.normalise.mean.device), truth)
    return replace(_candidate(name, teacher, constants, doubt, logits, truth), measure="doubt")


def _candidate(
    name: str, teacher: Teacher, constants: Constants, score: float, logits: Tensor, truth: Tensor | None
) -> Candidate:
    return Candidate(
        name,
        *constants,
        score=score if math.isfinite(score) else math.inf,
        confidence=None if teacher.task == "regression" else float(logits.softmax(dim=1).amax(dim=1).mean()),
        accuracy=None if truth is None else float((logits.argmax(dim=1) == truth).float().mean()),
    )


def _merit(candidate: Candidate, tried: list[Candidate], count: int) -> tuple[bool, float]:
    """Sorts better candidates first: clearly inaccurate ones last, then by mismatch.

    Clearly inaccurate is two standard errors below the most accurate. The samples' own mean and deviation fit
    themselves better than they deserve, so they must win by the factor CLOSE.
    """
    inaccurate = False
    if candidate.accuracy is not None:
        best = max(other.accuracy for other in tried if other.accuracy is not None)
        smoothed = (best * count + 1) / (count + 2)
        inaccurate = candidate.accuracy < best - 2 * math.sqrt(smoothed * (1 - smoothed) / count)
    return inaccurate, candidate.score * (CLOSE if candidate.name == OWN else 1.0)


def _sentence(best: Candidate, second: Candidate, count: int) -> str:
    low, high = best.value_range
    text = (
        f"The teacher's normalisation is stated nowhere; '{best.name}' (mean {_numbers(best.mean)}, std "
        f"{_numbers(best.std)}, pixels from {low:g} to {high:g}) was chosen on {count} samples, "
        f"with {_evidence(best)}, before '{second.name}' with {_evidence(second)}."
    )
    if best.measure == "doubt":
        text += " Answers alone tell a normalisation less surely than batch norms do."
    elif best.score > POOR_FIT:
        text += " Even this fits poorly: the normalisation may be another, or the samples unlike the training data."
    elif second.score < CLOSE * best.score:
        text += " The two are hard to tell apart on these samples."
    return text + " State --mean and --std if you know them."


def _evidence(candidate: Candidate) -> str:
    confidence = "" if candidate.confidence is None else f", confidence {candidate.confidence:.0%}"
    accuracy = "" if candidate.accuracy is None else f", accuracy {candidate.accuracy:.0%}"
    return f"{candidate.measure} {candidate.score:.3g}{confidence}{accuracy}"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)
