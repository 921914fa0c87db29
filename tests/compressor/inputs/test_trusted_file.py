"""Files that run code while they are read: only where the user says so, and then the report says so too."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from compressor.config import resolve
from compressor.errors import InputRefused, UsageFault
from compressor.inputs.intake import read_teacher
from compressor.students.architectures import build_network

ARCH = "cifar_resnet8"
CODE = """
import torch
from compressor.students.architectures import build_network

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = build_network("cifar_resnet8", 3)

    def forward(self, x):
        return self.inner(x)
"""


class Bomb:
    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.sentinel),)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(ARCH, 3).eval()


def check_taken(path: Path, **options: Any) -> None:
    source = read_teacher(path, trust_pickle=True, **options)
    assert torch.equal(source.state_dict["fc.weight"], network().state_dict()["fc.weight"])
    assert source.warnings[0].startswith(f"Code was run while {path.name} was read")
    assert "--trust-pickle" in source.warnings[0]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_pickled_network_gives_its_weights(tmp_path: Path, wrapped: bool) -> None:
    torch.save({"model": network(), "epoch": 3} if wrapped else network(), tmp_path / "t.pt")
    with pytest.raises(InputRefused, match="would run code"):
        read_teacher(tmp_path / "t.pt")
    check_taken(tmp_path / "t.pt")


def test_torchscript_and_exported_programs_give_their_weights(tmp_path: Path) -> None:
    images = torch.rand(2, 3, 16, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network(), images), tmp_path / "script.pt")
        torch.export.save(torch.export.export(network(), (images,)), tmp_path / "t.pt2")
    for path in (tmp_path / "script.pt", tmp_path / "t.pt2"):
        with pytest.raises(InputRefused, match="add --trust-pickle"):
            read_teacher(path)
        check_taken(path)


def test_a_class_of_a_script_is_found_in_the_code(tmp_path: Path) -> None:
    code = tmp_path / "net_of_a_test.py"
    code.write_text(CODE)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(CODE, namespace)
    kind = namespace["Net"]
    kind.__module__ = "__main__"
    sys.modules["__main__"].Net = kind  # type: ignore[attr-defined]
    try:
        torch.manual_seed(0)
        torch.save(kind(), tmp_path / "t.pt")
    finally:
        del sys.modules["__main__"].Net  # type: ignore[attr-defined]
    with pytest.raises(InputRefused, match=r"--code model\.py"):
        read_teacher(tmp_path / "t.pt", trust_pickle=True)
    check_taken(tmp_path / "t.pt", code=code)
    assert str(tmp_path) not in sys.path


PACKAGE = {
    "package_of_a_test/__init__.py": "",
    "package_of_a_test/blocks.py": """
from torch import nn

class Body(nn.Conv2d):
    pass
""",
    "package_of_a_test/net.py": """
from torch import nn

from .blocks import Body

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = Body(3, 8, 3)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))
""",
}


def test_a_pickle_of_a_package_is_read_with_the_modules_beside_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    with monkeypatch.context() as there:
        there.syspath_prepend(tmp_path)
        made = importlib.import_module("package_of_a_test.net").Net()
        torch.save(made, tmp_path / "t.pt")
        torch.jit.trace(made, torch.rand(1, 3, 8, 8)).save(str(tmp_path / "script.pt"))
    for name in [name for name in sys.modules if name.startswith("package_of_a_test")]:
        del sys.modules[name]
    path = list(sys.path)
    own = {"architecture": "package_of_a_test.net:Net", "code": tmp_path / "package_of_a_test/net.py"}
    named = {**own, "overrides": {"input_size": (8, 8), "mean": (0.0,) * 3, "std": (1.0,) * 3}}
    source = read_teacher(tmp_path / "t.pt", trust_pickle=True, **named)
    assert torch.equal(source.state_dict["body.weight"], made.state_dict()["body.weight"])
    said = "Code was run while t.pt was read (pickled module, with the code of package_of_a_test/net.py), because"
    assert source.warnings[0].startswith(said)
    assert source.warnings[1].startswith("Code was run: Net of package_of_a_test/net.py builds the teacher")
    assert sys.path == path
    # TorchScript brings its own code, and none of the user's runs while it is read.
    source = read_teacher(tmp_path / "script.pt", trust_pickle=True, **named)
    assert source.warnings[0].startswith("Code was run while script.pt was read (TorchScript), because")


def test_code_that_fails_is_a_refusal(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "t.pt")
    for text in ("raise RuntimeError('no')", "import a_module_that_is_not_there", "exit(3)", "def ("):
        (tmp_path / "model.py").write_text(text)
        with pytest.raises(InputRefused, match="cannot be read"):
            read_teacher(tmp_path / "t.pt", trust_pickle=True, code=tmp_path / "model.py")
    for name in ("none.py", "t.pt"):
        with pytest.raises(InputRefused, match=r"no file|no Python file"):
            read_teacher(tmp_path / "t.pt", trust_pickle=True, code=tmp_path / name)


def test_a_file_without_weights_is_no_use(tmp_path: Path) -> None:
    torch.save(Bomb(tmp_path / "it_ran"), tmp_path / "t.pt")
    with pytest.raises(InputRefused, match="is no use"):
        read_teacher(tmp_path / "t.pt", trust_pickle=True)
    assert (tmp_path / "it_ran").is_dir()


def test_trust_changes_nothing_for_files_that_need_none(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "t.pt")
    plain, trusted = read_teacher(tmp_path / "t.pt"), read_teacher(tmp_path / "t.pt", trust_pickle=True)
    assert plain.warnings == trusted.warnings


def test_code_goes_with_trust(tmp_path: Path) -> None:
    settings = {"teacher.file": tmp_path / "t.pt", "teacher.code": tmp_path / "model.py"}
    with pytest.raises(UsageFault, match="--code is given without --trust-pickle and without --arch module:factory"):
        resolve(settings, None)
