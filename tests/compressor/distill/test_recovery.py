"""A loss that is not finite, a generator that collapses, a batch without room: back to the last good state, and on."""

from __future__ import annotations

import errno
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import file_size_limit
from torch import Tensor, nn

from compressor.distill import recovery
from compressor.distill.training import Context, cosine_schedule, read_log
from compressor.errors import StageFailed

NUM_STEPS = 8
Step = Callable[[Context, int], Any]


class Killed(BaseException):
    """Stands for SIGKILL."""


@dataclass(frozen=True)
class Result:
    weights: list[Tensor]
    rates: list[float]
    remedies: tuple[str, ...]
    rows: list[int]

    def assert_same(self, other: Result) -> None:
        assert all(torch.equal(one, another) for one, another in zip(self.weights, other.weights, strict=True))
        assert (self.rates, self.remedies, self.rows) == (other.rates, other.remedies, other.rows)


class Classes:
    """An item of the state that shows how even the classes are."""

    def __init__(self, evenness: Callable[[], float | None]) -> None:
        self.judged_evenness = evenness

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, _state: object) -> None: ...


def network() -> nn.Sequential:
    """Dropout, so that the random states matter; no batch norm, so that parts of a batch add up to it."""
    return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))


def train(
    context: Context,
    loss_of: Callable[[Context, nn.Module, int, Tensor], Tensor],
    *,
    num_steps: int = NUM_STEPS,
    net: nn.Module | None = None,
    evenness: Callable[[Context, int], float | None] = lambda _context, _step: None,
) -> Result:
    torch.manual_seed(0)
    net = net or network()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    plain = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1.0)  # without a schedule
    schedule = cosine_schedule(optimiser, num_steps, warmup=2)
    now = [0]
    classes = Classes(lambda: evenness(context, now[0]))
    state: dict[str, Any] = {"n": net, "o": optimiser, "p": plain, "s": schedule, "c": classes}
    rates: dict[int, float] = {}
    for step in context.steps("toy", num_steps, state):
        now[0] = step
        rates[step] = optimiser.param_groups[0]["lr"]
        batch = torch.randn(8, 4, generator=context.random)
        optimiser.zero_grad()
        context.backward(lambda part, step=step: loss_of(context, net, step, part), batch)
        optimiser.step()
        schedule.step()
    rows = [row["step"] for row in read_log(context.folder / "log.jsonl")]
    ends = [optimiser.param_groups[0]["initial_lr"], plain.param_groups[0]["lr"]]
    return Result(list(net.parameters()), ends, context.phases[0].remedies, rows)


def squares(context: Context, net: nn.Module, _step: int, batch: Tensor) -> Tensor:
    loss = (net(batch) - 1.0).square().mean()
    context.log({"squares": loss})
    return loss


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Callable[[], bool]]:
    """A clock on which every step is long enough to be saved, and a `should_stop` that may kill instead."""
    now = [0.0]
    monkeypatch.setattr("compressor.distill.training.time.monotonic", lambda: now[0])

    def kill_after(num_steps: int = 10**6) -> Callable[[], bool]:
        calls = itertools.count(1)

        def should_stop() -> bool:
            now[0] += 60.0
            if next(calls) == num_steps:
                raise Killed
            return False

        return should_stop

    return kill_after


def with_kills(folder: Path, saving: Callable[..., Callable[[], bool]], run: Callable[[Context], Result]) -> Result:
    """Every session saves one step and dies in the next, until the phase is done."""
    for _ in range(10 * NUM_STEPS):
        try:
            return run(Context(folder, seed=3, should_stop=saving(2)))
        except Killed:
            continue
    raise AssertionError("it never ends")


def both_ways(folder: Path, saving: Callable[..., Callable[[], bool]], run: Callable[[Context], Result]) -> Result:
    """Without and with kills; the results are the same."""
    for name in ("whole", "killed"):
        (folder / name).mkdir()
    whole = run(Context(folder / "whole", seed=3, should_stop=saving()))
    with_kills(folder / "killed", saving, run).assert_same(whole)
    return whole


# --- not finite -------------------------------------------------------------------------------------------------------


def breaks(at: int, until: float) -> Callable[[Context, nn.Module, int, Tensor], Tensor]:
    """A loss that is NaN from step `at` on, unless the rate is `until` of what it was, or less."""

    def loss_of(context: Context, net: nn.Module, step: int, batch: Tensor) -> Tensor:
        loss = (net(batch) - 1.0).square().mean()
        context.log({"squares": loss * (torch.nan if step >= at and context.rate_factor > until else 1.0)})
        return loss

    return loss_of


@pytest.mark.parametrize(("until", "cuts"), [(0.3, 1), (0.09, 2)])
def test_a_loss_that_is_not_finite_goes_back_with_a_lower_rate(
    tmp_path: Path, saving: Callable[..., Callable[[], bool]], until: float, cuts: int
) -> None:
    result = both_ways(tmp_path, saving, lambda context: train(context, breaks(4, until + 1e-9)))
    assert result.rates == pytest.approx([0.1 * 0.3**cuts, 1.0 * 0.3**cuts])
    assert result.rows == list(range(NUM_STEPS))
    assert len(result.remedies) == cuts
    assert result.remedies[0] == (
        "Loss term squares of phase toy is not finite by step 4. Training went back to step 4 and on with 0.3 of the "
        "learning rate."
    )


def test_the_schedule_goes_on_at_the_lower_rate(tmp_path: Path) -> None:
    net = network()
    optimiser = torch.optim.SGD(net.parameters(), lr=2.0)
    schedule = cosine_schedule(optimiser, 10, warmup=2)
    context, rates = Context(tmp_path), []
    for step in context.steps("toy", 10, {"n": net, "o": optimiser, "s": schedule}):
        rates.append(optimiser.param_groups[0]["lr"])
        context.log({"loss": torch.tensor(torch.nan if step == 3 and context.rate_factor == 1.0 else 1.0)})
        optimiser.step()
        schedule.step()
    assert rates[:4] == pytest.approx([1.0, 2.0, 2.0, rates[3]])
    assert rates[4:8] == pytest.approx([0.3 * rate for rate in rates[:4]])  # nothing was saved yet: from the start
    assert rates[10] == pytest.approx(0.3)  # half-way down


def test_what_was_broken_between_two_rows_is_not_saved(
    tmp_path: Path, saving: Callable[..., Callable[[], bool]]
) -> None:
    """Of 400 steps every second writes a row; the loss breaks in a step that writes none, and that would be saved."""
    seen: list[int] = []

    def loss_of(context: Context, net: nn.Module, step: int, batch: Tensor) -> Tensor:
        seen.append(step)
        return breaks(4, 0.5)(context, net, step, batch)

    context = Context(tmp_path, should_stop=saving(9))
    with pytest.raises(Killed):
        train(context, loss_of, num_steps=400)
    assert seen[:6] == [0, 1, 2, 3, 4, 4]


def test_weights_that_a_finite_loss_broke_are_not_saved(
    tmp_path: Path, saving: Callable[..., Callable[[], bool]]
) -> None:
    def loss_of(context: Context, net: nn.Module, step: int, batch: Tensor) -> Tensor:
        loss = squares(context, net, step, batch)
        return loss * torch.inf if step == 2 and context.rate_factor == 1.0 else loss

    result = train(Context(tmp_path, should_stop=saving()), loss_of)
    assert result.remedies == (
        "The state of the n, o of phase toy is not finite by step 2. Training went back to step 2 and on with 0.3 of "
        "the learning rate.",
    )
    assert all(weight.isfinite().all() for weight in result.weights)


# --- collapse ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def short_collapse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "SHORTEST_COLLAPSE", 2)


def collapses(at: int, until: float, fall: float = 0.3) -> Callable[[Context, int], float | None]:
    """Nothing to judge in the first two steps; from `at` on the classes become uneven, and then too few."""

    def evenness(context: Context, step: int) -> float | None:
        if step < 2:
            return None
        if step < at or context.rate_factor <= until:
            return 0.9
        return fall if step == at else 0.01

    return evenness


@pytest.mark.usefixtures("short_collapse")
def test_a_collapse_goes_back_to_when_the_classes_were_even(
    tmp_path: Path, saving: Callable[..., Callable[[], bool]]
) -> None:
    result = both_ways(tmp_path, saving, lambda context: train(context, squares, evenness=collapses(3, 0.3)))
    assert result.rates == pytest.approx([0.03, 0.3])
    assert result.remedies == (
        "The generator of phase toy has collapsed: from step 4 to step 6 the entropy of the classes that the teacher "
        "sees in its images was below 10% of a uniform one's (lately 1.0%). Training went back to step 3 and on with "
        "0.3 of the learning rate.",
    )
    assert sorted(file.name for file in (tmp_path / "whole").iterdir()) == ["checkpoint-toy.pt", "log.jsonl"]


@pytest.mark.usefixtures("short_collapse")
def test_a_generator_that_stays_collapsed_is_a_stage_failure(tmp_path: Path) -> None:
    with pytest.raises(StageFailed) as failed:
        train(Context(tmp_path), squares, evenness=collapses(3, 0.0))
    assert failed.value.received.startswith("The generator of phase toy has collapsed: from step 4 to step 6")
    assert "went back to its last good state with 0.3 and then 0.09 of the learning rate" in failed.value.expected
    assert "generator_lr" in failed.value.action


@pytest.mark.usefixtures("short_collapse")
@pytest.mark.parametrize("shown", [[0.9, 0.05, 0.05, 0.9], [0.9, 0.3, 0.3, 0.3], [0.12, 0.11, 0.12, 0.11]], ids=str)
def test_wandering_is_no_collapse(tmp_path: Path, shown: list[float]) -> None:
    result = train(Context(tmp_path), squares, evenness=lambda _context, step: shown[step % 4])
    assert result.remedies == ()


@pytest.mark.usefixtures("short_collapse")
def test_rates_that_were_cut_since_the_even_state_stay_cut(
    tmp_path: Path, saving: Callable[..., Callable[[], bool]]
) -> None:
    """NaN at step 5, after the classes became uneven: back to 5. Then the collapse: back to 3, with both cuts."""
    result = both_ways(
        tmp_path, saving, lambda context: train(context, breaks(5, 0.3 + 1e-9), evenness=collapses(3, 0.1))
    )
    assert [remedy.partition("went back to ")[2][:6] for remedy in result.remedies] == ["step 5", "step 3"]
    assert result.rates == pytest.approx([0.009, 0.09])


# --- out of memory ----------------------------------------------------------------------------------------------------


class Small(nn.Module):
    """A network that has room for so many rows."""

    def __init__(self, room: int, *, dropout: bool = True) -> None:
        super().__init__()
        self.inner, self.room = network(), room
        self.inner[1].p = 0.5 if dropout else 0.0

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.inner(x)  # type: ignore[no-any-return]


def test_a_batch_without_room_is_divided(tmp_path: Path, saving: Callable[..., Callable[[], bool]]) -> None:
    result = both_ways(tmp_path, saving, lambda context: train(context, squares, net=Small(2)))
    assert result.rates == pytest.approx([0.1, 1.0])
    assert result.remedies == tuple(
        "The memory did not hold a batch of phase toy in step 0. Training went back to step 0 and on with batches in "
        f"{parts} parts, whose gradients add up; batch norm sees a part at a time."
        for parts in (2, 4)
    )


@pytest.mark.parametrize("room", [2, 4, 7])
def test_parts_of_a_batch_add_up_to_it(tmp_path: Path, room: int) -> None:
    results = []
    for name, net in (("whole", Small(8, dropout=False)), ("parts", Small(room, dropout=False))):
        (tmp_path / name).mkdir()
        torch.manual_seed(1)
        for parameter in net.parameters():
            nn.init.normal_(parameter)
        results.append(train(Context(tmp_path / name, seed=3), squares, net=net))
    for one, other in zip(results[0].weights, results[1].weights, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    losses = [
        [row["terms"]["squares"] for row in read_log(tmp_path / name / "log.jsonl")] for name in ("whole", "parts")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_memory_that_runs_out_later_goes_back_to_what_was_saved(
    tmp_path: Path, saving: Callable[..., Callable[[], bool]]
) -> None:
    def loss_of(context: Context, net: nn.Module, step: int, batch: Tensor) -> Tensor:
        if step >= 5 and len(batch) > 4:
            raise torch.OutOfMemoryError
        return squares(context, net, step, batch)

    result = both_ways(tmp_path, saving, lambda context: train(context, loss_of))
    assert ["went back to step 5" in remedy for remedy in result.remedies] == [True]


def test_two_images_are_not_divided(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        train(Context(tmp_path), squares, net=Small(1))


def test_a_term_about_the_whole_batch_is_not_divided(tmp_path: Path) -> None:
    context, net = Context(tmp_path), Small(4)
    for _ in context.steps("toy", 1, {"n": net}):
        with pytest.raises(torch.OutOfMemoryError):
            context.backward(lambda part: net(part).mean(), torch.zeros(8, 4), divisible=False)


def test_a_part_has_rows_from_everywhere(tmp_path: Path) -> None:
    """A batch may be real images first and synthetic ones after them."""
    context, net, seen = Context(tmp_path), Small(4, dropout=False), []

    def loss_of(rows: Tensor, labels: Tensor) -> Tensor:
        loss = net(rows).mean()
        seen.append(labels.tolist())
        return loss  # type: ignore[no-any-return]

    for _ in context.steps("toy", 1, {"n": net}):
        context.backward(loss_of, torch.zeros(8, 4), torch.arange(8))
    assert seen == [[0, 2, 4, 6], [1, 3, 5, 7]]


# --- what was done stays known ----------------------------------------------------------------------------------------


def test_a_finished_phase_still_says_what_was_done(tmp_path: Path) -> None:
    first = train(Context(tmp_path), squares, net=Small(4))
    again = train(Context(tmp_path), squares, net=Small(4))
    again.assert_same(first)
    assert len(again.remedies) == 1


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    train(Context(tmp_path), squares)
    path = tmp_path / "checkpoint-toy.pt"
    saved = torch.load(path, weights_only=True)
    del saved["recovery"], saved["state"]["c"]
    torch.save(saved, path)
    assert train(Context(tmp_path), squares).remedies == ()


@pytest.mark.parametrize("size", range(0, 40_000, 2_500))
def test_a_checkpoint_without_room_gives_the_systems_reason(tmp_path: Path, size: int) -> None:
    state = {f"weight{index}": torch.zeros(500) for index in range(20)}
    path = tmp_path / "checkpoint-toy.pt"
    recovery.write_tensors(1, path)
    with file_size_limit(size), pytest.raises((OSError, RuntimeError)) as refusal:
        recovery.write_tensors(state, path)
    error: BaseException | None = refusal.value
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    assert getattr(error, "errno", None) == errno.EFBIG
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert torch.load(path) == 1
