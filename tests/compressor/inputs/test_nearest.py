"""Did you mean ...?"""

from __future__ import annotations

import pytest

from compressor.inputs.nearest import did_you_mean


@pytest.mark.parametrize(
    ("name", "answer"),
    [("resnet19", "Did you mean 'ResNet18'?"), ("RESNET18", "Did you mean 'ResNet18'?"), ("tree", "")],
)
def test_the_nearest_option_or_nothing(name: str, answer: str) -> None:
    assert did_you_mean(name, ["ResNet18", "mobilenet_v2"]) == answer


def test_nothing_to_choose_from() -> None:
    assert did_you_mean("cat", []) == ""
