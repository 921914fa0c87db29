"""No step of HiDFD waits for the device: nothing in it asks for a value, or for a size that depends on values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.distill.training import Context, Stateful
from compressor.methods import hidfd

# What makes a CUDA stream wait, as the dispatcher calls it; an index by booleans looks for them with nonzero.
WAITING = {"_local_scalar_dense", "nonzero", "bincount", "masked_select", "unique2", "_unique2", "equal", "is_nonzero"}


class Waiting(TorchDispatchMode):
    """Collects the operators inside that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_booleans = name in ("index", "_index_put_impl_", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        if name in WAITING or by_booleans:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


class Watched(Context):
    """Looks at what the loop does between two steps, and at nothing else."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.waiting = Waiting()
        self.watched: list[str] = []

    def steps(self, phase: str, num_steps: int, state: Mapping[str, Stateful]) -> Iterator[int]:
        for step in super().steps(phase, num_steps, state):
            self.watched.append(phase)
            with self.waiting:
                yield step


def run(context: Context, **changes: Any) -> None:
    # One update of the class weights is among the steps.
    config = tiny.settings(hidfd.Config, generator_steps=4, student_steps=3, mirror="on", **changes)
    teacher, images = tiny.teacher(), tiny.training_images()
    device = context.device
    backbone = tiny.backbone().to(device)
    few = images.few.to(device)
    hidfd.distill(teacher.to(device), backbone, type(images)(few, images.pool), config, context)


@pytest.mark.parametrize("changes", [{}, {"logit_weight": 0.1}, {"classifier_sharing": "off"}], ids=str)
def test_no_step_waits_for_the_device(tmp_path: Path, changes: dict[str, Any]) -> None:
    context = Watched(tmp_path)
    run(context, **changes)
    assert context.watched == ["generator"] * 4 + ["student"] * 3
    assert context.waiting.found == []


def test_the_watch_sees_what_waits() -> None:
    values = torch.tensor([1, 0, 2])
    with Waiting() as waiting:
        float(values[0])
        values[values > 0]
        torch.bincount(values)
        values[torch.tensor([0])] = 1  # by numbers: does not wait
    assert waiting.found == ["_local_scalar_dense", "index", "bincount"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_no_step_waits_for_a_gpu(tmp_path: Path) -> None:
    class Strict(Context):
        def steps(self, phase: str, num_steps: int, state: Mapping[str, Stateful]) -> Iterator[int]:
            for step in super().steps(phase, num_steps, state):
                torch.cuda.set_sync_debug_mode("error" if step > 0 else "default")  # the first step sets things up
                yield step
                torch.cuda.set_sync_debug_mode("default")

    run(Strict(tmp_path, device="cuda"))
