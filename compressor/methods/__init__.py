"""One distillation method a file; the file's name is the method's public name, found here by discovery.

A method module has

    Config      frozen pydantic model of its own settings
    VERSION     raised when equal settings give another student; part of the distillation's fingerprint
    USES        what it needs of the teacher, from TEACHER_PARTS; `Teacher.gives` says what there is
    TASKS       the tasks that it can do
    NEEDS       the least that it trains on: "nothing", "few" images of the task, or a "pool" of any images
    LOSS_TERMS  its loss terms, each with the network that it trains, by its name in the `state` of `Context.steps`
    defaults(effort, image_shape, device) -> dict    settings that follow from the situation; the user's values win
    num_queries(config, num_few, num_pool) -> int    images that it will show to the teacher, exactly
    distill(teacher, backbone, images, config, context) -> Distilled

`check_fit` refuses from USES, TASKS and NEEDS before anything trains. What a method cannot declare (a setting that asks
for more than USES says, a body of another layout) it refuses itself, at the start of `distill`, as InputRefused.

Settings are known by their names:

    <phase>_steps       updates of the phase that `Context.steps` calls so, for each of its phases; `--budget` cuts them
    *_every             updates after which something is done once more, at the first or the last of them
    num_*               how often something is done in all, however many updates there are, the first time at the first
    *_batch_size, *_width, latent_dim, *_weight

The contract tests run every method that is found here. By these names they make it small, and switch all of its terms
on.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Literal, Protocol, cast

from pydantic import BaseModel
from torch import Tensor

from compressor.distill.generator import Generator
from compressor.distill.training import Context
from compressor.distill.training_images import TrainingImages
from compressor.errors import InputRefused
from compressor.inputs.teacher import TEACHER_PARTS, Task, Teacher, TeacherPart
from compressor.students.student import Backbone, Student

__all__ = [
    "TEACHER_PARTS",
    "Distilled",
    "Method",
    "Need",
    "Task",
    "TrainingImages",
    "check_fit",
    "check_parts",
    "in_words",
    "load_method",
    "method_names",
    "methods_for",
    "trains_on_pool",
    "what_is_left",
]

Need = Literal["nothing", "few", "pool"]

_PARTS = {"input_gradient": "gradients to the image", "feature_map": "feature map"}


@dataclass(frozen=True)
class Distilled:
    """What a method leaves.

    Attributes:
        student: in evaluation mode, with its last weights.
        generator: in evaluation mode, where the method has one.
        facts: what the report should say: sizes, departures from the paper, statistics. JSON values only.
        images: uint8 (M, C, H, W), some that a method without generator has made, in random order; they calibrate int8.
    """

    student: Student
    generator: Generator | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    images: Tensor | None = None


class Method(Protocol):
    """What a module in this package offers."""

    Config: type[BaseModel]
    VERSION: int
    USES: tuple[TeacherPart, ...]
    TASKS: tuple[Task, ...]
    NEEDS: Need
    LOSS_TERMS: Mapping[str, str]

    def defaults(self, effort: str, image_shape: tuple[int, int, int], device: str) -> dict[str, Any]: ...

    def num_queries(self, config: Any, num_few: int, num_pool: int) -> int: ...

    def distill(
        self, teacher: Teacher, backbone: Backbone, images: TrainingImages, config: Any, context: Context
    ) -> Distilled: ...


def method_names() -> tuple[str, ...]:
    """Names of all methods, from the files in this folder."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def load_method(name: str) -> Method:
    """The module of a method by its public name; the name must be one of `method_names()`."""
    module: ModuleType = importlib.import_module(f"{__name__}.{name}")
    return cast(Method, module)


def trains_on_pool(name: str) -> bool:
    """Whether a method looks at a pool; the others train on the few images or on none."""
    return load_method(name).NEEDS == "pool"


def methods_for(gives: Collection[TeacherPart], task: Task) -> tuple[str, ...]:
    """Names of the methods for this task that need no more of a teacher than it gives."""
    return tuple(_methods_where(lambda method: task in method.TASKS and set(method.USES) <= set(gives)))


def in_words(parts: Iterable[TeacherPart]) -> str:
    """Parts of a teacher as a message names them, in the order of TEACHER_PARTS."""
    named = [_PARTS.get(part, part.replace("_", " ")) for part in sorted(parts, key=TEACHER_PARTS.index)]
    return " and ".join(filter(None, [", ".join(named[:-1]), named[-1]]))


def what_is_left(teacher: Teacher, file: str) -> str:
    """What a teacher without known layers gives, and which methods that leaves, in a sentence for the report."""
    return (
        f"Of {file}, which is run as it is, only {in_words(teacher.gives)} are to be had: that leaves the methods "
        f"{', '.join(methods_for(teacher.gives, teacher.task))}."
    )


def check_parts(name: str, teacher: Teacher) -> None:
    """Refuse a method that needs more of the teacher than can be had; this takes no image.

    Raises:
        InputRefused: names the methods that do not.
    """
    method = load_method(name)
    missing = set(method.USES) - teacher.gives
    if not missing:
        return
    if missing == {"batch_norm"} and teacher.has_layers:
        raise InputRefused(
            f"The teacher ({teacher.card.architecture}) has no batch norm.",
            f"The method {name} matches the statistics that batch norm layers keep of the training images.",
            "Use --method dfad, which needs no such layer.",
        )
    raise InputRefused(
        f"Of the teacher ({teacher.card.architecture}) only its {in_words(teacher.gives)} are to be had.",
        f"The method {name} needs its {in_words(missing)} as well.",
        f"Use --method auto, or one of {', '.join(methods_for(teacher.gives, teacher.task))}; the other methods work "
        "with the weights of a known architecture.",
    )


def check_fit(name: str, teacher: Teacher, num_few: int, num_pool: int) -> None:
    """Refuse a method for a teacher and images that it cannot work with, from what the method declares.

    Args:
        num_few, num_pool: images of each kind in `TrainingImages`.

    Raises:
        InputRefused: the teacher's task or layers, or the images, are not what the method needs.
    """
    method = load_method(name)
    if teacher.task not in method.TASKS:
        raise InputRefused(
            f"The teacher's task is {teacher.task}.",
            f"The method {name} does {' and '.join(method.TASKS)}.",
            f"Use a method for {teacher.task}: {', '.join(_methods_where(lambda m: teacher.task in m.TASKS))}.",
        )
    check_parts(name, teacher)
    if method.NEEDS != "nothing" and num_few == 0 and (method.NEEDS == "few" or num_pool == 0):
        wanted = "images of the task" if method.NEEDS == "few" else "unlabelled images"
        raise InputRefused(
            f"There is no image of the task{f' among the {num_pool:,} of the pool' if num_pool else ''} to train on.",
            f"The method {name} needs {wanted}.",
            "Give images, or use a method that needs none: "
            f"{', '.join(_methods_where(lambda m: m.NEEDS == 'nothing'))}.",
        )


def _methods_where(condition: Callable[[Method], bool]) -> list[str]:
    return [name for name in method_names() if condition(load_method(name))]
