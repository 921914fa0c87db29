"""What report.json says of the files that may ship: every artefact, how int8 was made, and which one to take."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from compressor.report.measured import (
    ClassAccuracy,
    Differences,
    Fraction,
    Proportion,
    Record,
    RunPath,
    Scores,
    Sha256,
)
from compressor.report.predicted import Prediction
from profiles.latency import LatencyStats
from profiles.schema import Precision

ModelName = Literal["student", "teacher"]
Format = Literal["onnx", "engine"]
LimitName = Literal["max_latency_ms", "max_size_mib", "max_params_m"]


class VariantParity(Record):
    """An artefact against a reference on the same images; `onnx.parity` ties the fp32 file to torch."""

    max_rel: NonNegativeFloat = Field(description="largest difference, as a share of the largest logit")
    top1_agreement: Fraction = Field(
        description="share of the images with the same class, or of their pixels; of a regression the variance that is "
        "explained"
    )
    num_images: PositiveInt


class Variant(Record):
    """One artefact: a network in one format and precision."""

    model: ModelName
    format: Format
    precision: Precision
    path: RunPath | None = Field(default=None, description="null: it was not made, and `note` says why")
    made_for: str = Field(description="the runtime that it is made for")
    size_mib: PositiveFloat | None = None
    sha256: Sha256 | None = None
    parity: VariantParity | None = Field(default=None, description="to the same network's fp32 file, on this machine")
    parity_target: VariantParity | None = Field(
        default=None, description="the target's outputs to those that this machine gets from the same file"
    )
    agreement: Scores = Field(default=Scores(), description="with the fp32 teacher, as the task has it")
    agreement_with_fp32: Scores = Field(default=Scores(), description="with the same network's fp32 file")
    accuracy: Scores = Field(default=Scores(), description="top-1 equal to the label or the mask, where there are any")
    accuracy_difference: Differences = Field(
        default=Differences(), description="accuracy minus that of the fp32 teacher on the same images"
    )
    class_accuracy: tuple[ClassAccuracy, ...] = Field(
        default=(), description="by label, on the larger of evidence and --eval; only labels that some image has"
    )
    mean_iou: Scores = Field(default=Scores(), description="segmentation: with the fp32 teacher's class maps")
    mean_iou_masks: Scores = Field(default=Scores(), description="segmentation: with masks, where there are any")
    latency_host: LatencyStats | None = Field(default=None, description="on the machine that ran this")
    latency_target: LatencyStats | None = Field(default=None, description="on the target, never on a stand-in")
    latency_predicted: Prediction | None = Field(
        default=None, description="what is expected on the target; never a measurement, whatever else is known"
    )
    failed_on_target: str | None = Field(
        default=None, description="why it could not be built there, or that its outputs there are wrong"
    )
    note: str | None = Field(default=None, description="what is missing and why, such as `skipped: no GPU`")

    @property
    def label(self) -> str:
        """`student int8`, and `student int8 engine` where it is one."""
        return f"{self.model} {self.precision}{'' if self.format == 'onnx' else f' {self.format}'}"

    @property
    def measured(self) -> LatencyStats | None:
        """What decides: the target's latency, unless its board ran in another power mode than the profile's."""
        latency = self.latency_target
        return latency if latency is not None and latency.other_power_mode is None else None


class Int8Trial(Record):
    """One calibration that was tried and judged."""

    method: str
    float_groups: tuple[str, ...] = Field(description="groups of layers that were left in float")
    logit_error: NonNegativeFloat = Field(description="relative L2 distance to the fp32 logits")
    agreement: Fraction = Field(description="with the fp32 file, on the images that choices are made on")
    num_images: PositiveInt | None = Field(default=None, description="how many of those; null where it is not known")


class Int8Calibration(Record):
    """How an int8 file came about without the training data, and what it costs."""

    model: ModelName
    method: str = Field(description="how ranges become scales: min-max, entropy or percentile")
    num_real: NonNegativeInt = Field(description="the user's images that the ranges come from")
    num_pool: NonNegativeInt = Field(
        default=0, description="images of a pool, of unknown relation to the task, where there was none of the task"
    )
    num_generated: NonNegativeInt
    num_patterns: NonNegativeInt = Field(
        default=0, description="smooth random patterns, where there was neither a real nor a generated image"
    )
    generator_note: str | None = Field(default=None, description="why no generated images, or of which generator")
    range_agreement_median: Fraction | None = Field(
        default=None, description="overlap of the activation ranges of real and generated images, over the tensors"
    )
    range_agreement_lowest: Fraction | None = None
    float_layers: tuple[str, ...] = Field(default=(), description="layers that went back to float")
    trials: tuple[Int8Trial, ...] = ()
    judged_on: str = Field(description="the images that choices were made on; never those of `agreement_with_fp32`")
    num_judged: NonNegativeInt
    drop_points: float = Field(description="agreement with fp32 that is lost there, in percentage points")
    max_drop: NonNegativeFloat = Field(description="the user's limit, in percentage points")
    limit_held: bool = Field(description="on the images that choices were made on")
    agreement_with_fp32: Proportion | None = Field(
        default=None, description="on the larger of evidence and --eval, which nothing was chosen on"
    )
    limit_proven: bool = Field(description="enough of those images, and their whole interval holds the limit")


class LimitsRecord(Record):
    """What an artefact had to hold to be recommended; null: no limit."""

    max_drop: NonNegativeFloat = Field(description="percentage points of agreement with the same network's fp32 file")
    max_latency_ms: PositiveFloat | None = Field(default=None, description="p50 of one image on the target")
    max_size_mib: PositiveFloat | None = None
    max_params_m: PositiveFloat | None = Field(default=None, description="of the network")
    accept_predicted: bool = Field(default=False, description="whether a predicted latency decides")
    wishes: tuple[LimitName, ...] = Field(default=(), description="those that the target's budget set, not the user")


class Verdict(Record):
    """Whether what ships holds one limit. Latency is judged on its median, whatever its interval holds."""

    name: LimitName
    set_by: Literal["user", "target"] = Field(description="target: a wish of its budget, which never fails a run")
    artefact: str | None = Field(description="the recommended one, or else the closest; null: nothing was made")
    limit: PositiveFloat
    value: NonNegativeFloat | None = Field(default=None, description="in the unit of the limit; null: not known")
    interval: tuple[NonNegativeFloat, NonNegativeFloat] | None = Field(default=None, description="of the latency")
    origin: Literal["measured", "merged", "predicted"] | None = Field(
        default=None, description="null: the value is not known"
    )
    state: Literal["held", "missed", "unproven"] = Field(
        description="unproven: not known, or predicted and predictions were not accepted"
    )
    sentence: str


class Rejected(Record):
    variant: str
    reason: str


class Recommendation(Record):
    """The one artefact to ship under the user's limits."""

    model: ModelName | None = Field(default=None, description="null: no artefact holds the limits")
    format: Format | None = None
    precision: Precision | None = None
    path: RunPath | None = None
    reason: str
    teacher_suffices: str | None = Field(
        default=None, description="said first: the teacher itself holds the limits, or its student is no faster"
    )
    rejected: tuple[Rejected, ...] = Field(default=(), description="every other artefact that exists, and why not")

    def takes(self, variant: Variant) -> bool:
        """Whether this is the recommended one."""
        return (self.model, self.format, self.precision) == (variant.model, variant.format, variant.precision)


class Kit(Record):
    """What builds, checks and measures the student on the device itself."""

    path: RunPath
    sha256: Sha256 = Field(description="of its manifest, which a result from the device names")
    files: tuple[str, ...]
    notes: tuple[str, ...] = ()
