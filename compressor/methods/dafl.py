"""Data-Free Learning of student networks (DAFL, Chen et al. 2019, arXiv 1904.01186): a generator without an adversary.

DFAD's loop, in which the generator looks at the teacher alone: for images that it is sure of, that excite it, and whose
classes are equally frequent. The student takes whatever comes.

    L_S = KL(softmax T(x) || softmax S(x)),  x = G(z)                       trains the student
    L_G = CE(T(x), argmax T(x)) - 0.001 mean |features| + 20 sum_k p_k log p_k
                                                                            trains the generator

p_k is the teacher's mean prediction of class k over the batch.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from compressor.distill.training import Context
from compressor.inputs.teacher import Teacher, TeacherPart
from compressor.methods import Distilled, Need, Task, TrainingImages, dfad
from compressor.methods.dfad import LOSS_TERMS, defaults, num_queries
from compressor.students.student import Backbone

__all__ = ["LOSS_TERMS", "defaults", "num_queries"]

VERSION = 1
USES: tuple[TeacherPart, ...] = (*dfad.USES, "features")
TASKS: tuple[Task, ...] = ("classification",)
NEEDS: Need = "nothing"

DEPARTURES = (
    "Each half of a step makes images of its own.",
    "The balance of classes is measured in nats.",
    *dfad.DEPARTURES,
)


class Config(dfad.Config):
    """Settings of DAFL: DFAD's, with the adversary switched off and the terms about the teacher switched on."""

    discrepancy_weight: float = Field(default=0.0, ge=0, description="student: MAE of its output to the teacher's")
    knowledge_distillation_weight: float = Field(default=1.0, ge=0, description="student: KL of the predictions")
    temperature: float = Field(default=1.0, gt=0, description="softens both predictions in the KL")
    generator_every: int = Field(default=1, ge=1, description="updates of the student for one of the generator, k")
    adversarial_weight: float = Field(default=0.0, ge=0, description="generator: where student and teacher differ")
    own_class_weight: float = Field(default=1.0, ge=0, description="generator: images that the teacher is sure of")
    class_balance_weight: float = Field(default=20.0, ge=0, description="generator: all classes equally often")
    activation_weight: float = Field(default=0.001, ge=0, description="generator: large features in the teacher")


def distill(
    teacher: Teacher, backbone: Backbone, images: TrainingImages, config: Config, context: Context
) -> Distilled:
    """DFAD's `distill` with these settings; no image is looked at."""
    distilled = dfad.distill(teacher, backbone, images, config, context)
    return replace(distilled, facts={**distilled.facts, "departures": DEPARTURES})
