"""Who may import whom: profiles <- exporters <- compressor, without cycles; and what must stay light."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MAY_IMPORT = {
    "profiles": {"profiles"},
    "exporters": {"profiles", "exporters"},
    "compressor": {"profiles", "exporters", "compressor"},
}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in MAY_IMPORT
    for path in sorted((ROOT / package).rglob("*.py"))
}
# Modules that answer before torch is there: the command line, and a report that is read on a machine without it.
LIGHT = (
    *("cli", "config", "errors", "layout", "stages", "report.schema", "report.markdown", "report.untrusted"),
    *("report.html", "report.junit", "report.openmetrics", "report.annotations", "report.model_card"),
    *("provenance.manifest", "provenance.sbom"),
)


def imported(path: Path, *, at_import: bool) -> set[str]:
    """Our own modules that a file names in an import; with `at_import` only those that run when it is imported."""
    found: set[str] = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if at_import and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            found.update(
                name if (name := f"{node.module}.{alias.name}") in MODULES else node.module for alias in node.names
            )
        pending.extend(ast.iter_child_nodes(node))
    return {name for name in found if name.partition(".")[0] in MAY_IMPORT}


def test_packages_import_only_what_lies_below_them() -> None:
    for name, path in MODULES.items():
        package = name.partition(".")[0]
        packages = {target.partition(".")[0] for target in imported(path, at_import=False)}
        assert packages <= MAY_IMPORT[package], f"{name} imports {packages - MAY_IMPORT[package]}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name: imported(path, at_import=True) for name, path in MODULES.items()}
    tuple(TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_stages_know_nothing_of_ours() -> None:
    assert imported(MODULES["compressor.stages"], at_import=False) == set()


def test_only_the_pipeline_sees_configuration_and_science() -> None:
    science = ("compressor.distill", "compressor.methods", "compressor.students", "compressor.inputs.teacher")
    seers = {
        name
        for name, path in MODULES.items()
        if "compressor.config" in (targets := imported(path, at_import=False))
        and any(target.startswith(science) for target in targets)
    }
    assert {name for name in seers if not name.startswith("compressor.pipeline")} == set()
    assert "compressor.pipeline" in seers


@pytest.mark.parametrize("name", [name for name in MODULES if not name.endswith("__main__")])
def test_every_module_imports(name: str) -> None:
    importlib.import_module(name)


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_light_modules_do_without_torch() -> None:
    names = [f"compressor.{name}" for name in LIGHT] + ["profiles.schema", "profiles.catalogue", "exporters.runners"]
    code = f"import importlib, sys; [importlib.import_module(name) for name in {names}]; print('torch' in sys.modules)"
    assert run_python(code) == "False"


def test_exporters_work_where_compressor_is_not_installed() -> None:
    names = [name for name in MODULES if name.startswith(("exporters", "profiles"))]
    code = (
        "import importlib, sys; sys.modules['compressor'] = None;"
        f"[importlib.import_module(name) for name in {names}]; print('torch' in sys.modules)"
    )
    assert run_python(code) == "True"
