"""Numbers for each image. answers: the outputs (N, K), in whatever units; nobody knows labels for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.errors import StageFailed
from compressor.inputs.card import TeacherCard
from compressor.inputs.pixels import Images
from compressor.report import first_look as looking
from compressor.report.bootstrap import NO_WIDTH, bootstrap, widened
from compressor.report.first_look import FirstLook
from compressor.report.measured import OutputError, Proportion, RegressionComparison
from compressor.report.text import significant
from compressor.report.untrusted import NAME_LIMIT, printable
from compressor.tasks.seen import Seen

DENSE = False
CLASSES = False
LEAST = 5  # images; fewer say so little of the variance that no interval of what is explained can be trusted
CONSTANT = 1e-12  # a variance below this share of the mean square is rounding


def look(logits: Tensor) -> Seen:
    """All of the outputs; nothing says how sure the network is of them."""
    return Seen(logits, None)


def groups(answers: Tensor) -> Tensor:
    """One group: the split has nothing to be fair to."""
    return torch.zeros(len(answers), dtype=torch.int64)


def counts(answers: Tensor, card: TeacherCard) -> list[int]:  # noqa: ARG001
    """None: there are no classes."""
    return []


def captions(seen: Seen, card: TeacherCard) -> list[str]:
    """The first two outputs, or of more the first and how many others there are."""
    shown = 2 if len(card.class_names) <= 2 else 1
    names = [printable(name, NAME_LIMIT) for name in card.class_names[:shown]]
    rest = [f"and {len(card.class_names) - shown:,} more"] if len(card.class_names) > shown else []
    return [
        "\n".join([*(f"{name} {significant(value)}" for name, value in zip(names, row, strict=True)), *rest])
        for row in seen.answers[:, :shown].tolist()
    ]


def first_look(seen: Seen, labels: Tensor, card: TeacherCard) -> FirstLook:  # noqa: ARG001
    """How far the outputs vary over the samples; a teacher that says one thing of all of them is in doubt."""
    return looking.of_outputs(seen.answers)


def evidence_facts(teacher: Tensor, student: Tensor, labels: Tensor) -> dict[str, Any]:  # noqa: ARG001
    """What the student explains of the teacher's outputs, and its error in each."""
    found = {"agreement": explained_variance(teacher, student), "comparison": compare(teacher, student)}
    return {name: value and value.model_dump() for name, value in found.items()}


def variant_facts(teacher: Tensor, fp32: Tensor, answers: Tensor, labels: Tensor) -> dict[str, Any]:  # noqa: ARG001
    """What one artefact costs, under the same names."""
    found = {
        "agreement": explained_variance(teacher, answers),
        "agreement_with_fp32": explained_variance(fp32, answers),
    }
    return {name: value and value.model_dump() for name, value in found.items()}


def same(reference: Tensor, answers: Tensor) -> Proportion | None:
    """What is explained of the variance."""
    return explained_variance(reference, answers)


def right(answers: Tensor, labels: Tensor) -> Proportion | None:  # noqa: ARG001
    """None: there are no labels."""
    return None


def draw(images: Images, teacher: Tensor, student: Tensor, card: TeacherCard, path: Path) -> bool:  # noqa: ARG001
    """Nothing: outputs are numbers."""
    return False


def explained_variance(reference: Tensor, outputs: Tensor) -> Proportion | None:
    """R² = 1 - sum (y - f)² / sum (y - mean y)², mean over the outputs that vary; y the reference, f the outputs.

    It is 1 where both are equal and 0 where the reference's own mean would do as well. None where nothing can be said:
    for fewer than five images, or where no output varies.

    Raises:
        StageFailed: a number is not finite.
    """
    _check_finite(reference, outputs)
    if len(reference) < LEAST:
        return None
    varies = _variance(reference) > 0
    if not varies.any():
        return None
    reference, outputs = reference.double()[:, varies], outputs.double()[:, varies]
    centred = reference - reference.mean(dim=0)  # without it the square of a large mean would swallow the variance
    count = torch.ones(len(reference), 1, dtype=torch.float64)
    sums = torch.cat([(reference - outputs) ** 2, centred**2, centred, count], dim=1)

    def mean_r2(total: Tensor) -> Tensor:
        number = total[:, -1:]
        residual, square, linear = total[:, :-1].chunk(3, dim=1)
        spread = square - linear**2 / number
        return torch.where(spread > CONSTANT * square, 1.0 - residual / spread, torch.nan).nanmean(dim=1)

    value, low, high = bootstrap(sums, mean_r2)
    if high - low < NO_WIDTH:  # equal outputs are no proof that others would be
        low, high = widened(value, low, high, len(reference))
    return Proportion(value=value, low=low, high=min(high, 1.0), n=len(reference), of="variance")


def compare(teacher: Tensor, student: Tensor) -> RegressionComparison | None:
    """Output by output; None without images."""
    _check_finite(teacher, student)
    if len(teacher) == 0:
        return None
    squares = (teacher.double() - student.double()) ** 2
    variances = _variance(teacher)
    return RegressionComparison(
        num_images=len(teacher),
        rmse=float(squares.mean().sqrt()),
        outputs=tuple(
            OutputError(
                index=index,
                explained=1.0 - error / variance if variance > 0 else None,
                rmse=error**0.5,
                teacher_std=variance**0.5,
            )
            for index, (error, variance) in enumerate(
                zip(squares.mean(dim=0).tolist(), variances.tolist(), strict=True)
            )
        ),
    )


def _variance(outputs: Tensor) -> Tensor:
    """(K,) over the images; 0 where an output is constant but for rounding."""
    outputs = outputs.double()
    variance = outputs.var(dim=0, correction=0)
    return torch.where(variance > CONSTANT * (outputs**2).mean(dim=0), variance, 0.0)


def _check_finite(*outputs: Tensor) -> None:
    for some in outputs:
        if broken := int((~some.isfinite()).any(dim=1).sum()):
            raise StageFailed(
                f"Outputs are not finite on {broken} of {len(some)} images.",
                "Evidence needs a finite number for every output.",
                "Look for the step where the losses in distill/log.jsonl stop being finite, then run again with "
                "another --seed.",
            )
