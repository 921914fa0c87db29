"""Which student fits, before anything is trained: every candidate is built, exported and timed, untrained.

    pruned copies of the teacher  ->  narrower copies  ->  other architectures for images of this size
    prune:0.1 ... prune:0.9           width:0.75 ...       resnet18, mobilenet_v2, ...

The first kind that has a candidate within every bound ends the search, and the one of that kind with the most
multiply-accumulates (MACs) is chosen: it is the most capable. Pruned copies come first because they keep the teacher's
weights. A candidate is looked at as it would ship (`as_shipped`). Neither shapes nor
times depend on weights, so the search needs no images, and `compress plan` and `compress run` choose the same where
latencies are predicted; where they are measured, two candidates that close to a limit may change places.

Bounds are the user's limits, the target's memory, the teacher's MACs, and the target's wishes as long as anything holds
them. Where no limit of the user decides, a student has at most half of the teacher's MACs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from compressor.errors import InputRefused
from compressor.inputs.teacher import Teacher
from compressor.students.architectures import ARCHITECTURES
from compressor.students.bounds import Bound, Source, bounds_of, wished
from compressor.students.reasons import NoStudentFits, no_faster, nothing_fits, reason_of
from compressor.students.search_record import Candidate, Kind, StudentLimits, StudentSearch
from compressor.students.specification import suited_architectures
from compressor.students.student import named_backbone
from compressor.students.trial import LatencyOf, Row, Trial
from exporters.macs import count_macs
from profiles.schema import Precision

__all__ = ["Candidate", "LatencyOf", "NoStudentFits", "StudentLimits", "StudentSearch", "search_student"]

PRUNE_RATIOS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
WIDTHS = (0.75, 0.5, 0.375, 0.25, 0.125)
# What is given up, in this order, where nothing holds all of it.
GIVEN_UP: tuple[tuple[Source, ...], ...] = ((), ("wish",), ("wish", "half"))


def search_student(
    teacher: Teacher,
    *,
    limits: StudentLimits,
    wishes: StudentLimits | None = None,
    memory_gib: float | None = None,
    channel_multiple: int,
    precision: Precision,
    latency_of: LatencyOf | None,
    opset_ceiling: int,
    seed: int,
    note: Callable[[str], None],
) -> StudentSearch:
    """The most capable student that fits, and every candidate that was looked at on the way to it.

    Args:
        limits: what the user asks for; nothing is chosen that is known to miss one of them.
        wishes: what the target would like where the user asks for nothing; given up where no candidate holds it.
        memory_gib: the target's memory.
        channel_multiple: what pruning rounds channels to.
        precision: what would ship; it decides sizes, and `latency_of` has to know it as well.
        latency_of: None where no latency is to be had. After a PredictionRefused, which is noted, it is not asked
            again; another ProfileError is the failure of that candidate alone.
        opset_ceiling: of the target.
        seed: of untrained weights.
        note: takes one line for each candidate.

    Raises:
        NoStudentFits: every candidate misses a limit or the memory, has more MACs than the teacher, or failed.
    """
    with torch.random.fork_rng(devices=[]), TemporaryDirectory() as folder:
        trial = Trial(
            teacher,
            Path(folder),
            channel_multiple=channel_multiple,
            precision=precision,
            latency_of=latency_of,
            opset_ceiling=opset_ceiling,
            seed=seed,
        )
        whole = trial.teacher_row()
        note(str(whole))
        bounds = _bounds(limits, wishes or StudentLimits(), memory_gib, whole, trial.no_latency is None)
        rows, notes = _rows(trial, teacher, whole.costs["macs_g"] * 1e9, bounds, note)
    chosen, given_up = _choose(rows, bounds)
    if chosen is None:
        raise nothing_fits(whole, rows, bounds)
    if trial.no_latency is not None:
        notes.append(f"No candidate has a latency: {trial.no_latency}")
    if (warning := no_faster(chosen, whole)) is not None:
        notes.append(warning)
    return StudentSearch(
        teacher=whole.candidate,
        candidates=tuple(row.candidate for row in rows),
        chosen=chosen.candidate.spec,
        reason=reason_of(chosen, whole, bounds, given_up),
        precision=precision,
        limits=limits,
        notes=tuple(notes),
    )


def _bounds(
    limits: StudentLimits, wishes: StudentLimits, memory_gib: float | None, whole: Row, has_latency: bool
) -> tuple[Bound, ...]:
    asked = bounds_of(limits, "limit")
    decisive = [bound for bound in asked if bound.quantity != "latency_ms" or has_latency]
    macs_g = whole.costs["macs_g"]
    return (
        *asked,
        *wished(wishes, limits),
        *(() if memory_gib is None else (Bound("memory_gib", memory_gib, "device"),)),
        Bound("macs_g", macs_g, "teacher"),
        *(() if decisive else (Bound("macs_g", macs_g / 2, "half"),)),
    )


def _rows(
    trial: Trial, teacher: Teacher, most_macs: float, bounds: Sequence[Bound], note: Callable[[str], None]
) -> tuple[list[Row], list[str]]:
    """Every candidate up to the first kind of which one fits, and what the reader must know of them."""
    rows: list[Row] = []
    notes: list[str] = []
    for kind, specs in _kinds(teacher, most_macs):
        for spec in specs:
            try:
                row = trial.row(spec, kind, bounds)
            except InputRefused as error:
                row = Row(Candidate(spec, kind, failure=error.received), {})
                notes.append(f"{error.received} Narrower copies and other architectures are candidates instead.")
            if row is None:
                continue
            note(str(row))
            rows.append(row)
            if not row.costs:  # what torch-pruning cannot trace it cannot trace at any other ratio
                break
        if _fitting(rows, bounds):
            break
    return rows, notes


def _kinds(teacher: Teacher, most: float) -> Iterator[tuple[Kind, list[str]]]:
    """Specs by kind, in the order in which they are preferred, each from large to small."""
    if teacher.has_layers:
        yield "pruned", [f"prune:{ratio}" for ratio in PRUNE_RATIOS]
        if ARCHITECTURES[teacher.card.architecture].scales:
            yield "narrower", [f"width:{width}" for width in WIDTHS]
    yield "other", _smaller_architectures(teacher, most)


def _smaller_architectures(teacher: Teacher, most: float) -> list[str]:
    """Architectures for this task and images of this size with fewer MACs than the teacher, which has `most`."""
    shape, macs = teacher.card.input_shape, {}
    for name in suited_architectures(teacher.task, shape):
        if name != teacher.card.architecture:
            with torch.device("meta"):  # counts need no weights
                macs[name] = count_macs(named_backbone(name, shape[0]), shape)
    return sorted((name for name in macs if macs[name] < most), key=lambda name: -macs[name])


def _choose(rows: Sequence[Row], bounds: Sequence[Bound]) -> tuple[Row | None, tuple[Bound, ...]]:
    """The first that holds every bound, and what was given up for it: the wishes, then half of the teacher's MACs."""
    for sources in GIVEN_UP:
        given_up = tuple(bound for bound in bounds if bound.source in sources)
        fitting = _fitting(rows, [bound for bound in bounds if bound not in given_up])
        if fitting:
            # Where even half of the teacher cannot be had, the smallest is closest to it.
            smallest = min(fitting, key=lambda row: row.costs["macs_g"])
            return (smallest if "half" in sources else fitting[0]), given_up
    return None, ()


def _fitting(rows: Sequence[Row], bounds: Sequence[Bound]) -> list[Row]:
    """Those that fit. As soon as one has a latency, one without is not taken to hold a bound of it."""
    bounded = any(bound.quantity == "latency_ms" for bound in bounds)
    to_know = bounded and any(row.candidate.latency for row in rows)
    return [row for row in rows if row.fits(bounds) and not (to_know and row.candidate.latency is None)]
