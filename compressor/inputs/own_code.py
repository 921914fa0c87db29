"""Where the code of a user's own network is: `--arch module:factory`. Found and copied here, run in `own_networks`.

    mynet:build  ->  mynet.py in the current folder, or the file of --code  ->  and what it imports from beside itself

A run keeps a copy of these files in one archive, which Python imports from as from a folder, so that a moved run folder
still has its teacher. Nothing here runs any of it.
"""

from __future__ import annotations

import ast
import re
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from compressor.errors import InputRefused, UsageFault
from compressor.inputs.nearest import did_you_mean

ARCHIVE = "code.zip"
OWN_NAME = re.compile(r"(?!timm:)((?:[^\W\d]\w*\.)*[^\W\d]\w*):([^\W\d]\w*)")
EXPECTED = "A Python file in the current folder, or the one that --code names, was expected, such as mynet.py."
SHOWN = 5
FIRST_DATE = (1980, 1, 1, 0, 0, 0)  # of every file in the archive, so that equal code gives equal bytes


@dataclass(frozen=True)
class OwnCode:
    """A factory in a module, and the files that make it.

    Attributes:
        name: the architecture, `module:factory`.
        root: the folder, or the archive, that the module is imported from.
        files: below `root`, with forward slashes; the module's own first.
    """

    name: str
    root: Path
    files: tuple[str, ...]

    @property
    def module(self) -> str:
        return self.name.partition(":")[0]

    @property
    def factory(self) -> str:
        return self.name.partition(":")[2]

    def paths(self) -> tuple[Path, ...]:
        """The files where they are, of code that is in a folder."""
        return tuple(self.root / file for file in self.files)


def is_own_name(name: object) -> bool:
    """Whether an architecture is named as `module:factory`."""
    return isinstance(name, str) and OWN_NAME.fullmatch(name) is not None


def module_path(folder: Path, name: str) -> Path:
    """The file of the module of `name` below `folder`, whether it is there or not."""
    path = folder.joinpath(*name.partition(":")[0].split("."))
    return path / "__init__.py" if (path / "__init__.py").is_file() else path.with_name(f"{path.name}.py")


def own_code(name: str, file: Path) -> OwnCode:
    """The files of the network `name`, whose module is `file`.

    Raises:
        UsageFault: there is no such file, it is no module of that name, or the name is one of Python's own.
        InputRefused: it is not Python.
    """
    module = name.partition(":")[0]
    _check_file(name, file)
    depth = module.count(".") + (file.name == "__init__.py")
    root = file.parents[depth] if depth < len(file.parents) else None  # None: too few folders for so many dots
    if root is None or module_path(root, name) != file:
        raise UsageFault(
            f"The architecture {name} is of the module {module}, and --code is {file.name}.",
            f"--code was expected to be the file of that module, {module_path(Path(), name)}.",
            f"Name the factory as --arch {file.stem}:{name.partition(':')[2]}, or leave --code out.",
        )
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise UsageFault(
            f"The architecture {name} is of the module {module}, which is the name of one of Python's own.",
            "A module of another name was expected: Python would import its own.",
            "Rename the file, for example to mynet.py.",
        )
    return OwnCode(name, root, tuple(dict.fromkeys(_files(root, file, {}))))


def packed_code(name: str, archive: Path) -> OwnCode:
    """The copy that `pack` made."""
    with zipfile.ZipFile(archive) as content:
        return OwnCode(name, archive, tuple(file for file in content.namelist() if not file.endswith("/")))


def pack(code: OwnCode, archive: Path) -> None:
    """Write the files of code in a folder into one archive; equal code gives equal bytes."""
    folders = {f"{folder.as_posix()}/" for file in code.files for folder in PurePosixPath(file).parents if folder.name}
    with zipfile.ZipFile(archive, "w") as content:
        for folder in sorted(folders):  # Python takes a folder without __init__.py for a package where it is listed
            content.writestr(zipfile.ZipInfo(folder, FIRST_DATE), b"")
        for file, path in zip(code.files, code.paths(), strict=True):
            content.writestr(zipfile.ZipInfo(file, FIRST_DATE), path.read_bytes())


def _check_file(name: str, file: Path) -> None:
    if file.is_file():
        return
    modules = sorted(path.stem for path in file.parent.glob("*.py")) if file.parent.is_dir() else []
    close = did_you_mean(file.stem, modules)
    more = f" and {len(modules) - SHOWN} more" if len(modules) > SHOWN else ""
    there = f" The folder has {', '.join(modules[:SHOWN])}{more}." if modules else ""
    if name.partition(":")[0].endswith(".py"):
        close = f"Leave out the ending: --arch {name.replace('.py:', ':')}."
    raise UsageFault(
        f"There is no file {file} for the architecture {name}.",
        EXPECTED + there,
        close or "Run where the file is, or name it with --code.",
    )


def _files(root: Path, file: Path, seen: dict[Path, None]) -> Iterator[str]:
    """A file and, of what it imports, whatever lies below `root`, with the packages that it lies in."""
    if file in seen:
        return
    seen[file] = None
    yield file.relative_to(root).as_posix()
    for package in file.relative_to(root).parents:
        if (root / package / "__init__.py").is_file() and package != Path():
            yield from _files(root, root / package / "__init__.py", seen)
    for module in _imported(root, file):
        path = module_path(root, module)
        if path.is_file() and module.partition(".")[0] not in sys.stdlib_module_names:
            yield from _files(root, path, seen)


def _imported(root: Path, file: Path) -> Iterator[str]:
    """Every name that a file may import as a module."""
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError) as error:
        where = f" in line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise InputRefused(
            f"The code of the teacher, {file.name}, is not Python{where}: {error.args[0]}.",
            EXPECTED,
            "Correct the file.",
        ) from error
    package = file.relative_to(root).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level > len(package):  # beyond the top, where Python finds nothing
                continue
            above = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*above, *([node.module] if node.module else [])])
            yield start
            yield from (f"{start}.{alias.name}".lstrip(".") for alias in node.names if alias.name != "*")
