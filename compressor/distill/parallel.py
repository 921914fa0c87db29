"""Data-parallel training on torch.distributed: what the processes of one training tell each other.

Every process makes the same steps with the same weights. It draws the whole batch, as one process alone would, from a
random state that all have in common; it computes what its own rows add to the gradient; and all add that up before
anyone's optimiser moves. `Context` does this wherever a loop calls `context.backward`. What else is decided between two
steps (to stop, to save, to go back) is decided by all alike, in messages between the CPUs that no GPU is waited for.

Collectives are called by all processes in the same order, and never inside a loss: a process that runs out of memory in
the middle of it would leave the others waiting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import Store

from compressor.errors import Interrupted

LOST_AFTER = timedelta(minutes=10)  # without an answer; a process that dies is noticed at once
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class ProcessLost(Interrupted):
    """Another process of the training is gone, or does not answer."""


class World:
    """The processes of one training. One process alone, the default, is told what it says itself and pays nothing.

    Attributes:
        rank: which of them this is; rank 0 writes checkpoints and logs.
        size: how many there are.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """For each flag whether any process has it up."""
        if self.size == 1:
            return flags
        counts = torch.tensor(flags, dtype=torch.int32)
        with self._answered():
            dist.all_reduce(counts, op=dist.ReduceOp.MAX)
        return tuple(bool(count) for count in counts.tolist())

    def first_not_none(self, text: str | None) -> str | None:
        """The text of the first process that has one; None: nobody has."""
        if self.size == 1:
            return text
        having = torch.tensor(self.size if text is None else self.rank)
        with self._answered():
            dist.all_reduce(having, op=dist.ReduceOp.MIN)
        source = int(having)
        return None if source == self.size else self.send((text or "").encode(), source).decode()

    def send(self, data: bytes, source: int = 0) -> bytes:
        """What the process `source` has, for all; what the others pass does not count."""
        if self.size == 1:
            return data
        length = torch.tensor(len(data))
        with self._answered():
            dist.broadcast(length, source)
            buffer = torch.empty(int(length), dtype=torch.uint8)
            if self.rank == source:
                buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
            dist.broadcast(buffer, source)
        return buffer.numpy().tobytes()

    def add_up(self, flat: Tensor) -> None:
        """In place, the sum over all processes."""
        if self.size > 1:
            with self._answered():
                dist.all_reduce(flat)

    def take_over(self, tensors: Sequence[Tensor]) -> None:
        """In place, what the first process has in them."""
        if self.size == 1:
            return
        for tensor in tensors:
            flat = tensor.detach().contiguous()
            with self._answered():
                dist.broadcast(flat, 0)
            tensor.detach().copy_(flat)

    def alike(self, tensors: Sequence[Tensor]) -> bool:
        """Whether all processes hold the same bits in these, by a checksum."""
        if self.size == 1:
            return True
        own = checksum(tensors)
        ends = torch.tensor([own, -own])
        with self._answered():
            dist.all_reduce(ends, op=dist.ReduceOp.MAX)
        return int(ends[0]) == -int(ends[1])

    @contextmanager
    def _answered(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            minutes = LOST_AFTER.total_seconds() / 60
            raise ProcessLost(
                f"One of the {self.size} processes of this training is gone, or did not answer for {minutes:.0f} "
                "minutes.",
                "All have to live until the training ends; what is saved last is kept.",
                "Run the same command again to go on from there, with as many processes as you like; if it happens "
                "again, look whether the system ended one for want of memory.",
            ) from error


@contextmanager
def joined(store: Store, rank: int, size: int, device: torch.device) -> Iterator[World]:
    """The processes that meet at a store, for as long as they train together.

    Args:
        device: of the tensors that are trained; on "cuda" they travel by NCCL, everything else by gloo.

    Raises:
        ProcessLost: not all of them came.
    """
    if size == 1:
        yield World()
        return
    world = World(rank, size)
    with world._answered():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=LOST_AFTER,
        )
    try:
        yield world
    finally:
        with suppress(RuntimeError):  # whoever is still waiting for this process learns from it that it has left
            dist.destroy_process_group()


def flattened(tensors: Sequence[Tensor]) -> Tensor:
    """All elements in one vector, so that one message carries them."""
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


@torch.no_grad()
def unflatten(flat: Tensor, tensors: Sequence[Tensor]) -> None:
    """What `flattened` took, back into its places."""
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        # Past autograd: the graph of a generator's batch norms outlives the first half of a step, and reads none of it.
        tensor.data.copy_(part.view(tensor.shape))


def checksum(tensors: Sequence[Tensor]) -> int:
    """A number (48 bits) that follows from every bit of them; the same bits give the same number."""
    total = 0
    for tensor in tensors:
        bits = tensor.detach().contiguous().view(-1).view(_BITS[tensor.element_size()])
        total = (total * 31 + int(bits.sum(dtype=torch.int64))) % 2**48
    return total
