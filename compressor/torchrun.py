"""One run in several processes: what torchrun says of them, and `--nproc`, which has torchrun start them.

The first process makes the run. The others take part in its training, and are told its exit code when it is over
(pipeline/together.py). Nothing here imports torch before a process needs to hear from another.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import TYPE_CHECKING

from compressor.doctor import training_device
from compressor.errors import EXIT_INTERRUPTED, EXIT_OK, EnvironmentFault, Interrupted, UsageFault
from profiles.host import usable_cores

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

STARTED_BY_NPROC = "COMPRESS_NPROC"  # how many processes `--nproc` has started; torchrun itself does not set it
EXIT = "exit"
POLL_S = 0.1
LEAVING_S = 5.0  # that the first process waits at its end for the others to hear of it


@dataclass(frozen=True)
class Ranks:
    """Which process of how many this is, in all and on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @cached_property
    def store(self) -> Store:
        """Where the processes leave each other words; torchrun keeps it.

        Raises:
            EnvironmentFault: it is not there.
        """
        from torch.distributed.distributed_c10d import PrefixStore
        from torch.distributed.rendezvous import rendezvous

        try:
            store, _, _ = next(rendezvous("env://", self.rank, self.size))
        except (RuntimeError, ValueError) as error:
            raise EnvironmentFault(
                f"Process {self.rank} of {self.size} cannot reach the others: {_brief(error)}.",
                "torchrun gives all its processes the address of a place where they meet.",
                "Start the run with torchrun or with --nproc, and on several machines with --rdzv-endpoint.",
            ) from error
        return PrefixStore("compress", store)

    def heard(self, key: str) -> str | None:
        """A word that some process has left; None: not yet."""
        return self.store.get(key).decode() if self.store.check([key]) else None

    def leave(self, code: int) -> None:
        """At the end: the first process tells the others the exit code, and they that they have heard it."""
        if self.size == 1 or (self.rank > 0 and "store" not in self.__dict__):
            return
        try:
            self.store.set(EXIT if self.rank == 0 else f"left/{self.rank}", str(code))
            until = time.monotonic() + LEAVING_S
            others = [f"left/{rank}" for rank in range(1, self.size)] if self.rank == 0 else []
            while code != EXIT_INTERRUPTED and time.monotonic() < until and not self.store.check(others or [EXIT]):
                time.sleep(POLL_S)
        except (RuntimeError, EnvironmentFault):
            return  # nobody is left to tell


ALONE = Ranks()


@cache
def this_process() -> Ranks:
    """What torchrun says of this process; without torchrun it is alone."""
    given = [os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")]
    if not all(given):
        return ALONE
    rank, size = int(given[0]), int(given[1])
    return Ranks(rank, size, int(os.environ.get("LOCAL_RANK", rank)), int(os.environ.get("LOCAL_WORLD_SIZE", size)))


def starts_processes(nproc: int | None) -> bool:
    """Whether `--nproc` asks this process for others; not those that it has started.

    Raises:
        UsageFault: torchrun has started processes already.
    """
    ranks = this_process()
    if nproc is None or ranks.size == 1 or os.environ.get(STARTED_BY_NPROC) == str(ranks.size):
        return nproc is not None and nproc > 1 and ranks.size == 1
    raise UsageFault(
        f"--nproc {nproc} was given to one of {ranks.size} processes that torchrun has started.",
        "Either torchrun starts the processes or --nproc does.",
        "Leave --nproc out, or call compress without torchrun.",
    )


def check_gpus(num_processes: int, device: str) -> None:
    """Refuse more processes on this machine than it has GPUs.

    Args:
        device: "cpu" or "cuda".
    """
    if device != "cuda":
        return
    import torch

    if num_processes > (gpus := torch.cuda.device_count()):
        raise EnvironmentFault(
            f"{num_processes} processes are to train on this machine, which has {gpus} GPU{'s' if gpus > 1 else ''}.",
            "Every process needs a GPU of its own.",
            f"Start at most {gpus}, or use --device cpu.",
        )


def start(words: Sequence[str], nproc: int, device: str) -> int:
    """Run `compress` with these words in several processes of this machine; returns the exit code of the first.

    Args:
        device: "auto", "cpu" or "cuda", as the user gave it.

    Raises:
        EnvironmentFault: there are not as many GPUs.
        Interrupted: the first process was killed.
    """
    import logging

    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch
    from torch.distributed.run import config_from_args, parse_args

    check_gpus(nproc, training_device(device))
    os.environ[STARTED_BY_NPROC] = str(nproc)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, usable_cores() // nproc)))
    here = ("--nproc-per-node", str(nproc), "--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0")
    logging.disable()  # what torchrun says of a process that ends with a code of ours
    try:
        config, python, arguments = config_from_args(parse_args([*here, "-m", "compressor"]))
        elastic_launch(config, python)(*arguments, *words)
    except SignalException:
        return EXIT_INTERRUPTED
    except ChildFailedError as error:
        return _code_of({rank: failure.exitcode for rank, failure in error.failures.items()}, nproc)
    return EXIT_OK


def _code_of(codes: dict[int, int], size: int) -> int:
    """The exit code of a run from those of its processes that ended first; minus a signal's number if killed."""
    killed = [f"process {rank} was ended by {signal.Signals(-code).name}" for rank, code in codes.items() if code < 0]
    if codes.get(0, 0) < 0:
        raise Interrupted(
            f"Of the {size} processes of this run, {' and '.join(killed)}.",
            "Finished stages, and the training up to its last saved step, are kept.",
            "Run the same command again to go on from there; if it happens again, look whether memory ran out.",
        )
    for line in killed:
        sys.stderr.write(f"{line}\n")
    return next((code for _, code in sorted(codes.items()) if code > 0), EXIT_INTERRUPTED)


def wait_until(found: Callable[[], str | None]) -> str:
    """Ask again and again, so that a signal is heard between two times."""
    while (word := found()) is None:
        time.sleep(POLL_S)
    return word


def _brief(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
