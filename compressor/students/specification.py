"""What `--student` may say, and the backbone that it means."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from compressor.errors import InputRefused, UsageFault
from compressor.inputs.card import Task
from compressor.inputs.nearest import did_you_mean
from compressor.inputs.teacher import Teacher
from compressor.students.architectures import ARCHITECTURES, split_backbone
from compressor.students.inherit import inherit_weights
from compressor.students.prune import pruned_backbone
from compressor.students.student import Backbone, named_backbone

AUTO = "auto"
SMALL_SIDE = 64  # pixels up to which images need the architectures that do not halve them five times
SMALL_FAMILIES = "cifar_"  # what their names begin with


def parse_student(spec: str) -> tuple[str, float | str]:
    """Split a `--student` value: ("width", 0.5), ("prune", 0.4), ("name", "cifar_resnet8") or ("auto", "auto").

    Raises:
        UsageFault: no such form or name, or a ratio out of range.
    """
    if spec == AUTO:
        return AUTO, AUTO
    match = re.fullmatch(r"(width|prune):(.*)", spec)
    if match is None:
        names = [name for name, entry in ARCHITECTURES.items() if entry.is_candidate]
        if spec not in names:
            known = (AUTO, "width:0.5", "prune:0.5", *names)
            raise UsageFault(
                f"Unknown student {spec!r}.",
                f"Available: {AUTO}, width:RATIO, prune:RATIO, {', '.join(names)}.",
                did_you_mean(spec, known) or "Leave --student out, and one that fits is chosen.",
            )
        return "name", spec
    kind, text = match.groups()
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if not (0.0 < ratio < 1.0 or (kind == "width" and ratio == 1.0)):
        raise UsageFault(
            f"The student {spec!r} has the ratio {text!r}.",
            "A ratio is a number above 0 and below 1 (a width may be 1).",
            f"Use for example --student {kind}:0.5.",
        )
    return kind, ratio


def build_backbone(
    spec: str, teacher: Teacher, *, channel_multiple: int, seed: int, images: Tensor | None = None
) -> Backbone:
    """The student's body before training: narrower, pruned with the teacher's weights, or another architecture, which
    takes over the blocks of the teacher that have its shapes.

    Args:
        spec: anything but "auto", for which `search.search_student` finds one of the others.
        images: a few real ones, (N, C, H, W) in [0, 1], by which pruning decides what stays. No shape depends on them.

    Raises:
        UsageFault: the specification is wrong, or names a network for another task.
        InputRefused: the teacher has no known layers, cannot be pruned, or not by so little, or comes in one width.
    """
    kind, value = parse_student(spec)
    assert kind != AUTO  # no backbone by itself
    check_layers(spec, teacher)
    card = teacher.card
    torch.manual_seed(seed)
    if kind == "prune":
        return pruned_backbone(teacher, float(value), channel_multiple=channel_multiple, images=images)
    if kind == "name":
        _check_task(str(value), teacher.task)
        backbone = named_backbone(str(value), card.input_shape[0])
        if teacher.has_layers:
            backbone.inherited = inherit_weights(backbone, split_backbone(teacher.network, card.architecture))
        return backbone
    if not ARCHITECTURES[card.architecture].scales and value != 1.0:
        raise InputRefused(
            f"The student {spec!r} is {card.architecture} with fewer channels.",
            f"{card.architecture} comes in one width.",
            f"Use --student prune:{float(value):g}, or name a smaller architecture.",
        )
    return named_backbone(card.architecture, card.input_shape[0], card.width * float(value))


def check_layers(spec: str, teacher: Teacher) -> None:
    """Refuse a student that is made of its teacher's layers where these are not known.

    Raises:
        InputRefused: names the students that are not.
    """
    kind, _ = parse_student(spec)
    if kind in ("width", "prune") and not teacher.has_layers:
        made = "its teacher with fewer channels" if kind == "width" else "a pruned copy of its teacher"
        raise InputRefused(
            f"The student {spec!r} is {made} ({teacher.card.architecture}), whose layers are not known.",
            "Students of such a teacher are networks by name: "
            f"{', '.join(suited_architectures(teacher.task, teacher.card.input_shape))}.",
            "Name one of these, or leave --student out, and one that fits is chosen.",
        )


def suited_architectures(task: Task, image_shape: tuple[int, int, int]) -> tuple[str, ...]:
    """Candidates by name for this task and images of this size."""
    small = min(image_shape[1:]) <= SMALL_SIDE and task != "segmentation"  # whose networks suit any size
    return tuple(
        name
        for name, entry in ARCHITECTURES.items()
        if entry.is_candidate and task in entry.tasks and entry.family.startswith(SMALL_FAMILIES) == small
    )


def _check_task(name: str, task: Task) -> None:
    if task in ARCHITECTURES[name].tasks:
        return
    able = [other for other, entry in ARCHITECTURES.items() if task in entry.tasks]
    raise UsageFault(
        f"The student {name!r} does {' and '.join(ARCHITECTURES[name].tasks)}, and the teacher's task is {task}.",
        f"{task.capitalize()} is done by {', '.join(able)}.",
        "Name one of these, or leave --student out, and one that fits is chosen.",
    )
