"""The loop that every method shares: what it saves, what it logs, how it stops, and that a kill changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import pytest
import torch
from torch import Tensor, nn

from compressor.distill.training import (
    Context,
    Forecast,
    SilentObserver,
    best_precision,
    cosine_schedule,
    fitting_threads,
    parameter_groups,
    read_log,
)
from compressor.errors import Interrupted, StageFailed

NUM_STEPS = 6


class Killed(BaseException):
    """Stands for SIGKILL: nobody catches it, nothing is saved after it."""


def train(context: Context, *, num_steps: int = NUM_STEPS, bad_step: int | None = None) -> nn.Module:
    """A toy phase that uses everything that a checkpoint must hold: momentum, schedule, dropout and sampling."""
    network = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    schedule = cosine_schedule(optimiser, num_steps, warmup=2)
    for step in context.steps("toy", num_steps, {"n": network, "o": optimiser, "s": schedule}):
        loss = (network(torch.randn(5, 4, generator=context.random)) - 1.0).square().mean()
        context.log({"first": loss, "second": loss * (torch.nan if step == bad_step else 2.0)})
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return network


def saved_step(folder: Path) -> int:
    """Steps that are done in the checkpoint."""
    return int(torch.load(folder / "checkpoint-toy.pt", weights_only=True)["step"])


def stop_after(num_steps: int) -> Callable[[], bool]:
    calls = iter(range(1, num_steps + 1))
    return lambda: next(calls) == num_steps


@pytest.fixture
def often_saving(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Callable[[], bool]]:
    """A clock that makes every step long enough to be saved, and a `should_stop` that kills the process instead."""
    now = [0.0]
    monkeypatch.setattr("compressor.distill.training.time.monotonic", lambda: now[0])

    def kill_after(num_steps: int) -> Callable[[], bool]:
        calls = iter(range(1, num_steps + 1))

        def should_stop() -> bool:
            now[0] += 60.0
            if next(calls) == num_steps:
                raise Killed
            return False

        return should_stop

    return kill_after


@pytest.fixture
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return train(Context(tmp_path_factory.mktemp("whole"), seed=3)).state_dict()


def assert_equal(network: nn.Module, expected: Mapping[str, Tensor]) -> None:
    for name, value in network.state_dict().items():
        assert torch.equal(value, expected[name]), name


@pytest.mark.parametrize("stop", range(1, NUM_STEPS + 1))
def test_stopping_and_going_on_equals_one_run(tmp_path: Path, uninterrupted: dict[str, Tensor], stop: int) -> None:
    with pytest.raises(Interrupted) as stopped:
        train(Context(tmp_path, seed=3, should_stop=stop_after(stop)))
    assert stopped.value.received == f"The run was stopped in phase toy after step {stop} of 6."
    assert stopped.value.expected == "Everything up to this step is saved."
    assert stopped.value.action == "Run the same command again to go on from here."
    assert_equal(train(Context(tmp_path, seed=3)), uninterrupted)


@pytest.mark.parametrize("kill", range(1, NUM_STEPS + 1))
def test_a_kill_changes_nothing(
    tmp_path: Path,
    uninterrupted: dict[str, Tensor],
    often_saving: Callable[[int], Callable[[], bool]],
    kill: int,
) -> None:
    with pytest.raises(Killed):
        train(Context(tmp_path, seed=3, should_stop=often_saving(kill)))
    assert (tmp_path / "checkpoint-toy.pt").exists() == (kill > 1)
    torch.manual_seed(999)  # another process starts somewhere else
    assert_equal(train(Context(tmp_path, seed=3)), uninterrupted)
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == list(range(NUM_STEPS))


def test_many_kills_change_nothing(
    tmp_path: Path, uninterrupted: dict[str, Tensor], often_saving: Callable[[int], Callable[[], bool]]
) -> None:
    for _ in range(NUM_STEPS - 1):
        with pytest.raises(Killed):
            train(Context(tmp_path, seed=3, should_stop=often_saving(2)))
    assert_equal(train(Context(tmp_path, seed=3)), uninterrupted)


def test_a_finished_phase_is_restored_and_not_trained(tmp_path: Path, uninterrupted: dict[str, Tensor]) -> None:
    train(Context(tmp_path, seed=3))
    log = (tmp_path / "log.jsonl").read_bytes()
    context = Context(tmp_path, seed=4, should_stop=lambda: True)
    assert_equal(train(context), uninterrupted)
    assert (tmp_path / "log.jsonl").read_bytes() == log
    assert [(phase.name, phase.num_steps) for phase in context.phases] == [("toy", NUM_STEPS)]


def test_another_seed_is_another_run(tmp_path: Path, uninterrupted: dict[str, Tensor]) -> None:
    assert not torch.equal(train(Context(tmp_path, seed=4)).state_dict()["0.weight"], uninterrupted["0.weight"])


def test_a_phase_after_a_restored_one_continues_its_randomness(tmp_path: Path) -> None:
    whole = Context(tmp_path, seed=3)
    train(whole)
    draws = torch.rand(3, generator=whole.random), torch.rand(3)
    resumed = Context(tmp_path, seed=3)
    train(resumed)
    assert torch.equal(torch.rand(3, generator=resumed.random), draws[0])
    assert torch.equal(torch.rand(3), draws[1])


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Tensor]
) -> None:
    with pytest.raises(Interrupted):
        train(Context(tmp_path, seed=3, should_stop=stop_after(2)))
    before = (tmp_path / "checkpoint-toy.pt").read_bytes()

    def full_disk(_saved: object, file: BinaryIO) -> None:
        file.write(b"half of a check")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("compressor.distill.training.torch.save", full_disk)
        with pytest.raises(OSError, match="No space left"):
            train(Context(tmp_path, seed=3, should_stop=stop_after(2)))
    assert (tmp_path / "checkpoint-toy.pt").read_bytes() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["checkpoint-toy.pt", "log.jsonl"]
    assert_equal(train(Context(tmp_path, seed=3)), uninterrupted)


# --- the log --------------------------------------------------------------------------------------------------------


def test_a_row_holds_the_means_since_the_last_row(tmp_path: Path) -> None:
    context = Context(tmp_path)
    for step in context.steps("toy", 400, {}):
        context.log({"step": torch.tensor(float(step))})
        context.log({"twice": torch.tensor(2.0 * step)})  # the other half of an adversarial step
    rows = read_log(tmp_path / "log.jsonl")
    assert len(rows) == 200
    assert rows[0] == {"phase": "toy", "step": 1, "terms": {"step": 0.5, "twice": 1.0}}
    assert rows[-1] == {"phase": "toy", "step": 399, "terms": {"step": 398.5, "twice": 797.0}}


def test_two_phases_share_the_log(tmp_path: Path) -> None:
    context = Context(tmp_path)
    for phase in ("one", "two"):
        for _ in context.steps(phase, 2, {}):
            context.log({phase: torch.tensor(1.0)})
    assert [(row["phase"], row["step"]) for row in read_log(tmp_path / "log.jsonl")] == [
        ("one", 0),
        ("one", 1),
        ("two", 0),
        ("two", 1),
    ]


def test_logging_keeps_no_graph() -> None:
    context = Context(Path())
    value = torch.ones((), requires_grad=True) * 2
    context.log({"term": value})
    assert not context._terms["term"][0].requires_grad


@pytest.mark.parametrize("lost", [1, 10, 60])
def test_a_line_that_was_cut_short_is_written_again(tmp_path: Path, lost: int) -> None:
    with pytest.raises(Interrupted):
        train(Context(tmp_path, seed=3, should_stop=stop_after(4)))
    log = tmp_path / "log.jsonl"
    log.write_text(log.read_text()[:-lost])
    whole = read_log(log)
    assert len(whole) in (3, 4)  # without its newline the last row is still whole
    train(Context(tmp_path, seed=3))
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert rows[: len(whole)] == whole
    assert [row["step"] for row in rows[len(whole) :]] == [4, 5]


def test_no_log_has_no_rows(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log.jsonl") == []


# --- what stops a loop, and who watches it ---------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_phase_by_name(tmp_path: Path) -> None:
    with pytest.raises(StageFailed) as failed:
        train(Context(tmp_path), bad_step=3)
    assert failed.value.received == "Loss term second of phase toy is not finite by step 3."
    assert failed.value.expected == (
        "Training cannot go on from there; it went back to its last good state with 0.3 and then 0.09 of the learning "
        "rate, and that did not help."
    )
    assert "Lower the learning rate, use --precision fp32" in failed.value.action
    assert saved_step(tmp_path) == 0
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [0, 1, 2]


def test_a_phase_cannot_end_on_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="Loss term second of phase toy is not finite by step 5"):
        train(Context(tmp_path), bad_step=NUM_STEPS - 1)
    assert saved_step(tmp_path) == 0


class Watching(SilentObserver):
    def __init__(self) -> None:
        self.started: list[tuple[str, int, int]] = []
        self.forecasts: list[Forecast] = []
        self.seen: list[tuple[int, int]] = []

    def phase_started(self, phase: str, num_steps: int, first_step: int) -> None:
        self.started.append((phase, num_steps, first_step))

    def forecast(self, forecast: Forecast) -> None:
        self.forecasts.append(forecast)

    def progress(self, phase: str, step: int, num_steps: int, terms: Mapping[str, float]) -> None:
        assert phase == "toy"
        assert terms.keys() == {"first", "second"}
        self.seen.append((step, num_steps))


def test_the_forecast_comes_after_three_timed_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks: Iterator[float] = iter(float(tick) for tick in range(1000))
    monkeypatch.setattr("compressor.distill.training.time.monotonic", lambda: next(ticks))
    observer = Watching()
    train(Context(tmp_path, observer=observer), num_steps=20)
    (forecast,) = observer.forecasts
    assert (forecast.phase, forecast.num_steps) == ("toy", 20)
    assert forecast.seconds == pytest.approx(forecast.step_seconds * 16)  # one step of set-up and three timed ones
    assert forecast.memory_mib > 10
    weights = 4 * (4 * 8 + 8 + 8 + 1)  # bytes; momentum has as many
    assert forecast.disk_mib == pytest.approx(2 * weights / 2**20)


def test_the_observer_sees_every_step_and_where_a_phase_goes_on(tmp_path: Path) -> None:
    first, second = Watching(), Watching()
    with pytest.raises(Interrupted):
        train(Context(tmp_path, observer=first, should_stop=stop_after(2)))
    train(Context(tmp_path, observer=second))
    assert first.started + second.started == [("toy", NUM_STEPS, 0), ("toy", NUM_STEPS, 2)]
    assert first.seen + second.seen == [(step, NUM_STEPS) for step in range(1, NUM_STEPS + 1)]


def test_seconds_add_up_over_sessions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("compressor.distill.training.time.monotonic", lambda: now[0])

    def session(should_stop: Callable[[], bool]) -> Context:
        def tick() -> bool:
            now[0] += 1.0
            return should_stop()

        return Context(tmp_path, should_stop=tick)

    with pytest.raises(Interrupted):
        train(session(stop_after(2)))
    now[0] += 1000.0  # nobody worked on it
    context = session(lambda: False)
    train(context)
    assert context.phases[0].seconds == pytest.approx(NUM_STEPS)


# --- precision, schedule, parameters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("has_amx", "has_avx512_bf16", "threads", "sides"),
    [
        (True, True, 2, {8: "fp32", 16: "fp32", 32: "bf16"}),
        (False, True, 4, {8: "fp32", 16: "bf16", 32: "fp32"}),
        (False, True, 2, {8: "fp32", 16: "bf16", 32: "bf16"}),
        (False, True, 1, {8: "fp32", 16: "bf16", 32: "bf16"}),
        (False, False, 1, {8: "fp32", 16: "fp32", 32: "fp32"}),
    ],
)
def test_bf16_is_taken_where_the_cpu_multiplies_it_and_gains(
    monkeypatch: pytest.MonkeyPatch, has_amx: bool, has_avx512_bf16: bool, threads: int, sides: dict[int, str]
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_avx512_bf16)
    counts = [threads]
    monkeypatch.setattr(torch, "get_num_threads", lambda: counts[-1])
    monkeypatch.setattr(torch, "set_num_threads", counts.append)
    for side, precision in sides.items():
        with fitting_threads(side):
            found, why = best_precision(torch.device("cpu"), side)
            assert found == precision, why
            # Threads that share a bf16 step wait for each other, with AMX as well, but there it pays.
            assert counts[-1] == 1 or found == "fp32" or has_amx
        assert counts[-1] == threads
        with fitting_threads(side, "fp32"):
            assert counts[-1] == (1 if side < 24 else threads)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_follows_the_precision(tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    layer = nn.Linear(2, 2)
    with Context(tmp_path, precision=precision).autocast():
        assert layer(torch.ones(1, 2)).dtype == dtype
    assert layer.weight.dtype == torch.float32


def test_the_schedule_warms_up_and_falls_along_half_a_cosine() -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = cosine_schedule(optimiser, num_steps=10, warmup=2)
    rates = []
    for _ in range(11):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert rates[:3] == [1.0, 2.0, 2.0]
    assert rates[6] == pytest.approx(1.0)
    assert rates[10] == pytest.approx(0.0)


def test_norms_biases_and_frozen_layers_do_not_decay() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2).requires_grad_(False))
    decaying, others = parameter_groups(network, weight_decay=0.3)
    assert decaying["weight_decay"] == 0.3
    assert others["weight_decay"] == 0.0
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert [names[id(parameter)] for parameter in decaying["params"]] == ["0.weight"]
    assert [names[id(parameter)] for parameter in others["params"]] == ["0.bias", "1.weight", "1.bias"]
