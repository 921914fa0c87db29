"""How the student was chosen, as report.json holds it and as strings, once for every rendering."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, PositiveFloat

from compressor.report.measured import Record, RunPath
from compressor.report.predicted import Prediction
from compressor.report.text import ABSENT, approximate, as_typed, count, joined, macs, median, params, size, support
from profiles.latency import LatencyStats
from profiles.schema import Precision

Latency: TypeAlias = Annotated[Prediction | LatencyStats, Field(discriminator="origin")]


class StudentLimits(Record):
    """What the user asked of a student; null: no limit."""

    max_latency_ms: PositiveFloat | None = Field(default=None, description="p50 of one image on the target")
    max_size_mib: PositiveFloat | None = Field(default=None, description="of the file in the precision that ships")
    max_params_m: PositiveFloat | None = None


class Candidate(Record):
    """One network as it would ship, untrained; null: not known, since it could not be made or was not asked."""

    spec: str = Field(description="what --student would say; for the teacher its architecture")
    kind: Literal["teacher", "pruned", "narrower", "other"]
    params_m: PositiveFloat | None = None
    macs_g: PositiveFloat | None = Field(default=None, description="multiply-accumulates of one image")
    size_mib: PositiveFloat | None = Field(default=None, description="in the precision that would ship")
    latency: Latency | None = Field(default=None, description="of one image on the target")
    misses: tuple[str, ...] = Field(default=(), description="every limit that it misses, in words")
    failure: str | None = Field(default=None, description="why it cannot be a student")


class StudentSearch(Record):
    """Every network that was considered before anything was trained, and the choice."""

    teacher: Candidate
    candidates: tuple[Candidate, ...] = Field(description="in the order of preference")
    chosen: str = Field(description="the spec of the candidate that was distilled")
    reason: str
    precision: Precision = Field(description="of every size and latency here")
    limits: StudentLimits
    notes: tuple[str, ...] = ()
    picture: RunPath | None = Field(default=None, description="the candidates by latency and size")


@dataclass(frozen=True)
class CandidateLine:
    """One network of the table of candidates; `latency` is a p50 in ms, `verdict` why it was not chosen."""

    spec: str
    chosen: bool
    params: str
    macs: str
    size: str
    latency: str
    verdict: str


def search_record(found: Mapping[str, Any], picture: str | None = None) -> StudentSearch:
    """The record of what `compressor.students.search.StudentSearch.to_dict` gave.

    Raises:
        pydantic.ValidationError: it is something else.
    """
    return StudentSearch.model_validate({**found, "picture": picture})


def candidate_lines(search: StudentSearch) -> tuple[CandidateLine, ...]:
    """The teacher, and every candidate in the order of preference."""
    return tuple(_line(one, search) for one in (search.teacher, *search.candidates))


def search_remarks(search: StudentSearch) -> tuple[str, ...]:
    """What was asked for, and what the search says of itself."""
    return (*_asked(search), *search.notes)


def search_notes(search: StudentSearch) -> tuple[str, ...]:
    """The remarks, and what carries the chosen one's latency, where nothing else tells of predictions."""
    chosen = next((one for one in search.candidates if one.spec == search.chosen), None)
    latency = None if chosen is None else chosen.latency
    carried = support(latency) if isinstance(latency, Prediction) else ()
    return (*search_remarks(search), *(f"{search.chosen}: {sentence}" for sentence in carried))


def notes_on_chosen(search: StudentSearch) -> tuple[str, ...]:
    """What the search says against its own choice, such as that it is no faster than the teacher."""
    return tuple(note for note in search.notes if note.startswith(f"{search.chosen} "))


def search_summary(search: StudentSearch) -> tuple[str, ...]:
    """The choice in a few sentences: why, what speaks against it, and among how many."""
    fitting = sum(_fits(one) for one in search.candidates)
    considered = count(len(search.candidates), "candidate")
    among = f"{considered} for the student, of which {fitting:,} fit; report.md has the table."
    return search.reason, *notes_on_chosen(search), among


def latency_kind(search: StudentSearch) -> str:
    """How the latencies came about: `predicted p50`, `measured p50`, or `p50` for both or none."""
    latencies = [one.latency for one in (search.teacher, *search.candidates) if one.latency is not None]
    kinds = {"predicted" if isinstance(latency, Prediction) else "measured" for latency in latencies}
    return f"{kinds.pop()} p50" if len(kinds) == 1 else "p50"


def _asked(search: StudentSearch) -> Iterator[str]:
    asked = search.limits
    limits = [
        *([] if asked.max_latency_ms is None else [f"{as_typed(asked.max_latency_ms)} ms"]),
        *([] if asked.max_size_mib is None else [f"{as_typed(asked.max_size_mib)} MiB"]),
        *([] if asked.max_params_m is None else [f"{as_typed(asked.max_params_m)} M parameters"]),
    ]
    if limits:
        yield f"Asked for: at most {joined(limits)}."


def _line(one: Candidate, search: StudentSearch) -> CandidateLine:
    chosen = one.spec == search.chosen and one.kind != "teacher"
    role = ("chosen",) if chosen else ("teacher",) if one.kind == "teacher" else ()
    return CandidateLine(
        spec=one.spec,
        chosen=chosen,
        params=ABSENT if one.params_m is None else params(one.params_m),
        macs=ABSENT if one.macs_g is None else macs(one.macs_g),
        size=ABSENT if one.size_mib is None else size(one.size_mib),
        latency=_milliseconds(one.latency),
        verdict="; ".join((*role, *(one.misses if one.failure is None else (one.failure,)))) or "fits",
    )


def _milliseconds(latency: Prediction | LatencyStats | None) -> str:
    if latency is None:
        return ABSENT
    return approximate(latency) if isinstance(latency, Prediction) else median(latency)


def _fits(one: Candidate) -> bool:
    return one.failure is None and not one.misses
