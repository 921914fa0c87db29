"""What is known of a teacher's input, field by field, and who says so.

Facts come from the checkpoint's own card, then from a YAML card, then from flags; the later wins. What nobody stated is
taken from the weights, or else assumed and warned about. Mean and standard deviation are never assumed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml
from pydantic import TypeAdapter, ValidationError

from compressor.errors import CompressError, InputRefused, UsageFault
from compressor.inputs.card import (
    CHANNELS,
    MULTI_LABEL,
    MULTI_LABEL_EXPECTED,
    ORDER_OF,
    Task,
    TeacherCard,
    shape_problem,
)
from compressor.inputs.nearest import did_you_mean
from compressor.inputs.nesting import is_plain
from compressor.students.architectures import ARCHITECTURES, teacher_architectures
from profiles.plain_yaml import load_plain

FROM_CHECKPOINT, FROM_FILE, FROM_FLAG, FROM_WEIGHTS, ASSUMED, DEFAULT = (
    "the checkpoint",
    "the file",
    "a flag",
    "the weights",
    "an assumption",
    "the default",
)
NORMALISATION = ("mean", "std", "value_range")
MAX_CARD_BYTES = 2**20
# Pixels, by family, where it is not IMAGENET_SIZE; torchvision's segmentation weights were trained on 520.
IMAGENET_SIZE = 224
USUAL_SIZE = {
    "cifar_resnet": 32,
    "cifar_wrn": 32,
    "cifar_mobilenet": 32,
    "lenet": 32,
    "inception": 299,
    "deeplab": 520,
    "lraspp": 520,
    "unet": 256,
}


_SHAPE = TypeAdapter(tuple[int, int, int])


@dataclass
class Facts:
    """Card fields under collection, with the origin of each; `file` is the teacher's name, for messages."""

    file: str
    values: dict[str, Any] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    def state(self, name: str, value: object, source: str) -> None:
        self.values[name] = value
        self.origin[name] = source

    def state_all(self, card: object, source: str) -> None:
        """Take a whole card.

        Raises:
            InputRefused: it is no mapping, or has a field that no card has.
        """
        if not isinstance(card, Mapping):
            raise InputRefused(
                f"The card of the teacher {self.file} in {source} is a {type(card).__name__}.",
                "A mapping of fields such as `mean: [0.5, 0.5, 0.5]` was expected.",
                "Write one field per line, or leave the card out.",
            )
        if not is_plain(card):
            raise InputRefused(
                f"The card of the teacher {self.file} in {source} holds something that no card has.",
                "Texts, numbers and lists of them were expected.",
                "Write one field per line, or leave the card out.",
            )
        for name, value in card.items():
            if name not in TeacherCard.model_fields:
                raise InputRefused(
                    f"The card of the teacher {self.file} in {source} has an unknown field '{name}'.",
                    f"The fields are {', '.join(TeacherCard.model_fields)}.",
                    did_you_mean(str(name), TeacherCard.model_fields) or "Remove the field.",
                )
            self.state(name, value, source)

    @property
    def are_normalised(self) -> bool:
        return "mean" in self.values

    def settle_task(self, architecture: str, tasks: tuple[Task, ...]) -> Task:
        """The task that is stated, or else the first of those that the architecture, or a file's output, can be for.

        Raises:
            InputRefused, UsageFault: there is no such task, or the architecture cannot do it.
        """
        if "task" not in self.values:
            self.state("task", tasks[0], DEFAULT)
        stated, source = self.values["task"], self.origin["task"]
        error: type[CompressError] = UsageFault if source == FROM_FLAG else InputRefused
        if stated in MULTI_LABEL:
            raise error(
                f"The task of the teacher {self.file} is '{stated}' in {source}.",
                f"{MULTI_LABEL_EXPECTED}.",
                "Distil its logits as numbers with --task regression, and apply the sigmoid to the student's.",
            )
        if stated not in get_args(Task):
            raise error(
                f"The task of the teacher {self.file} is '{stated}' in {source}.",
                f"The tasks are {', '.join(get_args(Task))}.",
                did_you_mean(str(stated), get_args(Task)) or "State one of them.",
            )
        if stated not in tasks:
            if architecture not in ARCHITECTURES:
                raise error(
                    f"The task of the teacher {self.file} is {stated} in {source}, which its output is not for.",
                    f"What it gives is for {' or '.join(tasks)}.",
                    "Leave the task out, or give a teacher that does this one.",
                )
            able = [name for name in teacher_architectures() if stated in ARCHITECTURES[name].tasks]
            raise error(
                f"The task of the teacher {self.file} is {stated} in {source}, and its architecture is {architecture}.",
                f"{architecture} does {' and '.join(tasks)}; {stated} is done by {', '.join(able)}.",
                f"Give a teacher of one of these, or leave the task out, which makes it a {tasks[0]}.",
            )
        return tasks[tasks.index(stated)]

    def complete(self, family: str, num_classes: int, channels: int, input_size: object) -> list[str]:
        """Add what the weights say, or else the usual, where nobody stated anything; returns sentences on the latter.

        `input_size` is the flag: pixels, or height and width, or None.
        """
        warnings = []
        if "num_classes" not in self.values:
            names = self.values.get("class_names")
            if isinstance(names, list | tuple):
                self.state("num_classes", len(names), self.origin["class_names"])
            else:
                self.state("num_classes", num_classes, FROM_WEIGHTS)
        if "class_names" not in self.values:
            numbers = self.values.get("task") == "regression"  # what they are called matters to nobody but the reader
            self.state("class_names", [f"out{k}" if numbers else str(k) for k in range(num_classes)], ASSUMED)
            if not numbers:
                span = "0 and 1" if num_classes == 2 else f"0 to {num_classes - 1}"
                warnings.append(
                    f"No class names are stated: the classes of {self.file} are called {span}, in the order of its "
                    "outputs. --class-names or a card states them."
                )
        if input_size is not None:
            sides = input_size if isinstance(input_size, list | tuple) else (input_size, input_size)
            self.state("input_shape", [channels, *sides], FROM_FLAG)
        elif "input_shape" not in self.values:
            usual = USUAL_SIZE.get(family, IMAGENET_SIZE)
            self.state("input_shape", [channels, usual, usual], ASSUMED)
            warnings.append(
                f"No input size is stated: {usual}x{usual} pixels, usual for {self.values['architecture']}, "
                "were assumed; --input-size or the card states another."
            )
        if "channel_order" not in self.values and channels in (1, 4):
            self.state("channel_order", ORDER_OF[channels], FROM_WEIGHTS)
        return warnings

    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) as a card states it, checked by itself; None where nobody stated it.

        Raises:
            InputRefused: it is no shape of images.
        """
        if "input_shape" not in self.values:
            return None
        return self.check_shape(self.values["input_shape"], self.origin["input_shape"])

    def check_shape(self, stated: object, source: str) -> tuple[int, int, int]:
        """(C, H, W) as somebody states it, if it is one: the check of a whole card, for whoever needs it before.

        Raises:
            InputRefused: it is no shape of images.
        """
        try:
            shape = _SHAPE.validate_python(stated)
            problem = shape_problem(shape)
        except ValidationError:
            problem = "input_shape must be three integers, channels, height and width"
        if problem is not None:
            self._refuse(f"input_shape from {source}: {problem} (it is {stated!r:.60})")
        return shape

    def card(self) -> TeacherCard:
        """The card; where mean and std are stated nowhere it holds 0 and 1 in their place.

        Raises:
            InputRefused: naming every field that is wrong, and who stated it.
        """
        if ("mean" in self.values) != ("std" in self.values):
            present, absent = ("mean", "std") if "mean" in self.values else ("std", "mean")
            source = self.origin[present]
            raise InputRefused(
                f"The {present} of the teacher {self.file} is stated in {source} and its {absent} is not.",
                "Both were expected, or neither so that candidates are tried on the samples.",
                f"State the {absent} as well.",
            )
        values = dict(self.values)
        if not self.are_normalised:
            channels = CHANNELS.get(str(values.get("channel_order")), 3)
            values |= {"mean": [0.0] * channels, "std": [1.0] * channels}
        try:
            return TeacherCard.model_validate(values)
        except ValidationError as error:
            self._refuse(self._problems(error), error)

    def _refuse(self, problems: str, cause: Exception | None = None) -> NoReturn:
        raise InputRefused(
            f"The card of the teacher {self.file} is wrong: {problems}.",
            f"The fields of a card are {', '.join(TeacherCard.model_fields)}.",
            "Correct the card or the flags (in YAML, put names such as 'no' in quotes).",
        ) from cause

    def _problems(self, error: ValidationError) -> str:
        problems = []
        for problem in error.errors():
            text = problem["msg"].removeprefix("Value error, ")
            if path := problem["loc"]:
                name = ".".join(str(part) for part in path)
                text = f"{name} from {self.origin.get(str(path[0]), DEFAULT)}: {text} (it is {problem['input']!r:.60})"
            problems.append(text)
        return "; ".join(problems)

    def known(self, card: TeacherCard) -> dict[str, Any]:
        """All fields of the card, without a normalisation that nobody stated."""
        unstated = () if self.are_normalised else [name for name in NORMALISATION if name not in self.values]
        return {name: value for name, value in card.model_dump().items() if name not in unstated}


def read_card_file(path: Path) -> object:
    """The content of a YAML card, unchecked; an empty file states nothing.

    Raises:
        InputRefused: the file cannot be read.
    """
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= MAX_CARD_BYTES):
            raise ValueError(f"it is no text file of at most {MAX_CARD_BYTES // 2**20} MiB")
        content = load_plain(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputRefused(
            f"The card {path} cannot be read ({' '.join(str(error).split())[:200]}).",
            "A YAML file of card fields was expected.",
            "Correct the file, or state its fields as flags.",
        ) from error
    return {} if content is None else content
