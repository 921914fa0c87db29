"""The images that int8 is calibrated and chosen on, where the training data is gone. Never white noise.

    calibrate   the few real images of the train part, and images drawn from the run's own generator, or those that a
                method made and kept instead of one
    judge       the real images of the `select` part, and other made ones, but only those on which the network is as
                sure as on real ones: near a border between classes any rounding changes the answer

A generator that aims at realism shows the network what its users will. An adversarial one (DFAD's) shows what the
student gets wrong, so its activations are no measure of ranges: then the real images calibrate alone. Without any real
image of the task those of a pool stand in, and are called so; without a pool either generator is better than nothing;
without a generator too, smooth random patterns stand in. Then nothing says what int8 costs on real images, and a
warning does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.distill.generator import Generator
from compressor.inputs import pixels
from exporters.golden import golden_patterns

Images = NDArray[np.float32]

SYNTHETIC_CANDIDATES = 1024
JUDGED_SYNTHETIC = 512
LEAST_SURE = 0.05  # this share of the real images is less sure than any generated image that judges
# NVIDIA asks for 500 for classifiers; below a hundred the ranges are those of single images.
FEW_TO_CALIBRATE = 100
FEW_TO_JUDGE = 100  # with fewer, one image is more than the usual limit of one point
MOST_REAL = 1024  # to calibrate on, and as many to choose on; at even distances where there are more
NUM_PATTERNS = 128  # to calibrate on; as many others judge
MOST_OF_POOL = 512  # to calibrate on; as many others judge
BATCH = 64
CHECK = "check it on some before it ships. fp32 and fp16 need no calibration."
UNSEEN = (
    "int8 was calibrated without any real image, so neither its ranges nor its agreement with fp32 is known for real "
    f"ones: {CHECK}"
)
UNSEEN_BUT_POOL = (
    "int8 was calibrated without any image of the task, on pool images of unknown relation to it, so neither its "
    f"ranges nor its agreement with fp32 is known for images of the task: {CHECK}"
)


@dataclass(frozen=True)
class Judges:
    """The images (N, C, H, W) that choices are made on, what they are in words, and what is wrong with them."""

    images: Images
    words: str
    warning: str | None


@dataclass(frozen=True)
class CalibrationImages:
    """All (N, C, H, W) float32 in [0, 1]; synthetic is empty where no generator can be used.

    Attributes:
        real, synthetic: to calibrate on; `real` are images of the task, or where `of_pool` those of a pool.
        select: others like `real`, to choose on.
        candidates: generated ones to choose on, before `judges` has looked at them.
        generator_note: why there are synthetic images, or none.
        warnings: what the report must say, in sentences.
        patterns: whether the synthetic images and the candidates are smooth random patterns, of no generator.
        of_pool: whether the relation of `real` and `select` to the task is unknown.
    """

    real: Images
    synthetic: Images
    select: Images
    candidates: Images
    generator_note: str
    warnings: tuple[str, ...]
    patterns: bool = False
    of_pool: bool = False

    def judges(self, sure: Callable[[Images], NDArray[np.float32]] | None, *, all_or_nothing: bool = True) -> Judges:
        """The images that choices are made on, real ones first.

        Args:
            sure: how sure the network is of images, before it is quantised: (N, C, H, W) to (N,). None where its
                outputs are no logits; all generated images judge then, as they do where no real one is there.
            all_or_nothing: whether an image agrees or does not; a class map agrees in part.
        """
        real = np.concatenate([self.real, self.select])
        generated = self.candidates
        compared = sure is not None and len(generated) > 0 and len(real) > 0 and not self.of_pool
        if sure is not None and compared:
            generated = generated[sure(generated) >= np.quantile(sure(real), LEAST_SURE)]
        generated = generated[:JUDGED_SYNTHETIC]
        count = len(self.select) + len(generated)
        if count == 0:
            warning = "No image is left to choose an int8 calibration on but those that calibrate: that flatters it."
            return Judges(self.real, f"the {len(self.real)} images that it was calibrated on", warning)
        kind = "smooth random patterns" if self.patterns else "generated images"
        words = f"{len(self.select)} {'pool images' if self.of_pool else 'select'} + {len(generated)} {kind}"
        if len(generated) and compared:
            words += ", which the network is as sure of as of real ones"
        worth = f", one of which is {100 / count:.1f} points" if all_or_nothing else ""
        few = f"The int8 calibration is chosen on only {count} images{worth}."
        return Judges(np.concatenate([self.select, generated]), words, few if count < FEW_TO_JUDGE else None)


def gather(
    train: pixels.Images,
    select: pixels.Images,
    generator: Generator | None,
    *,
    num_synthetic: int,
    seed: int,
    kept: Tensor | None = None,
    pool: pixels.Images | None = None,
    absent: str = "The method leaves no generator",
    more: str = "More --samples, or a method with a realistic generator, would help.",
) -> CalibrationImages:
    """Draw the images.

    Args:
        train, select: uint8 (N, C, H, W), two parts of the samples' split; of each at most MOST_REAL are taken.
        generator: the method's, in evaluation mode; None where it leaves none.
        num_synthetic: how many of its images to calibrate on.
        seed: of the draw; the same seed gives the same images.
        kept: uint8 (M, C, H, W), images that a method without a generator has made and kept.
        pool: uint8 (P, C, H, W), images of unknown relation to the task; used where `train` is empty.
        absent: why there is no generator, where there is none.
        more: what the user can do about too few images, a sentence.
    """
    of_pool = len(train) == 0 and pool is not None and len(pool) > 0
    if of_pool:
        assert pool is not None
        # At even distances: images come in the order of their folders. One calibrates, the next one judges.
        rows = torch.linspace(0, len(pool) - 1, min(len(pool), 2 * MOST_OF_POOL)).long()
        train, select = pool[rows[::2]], pool[rows[1::2]]
    real, chosen = (_as_floats(_evenly(images, MOST_REAL)) for images in (train, select))
    if len(real) == 0:
        return _without_real_ones(real, chosen, generator, kept, num_synthetic, seed)
    kind = "pool images of unknown relation to the task" if of_pool else "real images"
    warnings = [UNSEEN_BUT_POOL] if of_pool else []
    synthetic = candidates = np.empty((0, *real.shape[1:]), np.float32)
    if generator is None and kept is None:
        note = f"{absent}, so int8 is calibrated on {kind} alone."
    elif generator is not None and not generator.aims_at_realism:
        note = f"The method's generator is adversarial and not realistic, so int8 is calibrated on {kind} alone."
        warnings.append(note)
    elif num_synthetic == 0:
        note = "Generated images were switched off with --calibration-images 0."
    elif generator is not None:
        note = "Generated images are drawn from the run's own generator, classes in equal shares, and are not kept."
        drawn = draw(generator, num_synthetic + SYNTHETIC_CANDIDATES, seed=seed)
        synthetic, candidates = drawn[:num_synthetic], drawn[num_synthetic:]
    else:
        assert kept is not None
        note = "Generated images are those that the method made, on which the student was trained."
        synthetic, candidates = _shared_out(kept, num_synthetic)
    if len(real) + len(synthetic) < FEW_TO_CALIBRATE:
        warnings.append(
            f"int8 is calibrated on only {len(real) + len(synthetic)} images; ranges from so few are those of single "
            f"images. {more}"
        )
    if len(chosen) + len(candidates) == 0:
        warnings.append("No image is left to choose an int8 calibration on but those that calibrate: that flatters it.")
    return CalibrationImages(real, synthetic, chosen, candidates, note, tuple(warnings), of_pool=of_pool)


def _without_real_ones(
    none: Images, select: Images, generator: Generator | None, kept: Tensor | None, num_synthetic: int, seed: int
) -> CalibrationImages:
    """Of the generator, whatever it aims at, else what the method has kept, else of nothing."""
    patterns = (generator is None and kept is None) or num_synthetic == 0
    if kept is not None and generator is None and not patterns:
        calibrating, judging = _shared_out(kept, num_synthetic)
        note = "There is no real image, so int8 is calibrated on images that the method made alone."
        return CalibrationImages(none, calibrating, select, judging, note, (note, UNSEEN))
    if generator is not None and not patterns:
        drawn, split = draw(generator, num_synthetic + SYNTHETIC_CANDIDATES, seed=seed), num_synthetic
        aims = "" if generator.aims_at_realism else ", which is adversarial and not realistic"
        note = f"There is no real image, so int8 is calibrated on images of the run's own generator alone{aims}."
    else:
        drawn, split = golden_patterns(2 * NUM_PATTERNS, (none.shape[1], none.shape[2], none.shape[3])), NUM_PATTERNS
        note = "There is neither a real image nor a generated one, so int8 is calibrated on smooth random patterns."
    return CalibrationImages(none, drawn[:split], select, drawn[split:], note, (note, UNSEEN), patterns)


def _shared_out(kept: Tensor, num_synthetic: int) -> tuple[Images, Images]:
    """At most `num_synthetic` to calibrate on, and others to choose on: at most half each, and none in both."""
    count = min(num_synthetic, len(kept) // 2)
    return _as_floats(kept[:count]), _as_floats(kept[count : count + SYNTHETIC_CANDIDATES])


@torch.no_grad()
def draw(generator: Generator, count: int, *, seed: int) -> Images:
    """`count` images (N, C, H, W) in [0, 1] with uniformly drawn classes."""
    random = torch.Generator().manual_seed(seed)
    sizes = [min(BATCH, count - start) for start in range(0, count, BATCH)]
    images = torch.cat([generator(*generator.latents(size, random)) for size in sizes])
    # What a camera's file would hold: the real images are 8-bit as well.
    return ((images * 255.0).round() / 255.0).numpy()


def confidences(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """The probability of each image's own top-1 class, (N, K) to (N,); of (N, K, H, W) its mean over the pixels."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    top: NDArray[np.float32] = 1.0 / shifted.sum(axis=1)
    mean: NDArray[np.float32] = top.reshape(len(top), -1).mean(axis=1)
    return mean


def _evenly(images: pixels.Images, most: int) -> Tensor:
    return images[torch.linspace(0, len(images) - 1, min(most, len(images))).round().long()]


def _as_floats(images: Tensor) -> Images:
    return (images.float() / 255.0).numpy()
