"""docs/gates.md is what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from compressor.gates.gate import RULES, read_gates
from compressor.gates.metrics import METRICS

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs/gates.md").read_text()


def test_its_table_has_every_metric() -> None:
    spec = importlib.util.spec_from_file_location("gates_table", ROOT / "docs/gates_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.table() in PAGE, "run: python docs/gates_table.py"


def test_its_example_is_read(tmp_path: Path) -> None:
    block = re.search(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert block is not None
    (tmp_path / "gates.yaml").write_text(block[1])
    gates = read_gates(tmp_path / "gates.yaml")
    assert {gate.metric for gate in gates} <= set(METRICS)
    assert len(gates) == 5


def test_it_has_every_rule() -> None:
    assert all(f"`{rule}`" in PAGE for rule in RULES)
