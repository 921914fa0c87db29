"""A torch.export program takes any number of images, computes what its module does, and names no path of ours."""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from exporters.errors import ExportError
from exporters.torch_to_pt2 import pt2_from_torch

SHAPE = (3, 8, 8)


def test_any_batch_and_the_same_logits(classifier: nn.Module, tmp_path: Path) -> None:
    modes = [module.training for module in classifier.modules()]
    pt2_from_torch(classifier, SHAPE, tmp_path / "s.pt2")
    assert [module.training for module in classifier.modules()] == modes
    program = torch.export.load(tmp_path / "s.pt2").module()
    reference = copy.deepcopy(classifier).eval()
    for count in (1, 2, 7):
        images = torch.rand(count, *SHAPE)
        with torch.no_grad():
            torch.testing.assert_close(program(images), reference(images))


def test_no_path_of_this_machine_is_inside(classifier: nn.Module, tmp_path: Path) -> None:
    pt2_from_torch(classifier, SHAPE, tmp_path / "s.pt2")
    with zipfile.ZipFile(tmp_path / "s.pt2") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert str(Path(torch.__file__).parent).encode() not in content
    assert str(Path(__file__).parent).encode() not in content


class Branching(nn.Module):
    """Python decides by a value."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))


def test_a_branch_on_a_value_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExportError) as refusal:
        pt2_from_torch(Branching(), SHAPE, tmp_path / "s.pt2")
    assert refusal.value.received.startswith("torch.export could not export Branching")
    assert refusal.value.action == "Rewrite that part with tensor operations, or choose another architecture."
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
