"""How long one inference takes on the machine at hand, with what is needed to believe the number.

The number has to hold minutes later. So every window of calls is a session of its own (`timed_session`): the model is
opened anew, best in a fresh process, warmed up and timed, since where its memory and threads come to lie changes its
speed by some per cent and stays as it is for as long as it is open. Several subjects take turns (`measure_in_turn`), so
that each is spread over the whole time and all of them meet the same disturbances. A session in which others used the
CPU is repeated, which is decided by the system's accounts alone, never by the times.

The clock of a processor changes from second to second and from minute to minute. So a small work of fixed size, the
probe, is timed between slices of calls, and every call is scaled to the pace at which the probe takes its reference
time (`pace`). A latency is thus that of the machine at its reference pace; how it was as timed stands beside it.

The interval comes from the medians of sessions, not from single calls: calls that follow each other share clock, cache
and neighbours, so an interval over them would be far too narrow. It says where the median of a repetition will lie
(`timing_statistics.repeat_interval`). Whatever casts doubt on the number is in `warnings`.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from profiles.host import HostSnapshot, contention, disturbed, host_snapshot
from profiles.pace import SLICE_S, Probe
from profiles.timing_statistics import CONFIDENCE, DRIFT, repeat_interval, two_speeds

__all__ = ["LatencyStats", "Session", "Subject", "ThreadTrial", "measure_in_turn", "timed_session"]

STABLE_WINDOWS = 6
MOST_SESSIONS = 2  # times the fewest
WARMUP_CALLS = 3
POSSIBLE_PACES = (0.5, 1.25)  # outside, the reference is of another machine than the one that runs
UNLIKE_THE_PROBE = 2.0  # how many times wider sessions may spread when scaled before that is said


class ThreadTrial(BaseModel):
    """One number of threads that was tried, and what came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threads: int
    latency_p50_ms: float
    latency_p50_interval_ms: tuple[float, float] | None
    stable: bool


class LatencyStats(BaseModel):
    """One measured latency and its origin. Times are of one call, which takes a whole batch.

    Attributes:
        origin: 'measured' here, or 'merged' from a result that another device sent back.
        device, runtime, versions: what ran it, with which software.
        what: 'wall clock' of a whole call, or 'gpu compute' alone: TensorRT's own time, without transfers.
        conditions: how the device was set, such as its power mode and clocks, in phrases.
        is_target: whether `device` is the target that the user named; only then it may fill its column.
        other_power_mode: the power mode that the target ran in, where that is not the one of its profile. Such a
            latency is shown and decides nothing; None: it is that mode, or nobody knows.
        pace: how fast the machine ran meanwhile, relative to its reference pace, to which the times are scaled; None:
            they are as timed.
        latency_p50_as_timed_ms: before the scaling; None where there was none.
        latency_p50_interval_ms: where the median lies with probability `interval_confidence`; of separate
            sessions, where that of a repetition lies, as far as these sessions tell (docs/measuring.md counts it).
        throughput_ips: images a second, calls one after the other.
        warmup_count, count: calls before the windows, and calls that the percentiles are made of.
        num_windows, num_windows_used: the last six where stable, otherwise all; of separate sessions, all that
            were not disturbed.
        num_sessions: how often the model was opened anew; None: all windows were of one session.
        cv: coefficient of variation of the last windows' medians; None with fewer than two windows.
        cpu_mhz, load_average: of the host before the first window, where readable.
        threads, thread_trials: the runtime's threads, and every number that was tried, the fastest being this one.

    A merged result says nothing of windows and warm-up: their fields, and the interval that they give, are None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    origin: Literal["measured", "merged"] = "measured"
    device: str
    is_target: bool
    other_power_mode: str | None = None
    runtime: str
    versions: dict[str, str]
    what: Literal["wall clock", "gpu compute"] = "wall clock"
    conditions: tuple[str, ...] = ()
    batch_size: int
    latency_p50_ms: float
    latency_p90_ms: float
    latency_p99_ms: float
    pace: float | None = None
    latency_p50_as_timed_ms: float | None = None
    latency_p50_interval_ms: tuple[float, float] | None
    interval_confidence: float | None
    interval_method: str | None = "order statistics of window medians"
    throughput_ips: float
    warmup_count: int | None
    count: int
    num_windows: int | None
    num_windows_used: int | None
    num_sessions: int | None = None
    window_s: float | None
    cv: float | None
    cv_bound: float | None
    stable: bool
    cpu_mhz: float | None = None
    load_average: float | None = None
    threads: int | None = None
    thread_trials: tuple[ThreadTrial, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return self.model_dump(mode="json")


@dataclass(frozen=True)
class Subject:
    """What is timed in sessions, in the fields of LatencyStats."""

    batch_size: int
    device: str
    runtime: str
    versions: Mapping[str, str] = field(default_factory=dict)
    conditions: tuple[str, ...] = ()
    is_target: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class Session:
    """One opening of a subject.

    Attributes:
        times_s: of each call that counts.
        probes_s: what the probe took around each of these calls; empty without a probe.
        took_s: all of it, with opening and warm-up.
        before, after: the accounts of the system around the calls.
    """

    times_s: list[float]
    probes_s: list[float]
    warmup_count: int
    took_s: float
    before: HostSnapshot
    after: HostSnapshot

    @property
    def as_timed_ms(self) -> NDArray[np.float64]:
        """Milliseconds of the calls that count."""
        return np.asarray(self.times_s) * 1e3

    def scaled_ms(self, probe_s: float) -> NDArray[np.float64]:
        """The same at the pace at which the probe takes `probe_s`."""
        return self.as_timed_ms * (probe_s / np.asarray(self.probes_s))

    @property
    def quiet(self) -> bool:
        return not disturbed(self.before, self.after)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Session:
        snapshots = {name: HostSnapshot(**found[name]) for name in ("before", "after")}
        return cls(**{**found, **snapshots})


def timed_session(
    open_model: Callable[[], AbstractContextManager[Callable[[], object]]],
    warmup_s: float,
    window_s: float,
    probe: Probe | None = None,
    clock: Callable[[], float] = time.perf_counter,
    snapshot: Callable[[], HostSnapshot] = host_snapshot,
) -> Session:
    """Open a model, warm it up and time a window of calls. What is opened runs one batch and returns when its result
    is there: on a GPU it must synchronise. With a probe the window is cut into slices, and the probe is timed before,
    between and after them.
    """
    start = clock()
    with open_model() as infer:
        before = snapshot()
        warmup_count = len(_window(infer, warmup_s, WARMUP_CALLS, clock))
        times_s, probes_s = _timed_window(infer, window_s, probe, clock)
        after = snapshot()
    return Session(times_s, probes_s, warmup_count, clock() - start, before, after)


def measure_in_turn(
    subjects: Sequence[Subject],
    sessions_of: Callable[[Sequence[int]], Sequence[Session]],
    *,
    window_s: float,
    max_s: float = 10.0,
    least_sessions: int = STABLE_WINDOWS,
    probe_s: float | None = None,
    cv_bound: float = 0.05,
    clock: Callable[[], float] = time.perf_counter,
    snapshot: Callable[[], HostSnapshot] = host_snapshot,
) -> list[LatencyStats]:
    """Time several subjects in sessions, one session of each a round, until each is stable.

    A subject is stable when it has `least_sessions` quiet ones and the last six of them agree within `cv_bound`. It
    ends as unstable after twice as many, or when its share of the rounds has taken `max_s`; the round under way is
    finished. Where not even two sessions were quiet, all count, and the warnings tell.

    Args:
        sessions_of: one new session of each of the subjects with these indices, in their order; what it raises passes
            through.
        window_s: of a session, for the record.
        probe_s: what the probe takes at the reference pace; None: the median of what it took here for all subjects,
            so that their times compare with each other and less well with those of another measurement.
    """
    sessions: list[list[Session]] = [[] for _ in subjects]
    spent_s = [0.0] * len(subjects)
    before = snapshot()
    pending = list(range(len(subjects)))
    while pending:
        start = clock()
        found = sessions_of(pending)
        around_s = (clock() - start - sum(session.took_s for session in found)) / len(pending)
        for index, session in zip(pending, found, strict=True):
            sessions[index].append(session)
            spent_s[index] += session.took_s + around_s
        pending = [
            index
            for index in pending
            if len(sessions[index]) < MOST_SESSIONS * least_sessions
            and spent_s[index] < max_s
            and not _stable(_Paced.of(sessions[index], _reference(sessions, probe_s)[0]), least_sessions, cv_bound)
        ]
    reference_s, doubts = _reference(sessions, probe_s)
    around = [*contention(before, snapshot()), *doubts]
    return [
        _of_sessions(subject, found, window_s, least_sessions, reference_s, cv_bound, before, around)
        for subject, found in zip(subjects, sessions, strict=True)
    ]


@dataclass(frozen=True)
class _Paced:
    """The sessions that count, with their calls at one pace.

    Attributes:
        times_ms: of each session's calls.
        pace: as in LatencyStats; None: the calls are as timed.
    """

    sessions: Sequence[Session]
    times_ms: Sequence[NDArray[np.float64]]
    pace: float | None

    @classmethod
    def of(cls, sessions: Sequence[Session], reference_s: float | None) -> _Paced:
        """At the pace at which the probe takes `reference_s`; None: without a probe, as timed."""
        counting = _counting(sessions)
        if reference_s is None:
            return cls(counting, [session.as_timed_ms for session in counting], None)
        pace = reference_s / statistics.median(_probes(counting))
        return cls(counting, [session.scaled_ms(reference_s) for session in counting], pace)

    @property
    def medians_ms(self) -> list[float]:
        return [float(np.median(times)) for times in self.times_ms]

    @property
    def follows_the_pace(self) -> bool:
        """Whether the scaling made the sessions more alike, or at least not much less."""
        as_timed = [session.as_timed_ms for session in self.sessions]
        return _spread(self.times_ms) <= UNLIKE_THE_PROBE * max(_spread(as_timed), DRIFT)


def _counting(sessions: Sequence[Session]) -> list[Session]:
    """All but those that others disturbed; all where fewer than two are left."""
    quiet = [session for session in sessions if session.quiet]
    return quiet if len(quiet) > 1 else list(sessions)


def _probes(sessions: Iterable[Session]) -> list[float]:
    return [probe for session in sessions for probe in session.probes_s]


def _reference(subjects: Sequence[Sequence[Session]], probe_s: float | None) -> tuple[float | None, list[str]]:
    """One for all subjects: what the probe takes at the pace that they are scaled to, and what speaks against it."""
    probes = _probes(session for sessions in subjects for session in _counting(sessions))
    if not probes:
        return None, []
    typical_s = statistics.median(probes)
    if probe_s is None:
        return typical_s, []
    pace, (slowest, fastest) = probe_s / typical_s, POSSIBLE_PACES
    if slowest <= pace <= fastest:
        return probe_s, []
    return typical_s, [
        f"The processor seemed to run at {pace:.0%} of its reference pace, which is not believed: the times are at the "
        "pace of this measurement. `compress targets show cpu --remeasure` measures the reference anew."
    ]


def _spread(times_ms: Sequence[NDArray[np.float64]]) -> float:
    """Standard deviation of the logarithms of the sessions' medians; 0 of a single session."""
    return float(np.std(np.log([np.median(times) for times in times_ms])))


def _stable(paced: _Paced, least_sessions: int, cv_bound: float) -> bool:
    cv = _variation(paced.medians_ms)
    return len(paced.sessions) >= least_sessions and cv is not None and cv <= cv_bound


def _variation(medians_ms: Sequence[float]) -> float | None:
    last = medians_ms[-STABLE_WINDOWS:]
    return statistics.stdev(last) / statistics.fmean(last) if len(last) > 1 else None


def _of_sessions(
    subject: Subject,
    sessions: Sequence[Session],
    window_s: float,
    least_sessions: int,
    reference_s: float | None,
    cv_bound: float,
    before: HostSnapshot,
    around: Sequence[str],
) -> LatencyStats:
    paced = _Paced.of(sessions, reference_s)
    counting, medians = paced.sessions, paced.medians_ms
    stable, cv = _stable(paced, least_sessions, cv_bound), _variation(medians)
    calls = np.concatenate(paced.times_ms)
    percentiles = _of_calls(calls, subject.batch_size)
    several = len(medians) > 1
    warnings = []
    if len(counting) < least_sessions:
        warnings.append(f"Unstable: only {len(counting)} of the {least_sessions} sessions that are needed.")
    elif not stable:
        warnings.append(f"Unstable: the last sessions' medians varied by {cv:.1%} (bound {cv_bound:.1%}).")
    if left_out := len(sessions) - len(counting):
        warnings.append(f"{left_out} of {len(sessions)} sessions were left out: other programs used the CPU meanwhile.")
    if len(calls) < 100:
        warnings.append(_few_calls(len(calls)))
    if not paced.follows_the_pace:
        warnings.append(
            "Its times do not follow the processor's pace, as where memory is what it waits for: scaled to that pace "
            "they vary more than as timed."
        )
    as_timed = np.concatenate([session.as_timed_ms for session in counting])
    return LatencyStats(
        device=subject.device,
        is_target=subject.is_target,
        runtime=subject.runtime,
        versions=_software(subject.versions),
        conditions=subject.conditions,
        **percentiles,
        pace=paced.pace,
        latency_p50_as_timed_ms=None if paced.pace is None else float(np.median(as_timed)),
        latency_p50_interval_ms=repeat_interval(percentiles["latency_p50_ms"], medians) if several else None,
        interval_confidence=CONFIDENCE if several else None,
        interval_method="prediction for a repetition, from the medians of sessions" if several else None,
        warmup_count=sum(session.warmup_count for session in sessions),
        num_windows=len(sessions),
        num_windows_used=len(counting),
        num_sessions=len(sessions),
        window_s=window_s,
        cv=cv,
        cv_bound=cv_bound,
        stable=stable,
        cpu_mhz=before.cpu_mhz,
        load_average=before.load_average,
        threads=subject.threads,
        warnings=(*warnings, *around, *_two_speeds_sentence(calls)),
    )


def _of_calls(times_ms: NDArray[np.float64], batch_size: int) -> dict[str, Any]:
    """The fields of LatencyStats that follow from the calls alone."""
    p50, p90, p99 = (float(value) for value in np.quantile(times_ms, (0.5, 0.9, 0.99)))
    return {
        "batch_size": batch_size,
        "latency_p50_ms": p50,
        "latency_p90_ms": p90,
        "latency_p99_ms": p99,
        "throughput_ips": batch_size * len(times_ms) / float(times_ms.sum() / 1e3),
        "count": len(times_ms),
    }


def _software(versions: Mapping[str, str] | None) -> dict[str, str]:
    return {"os": platform.platform(), "python": platform.python_version(), **(versions or {})}


def _window(infer: Callable[[], object], seconds: float, min_calls: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of each call, back to back, for at least `seconds` and `min_calls`."""
    times: list[float] = []
    start = now = clock()
    while now - start < seconds or len(times) < min_calls:
        infer()
        earlier, now = now, clock()
        times.append(now - earlier)
    return times


def _timed_window(
    infer: Callable[[], object], seconds: float, probe: Probe | None, clock: Callable[[], float]
) -> tuple[list[float], list[float]]:
    """Seconds of each call, and with a probe the mean of what that took before and after the slice of the call."""
    if probe is None:
        return _window(infer, seconds, 1, clock), []
    times: list[float] = []
    probes: list[float] = []
    before, spent = probe(), 0.0
    while spent < seconds:
        found = _window(infer, min(SLICE_S, seconds - spent), 1, clock)
        after = probe()
        times += found
        probes += [(before + after) / 2] * len(found)
        before, spent = after, spent + sum(found)
    return times, probes


def _few_calls(count: int) -> str:
    return f"Only {count} call{'' if count == 1 else 's'}: p99 is close to the slowest of them."


def _two_speeds_sentence(times_ms: NDArray[np.float64]) -> list[str]:
    found = two_speeds(times_ms)
    if found is None:
        return []
    fast, slow = found
    return [f"Calls came in two speeds, {fast:.3g} and {slow:.3g} ms: clocks or other programs changed."]
