"""report.json: the one source of truth that every rendering, gate and later comparison reads.

`write_schema` publishes these models as docs/report-schema.json. A new field raises the minor
version, a field that changes or goes the major one. A report of an earlier minor version is read as one of today's
in which nothing was said in the later fields; the run that wrote it renders it anew only when a stage ran again.
"""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Literal

from pydantic import (
    AwareDatetime,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from compressor.inputs.card import Task
from compressor.report.gate_record import Baseline, GateResult
from compressor.report.measured import AnyComparison, Confidence, Fraction, Proportion, Record, RunPath, Scores, Sha256
from compressor.report.robustness_record import Robustness
from compressor.report.shipping import Int8Calibration, Kit, LimitsRecord, Recommendation, Variant, Verdict
from compressor.report.student_search import StudentSearch
from compressor.stages import atomic_write_text
from profiles.latency import LatencyStats
from profiles.layer_times import LayerTime

SCHEMA_VERSION: Literal["1.5"] = "1.5"
EARLIER_VERSIONS = ("1.0", "1.1", "1.2", "1.3", "1.4")
MOST_BYTES = 64 * 2**20  # that of a thousand classes and all precisions has 2 MiB


class Summary(Record):
    """What a release engineer reads first."""

    decision: Literal["ungated", "pass", "warn", "fail"] = Field(
        default="ungated",
        description="fail: a limit of the user's is missed; warn: a limit is unproven, or a wish of the target missed; "
        "ungated: the user set no limit, a person judges",
    )
    headline: str
    points: tuple[str, ...] = ()


class ModelRow(Record):
    """One network of the side-by-side table."""

    name: str = Field(description="its file")
    architecture: str
    params_m: PositiveFloat
    macs_g: PositiveFloat = Field(description="multiply-accumulates of one image")
    size_mib: PositiveFloat = Field(description="the fp32 ONNX file")
    agreement: Scores = Field(
        default=Scores(),
        description="with the teacher, as `task` has it: top-1 equal, of images or of pixels, or variance explained; "
        "null for the teacher itself",
    )
    accuracy: Scores = Field(
        default=Scores(),
        description="top-1 equal to the label or the mask, where there are any; of images or of pixels",
    )
    mean_iou: Scores = Field(default=Scores(), description="segmentation: with the teacher's class maps")
    mean_iou_masks: Scores = Field(default=Scores(), description="segmentation: with masks, where there are any")
    latency_host: LatencyStats | None = Field(default=None, description="on the machine that ran this")
    latency_target: LatencyStats | None = Field(default=None, description="on the target, never on a stand-in")


class Target(Record):
    """The device that the student is made for."""

    profile: str
    title: str
    attached: bool = Field(description="whether the machine that ran this is, or reaches, the target")
    reason: str | None = Field(default=None, description="why a latency on the target is missing")


class ImageSet(Record):
    """Images by what the run did with them. No image is in two of them, which the report was refused over."""

    name: Literal["train", "select", "evidence", "pool", "eval"]
    num_images: NonNegativeInt
    sha256: Sha256 = Field(description="of the sorted SHA-256 of their files, one a line: equal for equal images")


class SkippedFile(Record):
    file: str
    reason: str


class Samples(Record):
    """The user's few images and what the teacher says of them."""

    num_train: NonNegativeInt = Field(description="images that training sees")
    num_pool: NonNegativeInt = Field(default=0, description="other images that training may see")
    num_select: NonNegativeInt = Field(description="images that choices are made on")
    num_evidence: NonNegativeInt = Field(description="images that only this report reads")
    skipped: tuple[SkippedFile, ...] = ()
    num_labelled: NonNegativeInt = Field(description="images in a folder that is named like a class, or with a mask")
    teacher_confidence: Confidence | None = None
    teacher_accuracy: Proportion | None = Field(default=None, description="on the labelled images, all parts together")
    pseudo_labels: tuple[NonNegativeInt, ...] = Field(
        description="images that the teacher gives to each class; segmentation: that it gives most pixels of; "
        "regression: none"
    )


class TeacherSource(Record):
    """Where the teacher came from and how it must be fed."""

    file: str
    sha256: Sha256
    architecture: str
    input_shape: tuple[int, int, int] = Field(description="channels, height, width")
    class_names: tuple[str, ...] = Field(description="in index order")
    mean: tuple[float, ...]
    std: tuple[float, ...]
    normalisation_origin: str = Field(description="the card, a flag, or how it was found out")
    identity_error: NonNegativeFloat | None = Field(
        default=None,
        description="largest relative error of logits = classifier(pool(map)) on the samples, or else on random images",
    )


class CurvePoint(Record):
    """The loss terms at one step, as means since the point before."""

    step: NonNegativeInt
    terms: dict[str, float]


class Phase(Record):
    """One training loop: the generator's, the student's."""

    name: str
    num_steps: NonNegativeInt
    seconds: NonNegativeFloat
    final_terms: dict[str, float] = Field(description="each loss term in the last row of the log")
    remedies: tuple[str, ...] = Field(
        default=(), description="each time that it went back to an earlier state, and why"
    )
    curve: tuple[CurvePoint, ...] = Field(default=(), description="at most 60 points")


class Choice(Record):
    """Something that the tool decided by looking, such as a batch that fits the memory."""

    name: str
    value: str
    reason: str


class TrainingMemory(Record):
    """What the process that trained has needed, of the last session where a run was resumed."""

    origin: Literal["measured"] = "measured"
    host_peak_mib: NonNegativeFloat = Field(
        description="highest resident memory during the stage `distill`, with the pages of mapped files, which the "
        "system takes back when it needs them; where a system keeps no such account, since the process began"
    )
    device_peak_mib: NonNegativeFloat | None = Field(
        default=None, description="most that torch has allocated on the GPU during the stage; null: no GPU"
    )
    images_mib: NonNegativeFloat = Field(description="bytes of all images that were trained on")
    images_held: Literal["device", "memory", "file"] = Field(
        description="where they were: copied once to the GPU, or to the memory of the host, or read batch by batch"
    )


class Distillation(Record):
    method: str
    chosen: Literal["auto", "asked"] = Field(default="asked", description="auto: by the tool, for `reason`")
    reason: str | None = Field(default=None, description="why this method, in a sentence")
    effort: str
    seed: int
    device: str
    precision: str
    uses_pool: bool = Field(default=True, description="false: the method trains on no image of a pool")
    phases: tuple[Phase, ...]
    generator_resolution: tuple[int, int] | None = Field(default=None, description="height, width; null: no generator")
    generator_note: str | None = None
    memory: TrainingMemory | None = Field(default=None, description="null: a report of schema 1.3 or earlier")
    departures: tuple[str, ...] = Field(default=(), description="where this differs from the method's paper, and why")
    choices: tuple[Choice, ...] = ()


class Parity(Record):
    """The ONNX file against the torch module on the same images."""

    images: str = Field(description="such as `batch 1` or `held-out images`")
    num_images: PositiveInt
    max_abs: NonNegativeFloat
    max_rel: NonNegativeFloat
    top1_agreement: Fraction


class Onnx(Record):
    opset: PositiveInt
    exporter: str
    sha256: Sha256
    parity: tuple[Parity, ...]


class Artefact(Record):
    path: RunPath
    sha256: Sha256
    size_bytes: NonNegativeInt


class Picture(Record):
    path: RunPath
    title: str


class StageRecord(Record):
    name: str
    cached: bool
    seconds: NonNegativeFloat
    fingerprint: str


class LayerProfile(Record):
    """Where the time of one artefact goes on the machine that ran this; profiling costs time itself."""

    artefact: str
    device: str
    origin: Literal["measured"] = "measured"
    batch_size: PositiveInt
    num_layers: PositiveInt
    sum_ms: NonNegativeFloat = Field(description="of all layers, with the cost of profiling")
    layers: tuple[LayerTime, ...] = Field(description="in the order of execution; at most the 40 that take longest")


class TimeBudget(Record):
    """What `--budget` was planned to be spent on, when training started."""

    budget_s: PositiveFloat = Field(description="wall clock of the whole command")
    training_s: NonNegativeFloat = Field(description="planned for the training's steps")
    other_s: NonNegativeFloat = Field(description="planned for everything else, what had gone by included")
    share: Fraction = Field(description="of the effort's own steps that were left; 1: nothing was cut")


class TimeSplit(Record):
    """Where the time of a run went; stages from the cache with what they took when they ran."""

    training_s: NonNegativeFloat = Field(description="the steps of all phases, in all sessions")
    other_s: NonNegativeFloat = Field(description="all other stages, and start and end of the command")
    budget: TimeBudget | None = Field(default=None, description="null: the run had no --budget")


class Environment(Record):
    python: str
    torch: str
    onnxruntime: str
    onnx: str | None = Field(default=None, description="null: a report of schema 1.4 or earlier")
    os: str
    cpu: str
    gpu: str | None = None


class OnGenerated(Record):
    """Student against teacher on images of the method's own generator. No evidence: the student may have trained on
    such images, and nothing says that real ones are like them. It decides nothing."""

    agreement: Proportion
    mean_iou: Proportion | None = None
    comparison: AnyComparison | None = None


class Report(Record):
    """Everything that is known about one run."""

    schema_version: Literal["1.5"] = SCHEMA_VERSION
    tool_version: str
    command: str = Field(description="the shell line that makes this run again")
    created: AwareDatetime
    run_name: str
    summary: Summary
    teacher: ModelRow
    student: ModelRow
    target: Target
    task: Task = "classification"
    comparison_evidence: AnyComparison | None = Field(
        default=None, description="on held-out images of the user's samples; its fields follow from `task`"
    )
    comparison_eval: AnyComparison | None = Field(default=None, description="on the user's --eval set")
    generated: OnGenerated | None = Field(default=None, description="null: the method leaves no generator")
    samples: Samples
    teacher_source: TeacherSource
    student_search: StudentSearch | None = Field(default=None, description="null: the user named the student")
    distillation: Distillation
    onnx: Onnx
    variants: tuple[Variant, ...] = Field(default=(), description="every artefact in every precision")
    variant_notes: tuple[str, ...] = Field(default=(), description="what holds for the artefacts together")
    int8: tuple[Int8Calibration, ...] = ()
    limits: LimitsRecord | None = Field(default=None, description="null: a report of schema 1.0, which had none")
    recommendation: Recommendation | None = None
    verdicts: tuple[Verdict, ...] = Field(default=(), description="one for each limit that is set")
    gates: tuple[GateResult, ...] = Field(default=(), description="one for each limit of each gate")
    baseline: Baseline | None = Field(default=None, description="null: none was given")
    image_sets: tuple[ImageSet, ...] = Field(default=(), description="by what the run did with them")
    robustness: tuple[Robustness, ...] = ()
    layers: tuple[LayerProfile, ...] = ()
    kit: Kit | None = None
    artefacts: tuple[Artefact, ...]
    pictures: tuple[Picture, ...] = ()
    warnings: tuple[str, ...] = ()
    stages: tuple[StageRecord, ...]
    time: TimeSplit | None = Field(default=None, description="null: a report of an earlier schema, which had none")
    environment: Environment

    @model_validator(mode="before")
    @classmethod
    def _of_an_earlier_minor_version(cls, data: object) -> object:
        if isinstance(data, dict) and data.get("schema_version") in EARLIER_VERSIONS:
            return {**data, "schema_version": SCHEMA_VERSION}
        return data

    @model_validator(mode="after")
    def _every_number_in_its_own_column(self) -> Report:
        for name, host, target in (
            *((row.name, row.latency_host, row.latency_target) for row in (self.teacher, self.student)),
            *((variant.label, variant.latency_host, variant.latency_target) for variant in self.variants),
        ):
            if host is not None and host.origin != "measured":
                raise ValueError(f"{name} on this host is {host.origin}, not measured")
            if target is not None and not target.is_target:
                raise ValueError(f"{target.device} is not {self.target.profile}")
            if target is not None and target.origin == "measured" and not self.target.attached:
                raise ValueError(f"{self.target.profile} is not attached, so nothing was measured on it")
        for row in (self.teacher, self.student):
            if row.latency_target is None and not self.target.reason:
                raise ValueError(f"{row.name} has no latency on {self.target.profile}, without a reason")
        for variant in self.variants:
            predicted = variant.latency_predicted
            if predicted is not None and predicted.device != self.target.title:
                raise ValueError(f"{variant.label} is predicted for {predicted.device}, not for {self.target.title}")
        num_classes = 0 if self.task == "regression" else len(self.teacher_source.class_names)
        if len(self.samples.pseudo_labels) != num_classes:
            raise ValueError(f"{len(self.samples.pseudo_labels)} pseudo-labels for {num_classes} classes")
        return self


def write_report(report: Report, path: Path) -> None:
    """Write report.json whole or not at all."""
    atomic_write_text(path, report.model_dump_json(indent=2) + "\n")


def read_report(path: Path) -> Report:
    """Read report.json back.

    Raises:
        OSError: see `report_bytes`.
        pydantic.ValidationError: the file is of another major version, or of a later minor one, or was edited.
    """
    return Report.model_validate_json(report_bytes(path))


def report_bytes(path: Path) -> bytes:
    """What lies in a file that may be a report.

    Raises:
        OSError: it is no file, or larger than a report gets.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for, and a device has no end
        raise OSError(errno.EINVAL, "it is no file", str(path))
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MOST_BYTES // 2**20} MiB", str(path))
    return content


def write_schema(path: Path) -> None:
    """Publish the JSON Schema (draft 2020-12) of report.json as it is written: every field is present."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Report.model_json_schema(mode="serialization"),
    }
    atomic_write_text(path, json.dumps(schema, indent=2) + "\n")
