"""The copy of a user's code that a run keeps is tried where nothing of the original is."""

from __future__ import annotations

from pathlib import Path

import pytest

from compressor.errors import InputRefused
from compressor.inputs.own_code import own_code, pack
from compressor.inputs.packed_network import check_packed_network
from compressor.students.own_networks import know_own_network

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, BLOCKS.WIDTH, 3)
        self.fc = nn.Linear(BLOCKS.WIDTH, 2)

    def forward(self, x):
        return self.fc(self.conv(x).mean((2, 3)))
"""


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        ("import blocks_of_a_copy as BLOCKS", ""),
        ("import importlib\nBLOCKS = importlib.import_module('blocks_of_' + 'a_copy')", "blocks_of_a_copy"),
    ],
)
def test_what_importlib_finds_is_not_in_the_copy(
    found: str, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the code lies in a folder on Python's path, as `python -m` puts the current one there."""
    (tmp_path / "blocks_of_a_copy.py").write_text("WIDTH = 4\n")
    (tmp_path / "net_of_a_copy.py").write_text(f"{found}\n{NET}")
    monkeypatch.syspath_prepend(tmp_path)
    code = own_code("net_of_a_copy:Net", tmp_path / "net_of_a_copy.py")
    assert know_own_network(code, (8, 8)).classifier_layer == "fc"
    pack(code, tmp_path / "code.zip")
    if not missing:
        check_packed_network(code, tmp_path / "code.zip", (8, 8))
        return
    with pytest.raises(InputRefused) as caught:
        check_packed_network(code, tmp_path / "code.zip", (8, 8))
    assert f"No module named '{missing}'" in caught.value.received
    assert caught.value.action.startswith("Put what is missing beside net_of_a_copy.py and import it there")


def test_a_copy_that_ends_its_process_is_a_refusal(tmp_path: Path) -> None:
    """As code does that loads a library beside itself which is not there."""
    ends = "import os\nif 'code.zip' in __file__:\n    os._exit(7)\nclass BLOCKS:\n    WIDTH = 4\n"
    (tmp_path / "ends_of_a_copy.py").write_text(f"{ends}{NET}")
    code = own_code("ends_of_a_copy:Net", tmp_path / "ends_of_a_copy.py")
    pack(code, tmp_path / "code.zip")
    with pytest.raises(InputRefused) as caught:
        check_packed_network(code, tmp_path / "code.zip", (8, 8))
    assert "The process that tried it failed: it ended with code 7" in caught.value.received
