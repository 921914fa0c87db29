"""How much memory a folder of images costs: anonymous pages of a run, stage by stage, beside the bytes of its images.

    python -m benchmarks.memory [--num-images 20000] [--side 64] [--until distill]

Synthetic images are written to a folder of JPEG files once. Then `compress run` (vanilla, a few steps, a small random
teacher) goes through its stages in a process of its own, three times:

    control   on 512 of the images, which is what everything else needs
    memory    on all, which are copied to memory once for the training, as where they fit
    file      on all, with a limit at which they stay in the run folder and are read batch by batch

RssAnon of the process is looked at every 5 ms: memory that the system cannot drop. Pages of mapped files are not in it,
because it can. A stage's ratio is its peak, less that of the control, over the bytes of the images as uint8. One JSON
line for `memory` and for `file` is printed and appended.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.rows import append_row, provenance
from compressor.config import resolve
from compressor.distill import training_images
from compressor.inputs.card import TeacherCard
from compressor.inputs.intake import save_checkpoint
from compressor.pipeline import declare
from compressor.pipeline.run import prepare
from compressor.process_memory import status_kib
from compressor.progress import Reporter
from compressor.stages import create_run_folder, execute
from compressor.students.architectures import build_network

RESULTS = Path("benchmarks/results/memory.json")
NUM_CONTROL = 512
NUM_CLASSES = 10
ARCHITECTURE = "cifar_resnet8"
OPTIONS = {"student_steps": 10, "student_batch_size": 16}
# What is freed goes back to the system at once, so that the accounts show what is in use.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**17), "MALLOC_TRIM_THRESHOLD_": str(2**17), "MALLOC_ARENA_MAX": "1"}
SAMPLED_S = 0.005
SHARES = {"memory": training_images.RESIDENT_SHARE, "file": 0.0}  # of the free memory that images may take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--until", default="distill", help="the last stage")
    parser.add_argument("--work", type=Path, help="keeps the images; default: a temporary folder")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = options.work or Path(folder)
        for row in measure(work, options.num_images, options.side, options.until, tuple(SHARES)):
            print(json.dumps(row), flush=True)
            append_row(options.out, row | provenance())


def measure(work: Path, num_images: int, side: int, until: str, ways: tuple[str, ...]) -> list[dict[str, Any]]:
    """One row for each way to hold the images, of those in SHARES."""
    write_inputs(work, num_images, side)
    shape = (3, side, side)
    control = watched_run(work, NUM_CONTROL, "memory", until)
    rows = []
    for way in ways:
        peaks = watched_run(work, num_images, way, until)
        image_bytes = num_images * int(np.prod(shape))
        ratios = {stage: round((peak - control[stage]) / image_bytes, 3) for stage, peak in peaks.items()}
        rows.append(
            {
                "num_images": num_images,
                "side": side,
                "held": way,
                "image_bytes": image_bytes,
                "peak_anonymous_bytes": max(peaks.values()),
                "ratio": max(ratios.values()),
                "ratios": ratios,
                "peaks_bytes": peaks,
                "control_bytes": control,
                "num_control": NUM_CONTROL,
            }
        )
    return rows


def write_inputs(work: Path, num_images: int, side: int) -> None:
    """`t.pt`, and `images/` with so many different JPEG files; what is there stays."""
    folder = work / "images"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for index in range(num_images):
        coarse = random.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        path = folder / f"{index:06d}.jpg"
        if not path.exists():
            Image.fromarray(coarse).resize((side, side), Image.Resampling.BILINEAR).save(path, quality=80)
    torch.manual_seed(0)
    network = build_network(ARCHITECTURE, NUM_CLASSES)
    card = TeacherCard(
        architecture=ARCHITECTURE,
        num_classes=NUM_CLASSES,
        class_names=tuple(map(str, range(NUM_CLASSES))),
        input_shape=(3, side, side),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )
    save_checkpoint(work / "t.pt", network.state_dict(), card)


def watched_run(work: Path, num_images: int, way: str, until: str) -> dict[str, int]:
    """Highest RssAnon of a run's process in each stage, in bytes.

    Raises:
        RuntimeError: the run failed; its messages are on stderr.
    """
    peaks: dict[str, int] = {}
    with tempfile.TemporaryDirectory(dir=work) as out:
        words = [sys.executable, "-m", "benchmarks.memory", "child", str(work), out, str(num_images), way, until]
        with (
            subprocess.Popen(words, stdout=subprocess.PIPE, bufsize=0, env={**os.environ, **ALLOCATOR}) as child,
            selectors.DefaultSelector() as selector,
        ):
            assert child.stdout is not None
            selector.register(child.stdout, selectors.EVENT_READ)
            stage = ""
            while child.poll() is None:
                if selector.select(SAMPLED_S):
                    stage = child.stdout.readline().decode().strip()  # empty when it is done
                with suppress(OSError):  # it ended just now
                    anonymous = status_kib("RssAnon", Path(f"/proc/{child.pid}/status")) * 2**10
                    peaks[stage] = max(peaks.get(stage, 0), anonymous)
    if child.returncode != 0:
        raise RuntimeError(f"The run on {num_images} images ended with exit code {child.returncode}.")
    peaks.pop("", None)  # imports, and the end
    return peaks


def run_stages(work: Path, out: Path, num_images: int, way: str, until: str) -> None:
    """The watched process: says the name of each stage on stdout, then runs it."""
    training_images.RESIDENT_SHARE = SHARES[way]
    flags: dict[str, object] = {
        "teacher.file": work / "t.pt",
        "samples.folder": work / "images",
        "samples.max_images": num_images,
        "out": out / "run",
        "student.spec": "width:1",
        "distill.method": "vanilla",
        "latency.warmup_s": 0.01,
        "latency.window_s": 0.01,
        "latency.max_s": 0.3,
        **{f"distill.options.{name}": value for name, value in OPTIONS.items()},
    }
    run = prepare(resolve(flags, None), Reporter())
    create_run_folder(run.config.out)
    for stage in declare(run):
        execute(stage, run.config.out, lambda name, _: print(name, flush=True))
        if stage.name == until:
            break


if __name__ == "__main__":
    if sys.argv[1:2] == ["child"]:
        run_stages(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:7])
    else:
        main()
