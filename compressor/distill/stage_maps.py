"""The maps inside two networks, stage by stage, where both have the same resolution.

The last feature map says where a student should end, and little of how to get there. Hints from the stages before it
(FitNets, Romero et al. 2015, arXiv 1412.6550) let every part of the student learn at once; the 1x1 convolutions that
bring its channels to the teacher's are for training only and do not ship.

B batch, C student channels, D teacher channels, (h, w) positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from compressor.inputs.teacher import Teacher
from compressor.students.student import Student

MOST_STAGES = 3  # the last ones before the final map; earlier maps are large and say little


@contextmanager
def recorded_maps(stages: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collect what `stages` put out in the forward inside, in the order in which they run."""
    found: list[Tensor] = []
    handles = [stage.register_forward_hook(lambda _stage, _inputs, output: found.append(output)) for stage in stages]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


class StagePairs(nn.Module):
    """The stages of a student and of its teacher whose maps have one size, and the student's adaptors.

    Attributes:
        student_stages, teacher_stages: modules of the two networks, pair by pair; neither is a part of this one.
        adaptors: a 1x1 convolution and a batch norm for each pair, (B, C, h, w) to (B, D, h, w).
        scales: (pairs,), the variances of the teacher's maps, by which the loss is divided.
    """

    scales: Tensor
    student_stages: Sequence[nn.Module]
    teacher_stages: Sequence[nn.Module]

    def __init__(self, student: Student, teacher: Teacher, images: Tensor) -> None:
        """Look at images (B, C, H, W) in [0, 1]: one forward of either network; the student's statistics stay."""
        super().__init__()
        was_training = student.training
        with torch.no_grad(), last_of_each_size(student.backbone) as ours, last_of_each_size(teacher.network) as theirs:
            student.eval().feature_map(images)
            student.train(was_training)
            height, width = teacher(images).feature_map.shape[2:]
        # Sizes in the order in which the teacher passes them; its last map is what feature alignment is about.
        shared = [size for size in theirs if size in ours and size[0] > height and size[1] > width][-MOST_STAGES:]
        object.__setattr__(self, "student_stages", [ours[size][0] for size in shared])
        object.__setattr__(self, "teacher_stages", [theirs[size][0] for size in shared])
        maps = [(ours[size][1], theirs[size][1].float()) for size in shared]
        self.adaptors = nn.ModuleList(_adaptor(own.shape[1], other.shape[1]) for own, other in maps)
        scales = torch.tensor([max(float(other.var()), 1e-6) for _, other in maps], device=images.device)
        self.register_buffer("scales", scales)

    def forward(self, student_maps: Sequence[Tensor]) -> list[Tensor]:
        """The student's maps in the teacher's channels."""
        return [adaptor(found) for adaptor, found in zip(self.adaptors, student_maps, strict=True)]


@contextmanager
def last_of_each_size(network: nn.Module) -> Iterator[dict[tuple[int, int], tuple[nn.Module, Tensor]]]:
    """Of the forward inside, by (h, w) the last part that put out a map of that size, and the map.

    Parts are the network's own and, of plain sequences among them, theirs: stages and blocks, not what is in a block.
    One without parameters, such as a border or a pool, is none.
    """
    found: dict[tuple[int, int], tuple[nn.Module, Tensor]] = {}

    def remember(part: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            found[int(output.shape[2]), int(output.shape[3])] = part, output

    handles = [part.register_forward_hook(remember) for part in _parts(network)]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _parts(network: nn.Module) -> Iterator[nn.Module]:
    for child in network.children():
        if next(child.parameters(), None) is None:
            continue
        yield child
        if isinstance(child, nn.Sequential):
            yield from _parts(child)


def _adaptor(channels: int, teacher_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, teacher_channels, 1, bias=False), nn.BatchNorm2d(teacher_channels))
