"""Running means that start at the first observation, and the evenness of a histogram."""

from __future__ import annotations

import pytest
import torch

from compressor.distill.monitor import OutputMonitor, class_evenness


def monitor(num_classes: int = 4) -> OutputMonitor:
    return OutputMonitor(num_classes, torch.device("cpu"))


def test_the_first_observation_counts_whole() -> None:
    watch = monitor()
    watch.observe(torch.tensor([[3.0, -1.0, 0.0, 0.0], [0.0, 4.0, 0.0, 0.0]]))
    assert watch.mean_magnitude() == pytest.approx(1.0)
    assert watch.class_evenness() == pytest.approx(0.5)  # two classes of four: log 2 / log 4


def test_the_mean_follows_the_last_hundred() -> None:
    watch = monitor(2)
    for scale in [100.0] * 50 + [1.0] * 1000:
        watch.observe(scale * torch.tensor([[1.0, -1.0]]))
    assert watch.mean_magnitude() == pytest.approx(1.0, abs=0.01)
    assert watch.class_evenness() == pytest.approx(0.0, abs=1e-6)


def test_pixels_are_counted_as_predictions() -> None:
    watch = monitor(2)
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1, 0] = 1.0  # one row of two is of class 1
    watch.observe(logits)
    assert watch.class_evenness() == pytest.approx(1.0)


def test_what_was_saved_goes_on() -> None:
    whole, first, second = monitor(), monitor(), monitor()
    batches = torch.randn(6, 5, 4, generator=torch.Generator().manual_seed(0))
    for batch in batches:
        whole.observe(batch)
    for batch in batches[:3]:
        first.observe(batch)
    second.load_state_dict(first.state_dict())
    for batch in batches[3:]:
        second.observe(batch)
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in whole.state_dict().items())


@pytest.mark.parametrize(
    ("histogram", "evenness"), [([5, 5, 5, 5], 1.0), ([7, 0, 0, 0], 0.0), ([3, 3, 0, 0], 0.5), ([0, 0, 0, 0], 0.0)]
)
def test_evenness(histogram: list[int], evenness: float) -> None:
    assert class_evenness(torch.tensor(histogram)) == pytest.approx(evenness, abs=1e-6)
