"""The training of a run by several processes: what the first one tells the others, and what they do.

    first    teacher, samples, student, "order" ──────────> waits ──> trains ──> onnx, ..., report, "exit"
    others   wait for the order ──> read the run folder, "ready" ──> train ──> throw it away, wait for the exit code

What is decided by looking (the method, its settings, the precision) the first process decides. All read the run folder,
so on several machines it lies where all of them see it.
"""

from __future__ import annotations

import json
import socket
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from compressor.config import Resolved
from compressor.distill.parallel import LOST_AFTER, ProcessLost, World, joined
from compressor.distill.training import Context, fitting_threads
from compressor.errors import EnvironmentFault, Interrupted, StageFailed
from compressor.interruption import StopRequest, interruptible, stopped
from compressor.methods import load_method, trains_on_pool
from compressor.pipeline.run import TARGET, Run
from compressor.progress import Reporter
from compressor.stages import IN_PROGRESS, Refusal
from compressor.torchrun import EXIT, POLL_S, Ranks, check_gpus, wait_until
from profiles.errors import ToolError
from profiles.schema import DeviceProfile

ORDER = "order"
SEEN_WITHIN_S = 60.0  # that a file written on one machine may take to be seen on another
EXPLAINED_WITHIN_S = 2.0


@dataclass(frozen=True)
class Order:
    """How the student is trained, as the first process has decided it.

    Attributes:
        stage: the fingerprint of the stage: whoever finds it in the run folder has the same inputs before it.
    """

    method: str
    settings: Mapping[str, Any]
    precision: str
    device: str
    stage: str


@contextmanager
def training_together(run: Run, folder: Path, order: Order) -> Iterator[World]:
    """The processes that train, for the first of them; a process alone waits for nobody.

    Raises:
        EnvironmentFault, StageFailed: another process cannot take part, or failed; with what it said.
        ProcessLost: another process is gone.
    """
    ranks = run.ranks
    if ranks.size == 1:
        yield World()
        return
    ranks.store.set(ORDER, json.dumps(asdict(order)))
    _await_the_others(run)
    try:
        with joined(ranks.store, ranks.rank, ranks.size, torch.device(order.device)) as world:
            yield world
    except ProcessLost:
        until = time.monotonic() + EXPLAINED_WITHIN_S
        while time.monotonic() < until:
            _raise_what_others_said(ranks, folder)
            time.sleep(POLL_S)
        raise


def _await_the_others(run: Run) -> None:
    ranks, until = run.ranks, time.monotonic() + LOST_AFTER.total_seconds()
    waiting = [f"ready/{rank}" for rank in range(1, ranks.size)]
    while not ranks.store.check(waiting):
        _raise_what_others_said(ranks, run.path("distill"))
        if run.stop.asked():
            raise stopped("The run was stopped before its training.")
        if time.monotonic() > until:
            missing = [key.rpartition("/")[2] for key in waiting if not ranks.store.check([key])]
            raise ProcessLost(
                f"Process {', '.join(missing)} of {ranks.size} did not come to the training within "
                f"{LOST_AFTER.total_seconds() / 60:.0f} minutes.",
                "All processes of a run train together.",
                "Look whether all of them were started, then run the same command again.",
            )
        time.sleep(POLL_S)


def _raise_what_others_said(ranks: Ranks, folder: Path) -> None:
    """Give the failure of another process as this one's own."""
    for rank in range(1, ranks.size):
        said = ranks.heard(f"failed/{rank}")
        if said is not None:
            failure = json.loads(said)
            if failure["traceback"]:
                (folder / "error.log").write_text(failure["traceback"], encoding="utf-8")
            kind = EnvironmentFault if failure["environment"] else StageFailed
            raise kind(*failure["sentences"])


# --- the other processes ----------------------------------------------------------------------------------------------


def follow(resolved: Resolved, ranks: Ranks) -> int:
    """Take part in the training of a run that another process makes; returns its exit code.

    Raises:
        Interrupted: this process was stopped, or the first one is gone.
    """
    with interruptible(quiet=True) as stop:
        try:
            told = wait_until(lambda: ranks.heard(ORDER) or ranks.heard(EXIT))
            if ranks.heard(ORDER) is not None:
                _take_part(resolved, ranks, stop, Order(**json.loads(told)))
                told = wait_until(lambda: ranks.heard(EXIT))
        except RuntimeError as error:
            raise stopped("The first process of this run is gone.") from error
    return int(told)


def _take_part(resolved: Resolved, ranks: Ranks, stop: StopRequest, order: Order) -> None:
    """Train as the first process does. What ends it is said to that one, which knows what to do about it."""
    with stop.between_steps(), _said_to_the_first(ranks):
        folder = resolved.config.out / "distill"
        _await_folder(folder, ranks, order)
        check_gpus(ranks.local_size, order.device)
        # Not `prepare`: the user's own files need not be on this machine.
        target = DeviceProfile.model_validate_json((resolved.config.out / TARGET).read_text(encoding="utf-8"))
        run = Run(resolved.config, target, order.device, Reporter(quiet=True), stop, ranks)
        if order.device == "cuda":
            torch.cuda.set_device(ranks.local_rank)
        teacher, backbone, method = run.teacher(), run.backbone(), load_method(order.method)
        images, _ = run.training_images(with_pool=trains_on_pool(order.method))
        ranks.store.set(f"ready/{ranks.rank}", "")
        with (
            joined(ranks.store, ranks.rank, ranks.size, torch.device(order.device)) as world,
            _said_to_the_first(ranks),
        ):
            context = Context(
                folder,
                device=order.device,
                seed=run.config.seed,
                precision=order.precision,
                should_stop=stop.asked,
                world=world,
            )
            with fitting_threads(min(teacher.card.input_shape[1:]), order.precision):
                method.distill(teacher, backbone, images, method.Config(**order.settings), context)


@contextmanager
def _said_to_the_first(ranks: Ranks) -> Iterator[None]:
    """Nothing is raised to this process, which is only told how the run ends."""
    try:
        yield
    except Interrupted:
        return  # the first process was stopped as well, or is gone
    except (ToolError, Refusal) as error:
        environment, trace = isinstance(error, EnvironmentFault), ""
        sentences = [error.received, error.expected, error.action]
    except Exception as error:
        environment, trace = False, traceback.format_exc()
        said = " ".join(str(error).split()).rstrip(".")
        sentences = [
            f"Process {ranks.rank} of {ranks.size} failed in the training: {type(error).__name__}: {said}.",
            "Its traceback is in distill/error.log.",
            "Finished stages are kept. If it does not tell what to change, report it with `compress doctor`.",
        ]
    else:
        return
    failure = {"environment": environment, "sentences": sentences, "traceback": trace}
    ranks.store.set(f"failed/{ranks.rank}", json.dumps(failure))


def _await_folder(folder: Path, ranks: Ranks, order: Order) -> None:
    until = time.monotonic() + SEEN_WITHIN_S
    while _stage_in_progress(folder) != order.stage:
        if time.monotonic() > until:
            raise EnvironmentFault(
                f"Process {ranks.rank} of {ranks.size}, on {socket.gethostname()}, does not see the run in {folder}.",
                "Every process reads the teacher, the samples and the student from the run folder.",
                "Put --out on a file system that all machines see under the same path.",
            )
        time.sleep(POLL_S)


def _stage_in_progress(folder: Path) -> str | None:
    try:
        fingerprint: str = json.loads((folder / IN_PROGRESS).read_bytes())["fingerprint"]
    except (OSError, ValueError, KeyError):
        return None
    return fingerprint


def order_of(folder: Path, *, method: str, settings: Mapping[str, Any], precision: str, device: str) -> Order:
    """The order for the stage that is going on in this folder."""
    return Order(method, settings, precision, device, str(_stage_in_progress(folder)))
