"""Where the code of a user's own network is: found and copied without running it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from compressor.config import resolve
from compressor.errors import CompressError, InputRefused, UsageFault
from compressor.inputs.own_code import is_own_name, module_path, own_code, pack, packed_code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """mynet.py, which imports blocks.py and the package parts; other.py, which nothing imports."""
    files = {
        "mynet.py": "import os, torch\nimport blocks\nfrom parts.heads import Head\nraise SystemExit",
        "blocks.py": "def later():\n    from parts import stems\n",
        "parts/__init__.py": "from . import common",
        "parts/common.py": "",
        "parts/heads.py": "from .common import *",
        "parts/stems.py": "",
        "parts/unused.py": "",
        "other.py": "",
        "os.py": "never taken for Python's own",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def refusal(name: str, file: Path) -> CompressError:
    with pytest.raises(CompressError) as caught:
        own_code(name, file)
    return caught.value


def test_what_is_a_name_of_own_code() -> None:
    assert all(map(is_own_name, ("mynet:build", "a.b_1:Net", "_m:_f")))
    assert not any(map(is_own_name, ("resnet18", "timm:resnet18", "width:0.5", "mynet:", ":build", "a..b:c", None, 3)))


def test_the_file_and_all_that_it_imports_from_beside_itself(folder: Path) -> None:
    code = own_code("mynet:build", folder / "mynet.py")
    expected = {"mynet.py", "blocks.py", "parts/__init__.py", "parts/common.py", "parts/heads.py", "parts/stems.py"}
    assert code.files[0] == "mynet.py"
    assert set(code.files) == expected
    assert len(code.files) == len(expected)
    assert (code.module, code.factory, code.root) == ("mynet", "build", folder)


def test_a_module_of_a_package_and_a_package(folder: Path) -> None:
    inside = own_code("parts.heads:Head", module_path(folder, "parts.heads:Head"))
    assert (inside.root, inside.files[0]) == (folder, "parts/heads.py")
    whole = own_code("parts:build", module_path(folder, "parts:build"))
    assert (whole.root, whole.files[0]) == (folder, "parts/__init__.py")


def test_equal_code_gives_equal_archives(folder: Path, tmp_path: Path) -> None:
    code = own_code("mynet:build", folder / "mynet.py")
    pack(code, tmp_path / "a.zip")
    os.utime(folder / "blocks.py", (0, 0))
    pack(code, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert packed_code("mynet:build", tmp_path / "a.zip").files == code.files


@pytest.mark.parametrize(
    ("name", "file", "kind", "words"),
    [
        ("mynt:build", "mynt.py", UsageFault, "Did you mean 'mynet'?"),
        ("mynet.py:build", "mynet/py.py", UsageFault, "Leave out the ending: --arch mynet:build."),
        ("other:build", "mynet.py", UsageFault, "as --arch mynet:build"),
        ("os:build", "os.py", UsageFault, "the name of one of Python's own"),
        (".".join("abcdefghijklmnopqrstuvwxyz") + ":build", "mynet.py", UsageFault, "as --arch mynet:build"),
    ],
)
def test_refusals(folder: Path, name: str, file: str, kind: type[CompressError], words: str) -> None:
    found = refusal(name, folder / file)
    assert type(found) is kind
    assert words in str(found)


def test_a_relative_import_that_goes_beyond_the_top_names_no_file(folder: Path) -> None:
    """As in a file that is meant to work inside of its package and without it."""
    text = "try:\n    from . import blocks\nexcept ImportError:\n    import blocks\nfrom .... import os\n"
    (folder / "mynet.py").write_text(text)
    (folder / "__init__.py").write_text("import other")
    (folder.parent / f"{folder.name}.py").write_text("")
    expected = ("mynet.py", "blocks.py", "parts/__init__.py", "parts/common.py", "parts/stems.py")
    assert own_code("mynet:build", folder / "mynet.py").files == expected


def test_what_is_no_python_is_refused(folder: Path) -> None:
    (folder / "blocks.py").write_text("def f(:\n")
    found = refusal("mynet:build", folder / "mynet.py")
    assert isinstance(found, InputRefused)
    assert found.received.startswith("The code of the teacher, blocks.py, is not Python in line 1")


def test_the_configuration_names_the_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the current folder of a flag, and beside a configuration file; what --code names is taken as it is."""
    monkeypatch.chdir(folder)
    given = {"teacher.file": "t.pt", "teacher.architecture": "mynet:build"}
    assert resolve(given, None).config.teacher.code == folder / "mynet.py"
    (folder / "parts/run.yaml").write_text("teacher: {file: t.pt, architecture: 'mynet:build'}\n")
    assert resolve({}, folder / "parts/run.yaml").config.teacher.code == folder / "parts/mynet.py"
    named = resolve({**given, "teacher.code": "sub/mynet.py"}, None)
    assert named.config.teacher.code == folder / "sub/mynet.py"
    assert resolve({**given, "teacher.architecture": "resnet18"}, None).config.teacher.code is None
