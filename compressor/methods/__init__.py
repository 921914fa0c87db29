"""One distillation method a file; the file's name is the method's public name, found here by discovery.

A method module has

    Config      frozen pydantic model of its own settings
    VERSION     raised when equal settings give another student; part of the distillation's fingerprint
    USES        what it needs of the teacher, from TEACHER_PARTS
    LOSS_TERMS  its loss terms, each with the network that it trains, by its name in the `state` of `Context.steps`
    defaults(effort, image_shape, device) -> dict    settings that follow from the situation; the user's values win
    distill(teacher, backbone, real_images, config, context) -> Distilled

The contract tests run every method that is found here. They make it small, and switch all of its terms on, by the names
of its settings: `*_steps`, `*_batch_size`, `*_width`, `latent_dim`, `*_weight`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol, cast

from pydantic import BaseModel
from torch import Tensor

from compressor.distill.generator import Generator
from compressor.distill.training import Context
from compressor.inputs.teacher import Teacher
from compressor.students.student import Backbone, Student

TEACHER_PARTS = ("logits", "features", "feature_map", "classifier", "input_gradient")


@dataclass(frozen=True)
class Distilled:
    """What a method leaves.

    Attributes:
        student: in evaluation mode, with its last weights.
        generator: in evaluation mode, where the method has one.
        facts: what the report should say: sizes, departures from the paper, statistics. JSON values only.
    """

    student: Student
    generator: Generator | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Method(Protocol):
    """What a module in this package offers."""

    Config: type[BaseModel]
    USES: tuple[str, ...]
    VERSION: int
    LOSS_TERMS: Mapping[str, str]

    def defaults(self, effort: str, image_shape: tuple[int, int, int], device: str) -> dict[str, Any]: ...

    def distill(
        self, teacher: Teacher, backbone: Backbone, real_images: Tensor, config: Any, context: Context
    ) -> Distilled: ...


def method_names() -> tuple[str, ...]:
    """Names of all methods, from the files in this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_method(name: str) -> Method:
    """The module of a method by its public name; the name must be one of `method_names()`."""
    module: ModuleType = importlib.import_module(f"{__name__}.{name}")
    return cast(Method, module)
