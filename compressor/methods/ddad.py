"""Dual Discriminator Adversarial Distillation (DDAD, Zhao et al. 2021, arXiv 2104.05382), as its abstract describes it.

DFAD's loop, whose generator is held to the training data by what the teacher remembers of it: the means and variances
in its batch norms.

    L_S = MAE(S(x), T(x)),  x = G(z)                                        trains the student
    L_G = batch_norm_distance_weight * sum_l ( || mean_l(x) - mean_l || + || var_l(x) - var_l || )
          - adversarial_weight * MAE(S(x), T(x))                            trains the generator

No code of DDAD was found, so that the formula is a reconstruction. The statistics are those of a batch: keep it large.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from compressor.distill.training import Context
from compressor.inputs.teacher import Teacher, TeacherPart
from compressor.methods import Distilled, Need, Task, TrainingImages, dfad
from compressor.methods.dfad import LOSS_TERMS, num_queries
from compressor.students.student import Backbone

__all__ = ["LOSS_TERMS", "num_queries"]

VERSION = 1
USES: tuple[TeacherPart, ...] = (*dfad.USES, "batch_norm")
TASKS: tuple[Task, ...] = dfad.TASKS
NEEDS: Need = "nothing"

DEPARTURES = ("The loss is a reconstruction from the paper's abstract: no code was found.", *dfad.DEPARTURES)
LEAST_BATCH = 128  # images up to 64 px; the statistics of fewer are mostly noise


class Config(dfad.Config):
    """Settings of DDAD: DFAD's, with the batch norm term switched on."""

    batch_norm_distance_weight: float = Field(
        default=1.0, ge=0, description="generator: batch statistics as the teacher's own"
    )


def defaults(effort: str, image_shape: tuple[int, int, int], device: str) -> dict[str, Any]:
    """DFAD's, with batches that are large enough to have statistics."""
    fitted = dfad.defaults(effort, image_shape, device)
    if max(image_shape[1:]) <= 64:
        fitted["student_batch_size"] = max(LEAST_BATCH, fitted["student_batch_size"])
    return fitted


def distill(
    teacher: Teacher, backbone: Backbone, images: TrainingImages, config: Config, context: Context
) -> Distilled:
    """DFAD's `distill` with these settings; no image is looked at."""
    distilled = dfad.distill(teacher, backbone, images, config, context)
    return replace(distilled, facts={**distilled.facts, "departures": DEPARTURES})
