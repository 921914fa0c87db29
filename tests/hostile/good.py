"""What the corpus attacks: a teacher, its bare weights, a few images, an ONNX file, and a finished run."""

from __future__ import annotations

from pathlib import Path

import torch
from hostile.corpus import SHORT
from tiny_run import write_inputs


def write_good(folder: Path) -> None:
    """t.pt, weights.pt, few/, val/, run/ and model.onnx."""
    import onnx

    from compressor.cli import invoke

    folder.mkdir()
    write_inputs(folder)
    torch.save(torch.load(folder / "t.pt", weights_only=True)["state_dict"], folder / "weights.pt")
    words = ["run", "--teacher", f"{folder}/t.pt", "--samples", f"{folder}/few", "--out", f"{folder}/run"]
    code = invoke([*words, *SHORT, "--quiet"])
    if code not in (0, 1):
        raise SystemExit(f"the good run ended with {code}")
    model = onnx.load(folder / "run" / "onnx" / "student.onnx")
    onnx.save(model, folder / "model.onnx")
