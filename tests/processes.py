"""Work that several processes do together, on gloo, forked from a server that has imported torch.

A test gives a function of this file to `together`, because a process of its own has to be able to import it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tiny
import torch
import torch.distributed as dist
import walked_refusals
from torch import Tensor, nn

from compressor.distill import losses
from compressor.distill.monitor import OutputMonitor
from compressor.distill.parallel import World, joined
from compressor.distill.training import Context, cosine_schedule
from compressor.methods import load_method

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["compressor.running", "torch._dynamo"])

Work = Callable[..., Any]


@dataclass(frozen=True)
class Raised:
    """The exception that ended a process's work."""

    kind: str
    received: str
    expected: str
    exit_code: int | None


def together(work: Work, folder: Path, size: int = 2, **options: Any) -> list[Any]:
    """What `work(world, folder, **options)` returns in each process; `Raised`, or None of one that was killed.

    One process alone is this one, without torch.distributed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if size == 1:
        return [work(World(), folder, **options)]
    with open(folder / "meeting", "w"):  # noqa: PTH123 - a store of an earlier meeting would be stale
        pass
    processes = [FORKS.Process(target=_one, args=(work, folder, rank, size, options)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode is not None, "a process waits for another that will not come"
    return [_result(folder / f"result-{rank}.pt") for rank in range(size)]


def _one(work: Work, folder: Path, rank: int, size: int, options: dict[str, Any]) -> None:
    walked_refusals.listen()
    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "meeting"), size)
    file = folder / f"result-{rank}.pt"
    file.unlink(missing_ok=True)
    try:
        with joined(store, rank, size, torch.device("cpu")) as world:
            result = work(world, folder, **options)
    except Exception as error:
        result = Raised(
            type(error).__name__,
            getattr(error, "received", str(error)),
            getattr(error, "expected", ""),
            getattr(error, "exit_code", None),
        )
    torch.save(result, file)


def _result(file: Path) -> Any:
    return torch.load(file, weights_only=False) if file.exists() else None  # None: the process was killed


# --- a toy whose batches are constants --------------------------------------------------------------------------------


def toy(*, batch_norm: bool, dropout: float = 0.0) -> nn.Sequential:
    """Images (B, 3, 8, 8) to (B, 4), the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        norm = nn.BatchNorm2d(8) if batch_norm else nn.Identity()
        return nn.Sequential(
            *(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(8, 6, 3, stride=2)),
            *(nn.ReLU(), nn.Flatten(), nn.Linear(24, 4)),
        )


def train_toy(
    world: World,
    folder: Path,
    *,
    rows: int = 12,
    steps: int = 1,
    num_parts: int = 1,
    batch_norm: bool = False,
    dropout: float = 0.0,
    divisible: bool = True,
    stop_at: int | None = None,
    stopping: int = 1,
    fault: str = "",
    until: float = 1.0,
    earlier: float = 0.0,
) -> dict[str, Any]:
    """Some steps, and all that they leave.

    Args:
        stop_at: the step after which the process `stopping` is asked to stop.
        fault: what happens to the process 1 in step 2: "nan", "memory", "drift", "killed" or "raises".
        until: it happens as long as the learning rate's factor is above.
        earlier: what is in every gradient before.
    """
    network = toy(batch_norm=batch_norm, dropout=dropout)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    schedule = cosine_schedule(optimiser, 10, warmup=2)
    monitor = OutputMonitor(4, torch.device("cpu"))
    now = [-1]
    asked = 0

    def should_stop() -> bool:
        return stop_at == now[0] and world.rank == stopping % world.size

    context = Context(folder, seed=3, should_stop=should_stop, world=world)

    def loss_of(images: Tensor, targets: Tensor) -> Tensor:
        nonlocal asked
        asked += len(images)
        strikes = now[0] == 2 and (world.rank == 1 or world.size == 1) and context.rate_factor >= until
        if strikes and fault == "memory" and len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if strikes and fault == "killed":
            os._exit(9)
        if strikes and fault == "raises":
            raise ValueError("something unforeseen")
        output = network(images)
        monitor.observe(output)
        loss = (output - targets).square().mean()
        loss = loss * torch.nan if strikes and fault == "nan" else loss
        context.log({"distance": loss})
        return loss

    state: dict[str, Any] = {"network": network, "optimiser": optimiser, "schedule": schedule, "monitor": monitor}
    gradients: dict[str, Tensor] = {}
    for step in context.steps("toy", steps, state):
        now[0] = step
        context._recovery.num_parts = max(num_parts, context.num_parts)
        images = torch.rand(rows, 3, 8, 8, generator=context.random)
        targets = torch.rand(rows, 4, generator=context.random)
        optimiser.zero_grad(set_to_none=True)
        if earlier:
            for parameter in network.parameters():
                parameter.grad = torch.full_like(parameter, earlier)
        context.backward(loss_of, images, targets, divisible=divisible)
        gradients = {name: value.grad.clone() for name, value in network.named_parameters() if value.grad is not None}
        optimiser.step()
        schedule.step()
        if fault == "drift" and step == 2 and world.rank == 1:
            with torch.no_grad():
                network[0].weight[0, 0, 0, 0] += 1e-7
    return {
        "gradients": gradients,
        "network": tiny.snapshot(network),
        "monitor": monitor.state_dict(),
        "remedies": context.phases[0].remedies,
        "random": torch.cat([context.random.get_state(), torch.get_rng_state()]),
        "asked": asked,
    }


# --- the marginal of HiDFD's smoothing term ---------------------------------------------------------------------------


def smooth(world: World, folder: Path, *, num_classes: int, rows: int = 12) -> dict[str, Tensor]:
    """Three steps of category frequency smoothing alone, as `hidfd` makes them, and what they leave."""
    context = Context(folder, seed=3, world=world)
    generator = nn.Linear(5, num_classes)
    with torch.no_grad():
        generator.weight.copy_(torch.linspace(-1, 1, generator.weight.numel()).view_as(generator.weight).sin())
        generator.bias.zero_()
    optimiser = torch.optim.SGD(generator.parameters(), lr=0.5)
    frequency = losses.ClassFrequency(torch.ones(num_classes), period=1)
    for step in context.steps("toy", 3, {"generator": generator, "optimiser": optimiser, "frequency": frequency}):
        z = torch.randn(rows, 5, generator=context.random)
        seen: list[Tensor] = []

        def look(z: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(generator(z).detach())
            return generator.bias.sum() * 0.0

        context.backward(look, z)
        judged = context.whole(torch.cat(seen), rows)
        if context.divides:
            frequency.remember(judged.softmax(dim=1))

        def loss_of(z: Tensor, judged: Tensor = judged) -> Tensor:
            whole = judged.softmax(dim=1) if context.divides else None
            marginal = frequency.marginal(generator(z).softmax(dim=1), whole)
            loss = losses.category_frequency_smoothing(marginal, frequency.class_weights)
            context.log({"smoothing": loss})
            return loss

        optimiser.zero_grad(set_to_none=True)
        context.backward(loss_of, z)
        optimiser.step()
        frequency.observe(judged.argmax(dim=1), step)
    assert generator.weight.grad is not None
    return {"gradient": generator.weight.grad, **frequency.state_dict()}


# --- whole methods ----------------------------------------------------------------------------------------------------


def distil(world: World, folder: Path, *, names: list[str]) -> dict[str, Any]:
    """Each method at its tiniest; the student, and the terms of the last row of its log."""
    found = {}
    for name in names:
        (folder / name).mkdir(exist_ok=True)
        method = load_method(name)
        settings = tiny.settings(method.Config)
        context = Context(folder / name, seed=1, world=world)
        distilled = method.distill(tiny.teacher(), tiny.backbone(), tiny.training_images(), settings, context)
        found[name] = tiny.snapshot(distilled.student)
    return found
