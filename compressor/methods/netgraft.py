"""Few-shot distillation by grafting (NetGraft, Shen et al., AAAI 2021, arXiv 2012.04915): repairs a pruned student.

With a handful of images a whole student cannot be learned, but one block at a time can: it sits in the teacher, whose
other blocks say what it should see and what is made of it. Then the student's blocks are put together.

    blocks, one at a time between adaptors; then the first two, the first three, ... up to the whole student:
        L = mean ||T'(x) / |T'(x)| - T(x) / |T(x)|||^2        trains the blocks that are in place, and their adaptors

T'(x) are the logits of the teacher with those blocks. No label is used. Teacher and student need the same block layout,
which pruning keeps. Where this differs from the released code is said in DEPARTURES.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from compressor.distill.augment import Mirror, mirroring, mirroring_queries, student_augmentation
from compressor.distill.graft import Grafts, logit_direction
from compressor.distill.training import Context, Stateful, cosine_schedule
from compressor.inputs.teacher import Teacher, TeacherPart
from compressor.methods import Distilled, Need, Task, TrainingImages
from compressor.students.student import Backbone

VERSION = 1
USES: tuple[TeacherPart, ...] = ("logits", "classifier")
TASKS: tuple[Task, ...] = ("classification",)
NEEDS: Need = "few"
LOSS_TERMS: Mapping[str, str] = {"block_grafting": "student", "network_grafting": "student"}

ADAPTOR_IMAGES = 64
ADAPTOR_FACTOR = 10.0  # the adaptors' learning rate over the blocks' (paper)

DEPARTURES = (
    "The last weights ship; the released code keeps those that did best on the test set.",
    "The adaptors start as least-squares maps between the two networks' own features, not at random; those between "
    "two blocks go when the blocks are connected, and the last one is merged into the classifier. The released code "
    "leaves all of them in the student.",
    "Blocks are connected from the image on. Steps are counted instead of epochs, with larger learning rates that fall "
    "along half a cosine; images are moved by an eighth of their width.",
)


class Config(BaseModel):
    """Settings of NetGraft; counts are optimiser updates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    graft_steps: int = Field(default=1500, ge=1, description="on single blocks, divided among them")
    graft_lr: float = Field(default=1e-3, gt=0, description="Adam, for the blocks; ten times it for the adaptors")
    student_steps: int = Field(default=1500, ge=1, description="on connected blocks, divided among the connections")
    student_lr: float = Field(default=1e-3, gt=0, description="Adam, cosine to zero; ten times it for the adaptors")
    student_batch_size: int = Field(default=64, ge=2, description="real images a step")
    mirror: Mirror = Field(
        default="auto", description="mirror images left to right; auto: if the teacher does not mind"
    )


def defaults(effort: str, image_shape: tuple[int, int, int], device: str) -> dict[str, Any]:  # noqa: ARG001
    """Steps for single blocks and for connected ones; a pruned student needs few of them."""
    steps = {"quick": 600, "standard": 1500, "full": 4000}[effort]
    return {"graft_steps": steps, "student_steps": steps}


def num_queries(config: Config, num_few: int, _num_pool: int) -> int:
    """The question whether to mirror, and the steps. Passes through parts of the teacher are not counted."""
    asked = mirroring_queries(config.mirror, num_few)
    return asked + (config.graft_steps + config.student_steps) * config.student_batch_size


def distill(
    teacher: Teacher, backbone: Backbone, images: TrainingImages, config: Config, context: Context
) -> Distilled:
    """Graft the student's blocks onto the teacher with the few images.

    Raises:
        InputRefused: the student does not have the teacher's block layout.
    """
    few, device = images.few, context.device
    backbone = backbone.to(device).train()
    rows = torch.linspace(0, len(few) - 1, min(len(few), ADAPTOR_IMAGES), device=device).long()
    grafts = Grafts(teacher, backbone, few[rows].float() / 255.0).to(memory_format=torch.channels_last).train()
    mirror, choice = mirroring(config.mirror, few, lambda views: teacher(views).logits)
    num_blocks = len(grafts.blocks)

    def loss_of(term: str, place: tuple[int, int], views: Tensor) -> Tensor:
        with torch.no_grad(), context.autocast():
            teacher_logits = teacher(views).logits
        with context.autocast():
            grafted_logits = grafts(views, *place)
        loss = logit_direction(grafted_logits, teacher_logits)
        context.log({term: loss})
        return loss

    def train(phase: str, term: str, num_steps: int, lr: float, places: list[tuple[int, int]]) -> None:
        """Train the student's blocks in each place (first, last) for its share of the steps."""
        optimiser = torch.optim.Adam(grafts.parameter_groups(lr, ADAPTOR_FACTOR))
        schedule = cosine_schedule(optimiser, num_steps, warmup=num_steps // 20)
        state: dict[str, Stateful] = {"student": grafts, "optimiser": optimiser, "schedule": schedule}
        for step in context.steps(phase, num_steps, state):
            place = places[step * len(places) // num_steps]
            rows = torch.randint(len(few), (config.student_batch_size,), generator=context.random, device=device)
            views = student_augmentation(few[rows].float() / 255.0, context.random, flip=mirror)

            optimiser.zero_grad(set_to_none=True)
            context.backward(partial(loss_of, term, place), views)
            optimiser.step()
            schedule.step()

    single = [(block, block) for block in range(num_blocks)]
    train("graft", "block_grafting", config.graft_steps, config.graft_lr, single)
    connected = [(0, last) for last in range(1, num_blocks)] or single
    train("student", "network_grafting", config.student_steps, config.student_lr, connected)

    student = grafts.eval().student(teacher, backbone)
    facts = {"choices": [choice], "departures": DEPARTURES, "num_blocks": num_blocks}
    return Distilled(student.eval(), facts=facts)
