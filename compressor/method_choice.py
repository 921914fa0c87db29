"""Which method fits what is there, and why: the rule behind `--method auto`.

The rule is a pure function of a few facts. Its thresholds stand together below, each with where it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.inputs.teacher import TEACHER_PARTS, Task, TeacherPart

AUTO_METHOD = "auto"

SURE = 0.95  # confidence that counts as sure (KD3's cutoff)

# Measured: a pool of digits scores 0.91 or more with digit teachers (a LeNet5, a ResNet), one digit in four images
# 0.16 to 0.21; images like CIFAR-10's score 0.38 and CIFAR-10's own 0.59 with its teacher of 85 %. Photographs for
# digits, digits or clothing for CIFAR-10, and noise score 0.03 or less. The thresholds lie between these.
RELATED = 0.3
UNRELATED = 0.05

# Distillation on a pool is measured with 4,500 and 6,000 images; below a third of that nothing is known.
ENOUGH_IMAGES = 2_000
# HiDFD's GAN is measured with 10 images a class; below two, most of what it could learn of a class is one image.
FEW_PER_CLASS = 2
# Vectors and label maps. CamVid at 48x64 px, 800 updates, one seed: vanilla on 20 images has 0.77 of the teacher's mean
# IoU (and agrees on more pixels), DDAD on none 0.81 for twice the time, DFAD on none 0.09 (docs/methods.md).
ENOUGH_DENSE = 20
# Above, nothing is published that works: at 224 px FastMeta's MobileNetV2 reaches 43 % under a teacher of 75 %.
LARGEST_WITHOUT_IMAGES = 64


@dataclass(frozen=True)
class Relatedness:
    """What a teacher's answers say of a pool as a whole; they cannot tell a single image.

    A teacher may be sure of images that have nothing to do with its task: a ResNet for digits is sure of 97 % of
    photographs, but calls nearly all of them by one name. A LeNet for digits spreads its answers, but is sure of few.
    So it takes both: sure answers, evenly over the classes. A pool that is related but lacks most classes looks
    unrelated by this, and one whose strange images fall evenly on the classes looks partly related.

    Attributes:
        sure: share of the images that the teacher is sure of.
        coverage: how evenly its answers fall on the classes, from 0 (one class) to 1 (all alike):
            (exp(entropy of the histogram) - 1) / (K - 1).
    """

    sure: float
    coverage: float

    @property
    def score(self) -> float:
        """Between 0 and 1."""
        return self.sure * self.coverage


def relatedness(teacher_logits: Tensor) -> Relatedness:
    """How related a pool is to the teacher's task, from its logits (M, K) on the pool; M and K - 1 are not 0."""
    confidence, labels = teacher_logits.float().softmax(dim=1).max(dim=1)
    num_classes = teacher_logits.shape[1]
    shares = torch.bincount(labels, minlength=num_classes) / len(labels)
    entropy = -torch.special.xlogy(shares, shares).sum()
    return Relatedness(
        sure=float((confidence > SURE).float().mean()),
        coverage=float((entropy.exp() - 1.0) / (num_classes - 1)),
    )


@dataclass(frozen=True)
class SituationFacts:
    """What is there.

    Attributes:
        num_few: images of the task to train on.
        num_pool: unlabelled images besides.
        relatedness: of the pool; None where there is none.
        image_side: the longer one, in pixels.
        effort: quick, standard or full.
        same_layout: the student is a pruned copy of its teacher, whose classifier reads the averaged map.
        gives: what can be had of the teacher; all that a method may need, unless it is run from its own file.
    """

    task: Task
    num_classes: int
    num_few: int
    num_pool: int
    relatedness: Relatedness | None
    has_batch_norm: bool
    image_side: int
    effort: str
    same_layout: bool
    gives: frozenset[TeacherPart] = frozenset(TEACHER_PARTS)

    @property
    def has_layers(self) -> bool:
        """Whether a method may look into the teacher."""
        return "classifier" in self.gives


@dataclass(frozen=True)
class Choice:
    """A method by name, and one sentence that says why."""

    method: str
    reason: str


def choose_method(facts: SituationFacts) -> Choice:
    """The first of these that applies: real images where there are enough, few where there are some, none otherwise."""
    if "input_gradient" not in facts.gives:
        return _on_logits(facts)
    if facts.task != "classification":
        return _without_classes(facts)
    related = facts.relatedness is not None and facts.relatedness.score >= UNRELATED
    usable = facts.num_few + (facts.num_pool if related else 0)
    if usable >= ENOUGH_IMAGES and (related or facts.num_pool == 0):  # an unrelated pool would be trained on as well
        return _on_images(facts, usable)
    if facts.num_few >= FEW_PER_CLASS * facts.num_classes and facts.has_layers:
        return Choice(
            "hidfd", f"{_images(facts.num_few)} of {facts.num_classes} classes are enough to teach a generator theirs"
        )
    # Where both can, HiDFD is better and takes six times as long: digits, a pruned student, 5 images a class, three
    # seeds (docs/experiments.md).
    if facts.num_few >= facts.num_classes and facts.same_layout:
        return Choice(
            "netgraft",
            f"the student is a pruned copy of its teacher, whose blocks {_images(facts.num_few)} repair one by one",
        )
    if facts.image_side > LARGEST_WITHOUT_IMAGES and facts.num_few + facts.num_pool > 0:
        return Choice(
            on_images(facts)[0],
            f"at {facts.image_side} px no method without images makes a useful student, so the "
            f"{_images(facts.num_few + facts.num_pool)} are used although they are few or of another kind",
        )
    return _without_images(facts)


def _on_logits(facts: SituationFacts) -> Choice:
    """Of a teacher without gradients no generator can learn; what images there are is all that there is to learn from.

    A pool is used even if it is unrelated: with the few images it was ahead of these alone (digits 93.4 to 90.8, MNIST
    87.5 to 79.4; docs/methods.md).
    """
    why = "the teacher gives logits and no gradient for a generator"
    images = facts.num_few + (facts.num_pool if facts.task == "classification" else 0)
    if images == 0 and facts.num_pool > 0:
        return Choice(
            "noise",
            f"{why}, there is no image of the task, and the pool of {_images(facts.num_pool)} is not usable for a "
            f"{facts.task}: noise is left, which teaches little",
        )
    if images == 0:
        return Choice("noise", f"{why}, and there is no image: noise is left, which teaches little, so give images")
    if images > facts.num_few:
        return Choice("pool", f"{why}, so its answers to {_images(images)} are what there is to learn from")
    of_task = f"{_images(images)} of the task {'is' if images == 1 else 'are'}"
    more = "others, as --pool, help" if facts.task == "classification" else "more of them help"
    return Choice("vanilla", f"{why}, so its answers to {of_task} all there is to learn from ({more})")


def _without_classes(facts: SituationFacts) -> Choice:
    if facts.num_few >= ENOUGH_DENSE:
        return Choice(
            "vanilla", f"{_images(facts.num_few)} of the task are enough for {facts.task} to learn from alone"
        )
    have = "there is no image of the task"
    if facts.num_few > 0:
        are = "is" if facts.num_few == 1 else "are"
        have = f"{_images(facts.num_few)} of the task {are} too few for {facts.task} (vanilla from {ENOUGH_DENSE} on)"
    if facts.task == "segmentation" and facts.has_batch_norm:
        return Choice("ddad", f"{have}; this method needs none, since the teacher's batch norms guide its generator")
    return Choice("dfad", f"{have}, and this method needs none")


def on_images(facts: SituationFacts) -> tuple[str, str]:
    """Which method trains on many images, and what of the teacher it learns.

    Without batch norm (LeNet-5 on MNIST, three seeds) the answers were worth more than the features on a mixed pool, by
    0.3 to 0.8 points, and on photographs by 17; with it (ResNets on digits, CIFAR-10) the features were, on every pool.
    """
    return ("kd3", "features") if facts.has_batch_norm else ("pool", "answers")


def _on_images(facts: SituationFacts, usable: int) -> Choice:
    method, learned = on_images(facts)
    if facts.relatedness is None:
        return Choice(method, f"{_images(usable)} of the task are enough to learn the teacher's {learned} on")
    how = "related" if facts.relatedness.score >= RELATED else "partly related"
    return Choice(
        method,
        f"{_images(usable)} are enough to learn the teacher's {learned} on, and the pool is {how} to its task (sure of "
        f"{facts.relatedness.sure:.0%}, covering {facts.relatedness.coverage:.0%} of the classes evenly)",
    )


def _without_images(facts: SituationFacts) -> Choice:
    have = "there is no image"
    if facts.num_few + facts.num_pool > 0:
        have = f"{_images(facts.num_few)} of the task {'is' if facts.num_few == 1 else 'are'} too few to learn from"
    if facts.num_pool > 0:
        have += f" and the {facts.num_pool:,} of the pool are unrelated or few"
    if facts.image_side > LARGEST_WITHOUT_IMAGES:
        have += f" (at {facts.image_side} px do not expect much: give images if you can)"
    if not facts.has_layers:
        return Choice("dfad", f"{have}, and the teacher gives what this takes, logits and gradients, and no more")
    if not facts.has_batch_norm:
        return Choice("dfad", f"{have}, and the teacher has no batch norm whose statistics could guide a generator")
    if facts.effort == "quick":  # by published GPU times; on a CPU it took as long as dfq
        return Choice("fast", f"{have}, the teacher's batch norms describe its training images, and minutes matter")
    return Choice("dfq", f"{have}, and the teacher's batch norms describe its training images")


def _images(count: int) -> str:
    return f"{count:,} image{'' if count == 1 else 's'}"
