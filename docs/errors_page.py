"""Writes docs/errors.md: every way in which a command ends without its result, with what it says, from the code.

    WALKED_REFUSALS=walked .venv/bin/pytest -n 2        # the tests note what each refusal said
    python docs/errors_page.py --walked walked           # keeps one example of each; fails where one was never said

An exit path is a place in the code that makes a refusal, three sentences with an exit code. Its example was really said
in a test. Examples that still fit their path stay, so that the page changes only where the words do.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from compressor.errors import exit_code_of  # noqa: E402
from compressor.stages import Refusal  # noqa: E402
from profiles.errors import ToolError  # noqa: E402

PAGE = ROOT / "docs" / "errors.md"
EXAMPLES = ROOT / "docs" / "errors.json"
PACKAGES = ("compressor", "exporters", "profiles")
PARTS = ("received", "expected", "action")
MEANINGS = {
    1: "done, but a gate fails, or what ships misses a limit; `compress verify`: something is not as reported",
    2: "usage or configuration",
    3: "environment: a GPU, TensorRT or library that was demanded is not there",
    4: "input refused: teacher, samples, shapes that do not fit, or no student that fits the limits",
    5: "a stage failed; its name and its log are in the message",
    6: "the target is unreachable, or its result is not of this run",
    70: "a bug of ours: a traceback; nothing is released",
    130: "interrupted; the same command resumes",
}
VARIABLE = ".*"


class Example(NamedTuple):
    """What one refusal said."""

    received: str
    expected: str
    action: str


@dataclass(frozen=True)
class ExitPath:
    """A place that makes a refusal.

    Attributes:
        key: module, function, and its number among those of the function.
        kinds: names of the classes that it may be.
        exit_codes: of these.
        lines: first and last, in the file of `module`.
        patterns: regular expressions of the three sentences.
    """

    key: str
    module: str
    kinds: tuple[str, ...]
    exit_codes: tuple[int, ...]
    lines: tuple[int, int]
    patterns: tuple[str, str, str]

    def says(self, example: Example) -> bool:
        """Whether this place can have said so."""
        return all(
            re.fullmatch(pattern, sentence, re.DOTALL) is not None
            for pattern, sentence in zip(self.patterns, example, strict=True)
        )


@cache
def kinds() -> dict[str, int]:
    """Every refusal's class and its exit code."""
    for package in PACKAGES:
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            if not module.name.endswith("__main__") and ".kit" not in module.name:
                importlib.import_module(module.name)
    found: dict[str, int] = {}
    waiting: list[type[BaseException]] = [ToolError, Refusal]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.split(".")[0] in PACKAGES:
            found[kind.__name__] = exit_code_of(kind.__new__(kind))
    return found


@cache
def exit_paths() -> tuple[ExitPath, ...]:
    """In the order of the files and lines."""
    paths: list[ExitPath] = []
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            paths += _paths_of(name, ast.parse(file.read_text(encoding="utf-8")))
    return tuple(paths)


def _paths_of(module: str, tree: ast.Module) -> Iterator[ExitPath]:
    numbers: Counter[str] = Counter()
    for function, calls in _calls(tree):
        for call, names in calls:
            numbers[function] += 1
            received, expected, action = (_pattern(argument) for argument in call.args)
            yield ExitPath(
                key=f"{module}:{function}:{numbers[function]}",
                module=module,
                kinds=names,
                exit_codes=tuple(sorted({kinds()[name] for name in names})),
                lines=(call.lineno, call.end_lineno or call.lineno),
                patterns=(received, expected, action),
            )


def _calls(tree: ast.Module) -> Iterator[tuple[str, list[tuple[ast.Call, tuple[str, ...]]]]]:
    """Calls with three sentences, by the function that they stand in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            own = list(_own_nodes(node))
            chosen = _chosen_classes(own)
            calls = [
                (call, names)
                for call in own
                if isinstance(call, ast.Call) and len(call.args) == len(PARTS) and not _is_super(call)
                for names in [_names(call.func, chosen)]
                if names
            ]
            if calls:
                yield node.name, sorted(calls, key=lambda found: found[0].lineno)


def _own_nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """All nodes of a function, without those of functions inside it."""
    waiting: list[ast.AST] = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        yield node
        if not isinstance(node, ast.FunctionDef):
            waiting += ast.iter_child_nodes(node)


def _chosen_classes(nodes: list[ast.AST]) -> dict[str, tuple[str, ...]]:
    """Variables that hold one of several classes: `error = UsageFault if from_flag else InputRefused`."""
    found = {}
    for node in nodes:
        target = node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target = node.targets[0]
        if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            names = {name.id for name in ast.walk(node.value) if isinstance(name, ast.Name) and name.id in kinds()}
            if names and isinstance(node.value, ast.IfExp | ast.Name):
                found[target.id] = tuple(sorted(names))
    return found


def _names(function: ast.expr, chosen: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if isinstance(function, ast.Name):
        return (function.id,) if function.id in kinds() else chosen.get(function.id, ())
    return ()


def _is_super(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute)


def _pattern(node: ast.expr) -> str:
    """What the source of a sentence can become."""
    match node:
        case ast.Constant(value=str(text)):
            return re.escape(text)
        case ast.JoinedStr(values=parts):
            return "".join(VARIABLE if isinstance(part, ast.FormattedValue) else _pattern(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _pattern(left) + _pattern(right)
        case ast.IfExp(body=body, orelse=orelse):
            return f"(?:{_pattern(body)}|{_pattern(orelse)})"
        case ast.BoolOp(op=ast.Or(), values=values):
            return f"(?:{'|'.join(map(_pattern, values))})"
    return VARIABLE


# --- what was said ----------------------------------------------------------------------------------------------------


def known_examples() -> dict[str, Example]:
    """Those of errors.json that their paths still can say."""
    stored = json.loads(EXAMPLES.read_text(encoding="utf-8")) if EXAMPLES.exists() else {}
    found = {}
    for path in exit_paths():
        if path.key in stored:
            example = Example(**stored[path.key])
            if path.says(example):
                found[path.key] = example
    return found


def walked(folder: Path) -> dict[str, list[Example]]:
    """What tests saw, by path; files of `tests/walked_refusals.py`."""
    found: dict[str, list[Example]] = {}
    by_module: dict[str, list[ExitPath]] = {}
    for path in exit_paths():
        by_module.setdefault(path.module, []).append(path)
    for file in sorted(folder.glob("*.jsonl")):
        for written in file.read_text(encoding="utf-8").splitlines():
            module, line, *sentences = json.loads(written)
            for path in by_module.get(module, ()):
                if path.lines[0] <= line <= path.lines[1]:
                    found.setdefault(path.key, []).append(Example(*sentences))
    return found


def best(examples: list[Example]) -> Example:
    """The one that a reader understands soonest: plain characters first, then short."""
    return min(examples, key=lambda said: (not "".join(said).isascii(), len("".join(said)), said))


# --- the page ---------------------------------------------------------------------------------------------------------


def page(examples: Mapping[str, Example]) -> str:
    """The whole page, from an example of every path."""
    by_code: dict[int, list[ExitPath]] = {}
    for path in exit_paths():
        for code in path.exit_codes:
            by_code.setdefault(code, []).append(path)
    lines = [
        "# What ends a command, and what it says",
        "",
        f"Made by `python docs/errors_page.py` from the code: {len(exit_paths())} exit paths. Every refusal is three "
        "sentences on stderr (what came, what was expected, what to do), an exit code, and no traceback. Each example "
        "was said in a test; names of files are those of the tests. With `--json`, stdout stays empty.",
        "",
        "| code | meaning | paths |",
        "| --- | --- | ---: |",
        "| 0 | done | |",
        *(f"| {code} | {meaning} | {len(by_code.get(code, ())) or ''} |" for code, meaning in MEANINGS.items()),
        "",
        "Code 1 is no refusal: the report is written and says which gate or limit it is "
        "([gates](gates.md)). Code 70 comes with a traceback and the words *This is a bug in compress.* A signal "
        "in the middle of reading or writing ends with 130 and the word *interrupted*.",
    ]
    for code, paths in sorted(by_code.items()):
        lines += ["", f"## Exit code {code}: {MEANINGS[code].partition(':')[0].partition(';')[0]}"]
        module = ""
        for path in paths:
            if path.module != module:
                module = path.module
                lines += ["", f"### {module}", "", f"{_summary(module)}"]
            lines += ["", "```text", *_block(examples[path.key]), "```"]
    return "\n".join(lines) + "\n"


def _block(example: Example) -> list[str]:
    return [("error: " if not number else "       ") + sentence for number, sentence in enumerate(example)]


def _summary(module: str) -> str:
    return (inspect.getdoc(importlib.import_module(module)) or "").split("\n\n")[0].replace("\n", " ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walked", type=Path, help="folder of what tests saw; takes missing examples from there")
    parser.add_argument("--check", action="store_true", help="with --walked: fail where a path was not walked")
    arguments = parser.parse_args()
    examples, seen = known_examples(), {} if arguments.walked is None else walked(arguments.walked)
    for key, said in seen.items():
        examples.setdefault(key, best(said))
    keys = [path.key for path in exit_paths()]
    missing = [key for key in keys if key not in (seen if arguments.check else examples)]
    if missing:
        print(f"{len(missing)} of {len(keys)} exit paths were not walked:", *missing, sep="\n  ")
    elif arguments.check:
        print(f"all {len(keys)} exit paths were walked")
    else:
        ordered = {key: examples[key]._asdict() for key in keys if key in examples}
        EXAMPLES.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        PAGE.write_text(page(examples), encoding="utf-8")
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
