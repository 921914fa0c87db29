"""A pool of images that a generator made, kept as bytes on the device, and part of the loop's state."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class SyntheticPool:
    """The last `capacity` images, as uint8: capacity * C * H * W bytes at most, on the device and in a checkpoint.

    Attributes:
        num_added: images that were ever added.
    """

    def __init__(self, capacity: int, image_shape: tuple[int, int, int], device: torch.device) -> None:
        self.images = torch.zeros(capacity, *image_shape, dtype=torch.uint8, device=device)
        self.num_added = 0

    def __len__(self) -> int:
        return min(self.num_added, len(self.images))

    def add(self, images: Tensor) -> None:
        """Images (B, C, H, W) in [0, 1], over the oldest ones where there is no more room."""
        images = images.detach()[-len(self.images) :]
        rows = torch.arange(self.num_added, self.num_added + len(images), device=images.device) % len(self.images)
        self.images[rows] = (images * 255.0).round().clamp(0, 255).to(torch.uint8)
        self.num_added += len(images)

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        """Images (count, C, H, W) in [0, 1] at random, with replacement."""
        rows = torch.randint(len(self), (count,), generator=random, device=random.device)
        return self.images[rows].float() / 255.0

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images[: len(self)], "num_added": self.num_added}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.images[: len(state["images"])] = state["images"].to(self.images.device)
        self.num_added = state["num_added"]
