"""A student's blocks inside its teacher, between linear adaptors (NetGraft, Shen et al., AAAI 2021, arXiv 2012.04915).

    teacher block 1 | entry | student block 2 | exit | teacher block 3 | pool | classifier

A block is a run of layers at one resolution, which is what the paper replaces of a VGG, and which every feed-forward
body has. D channels of the teacher's map behind a block, d of the student's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.errors import InputRefused
from compressor.inputs.teacher import Teacher
from compressor.students.architectures import split_backbone
from compressor.students.student import Backbone, Student, own_classifier

RIDGE = 1e-3  # of the mean variance of a channel, in the least-squares adaptors


def split_blocks(body: nn.Sequential, x: Tensor) -> list[nn.Sequential]:
    """A body as blocks, which share its layers: a new one begins where the resolution changes.

    A block has parameters: layers that have none and lead to another resolution belong to what follows.

    Args:
        x: an input (1, C, H, W) to find the resolutions with; modes and buffers stay as they are.
    """
    modes = [(module, module.training) for module in body.modules()]
    body.eval()
    groups: list[OrderedDict[str, nn.Module]] = [OrderedDict()]
    with torch.no_grad():
        for name, layer in _layers(body):
            before, x = x.shape[-2:], layer(x)
            if x.shape[-2:] != before and any(_has_parameters(member) for member in groups[-1].values()):
                groups.append(OrderedDict())
            groups[-1][name.replace(".", "_")] = layer
    if not any(_has_parameters(member) for member in groups[-1].values()):
        last = groups.pop()
        groups[-1].update(last)
    for module, training in modes:  # one by one: a sequence may be in training around a frozen teacher's layers
        module.training = training
    return [nn.Sequential(group) for group in groups]


def matching_blocks(teacher: Teacher, backbone: Backbone) -> tuple[list[nn.Sequential], list[nn.Sequential]]:
    """The blocks of teacher and student, one for one.

    Raises:
        InputRefused: they are not the same layers in the same blocks (widths may differ), or the teacher's classifier
            reads something else than the last block's map.
    """
    if not teacher.classifies_its_map:
        raise InputRefused(
            f"The teacher ({teacher.card.architecture}) has more than an average between map and classifier.",
            "Grafting puts the student's blocks between the teacher's, down to a classifier of the averaged map.",
            "Use a method that learns from the teacher's answers, such as --method hidfd, vanilla or dfad.",
        )
    device = teacher.classifier.weight.device
    x = torch.zeros(1, *teacher.card.input_shape, device=device)
    theirs = split_blocks(split_backbone(teacher.network, teacher.card.architecture), x)
    ours = split_blocks(backbone, x)
    if _layout(theirs) != _layout(ours):
        raise InputRefused(
            f"The student ({backbone.architecture}) has {_count(ours)}, the teacher ({teacher.card.architecture}) "
            f"{_count(theirs)}, and their layers do not correspond.",
            "Grafting replaces the teacher's blocks by the student's one at a time, so both need the same layout.",
            "Use --student prune:0.4, whose layout is the teacher's, or another method.",
        )
    return theirs, ours


class Grafts(nn.Module):
    """The student's blocks, each with an entry (D before it -> d) and an exit (d -> D behind it).

    The adaptors start as the least-squares maps between the two networks' own maps on `images` (N, C, H, W) in [0, 1].
    Each block thereby stands in the teacher from the first step on, and speaks its neighbours' language when the
    adaptors between them go.
    """

    def __init__(self, teacher: Teacher, backbone: Backbone, images: Tensor) -> None:
        super().__init__()
        teacher_blocks, student_blocks = matching_blocks(teacher, backbone)
        self.blocks = nn.ModuleList(student_blocks)
        # A tuple hides the teacher from this module's parameters and state: it is not trained.
        self._frozen = (teacher.normalise, teacher_blocks, teacher.classifier)
        x = teacher.normalise(images)
        pairs = list(zip(_maps(teacher_blocks, x), _maps(student_blocks, x), strict=True))
        self.entries = nn.ModuleList([nn.Identity(), *(adaptor(theirs, ours) for theirs, ours in pairs[:-1])])
        self.exits = nn.ModuleList(adaptor(ours, theirs) for theirs, ours in pairs)

    def forward(self, images: Tensor, first: int, last: int) -> Tensor:
        """Logits (B, K) of the teacher whose blocks `first` to `last` are the student's, without adaptors between."""
        normalise, teacher_blocks, classifier = self._frozen
        x = normalise(images)
        for block in teacher_blocks[:first]:
            x = block(x)
        x = self.entries[first](x)
        for index in range(first, last + 1):
            x = self.blocks[index](x)
        x = self.exits[last](x)
        for block in teacher_blocks[last + 1 :]:
            x = block(x)
        logits: Tensor = classifier(x.mean(dim=(2, 3)))
        return logits

    def parameter_groups(self, lr: float, adaptor_factor: float) -> list[dict[str, object]]:
        """Blocks at `lr`, adaptors at a multiple of it."""
        adaptors = [*self.entries.parameters(), *self.exits.parameters()]
        return [
            {"params": list(self.blocks.parameters()), "lr": lr},
            {"params": adaptors, "lr": lr * adaptor_factor},
        ]

    @torch.no_grad()
    def student(self, teacher: Teacher, backbone: Backbone) -> Student:
        """The whole student on its own: the last exit is merged into the classifier, which is exact because pooling and
        both of them are linear; the other adaptors are no longer in its way."""
        student = own_classifier(backbone, teacher).to(teacher.classifier.weight.device)
        last = self.exits[-1]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        weight, bias = teacher.classifier.weight, teacher.classifier.bias
        assert student.classifier.bias is not None
        student.classifier.weight.copy_(weight @ last.weight[:, :, 0, 0])
        student.classifier.bias.copy_(weight @ last.bias + (0.0 if bias is None else bias))
        return student


def logit_direction(grafted_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Squared distance of the two logit vectors at length one, a mean over the batch (the paper's sum over B).

    Args:
        grafted_logits, teacher_logits: (B, K).
    """
    grafted, teacher = F.normalize(grafted_logits.float(), dim=1), F.normalize(teacher_logits.float(), dim=1)
    return (grafted - teacher).square().sum(dim=1).mean()


def _layers(body: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers that run one after the other, however deep they are nested in plain sequences."""
    for name, layer in body.named_children():
        if isinstance(layer, nn.Sequential) and type(layer).forward is nn.Sequential.forward:
            yield from _layers(layer, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", layer


def _has_parameters(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters())


def _layout(blocks: Sequence[nn.Sequential]) -> list[list[tuple[str, str]]]:
    """Names and types of the layers with parameters; a layer without any, such as dropout, changes no layout."""
    return [
        [(name, type(layer).__name__) for name, layer in block.named_children() if _has_parameters(layer)]
        for block in blocks
    ]


def _count(blocks: Sequence[nn.Sequential]) -> str:
    layers = sum(map(len, _layout(blocks)))
    return f"{layers} layers in {len(blocks)} blocks"


@torch.no_grad()
def _maps(blocks: Sequence[nn.Sequential], x: Tensor) -> list[Tensor]:
    """What comes out of every block, (N, D, h, w)."""
    found = []
    for block in blocks:
        x = block(x)
        found.append(x)
    return found


@torch.no_grad()
def adaptor(source: Tensor, target: Tensor) -> nn.Conv2d:
    """The 1x1 convolution that brings a map (N, a, h, w) closest to a map (N, b, h, w)."""
    x, y = (values.float().transpose(0, 1).flatten(1).T for values in (source, target))  # (positions, channels)
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    x, y = x - x_mean, y - y_mean
    covariance = x.T @ x / len(x)
    ridge = RIDGE * covariance.diagonal().mean().clamp_min(1e-6) * torch.eye(len(covariance), device=x.device)
    weight = torch.linalg.solve(covariance + ridge, x.T @ y / len(x)).T
    fitted = nn.Conv2d(x.shape[1], y.shape[1], 1).to(x.device)
    fitted.weight.copy_(weight[:, :, None, None])
    assert fitted.bias is not None
    fitted.bias.copy_(y_mean - weight @ x_mean)
    return fitted
