"""The images that a method trains on, and where they live while it does.

Small sets are copied to the device once. Of sets that would take more than a quarter of its free memory only batches
are: they are gathered from the files of the run folder, which the system reads and forgets as it sees fit. The bytes of
a batch are the same, and so is the student.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from compressor.inputs.pixels import CHUNK, Images, StoredImages
from compressor.process_memory import forget_peak, free_bytes, peak_resident_mib
from compressor.report import text

RESIDENT_SHARE = 0.25  # of the free memory; networks, activations and other programs need the rest


@dataclass(frozen=True)
class TrainingImages:
    """The images that a method may train on; either part may be empty.

    Attributes:
        few: (N, C, H, W) uint8, images of the task; indexing gives batches on the device.
        pool: (M, C, H, W) uint8, maybe on the CPU, unlabelled images whose relation to the task is unknown.
        together: (N + M, C, H, W), the few first, where that is no copy.
    """

    few: Images
    pool: Images
    together: Images | None = None

    @property
    def everything(self) -> Images:
        """(N + M, C, H, W), the few first, where the pool is."""
        if self.together is not None:
            return self.together
        return torch.cat([self.few[:].to(self.pool.device), self.pool[:]]) if len(self.few) else self.pool


@dataclass(frozen=True)
class Placement:
    """Where the images of a training are.

    Attributes:
        held: on the GPU, in the memory of this host, or in files.
        num_bytes: of all images that are trained on.
        sentence: how it came to be so, for the user.
    """

    held: Literal["device", "memory", "file"]
    num_bytes: int
    sentence: str


def place(
    few: StoredImages, pool: StoredImages, device: torch.device, *, with_pool: bool, num_processes: int = 1
) -> tuple[TrainingImages, Placement]:
    """Bring the images to the device, or leave them where they are if they are too large for it.

    Args:
        with_pool: whether the pool is trained on; one that is not stays where it is.
        num_processes: that train on this host, each with a copy of its own; each has its own GPU, if any.
    """
    few, pool = few.to(device), pool.to(device)
    trained_on = few + pool if with_pool else few
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else free_bytes() // num_processes
    where = "GPU" if device.type == "cuda" else "host"
    images = f"the images that are trained on take {text.size(trained_on.nbytes / 2**20)}"
    limit = f"{RESIDENT_SHARE:.0%} of the {text.size(free / 2**20)} that are free on the {where}"
    if trained_on.nbytes > RESIDENT_SHARE * free:
        sentence = f"{images}, more than {limit}: they stay in the run folder and are read batch by batch"
        return TrainingImages(few, pool, few + pool), Placement("file", trained_on.nbytes, sentence)
    copied = torch.empty(trained_on.shape, dtype=torch.uint8, device=device)
    for part, batch in zip(copied.split(CHUNK), trained_on.split(CHUNK), strict=True):
        part.copy_(batch)
    placed = TrainingImages(copied, pool)
    if with_pool:
        placed = TrainingImages(copied[: len(few)], copied[len(few) :], copied)
    sentence = f"{images}, at most {limit}: they are copied there once"
    return placed, Placement("device" if device.type == "cuda" else "memory", trained_on.nbytes, sentence)


def forget_peaks(device: torch.device) -> None:
    """Let the peaks that `memory_facts` reports begin here."""
    forget_peak()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_facts(placement: Placement, device: torch.device) -> dict[str, Any]:
    """`TrainingMemory` of the report: what this process has needed since `forget_peaks`."""
    on_gpu = device.type == "cuda"
    return {
        "host_peak_mib": peak_resident_mib(),
        "device_peak_mib": torch.cuda.max_memory_allocated(device) / 2**20 if on_gpu else None,
        "images_mib": placement.num_bytes / 2**20,
        "images_held": placement.held,
    }
