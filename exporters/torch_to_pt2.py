"""A torch classifier as a `.pt2` program of torch.export, for PyTorch runtimes: dynamic batch, no Python code of ours.

In: a module from images (B, C, H, W), float32 in [0, 1], to logits (B, K). Load the file with `torch.export.load`.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import nn

from exporters.causes import culprit, one_line, root_cause
from exporters.errors import ExportError
from exporters.files import write_atomically
from exporters.modules import device_of, evaluation_mode
from exporters.quiet import quiet

MAX_BATCH = 1024


def pt2_from_torch(model: nn.Module, image_shape: tuple[int, int, int], path: Path) -> None:
    """Export `model` in evaluation mode for batches of 1 to MAX_BATCH images of shape (C, H, W).

    The file appears under its name when it is complete, or not at all.

    Raises:
        ExportError: torch.export refused the model.
        OSError: the file could not be written.
    """
    example = torch.zeros(2, *image_shape, device=device_of(model))
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    content = io.BytesIO()
    try:
        with evaluation_mode(model), torch.no_grad(), quiet():
            program = torch.export.export(model, (example,), dynamic_shapes=({0: batch},))
            for node in program.graph.nodes:  # traces hold this machine's paths and source lines
                node.meta.pop("stack_trace", None)
            torch.export.save(program, content)
    except Exception as error:  # it raises dozens of kinds
        root = root_cause(error)
        raise ExportError(
            f"torch.export could not export {culprit(model, error)}: {type(root).__name__}: {one_line(root)}.",
            "A model without Python branches on tensor values was expected.",
            "Rewrite that part with tensor operations, or choose another architecture.",
        ) from error
    write_atomically(content.getvalue(), path)
