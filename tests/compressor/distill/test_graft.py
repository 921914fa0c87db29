"""Blocks, and a student's blocks inside its teacher."""

from __future__ import annotations

import pytest
import tiny
import torch
from torch import Tensor, nn

from compressor.distill.graft import Grafts, adaptor, logit_direction, matching_blocks, split_blocks
from compressor.errors import InputRefused
from compressor.students.architectures import ARCHITECTURES, build_network, split_backbone


def body_of(name: str, width: float = 1.0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return split_backbone(build_network(name, 4, 3, width), name)


def fractions(count: int = 12) -> Tensor:
    return tiny.images(count).float() / 255.0


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "side", "num_blocks"),
    [
        ("cifar_resnet8", 8, 3),
        ("cifar_resnet10", 32, 4),
        ("resnet18", 32, 5),
        ("mobilenet_v2", 32, 5),
        ("cifar_wrn16_2", 16, 3),
        ("cifar_mobilenet_v2", 16, 4),
        ("lenet5", 32, 3),
    ],
)
def test_blocks_in_a_row_are_the_body(name: str, side: int, num_blocks: int) -> None:
    body = body_of(name, 0.125).eval()
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    blocks = split_blocks(body, x[:1])
    assert len(blocks) == num_blocks
    y = x
    for block in blocks:
        y = block(y)
        assert any(True for _ in block.parameters())
    assert torch.equal(y, body(x))


def test_splitting_leaves_modes_and_statistics_alone() -> None:
    body = body_of("cifar_resnet8")
    body.layers.eval()  # as of a teacher's layers in a sequence of ours
    modes, before = [module.training for module in body.modules()], tiny.snapshot(body)
    split_blocks(body, fractions(1))
    assert [module.training for module in body.modules()] == modes
    assert tiny.equal(tiny.snapshot(body), before)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if name.startswith("cifar_resnet1")])
def test_a_narrower_student_of_one_architecture_corresponds(name: str) -> None:
    teacher = tiny.teacher(name)
    theirs, ours = matching_blocks(teacher, tiny.backbone(name))
    assert len(theirs) == len(ours)


def test_a_student_of_another_layout_is_refused() -> None:
    with pytest.raises(InputRefused) as refused:
        matching_blocks(tiny.teacher(), tiny.backbone("cifar_resnet14"))
    assert refused.value.received == (
        "The student (cifar_resnet14) has 8 layers in 3 blocks, the teacher (cifar_resnet8) 5 layers in 3 blocks, and "
        "their layers do not correspond."
    )
    assert "--student prune:0.4" in refused.value.action


def test_a_layer_without_parameters_changes_no_layout() -> None:
    theirs, ours = matching_blocks(tiny.teacher(), tiny.backbone_with_dropout())
    assert len(theirs) == len(ours) == 3


# --- grafts -----------------------------------------------------------------------------------------------------------


def grafts_of(width: float = 0.5) -> tuple[Grafts, object]:
    teacher = tiny.teacher()
    return Grafts(teacher, tiny.backbone(width=width), fractions()), teacher


def test_the_teacher_is_no_part_of_what_is_trained_or_saved() -> None:
    teacher = tiny.teacher()
    before = tiny.snapshot(teacher)
    grafts = Grafts(teacher, tiny.backbone(), fractions()).train()
    theirs = {id(tensor) for tensor in (*teacher.parameters(), *teacher.buffers())}
    assert not any(id(tensor) in theirs for tensor in (*grafts.parameters(), *grafts.buffers()))
    grafts(fractions(), 0, 2).sum().backward()
    assert tiny.equal(tiny.snapshot(teacher), before)
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_copy_of_the_teacher_grafts_onto_it_without_a_trace() -> None:
    """Least squares find the identity, wherever the copy stands."""
    teacher = tiny.teacher()
    copy = tiny.backbone(width=1.0)
    copy.load_state_dict(split_backbone(teacher.network, tiny.ARCHITECTURE).state_dict())
    grafts = Grafts(teacher, copy.eval(), fractions()).eval()
    expected = teacher(fractions()).logits
    for first in range(3):
        for last in range(first, 3):
            found = grafts(fractions(), first, last)
            assert torch.allclose(found, expected, atol=0.05 * expected.std().item()), (first, last)


def test_an_adaptor_is_the_affine_map_between_two_maps() -> None:
    random = torch.Generator().manual_seed(0)
    source = torch.randn(4, 3, 5, 5, generator=random)
    weight, bias = torch.randn(2, 3, generator=random), torch.tensor([0.5, -2.0])
    target = torch.einsum("dc,nchw->ndhw", weight, source) + bias[:, None, None]
    found = adaptor(source, target)
    assert torch.allclose(found(source), target, atol=0.02)
    assert torch.allclose(found.weight[:, :, 0, 0], weight, atol=0.02)


def test_channels_that_say_nothing_do_not_break_an_adaptor() -> None:
    source = torch.cat([torch.zeros(2, 3, 4, 4), torch.rand(2, 1, 4, 4)], dim=1)
    found = adaptor(source, torch.rand(2, 5, 4, 4))
    assert all(parameter.isfinite().all() for parameter in found.parameters())


@pytest.mark.parametrize(("first", "last", "entry"), [(0, 0, None), (1, 1, 1), (0, 2, None), (1, 2, 1)])
def test_only_what_is_in_place_is_trained(first: int, last: int, entry: int | None) -> None:
    grafts, _ = grafts_of()
    grafts(fractions(), first, last).square().sum().backward()

    def trained(module: nn.Module) -> bool:
        return any(parameter.grad is not None for parameter in module.parameters())

    assert [index for index, block in enumerate(grafts.blocks) if trained(block)] == list(range(first, last + 1))
    assert [index for index, each in enumerate(grafts.entries) if trained(each)] == ([] if entry is None else [entry])
    assert [index for index, each in enumerate(grafts.exits) if trained(each)] == [last]


def test_the_student_on_its_own_says_what_the_grafted_one_said() -> None:
    teacher, backbone = tiny.teacher(), tiny.backbone()
    grafts = Grafts(teacher, backbone, fractions()).eval()
    student = grafts.student(teacher, backbone).eval()
    assert isinstance(student.projector, nn.Identity)
    assert not any("exits" in name or "entries" in name for name in student.state_dict())
    assert torch.allclose(student(fractions()), grafts(fractions(), 0, 2), atol=1e-5)


def test_adaptors_learn_faster_than_blocks() -> None:
    grafts, _ = grafts_of()
    blocks, adaptors = grafts.parameter_groups(0.01, 10.0)
    assert (blocks["lr"], adaptors["lr"]) == (0.01, pytest.approx(0.1))
    total = sum(len(list(group["params"])) for group in (blocks, adaptors))  # type: ignore[call-overload]
    assert total == len(list(grafts.parameters()))


def test_the_direction_of_logits_by_hand() -> None:
    # (3, 4) and (4, 3) at length one differ by (0.2, 0.2); (0, 2) and (0, 5) do not differ.
    grafted, teacher = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[8.0, 6.0], [0.0, 5.0]])
    assert logit_direction(grafted, teacher).item() == pytest.approx(0.08 / 2)
