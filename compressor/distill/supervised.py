"""Ordinary supervised training of a classifier, for the demo's teacher and the benchmarks' upper anchors."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.distill.augment import student_augmentation
from compressor.distill.training import Context, Stateful, cosine_schedule, parameter_groups


def train_classifier(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    context: Context,
    *,
    num_steps: int,
    batch_size: int = 128,
    lr: float = 0.1,
    weight_decay: float = 5e-4,
    flip: bool = False,
    augment: bool = True,
    phase: str = "teacher",
) -> nn.Module:
    """Cross-entropy on images (N, C, H, W) uint8 and labels (N,); `network` takes [0, 1] images. Trained in place.

    Args:
        augment: shift the images, and with `flip` mirror some; off: as they are.
    """
    network = network.to(context.device).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.SGD(parameter_groups(network, weight_decay), lr=lr, momentum=0.9, nesterov=True)
    schedule = cosine_schedule(optimiser, num_steps, warmup=num_steps // 20)

    def loss_of(batch: Tensor, classes: Tensor) -> Tensor:
        with context.autocast():
            logits = network(batch)
        loss = F.cross_entropy(logits.float(), classes)
        context.log({"cross_entropy": loss})
        return loss

    state: dict[str, Stateful] = {"network": network, "optimiser": optimiser, "schedule": schedule}
    for _ in context.steps(phase, num_steps, state):
        rows = torch.randint(len(images), (batch_size,), generator=context.random, device=context.device)
        batch = images[rows].float() / 255.0
        if augment:
            batch = student_augmentation(batch, context.random, flip=flip)

        optimiser.zero_grad(set_to_none=True)
        context.backward(loss_of, batch, labels[rows])
        optimiser.step()
        schedule.step()

    return network.eval()
