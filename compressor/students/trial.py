"""One candidate on trial: built, counted, exported as it would ship, and timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeAlias

from compressor.inputs.teacher import Teacher
from compressor.inputs.teacher_onnx import onnx_from_teacher, teacher_footprint
from compressor.students.bounds import Bound, Costs, Quantity, latency_spelled, spelled
from compressor.students.footprint import Footprint, footprint
from compressor.students.prune import NothingPruned
from compressor.students.search_record import Candidate, Kind
from compressor.students.specification import build_backbone
from compressor.students.student import as_shipped
from exporters.errors import ExportError
from exporters.onnx_files import OnnxFile
from exporters.torch_to_onnx import onnx_from_torch
from profiles.errors import ProfileError
from profiles.latency import LatencyStats
from profiles.predict import Prediction, PredictionRefused
from profiles.schema import Precision

LatencyOf: TypeAlias = Callable[[Path], Prediction | LatencyStats]
"""An fp32 ONNX file to its latency on the target, for one image in the precision that would ship."""

# Up to 17 the exporter is torch's older one, which writes the same layers in a tenth of the time.
TRIAL_OPSET = 17
BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Row:
    """A candidate and its costs; those of a candidate that failed are empty."""

    candidate: Candidate
    costs: Costs

    def missed(self, bounds: Sequence[Bound]) -> tuple[Bound, ...]:
        """The bounds that it is known to miss."""
        return tuple(bound for bound in bounds if bound.missed(self.costs))

    def fits(self, bounds: Sequence[Bound]) -> bool:
        """Whether it could be made and is not known to miss any."""
        return self.candidate.failure is None and not self.missed(bounds)

    def excess(self, bounds: Sequence[Bound]) -> float:
        """How far it is from holding all: the largest cost over its bound."""
        return max((bound.excess(self.costs) for bound in bounds), default=0.0)

    def judged(self, bounds: Sequence[Bound]) -> Row:
        """The same with its misses in words."""
        how = self.candidate.latency.origin if self.candidate.latency else ""
        # Of two bounds of one quantity the first is said: above all of the teacher's MACs is above half of them.
        words = {bound.quantity: bound.words(self.costs, how) for bound in reversed(self.missed(bounds))}
        return replace(self, candidate=replace(self.candidate, misses=tuple(reversed(words.values()))))

    def __str__(self) -> str:
        """One line: `prune:0.4: 1.31 G MACs; ≈1.9 ms predicted`."""
        found = self.candidate
        if found.failure is not None:
            return f"{found.spec}: {found.failure}"
        parts = [spelled("macs_g", self.costs["macs_g"])]
        if found.latency is not None:
            parts.append(latency_spelled(self.costs["latency_ms"], found.latency.origin))
        # A miss begins with the cost that misses, perhaps in more digits: what it is shows in the last word.
        missing = {_last_word(miss.partition(", ")[0]) for miss in found.misses}
        parts = [part for part in parts if _last_word(part) not in missing]
        return f"{found.spec}: {'; '.join([*parts, *found.misses])}"


class Trial:
    """Makes rows, one after the other, for one teacher and one target.

    Attributes:
        no_latency: why no latency is to be had, in a sentence; None as long as there is.
    """

    def __init__(
        self,
        teacher: Teacher,
        folder: Path,
        *,
        channel_multiple: int,
        precision: Precision,
        latency_of: LatencyOf | None,
        opset_ceiling: int,
        seed: int,
    ) -> None:
        self.teacher, self._file = teacher, folder / "candidate.onnx"
        self._multiple, self._seed = channel_multiple, seed
        self._opset, self._ceiling = min(TRIAL_OPSET, opset_ceiling), opset_ceiling
        self._bytes = BYTES[precision]
        self._seen: set[tuple[int, int]] = set()
        self._latency_of = latency_of
        self.no_latency = "No latency was asked for." if latency_of is None else None

    def teacher_row(self) -> Row:
        """The teacher as it would be deployed."""
        counted = teacher_footprint(self.teacher)
        # A file that is there has the opset that it was written in.
        opset = self._opset if self.teacher.has_layers else self._ceiling
        write = partial(onnx_from_teacher, self.teacher, opset_ceiling=opset, metadata={})
        return self._row(Candidate(self.teacher.card.architecture, "teacher"), write, counted, ())

    def row(self, spec: str, kind: Kind, bounds: Sequence[Bound]) -> Row | None:
        """A student by its spec; None where it is the teacher, or the same network as one before it.

        One that its counts alone rule out is neither exported nor timed.

        Raises:
            InputRefused: it cannot be made of this teacher.
        """
        try:
            backbone = build_backbone(spec, self.teacher, channel_multiple=self._multiple, seed=self._seed)
        except NothingPruned:
            return None
        student = as_shipped(backbone, self.teacher)
        counted = footprint(student, self.teacher.card.input_shape)
        if (counted.params, counted.macs) in self._seen:
            return None
        self._seen.add((counted.params, counted.macs))
        hard = [bound for bound in bounds if bound.hard]
        shape = self.teacher.card.input_shape
        write = partial(onnx_from_torch, student, shape, opset_ceiling=self._opset, metadata={})
        return self._row(Candidate(spec, kind), write, counted, hard).judged(bounds)

    def _row(
        self, candidate: Candidate, write: Callable[..., OnnxFile], counted: Footprint, bounds: Sequence[Bound]
    ) -> Row:
        costs: dict[Quantity, float] = {
            "params_m": counted.params / 1e6,
            "macs_g": counted.macs / 1e9,
            "size_mib": counted.weights_mib(self._bytes),
            "memory_gib": counted.memory_gib(self._bytes),
        }
        latency = failure = None
        if not any(bound.missed(costs) for bound in bounds):
            try:
                size_mib, latency = self._exported(write)
                # The fp32 file with its parameters in the width of the precision that would ship.
                costs["size_mib"] += size_mib - counted.weights_mib(BYTES["fp32"])
            except (ExportError, ProfileError) as error:  # what nobody can time, nobody can hold to a limit
                failure = error.received
        if latency is not None:
            costs["latency_ms"] = latency.latency_p50_ms
        found = replace(
            candidate,
            params_m=costs["params_m"],
            macs_g=costs["macs_g"],
            size_mib=costs["size_mib"],
            latency=latency,
            failure=failure,
        )
        return Row(found, costs)

    def _exported(self, write: Callable[..., OnnxFile]) -> tuple[float, Prediction | LatencyStats | None]:
        """Size of the fp32 file in MiB, and its latency where that is to be had."""
        file = write(path=self._file)
        if self._latency_of is None:
            return file.size_mib, None
        try:
            return file.size_mib, self._latency_of(file.path)
        except PredictionRefused as error:  # it would be refused for every network
            self._latency_of, self.no_latency = None, f"{error.received} {error.expected}"
            return file.size_mib, None


def _last_word(text: str) -> str:
    return text.rpartition(" ")[2]
