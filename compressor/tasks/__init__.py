"""What a network's answer is, task by task: how two answers are compared, worded and drawn.

A task is one module with the functions of `TaskEvidence`; nothing else asks which task it has before it. Of the logits
of a batch only an answer is kept, as small as the comparison allows, so that hundreds of class maps fit into memory.

    task             logits         answer                     agreement with the teacher
    classification   (N, K)         the logits                 share of the images with the same top-1 class
    segmentation     (N, K, H, W)   uint8 (N, H, W)            share of the pixels with the same class
    regression       (N, K)         the outputs                share of the teacher's variance that is explained
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from compressor.inputs.card import Task
from compressor.tasks import classification, regression, segmentation
from compressor.tasks.asking import ask_file, ask_teacher
from compressor.tasks.protocol import TaskEvidence
from compressor.tasks.seen import Seen

__all__ = ["Seen", "TaskEvidence", "ask_file", "ask_teacher", "task_of"]


_TASKS: Mapping[Task, TaskEvidence] = MappingProxyType(
    {"classification": classification, "segmentation": segmentation, "regression": regression}
)


def task_of(name: Task) -> TaskEvidence:
    """The task of a card."""
    return _TASKS[name]
