"""What a search for a student found, as plain data: every candidate, what it would cost, and why one was chosen."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from profiles.latency import LatencyStats
from profiles.schema import Precision

if TYPE_CHECKING:
    from profiles.predict import Prediction

Kind = Literal["teacher", "pruned", "narrower", "other"]


@dataclass(frozen=True)
class StudentLimits:
    """What a student must hold as it would ship: its p50 for one image in ms, its file in MiB, 10^6 parameters."""

    max_latency_ms: float | None = None
    max_size_mib: float | None = None
    max_params_m: float | None = None


@dataclass(frozen=True)
class Candidate:
    """One network as it would ship: with its normalisation and a classifier (`as_shipped`), untrained.

    Attributes:
        spec: what `--student` would say, such as "prune:0.4"; for the teacher its architecture's name.
        kind: in the order in which they are preferred. A pruned copy keeps the teacher's weights.
        params_m: 10^6 parameters; None, as for everything below, where the network could not be made.
        macs_g: 10^9 multiply-accumulates for one image.
        size_mib: of the file in the precision that would ship; of the weights alone where nothing was exported.
        latency: for one image on the target; None where it was not asked for (`misses` or the notes say why).
        misses: every limit, wish or rule that it misses, in words with its value: "4.1 ms predicted, limit 2.5 ms".
        failure: why it cannot be a student, in one line.
    """

    spec: str
    kind: Kind
    params_m: float | None = None
    macs_g: float | None = None
    size_mib: float | None = None
    latency: Prediction | LatencyStats | None = None
    misses: tuple[str, ...] = ()
    failure: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"misses": [*self.misses], "latency": self.latency and self.latency.to_dict()}

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> Candidate:
        """Read what `to_dict` wrote."""
        return cls(**row | {"misses": tuple(row["misses"]), "latency": _latency(row["latency"])})


@dataclass(frozen=True)
class StudentSearch:
    """Every network that was considered, in the order of preference, and the choice.

    Attributes:
        teacher: the teacher itself, as it would be deployed.
        chosen: the spec of the candidate to distil.
        reason: why it, in one or two sentences.
        precision: of every size and latency here.
        limits: what the user asked for.
        notes: what the reader must know beyond that, in sentences.
    """

    teacher: Candidate
    candidates: tuple[Candidate, ...]
    chosen: str
    reason: str
    precision: Precision
    limits: StudentLimits
    notes: tuple[str, ...] = ()

    def choice(self) -> Candidate:
        """The candidate that was chosen."""
        return next(candidate for candidate in self.candidates if candidate.spec == self.chosen)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "teacher": self.teacher.to_dict(),
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "chosen": self.chosen,
            "reason": self.reason,
            "precision": self.precision,
            "limits": asdict(self.limits),
            "notes": [*self.notes],
        }

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> StudentSearch:
        """Read what `to_dict` wrote."""
        return cls(
            teacher=Candidate.from_dict(found["teacher"]),
            candidates=tuple(Candidate.from_dict(row) for row in found["candidates"]),
            chosen=found["chosen"],
            reason=found["reason"],
            precision=found["precision"],
            limits=StudentLimits(**found["limits"]),
            notes=tuple(found["notes"]),
        )


def _latency(found: dict[str, Any] | None) -> Prediction | LatencyStats | None:
    if found is None:
        return None
    if found["origin"] != "predicted":
        return LatencyStats.model_validate(found)
    from profiles.predict import Prediction

    return Prediction.model_validate(found)
