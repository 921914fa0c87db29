from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from exporters.macs import count_macs, count_params, look_at_layers


def test_the_formulas(classifier: nn.Module) -> None:
    # Conv 3 -> 8, 3x3, 64 positions; linear 8 -> 5. Batch norm's statistics are no parameters.
    assert count_macs(classifier, (3, 8, 8)) == 64 * 8 * 3 * 9 + 8 * 5
    assert count_params(classifier) == 8 * 3 * 9 + 2 * 8 + 8 * 5 + 5


def test_stride_groups_and_rectangles() -> None:
    depthwise = nn.Conv2d(6, 12, (3, 5), stride=2, padding=(1, 2), groups=6)
    assert count_macs(depthwise, (6, 8, 10)) == (4 * 5) * 12 * 1 * 15


def test_a_layer_that_runs_twice_counts_twice_and_is_one_layer() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used = nn.Linear(4, 4, bias=False)
            self.same = self.used
            self.unused = nn.Linear(4, 4, bias=False)

        def forward(self, images: Tensor) -> Tensor:
            return self.used(self.same(images.mean(dim=1)))  # type: ignore[no-any-return]

    # Linear on (1, 3, 4): three rows.
    assert count_macs(Twice(), (2, 3, 4)) == 2 * 3 * 4 * 4
    assert count_params(Twice()) == 32


def test_counting_leaves_the_model_as_it_was(classifier: nn.Module) -> None:
    modes = [module.training for module in classifier.modules()]
    before = {name: tensor.clone() for name, tensor in classifier.state_dict().items()}
    count_macs(classifier, (3, 8, 8))
    assert [module.training for module in classifier.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in classifier.state_dict().items())
    assert not any(module._forward_hooks for module in classifier.modules())


def test_layers_are_looked_at_as_they_run_and_let_go_when_one_fails(classifier: nn.Module) -> None:
    (convolution,) = (module for module in classifier.modules() if isinstance(module, nn.Conv2d))
    seen: list[tuple[int, ...]] = []
    look_at_layers(classifier, (3, 8, 8), [convolution], lambda _, inputs, __: seen.append(inputs[0].shape))
    assert seen == [(1, 3, 8, 8)]
    with pytest.raises(RuntimeError):
        look_at_layers(classifier, (5, 8, 8), [convolution], lambda *_: None)
    assert not convolution._forward_hooks
