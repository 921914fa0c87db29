"""Measuring with a clock that only the sessions move, so every number follows by arithmetic."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import cycle

import pytest

from profiles.host import HostSnapshot
from profiles.latency import LatencyStats, Session, Subject, measure_in_turn, timed_session
from profiles.timing_statistics import DRIFT, T_95

PROBE_S = 1e-4  # at the reference pace
QUIET = HostSnapshot(cores=2, load_average=0.1, total_s=0, busy_s=0, steal_s=0, own_s=0, cpu_mhz=2600.0)


class Machine:
    """A clock that only sessions move: session n of subject s takes `seconds(s, n)` a call. `order` notes them.

    `slowness` is how many times longer than at the reference pace everything takes in the session with this number.
    """

    def __init__(
        self,
        seconds: Callable[[int, int], float],
        others: Callable[[int], float] = lambda _: 0.0,
        slowness: Callable[[int], float] | None = None,
    ) -> None:
        self.seconds, self.others, self.slowness = seconds, others, slowness
        self.now = self.foreign_s = 0.0
        self.order: list[int] = []

    def session(self, index: int) -> Session:
        @contextmanager
        def opened() -> Iterator[Callable[[], None]]:
            number, session = self.order.count(index), len(self.order)
            self.order.append(index)

            def infer() -> None:
                took = self.seconds(index, number)
                self.now += took
                self.foreign_s += took * self.others(session)

            yield infer

        def probe() -> float:
            assert self.slowness is not None
            return PROBE_S * self.slowness(len(self.order) - 1)

        return timed_session(opened, 0.125, 0.25, probe if self.slowness else None, self.clock, self.snapshot)

    def clock(self) -> float:
        return self.now

    def snapshot(self) -> HostSnapshot:
        """This process keeps one of two cores busy; the cores that others use are `others`."""
        return replace(QUIET, total_s=2 * self.now, busy_s=self.now + self.foreign_s, own_s=self.now)

    def measure(self, count: int, max_s: float = 10.0, probe_s: float | None = PROBE_S) -> list[LatencyStats]:
        return measure_in_turn(
            [Subject(batch_size=2, device="a test", runtime="none", threads=index + 1) for index in range(count)],
            lambda indices: [self.session(index) for index in indices],
            window_s=0.25,
            max_s=max_s,
            probe_s=probe_s,
            clock=self.clock,
            snapshot=self.snapshot,
        )


def test_subjects_take_turns_until_six_sessions_agree() -> None:
    machine = Machine(lambda subject, _: 2.0**-6 * (subject + 1))
    first, second = machine.measure(2)
    assert machine.order == [0, 1] * 6
    assert (first.num_sessions, first.num_windows, first.num_windows_used, first.count) == (6, 6, 6, 6 * 16)
    assert (first.warmup_count, second.warmup_count) == (6 * 8, 6 * 4)
    assert (first.latency_p50_ms, second.latency_p50_ms) == (15.625, 31.25)
    assert (first.threads, second.threads) == (1, 2)
    assert first.throughput_ips == 2 * 64
    assert first.stable
    assert first.warnings == ("Only 96 calls: p99 is close to the slowest of them.",)


def test_the_interval_is_for_a_repetition_and_never_narrower_than_the_drift() -> None:
    steady, _ = Machine(lambda *_: 2.0**-8).measure(2)
    assert steady.interval_method is not None
    assert "repetition" in steady.interval_method
    assert steady.latency_p50_interval_ms == pytest.approx(
        (2.0**-8 * 1e3 / math.exp(DRIFT), 2.0**-8 * 1e3 * math.exp(DRIFT))
    )
    # Sessions 3 % apart: t with five degrees of freedom times the deviation times the root of 2 / 6, beside the drift.
    (restless,) = Machine(lambda _, session: 0.01 * 1.03 ** (session % 2)).measure(1)
    assert restless.latency_p50_interval_ms is not None
    low, high = restless.latency_p50_interval_ms
    deviation = math.log(1.03) * math.sqrt(6 / 4 / 5)
    assert math.log(high / low) / 2 == pytest.approx(math.hypot(T_95[4] * deviation * math.sqrt(2 / 6), DRIFT))


def test_sessions_in_which_others_used_the_cpu_are_repeated_and_left_out() -> None:
    machine = Machine(lambda _, session: 0.01 if session not in (1, 4) else 0.03, lambda s: 0.9 if s in (1, 4) else 0.0)
    (stats,) = machine.measure(1)
    assert (stats.num_sessions, stats.num_windows_used, stats.stable) == (8, 6, True)
    assert stats.latency_p99_ms == pytest.approx(10)
    assert "2 of 8 sessions were left out: other programs used the CPU meanwhile." in stats.warnings


def test_where_others_never_rest_every_session_counts_and_the_warnings_tell() -> None:
    (stats,) = Machine(lambda *_: 0.01, lambda _: 0.9).measure(1)
    assert (stats.num_sessions, stats.num_windows_used, stats.stable) == (6, 6, True)
    assert "Other programs used 0.9 of 2 cores during the measurement." in stats.warnings


def test_sessions_that_never_agree_end_after_twelve() -> None:
    (stats,) = Machine(lambda _, session: 0.01 * (1 + session % 2)).measure(1)
    assert (stats.num_sessions, stats.stable) == (12, False)
    assert stats.cv is not None
    assert stats.warnings[0] == f"Unstable: the last sessions' medians varied by {stats.cv:.1%} (bound 5.0%)."


def test_the_time_of_a_subject_is_its_own() -> None:
    slow, fast = Machine(lambda subject, _: 0.01 if subject else 4.0).measure(2)
    assert (slow.num_sessions, slow.stable) == (1, False)
    assert (slow.latency_p50_interval_ms, slow.interval_confidence, slow.interval_method) == (None, None, None)
    assert slow.warnings[:2] == (
        "Unstable: only 1 of the 6 sessions that are needed.",
        "Only 1 call: p99 is close to the slowest of them.",
    )
    assert fast.stable


def test_the_time_around_the_sessions_counts_in_equal_parts() -> None:
    """Starting a process takes time too, and `max_s` is what a user waits."""
    machine = Machine(lambda *_: 2.0**-6)

    def after_a_start(indices: Sequence[int]) -> list[Session]:
        machine.now += 4.0
        return [machine.session(index) for index in indices]

    subjects = [Subject(batch_size=1, device="d", runtime="r") for _ in range(2)]
    first, second = measure_in_turn(
        subjects, after_a_start, window_s=0.25, max_s=4.5, clock=machine.clock, snapshot=machine.snapshot
    )
    assert (first.num_sessions, second.num_sessions) == (2, 2)  # 2.375 s of each round are one subject's


@pytest.mark.parametrize("throughout", [1.0, 1.2])
def test_a_pace_that_changes_is_taken_out(throughout: float) -> None:
    """A processor a tenth slower in two sessions of three, and a fifth slower throughout a repetition."""

    def slowness(session: int) -> float:
        return throughout * (1.0 if session % 3 == 0 else 1.1)

    (stats,) = Machine(lambda _, session: 0.008 * slowness(session), slowness=slowness).measure(1)
    assert stats.latency_p50_ms == pytest.approx(8)
    assert stats.latency_p50_interval_ms == pytest.approx((8 / math.exp(DRIFT), 8 * math.exp(DRIFT)))
    assert stats.latency_p50_as_timed_ms == pytest.approx(8.8 * throughout)
    assert stats.pace == pytest.approx(1 / (1.1 * throughout))
    assert stats.cv == pytest.approx(0, abs=1e-9)


def test_without_a_reference_the_pace_is_the_typical_one_of_the_measurement() -> None:
    machine = Machine(lambda _, session: 0.01 * (1.0 + (session == 1)), slowness=lambda session: 1.0 + (session == 1))
    (stats,) = machine.measure(1, probe_s=None)
    assert stats.pace == pytest.approx(1)
    assert stats.latency_p50_ms == pytest.approx(10)


def test_subjects_of_one_measurement_are_scaled_to_one_pace() -> None:
    """Without a reference as well: of two equal networks, one that met a slow processor is not the slower one."""
    machine = Machine(lambda subject, _: 0.01 * (1 + subject), slowness=lambda session: 1.0 + session % 2)
    fast, slow = machine.measure(2, probe_s=None)
    assert slow.latency_p50_as_timed_ms == pytest.approx(20)
    assert slow.latency_p50_ms == pytest.approx(fast.latency_p50_ms)


def test_a_reference_that_cannot_be_this_machines_is_not_used() -> None:
    (stats,) = Machine(lambda *_: 0.01, slowness=lambda _: 5.0).measure(1)
    assert stats.latency_p50_ms == pytest.approx(10)
    assert stats.pace == pytest.approx(1)
    assert any("at 20% of its reference pace" in warning for warning in stats.warnings)


def test_what_does_not_follow_the_pace_is_told() -> None:
    """A model that waits for memory: scaled by the clock, equal sessions are spread apart."""
    (stats,) = Machine(lambda *_: 0.01, slowness=lambda session: 1.0 + 0.2 * (session % 2)).measure(1)
    assert stats.latency_p50_as_timed_ms == pytest.approx(10)
    assert any("do not follow the processor's pace" in warning for warning in stats.warnings)


def test_calls_are_scaled_by_the_probes_around_their_slice() -> None:
    probes = iter([1e-4, 1e-4, 3e-4, 1e-4, *[1e-4] * 10])
    now = [0.0]

    def infer() -> None:
        now[0] += 2.0**-5

    session = timed_session(lambda: nullcontext(infer), 0.0, 0.125, lambda: next(probes), lambda: now[0], lambda: QUIET)
    assert session.times_s == [2.0**-5] * 4  # slices of 1/20 s hold two calls each
    assert session.probes_s == pytest.approx([1e-4, 1e-4, 2e-4, 2e-4])
    assert session.scaled_ms(1e-4) == pytest.approx([31.25, 31.25, 15.625, 15.625])


def test_percentiles_are_of_the_calls() -> None:
    calls = cycle([0.001] * 16 + [0.002] * 3 + [0.010])
    (stats,) = Machine(lambda *_: next(calls)).measure(1)
    assert stats.latency_p50_ms == pytest.approx(1)
    assert stats.latency_p90_ms == pytest.approx(2)
    assert stats.latency_p99_ms == pytest.approx(10)
    assert stats.throughput_ips == pytest.approx(2 * 20 / 0.032, rel=0.02)


def test_two_speeds_are_told() -> None:
    calls = cycle([0.001] * 3 + [0.002])
    (stats,) = Machine(lambda *_: next(calls)).measure(1)
    assert stats.stable  # each session holds the same mixture, so only the shape of the times gives it away
    assert stats.warnings == ("Calls came in two speeds, 1 and 2 ms: clocks or other programs changed.",)


def test_the_record_carries_its_origin_and_survives_json() -> None:
    (stats,) = Machine(lambda *_: 0.01).measure(1)
    record = stats.to_dict()
    assert record["origin"] == "measured"
    assert (record["device"], record["is_target"], record["batch_size"]) == ("a test", False, 2)
    assert record["versions"].keys() == {"os", "python"}
    assert (record["cpu_mhz"], record["load_average"]) == (2600.0, 0.1)
    assert LatencyStats.model_validate(json.loads(json.dumps(record))) == stats


def test_an_error_of_the_model_passes_through() -> None:
    def broken() -> None:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        timed_session(lambda: nullcontext(broken), 0.0, 0.01)


def test_the_real_clock_works() -> None:
    session = timed_session(lambda: nullcontext(lambda: sum(range(2000))), 0.01, 0.01)
    assert session.warmup_count >= 3
    assert session.probes_s == []
    assert session.as_timed_ms.min() > 0
    assert session.took_s >= 0.02
    assert sum(session.times_s) >= 0.01


def test_a_session_survives_json() -> None:
    session = Machine(lambda *_: 0.01).session(0)
    assert Session.from_dict(json.loads(json.dumps(session.to_dict()))) == session
