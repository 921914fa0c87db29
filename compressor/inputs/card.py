"""The teacher's card: what a file of weights does not say about the network that it belongs to.

A card travels inside our own checkpoints, beside a bare state dict as `t.yaml`, and on into the metadata of the
exported ONNX file.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Task = Literal["classification", "segmentation", "regression"]
"""What the output means: logits of K classes (K,), logits of K classes for every pixel (K, H, W), or K numbers (K,)."""

CHANNELS = {"L": 1, "RGB": 3, "BGR": 3, "RGBA": 4}
"""Channels of an image by their order; of four, whatever the files' own four bands are."""

ORDER_OF = {1: "L", 3: "RGB", 4: "RGBA"}
"""How images of so many channels are read, where nobody states an order."""

MULTI_LABEL = ("multilabel", "multi-label", "multi_label")
"""What a task is called that is none of ours."""
MULTI_LABEL_EXPECTED = (
    "Several labels for one image are not distilled as classes: the losses compare softmaxes and the report the first "
    "class, and of independent labels both would be wrong"
)

CARD_VERSION: Literal[1] = 1
VOID = 255  # in a mask: no class; so a segmentation has at most 255 of them
MIN_SIDE, MAX_SIDE = 4, 4096  # pixels


def shape_problem(shape: tuple[int, int, int]) -> str | None:
    """What is wrong with (channels, height, width) of images, in words; None where nothing is."""
    channels, *sides = shape
    if channels in CHANNELS.values() and all(MIN_SIDE <= side <= MAX_SIDE for side in sides):
        return None
    return f"input_shape {shape} must be 1, 3 or 4 channels of {MIN_SIDE} to {MAX_SIDE} pixels"


def _integer_as_text(name: object) -> object:
    """YAML reads a class called 7 as a number. It reads `no` as false as well, but cannot say that it was `no`."""
    return str(name) if isinstance(name, int) and not isinstance(name, bool) else name


ClassName = Annotated[str, BeforeValidator(_integer_as_text)]


class TeacherCard(BaseModel):
    """Everything needed to rebuild a teacher, to feed it, and to read what it says.

    `mean` and `std` are in the units of `value_range`, one number per channel, in the order of `channel_order`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    card_version: Literal[1] = CARD_VERSION
    architecture: str = Field(description="a name from `compress run --help`, such as cifar_resnet18")
    width: float = Field(default=1.0, gt=0, le=4, description="channel multiplier of the architecture")
    task: Task = Field(default="classification", description="what the output means")
    num_classes: int = Field(ge=1, description="at least 2; for a regression its outputs, at least 1")
    class_names: tuple[ClassName, ...] = Field(description="in index order: class_names[i] is logit or output i")
    input_shape: tuple[int, int, int] = Field(description="channels, height, width that the network takes")
    resize: tuple[int, int] | int | None = Field(
        default=None, description="height and width, or the shorter side, before the crop; none: the input size"
    )
    crop: Literal["centre", "none"] = "centre"
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bilinear"
    channel_order: Literal["RGB", "BGR", "L", "RGBA"] = "RGB"
    value_range: tuple[float, float] = Field(
        default=(0.0, 1.0), description="what black and white become before mean and std"
    )
    mean: tuple[float, ...]
    std: tuple[float, ...]
    feature_layer: str | None = Field(default=None, description="module whose output is the last feature map")
    classifier_layer: str | None = Field(default=None, description="the final linear layer, or 1x1 convolution")

    @model_validator(mode="after")
    def _consistent(self) -> TeacherCard:
        channels, height, width = self.input_shape
        problem = shape_problem(self.input_shape)
        problems = [] if problem is None else [problem]
        sides = self.resize if isinstance(self.resize, tuple) else (self.resize,)
        if any(side is not None and not MIN_SIDE <= side <= MAX_SIDE for side in sides):
            problems.append(f"resize {self.resize} must be {MIN_SIDE} to {MAX_SIDE} pixels")
        if self.num_classes < 2 and self.task != "regression":
            problems.append(f"a {self.task} needs at least 2 classes and num_classes is {self.num_classes}")
        if self.num_classes > VOID and self.task == "segmentation":
            problems.append(f"a segmentation has at most {VOID} classes and num_classes is {self.num_classes}")
        if len(self.class_names) != self.num_classes:
            problems.append(f"{len(self.class_names)} class_names for {self.num_classes} classes")
        if len(set(self.class_names)) != len(self.class_names):
            problems.append("class_names must differ from each other")
        if channels in CHANNELS.values() and CHANNELS[self.channel_order] != channels:
            problems.append(f"channel_order {self.channel_order} does not fit {channels} channels")
        if len(self.mean) != channels or len(self.std) != channels:
            problems.append(f"mean and std need {channels} numbers each")
        if not all(map(math.isfinite, (*self.mean, *self.std, *self.value_range))):
            problems.append("mean, std and value_range must be finite")
        if any(value <= 0 for value in self.std):
            problems.append("std must be positive")
        if self.value_range[0] >= self.value_range[1]:
            problems.append("value_range must rise")
        if self.crop == "none" and self.resize not in (None, (height, width)):
            problems.append(f"without a crop, resize must be the input's height and width ({height}, {width})")
        if problems:
            raise ValueError("; ".join(problems))
        return self
