"""Adversarial distillation with batch norm statistics and classes (DFQ, Choi et al. 2020, arXiv 2005.04136).

DFAD's loop with ten updates of the student for one of the generator, and the three terms that make the generator's
images look like training data to the teacher.

    L_S = MAE(S(x), T(x)),  x = G(z)                                        trains the student
    L_G = -MAE(S(x), T(x)) + batch_norm_distance + CE(T(x), argmax T(x)) + 20 sum_k p_k log p_k
                                                                            trains the generator

p_k is the teacher's mean prediction of class k over the batch. The paper's networks are quantised; here they are small.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from compressor.distill.training import Context
from compressor.inputs.teacher import Teacher
from compressor.methods import Distilled, Need, Task, TrainingImages, ddad, dfad
from compressor.methods.ddad import defaults
from compressor.methods.dfad import LOSS_TERMS, num_queries
from compressor.students.student import Backbone

__all__ = ["LOSS_TERMS", "defaults", "num_queries"]

VERSION = 1
USES = ddad.USES
TASKS: tuple[Task, ...] = ("classification",)
NEEDS: Need = "nothing"

DEPARTURES = ("The balance of classes is measured in nats.", *dfad.DEPARTURES)


class Config(ddad.Config):
    """Settings of DFQ: DDAD's, with the two terms about classes switched on."""

    generator_every: int = Field(default=10, ge=1, description="updates of the student for one of the generator, k")
    own_class_weight: float = Field(default=1.0, ge=0, description="generator: images that the teacher is sure of")
    class_balance_weight: float = Field(default=20.0, ge=0, description="generator: all classes equally often")


def distill(
    teacher: Teacher, backbone: Backbone, images: TrainingImages, config: Config, context: Context
) -> Distilled:
    """DFAD's `distill` with these settings; no image is looked at."""
    distilled = dfad.distill(teacher, backbone, images, config, context)
    return replace(distilled, facts={**distilled.facts, "departures": DEPARTURES})
