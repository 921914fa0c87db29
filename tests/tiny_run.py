"""A whole run in seconds: what a user would have (t.pt, few/, val/), and a command line of few steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import tiny
import torch
from PIL import Image

from compressor.inputs.intake import save_checkpoint

NUM_FEW, NUM_VAL = 12, 20
STAGES = (
    *("teacher", "samples", "student", "distill", "onnx"),
    *("precision", "engine", "kit", "latency", "report"),
)

OPTIONS: dict[str, object] = {
    "generator_steps": 6,
    "generator_batch_size": 8,
    "generator_width": 8,
    "discriminator_width": 8,
    "latent_dim": 4,
    "student_steps": 6,
    "student_batch_size": 8,
}
SHORT = (
    *("--latency-warmup-s", "0.01", "--latency-window-s", "0.01", "--latency-max-s", "0.3"),
    *("--calibration-images", "32"),
    *("--student", "width:0.5"),  # a search exports every candidate
    *("--method", "hidfd"),  # the one that has all of OPTIONS
)


@dataclass(frozen=True)
class Outcome:
    """What one command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def states(self) -> dict[str, str]:
        """What every stage did, from the lines that a user sees."""
        lines = [line.split() for line in self.err.splitlines() if line.split(" ")[0] in STAGES]
        return {words[0]: words[1] for words in lines}


Compress: TypeAlias = Callable[..., Outcome]
"""The fixture `compress`: the words of a command line to what came of it."""


def refused(outcome: Outcome, code: int, *words: str) -> None:
    """Nothing on stdout, three sentences on stderr, no traceback, and the documented exit code."""
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    lines = [line for line in outcome.err.splitlines() if line.startswith(("error: ", "       "))]
    assert len(lines) == 3, outcome.err
    assert all(line.endswith((".", "?")) for line in lines)
    for word in words:
        assert word in " ".join(line.strip() for line in lines), outcome.err


def failing(error: Exception) -> Callable[..., None]:
    """A stage that raises; it also ends a run early, where a test needs no more of it."""

    def work(*_: object) -> None:
        raise error

    return work


def whole_run(words: list[str]) -> None:
    """A command line in a process of its own, silently."""
    import os
    import sys

    from compressor import cli

    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    sys.argv = ["compress", *words]
    cli.main()


def write_inputs(folder: Path) -> None:
    """`t.pt`, and `few/` and `val/` in folders of the classes that the teacher sees."""
    teacher = tiny.teacher()
    save_checkpoint(folder / "t.pt", teacher.network.state_dict(), teacher.card)
    for part, count, seed in (("few", NUM_FEW, 2), ("val", NUM_VAL, 3)):
        images = tiny.images(count, seed=seed)
        with torch.no_grad():
            classes = teacher(images.float() / 255.0).logits.argmax(dim=1).tolist()
        for index, (image, label) in enumerate(zip(images, classes, strict=True)):
            path = folder / part / teacher.card.class_names[label] / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


def line(inputs: Path, out: Path, *more: str, **options: object) -> list[str]:
    """The command line of a tiny run; `options` are settings of the method, `more` are further flags, which win."""
    words = ["run", "--teacher", f"{inputs}/t.pt", "--samples", f"{inputs}/few", "--out", f"{out}", *SHORT]
    words += [word for name, value in {**OPTIONS, **options}.items() for word in ("--option", f"{name}={value}")]
    return [*words, *more]
