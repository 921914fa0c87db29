"""Pruning that pays: what fewer channels do to the latency on this host, rounded to the target's multiple and not.

    python -m benchmarks.pruning_latency measure [--rounds 15] [--ratios 0.3,0.4] [--threads 1,2]
    python -m benchmarks.pruning_latency table

For each network (a torchvision ResNet-34 and MobileNetV2 at 224 px, a CIFAR ResNet-18 at 32 px) and each ratio, three
ONNX files run in ONNX Runtime: the teacher; the student of `compress run --student prune:RATIO`, with channels rounded
down to a multiple of 8; and the same student with the channels that torch-pruning leaves by default, some more than
the rounded one. Both students end in projector and shared classifier, as they would ship. Weights are seeded, not
trained: latency does not depend on them.

The files take turns: a round opens each in a session of its own, warms it up and times it for a window. A ratio of two
latencies is taken within a round, where both met the same machine; what is reported is the median over the rounds with
its interval (order statistics, 95 % from six rounds on). Each row of the JSON file is one (network, ratio, threads)
with its provenance, and with what else used the processor meanwhile; a row that is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.rows import append_row, provenance
from compressor.deploy.latencies import onnxruntime_version
from compressor.inputs.card import TeacherCard
from compressor.inputs.teacher import Classifier, Teacher
from compressor.students.architectures import build_network
from compressor.students.prune import pruned_backbone
from compressor.students.student import classifier_sharing
from exporters.macs import count_macs
from exporters.runners import INPUT_NAME, OnnxRunner
from exporters.torch_to_onnx import onnx_from_torch
from profiles.catalogue import load_target
from profiles.host import contention, host_snapshot
from profiles.timing_statistics import median_interval

RESULTS = Path("benchmarks/results/pruning_latency.json")
NETWORKS: Mapping[str, tuple[int, int]] = {  # side in pixels, classes
    "resnet34": (224, 1000),
    "mobilenet_v2": (224, 1000),
    "cifar_resnet18": (32, 10),
}
HOST = load_target("cpu")
WARMUP_CALLS = 3
OPSET = 17  # the faster exporter; kernels are the same
VARIANTS = ("teacher", "rounded", "default")

Row = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    measuring = commands.add_parser("measure", help="append the rows that are missing")
    measuring.add_argument("--rounds", type=int, default=15)
    measuring.add_argument("--ratios", type=_numbers(float), default=(0.3, 0.4))
    measuring.add_argument("--threads", type=_numbers(int), default=(1, 2))
    measuring.add_argument("--networks", type=_numbers(str), default=tuple(NETWORKS))
    measuring.add_argument("--window-s", type=float, default=0.5)
    measuring.add_argument("--out", type=Path, default=RESULTS)
    showing = commands.add_parser("table", help="print the rows as markdown")
    showing.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.command == "measure":
        measure(options)
    print(table(json.loads(options.out.read_text())))


def measure(options: argparse.Namespace) -> None:
    """Every row that is not in the file yet."""
    rows = json.loads(options.out.read_text()) if options.out.exists() else []
    done = {(row["network"], row["ratio"], row["threads"]) for row in rows}
    for network in options.networks:
        for ratio in options.ratios:
            missing = [threads for threads in options.threads if (network, ratio, threads) not in done]
            if not missing:
                continue
            with tempfile.TemporaryDirectory() as folder:
                files, macs_g = write_files(network, ratio, Path(folder))
                for threads in missing:
                    row = {"network": network, "ratio": ratio, "threads": threads, "macs_g": macs_g}
                    row |= timed(files, NETWORKS[network][0], threads, options.rounds, options.window_s)
                    append_row(options.out, row | provenance() | {"onnxruntime": onnxruntime_version()})


def write_files(network: str, ratio: float, folder: Path) -> tuple[dict[str, Path], dict[str, float]]:
    """The ONNX file of every variant, and its MACs in 10^9 for one image."""
    teacher = seeded_teacher(network)
    shape = teacher.card.input_shape
    rounded, default = (
        classifier_sharing(pruned_backbone(teacher, ratio, channel_multiple=multiple), teacher)
        for multiple in (HOST.channel_multiple, 1)
    )
    models: tuple[nn.Module, ...] = (Classifier(teacher), rounded, default)
    files, macs_g = {}, {}
    for name, model in zip(VARIANTS, models, strict=True):
        path = folder / f"{name}.onnx"
        files[name] = onnx_from_torch(model, shape, path, opset_ceiling=OPSET, metadata={}).path
        macs_g[name] = count_macs(model, shape) / 1e9
    return files, macs_g


def seeded_teacher(network: str) -> Teacher:
    """Untrained weights that are the same every time."""
    side, num_classes = NETWORKS[network]
    card = TeacherCard(
        architecture=network,
        num_classes=num_classes,
        class_names=tuple(str(label) for label in range(num_classes)),
        input_shape=(3, side, side),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )
    torch.manual_seed(0)
    return Teacher(build_network(network, num_classes), card)


def timed(files: Mapping[str, Path], side: int, threads: int, num_rounds: int, window_s: float) -> dict[str, Any]:
    """Latencies of all files and their ratios, each with its interval over the rounds."""
    before = host_snapshot()
    rounds = []
    for index in range(num_rounds):
        # Another one begins each time, so that none always runs after the same.
        order = [VARIANTS[(index + shift) % len(VARIANTS)] for shift in range(len(VARIANTS))]
        rounds.append({name: window_median_ms(files[name], side, threads, window_s) for name in order})
    found = {name: [times[name] for times in rounds] for name in VARIANTS}
    return {
        "rounds": num_rounds,
        "window_s": window_s,
        "latency_ms": {name: with_interval(values) for name, values in found.items()},
        "rounded_over_teacher": with_interval(ratios(found["rounded"], found["teacher"])),
        "default_over_teacher": with_interval(ratios(found["default"], found["teacher"])),
        "rounded_over_default": with_interval(ratios(found["rounded"], found["default"])),
        "contention": contention(before, host_snapshot()),
    }


def window_median_ms(path: Path, side: int, threads: int, window_s: float) -> float:
    """Median of the calls in one window of a session of its own."""
    image = np.full((1, 3, side, side), 0.5, np.float32)
    with OnnxRunner(path, threads=threads) as runner:
        call = partial(runner.infer, {INPUT_NAME: image})
        for _ in range(WARMUP_CALLS):
            call()
        times_ms = []
        end = time.perf_counter() + window_s
        while (start := time.perf_counter()) < end:
            call()
            times_ms.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times_ms)


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Round by round."""
    return [one / other for one, other in zip(numerators, denominators, strict=True)]


def with_interval(values: Sequence[float]) -> dict[str, float]:
    """The median of all rounds and where it lies."""
    low, high, confidence = median_interval(values)
    return {"median": statistics.median(values), "low": low, "high": high, "confidence": confidence}


def table(rows: Sequence[Row]) -> str:
    """One line for each row."""
    lines = [
        "| network, ratio, threads | MACs: teacher, rounded, default (G) | teacher ms | rounded ms | default ms "
        "| rounded / teacher | default / teacher | rounded / default |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        macs = ", ".join(f"{row['macs_g'][name]:.3g}" for name in VARIANTS)
        times = " | ".join(f"{row['latency_ms'][name]['median']:.3g}" for name in VARIANTS)
        quotients = " | ".join(
            f"{found['median']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
            for found in (row["rounded_over_teacher"], row["default_over_teacher"], row["rounded_over_default"])
        )
        lines.append(f"| {row['network']}, {row['ratio']:g}, {row['threads']} | {macs} | {times} | {quotients} |")
    return "\n".join(lines)


def _numbers(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    return lambda text: tuple(kind(part) for part in text.split(","))


if __name__ == "__main__":
    main()
