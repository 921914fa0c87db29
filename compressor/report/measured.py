"""The measured qualities of a report, each with its number of images and, where it is a share, its interval.

The types that all parts of report.json share stand here too. Latencies are `profiles.latency.LatencyStats`, which carry
their own origin. Nothing here imports torch, so that a report can be read, compared and gated where there is none.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    model_validator,
)


def _inside_run(path: str) -> str:
    pure = PurePosixPath(path)
    if not path or pure.is_absolute() or ".." in pure.parts or "\\" in path:
        raise ValueError(f"{path!r} is not a relative POSIX path inside the run folder")
    return path


Fraction = Annotated[float, Field(ge=0, le=1)]
AtMostOne = Annotated[float, Field(le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RunPath = Annotated[str, AfterValidator(_inside_run)]


class Record(BaseModel):
    """Base of everything in report.json: immutable, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        # A file that we write has every key, and the published schema says so.
        json_schema_serialization_defaults_required=True,
    )


class Proportion(Record):
    """A share, measured on n images, with its interval: Wilson's of images, by a bootstrap over the images of the rest.

    images      of n images, those with the right class
    pixels      of all pixels of n images, those with the right class; neighbours are not independent, images are
    overlap     mean over the classes of intersection over union of their pixels, all n images together
    variance    of a reference's variance over n images, what is explained; below 0 where its mean would do better
    """

    value: AtMostOne
    low: AtMostOne
    high: AtMostOne
    n: PositiveInt
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    of: Literal["images", "pixels", "overlap", "variance"] = "images"

    @model_validator(mode="after")
    def _ordered(self) -> Proportion:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value} lies outside its interval {self.low} to {self.high}")
        if self.low < 0 and self.of != "variance":
            raise ValueError(f"a share of {self.of} is not below 0, as {self.low} is")
        return self

    @property
    def points_lost(self) -> float:
        """What is missing from all of them, in percentage points; without the rounding of 1 - 0.99."""
        return round(100 * (1 - self.value), 9)

    @property
    def most_points_lost(self) -> float:
        """What may be missing at the low end of the interval, in percentage points."""
        return round(100 * (1 - self.low), 9)


class Scores(Record):
    """One metric on each set of images that no stage trained or chose on; null where it was not measured."""

    evidence: Proportion | None = Field(default=None, description="held-out images of the user's samples")
    eval: Proportion | None = Field(default=None, description="the user's --eval set")

    @property
    def larger(self) -> Proportion | None:
        """The one on more images, which says more."""
        known = [proportion for proportion in (self.eval, self.evidence) if proportion is not None]
        return max(known, key=lambda proportion: proportion.n, default=None)


class Confidence(Record):
    """A network's probability of its own top-1 class, over n images."""

    mean: Fraction
    p10: Fraction = Field(description="one image in ten is below this")
    median: Fraction
    n: PositiveInt


class Calibration(Record):
    """Expected calibration error: how far a network's confidence is from its hit rate, over bins of equally many
    images, weighted by their number (Naeini et al. 2015, with adaptive bins as in Nixon et al. 2019)."""

    error: Fraction
    n: PositiveInt
    num_bins: PositiveInt
    against: Literal["labels", "teacher"] = Field(description="whose class counts as a hit")


class Shift(Record):
    """A mean of differences over n images, with its interval by a bootstrap over them."""

    value: float
    low: float
    high: float
    n: PositiveInt
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95

    @model_validator(mode="after")
    def _ordered(self) -> Shift:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value} lies outside its interval {self.low} to {self.high}")
        return self


class Difference(Record):
    """Share of an artefact minus share of its reference on the same n images, with the interval of paired shares
    (Newcombe 1998, method 10), or by a bootstrap over the images of pixels."""

    value: Annotated[float, Field(ge=-1, le=1)]
    low: Annotated[float, Field(ge=-1, le=1)]
    high: Annotated[float, Field(ge=-1, le=1)]
    n: PositiveInt
    gained: NonNegativeInt | None = Field(default=None, description="images that it alone has right; null: pixels")
    lost: NonNegativeInt | None = Field(default=None, description="images that the reference alone has right")
    p_value: Fraction | None = Field(default=None, description="of the exact McNemar test that both err alike")
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95

    @model_validator(mode="after")
    def _ordered(self) -> Difference:
        if not self.low <= self.value <= self.high:
            raise ValueError(f"{self.value} lies outside its interval {self.low} to {self.high}")
        return self


class Differences(Record):
    """A paired difference on each set of images; null where it was not measured."""

    evidence: Difference | None = None
    eval: Difference | None = None


class ClassAccuracy(Record):
    """Of the images with one label, those that the teacher and an artefact have right; the difference is paired."""

    class_index: NonNegativeInt
    num_images: PositiveInt
    num_right_teacher: NonNegativeInt
    num_right: NonNegativeInt
    low: Annotated[float, Field(ge=-1, le=1)] = Field(description="of the difference of the two shares, 95 %")
    high: Annotated[float, Field(ge=-1, le=1)]


class ClassFlips(Record):
    """Of the images that the teacher gives to one class, those that the student gives to another."""

    class_index: NonNegativeInt
    num_images: PositiveInt
    num_flipped: NonNegativeInt


class Comparison(Record):
    """Student against teacher on one set of images, beyond the single number of agreement."""

    mean_kl_nats: NonNegativeFloat = Field(description="KL(teacher || student), mean over the images")
    teacher_confidence: Confidence
    student_confidence: Confidence
    flips: tuple[ClassFlips, ...] = Field(description="only classes that the teacher gives to some image")
    confidence_shift: Shift | None = Field(
        default=None, description="the student's confidence minus the teacher's; null: a report of schema 1.4"
    )
    calibration: Calibration | None = Field(default=None, description="of the student, against the teacher's classes")
    calibration_labels: Calibration | None = Field(default=None, description="of the student, where there are labels")
    teacher_calibration_labels: Calibration | None = Field(
        default=None, description="of the teacher, where there are labels"
    )


class ClassOverlap(Record):
    """One class of a segmentation on one set of images, all of them together."""

    class_index: NonNegativeInt
    teacher_share: Fraction = Field(description="of all pixels, those that the teacher gives to it")
    iou: Fraction = Field(description="intersection over union of the teacher's and the student's pixels")
    teacher_iou: Fraction | None = Field(default=None, description="of the teacher and the masks, where there are any")
    student_iou: Fraction | None = Field(default=None, description="of the student and the masks")


class SegmentationComparison(Record):
    """Student against teacher on one set of images, pixel by pixel."""

    num_images: PositiveInt
    lowest_image: Fraction = Field(description="of the pixels of the image on which they agree least")
    classes: tuple[ClassOverlap, ...] = Field(description="only classes that one of them gives to some pixel")


class OutputError(Record):
    """One output of a regression."""

    index: NonNegativeInt
    explained: AtMostOne | None = Field(description="of the teacher's variance; null: the teacher's is constant")
    rmse: NonNegativeFloat = Field(description="root mean square difference, in the output's own unit")
    teacher_std: NonNegativeFloat = Field(description="standard deviation of the teacher's output over the images")


class RegressionComparison(Record):
    """Student against teacher on one set of images, output by output."""

    num_images: PositiveInt
    rmse: NonNegativeFloat = Field(description="root mean square difference over all outputs")
    outputs: tuple[OutputError, ...]


AnyComparison: TypeAlias = Comparison | SegmentationComparison | RegressionComparison
"""By the task; their fields tell them apart."""
