"""A pool of unlabelled images: what the teacher says of each, asked once, and batches of those that are kept.

M images, few first; K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.distill.recovery import read_checkpoint, write_tensors
from compressor.distill.training import Context
from compressor.inputs.pixels import Images
from compressor.inputs.teacher import Teacher

BATCH = 256
CACHE = "checkpoint-teacher-logits.pt"  # named like a checkpoint, so that it goes when the stage is done or starts anew


@dataclass(frozen=True)
class SurveyedPool:
    """Images and the teacher's opinion of them as they are: centred, not augmented.

    Attributes:
        images: (M, C, H, W) uint8, maybe on the CPU, or in files.
        logits: (M, K) float32, on the device.
        num_few: the first rows, which are known to be images of the task; no selector drops them.
    """

    images: Images
    logits: Tensor
    num_few: int

    def batch(self, rows: Tensor) -> Tensor:
        """Rows (B,), an index on the device, to images (B, C, H, W) in [0, 1] there.

        A pool that stays on the CPU or in files beside a GPU costs one wait a step, for the index.
        """
        return self.images[rows.to(self.images.device)].to(self.logits.device).float() / 255.0


@torch.no_grad()
def survey(teacher: Teacher, images: Images, num_few: int, context: Context) -> SurveyedPool:
    """Ask the teacher about every image (M, C, H, W) uint8, once: M queries.

    Its logits are kept beside the checkpoints, 4 K bytes an image, so that a resumed run asks nothing again.
    """
    path = context.folder / CACHE
    if path.exists():
        logits: Tensor = read_checkpoint(path, context.device, path)
    else:
        logits = torch.cat([teacher(_fractions(part, context)).logits.float() for part in images.split(BATCH)])
        if context.world.first:
            write_tensors(logits, path)
    return SurveyedPool(images, logits, num_few)


@torch.no_grad()
def student_opinion(student: nn.Module, pool: SurveyedPool, context: Context) -> Tensor:
    """Logits (M, K) of a student in evaluation mode, which is then brought back to training."""
    student.eval()
    with context.autocast():
        logits = torch.cat([student(_fractions(part, context)).float() for part in pool.images.split(BATCH)])
    student.train()
    return logits


class Kept:
    """The rows of a pool that are trained on; part of the loop's state, because they are chosen anew now and then.

    Attributes:
        rows: (R,) indices into the pool.
        history: how many were kept, selection by selection.
    """

    def __init__(self, pool: SurveyedPool) -> None:
        self.num_few = pool.num_few
        self.rows = torch.arange(len(pool.logits), device=pool.logits.device)
        self.history: list[int] = []

    def choose(self, mask: Tensor) -> None:
        """Keep what mask (M,) says, and every image that is known to be of the task."""
        mask = mask.clone()
        mask[: self.num_few] = True
        self.rows = mask.nonzero()[:, 0]
        self.history.append(len(self.rows))

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        """Rows (count,) at random, with replacement."""
        return self.rows[torch.randint(len(self.rows), (count,), generator=random, device=random.device)]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows, "history": list(self.history)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows, self.history = state["rows"].to(self.rows.device), list(state["history"])


def selection_due(step: int, num_steps: int, num_selections: int) -> bool:
    """Whether a selection comes before this step: `num_selections` of them at even distances, the first at step 0."""
    return step == 0 or step * num_selections // num_steps != (step - 1) * num_selections // num_steps


def _fractions(images: Tensor, context: Context) -> Tensor:
    return images.to(context.device).float() / 255.0
