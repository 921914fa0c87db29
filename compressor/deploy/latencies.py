"""The latency of every file on this machine, under the same conditions."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressor.deploy.variants import Variant
from profiles.host import host_name
from profiles.latency import LatencyStats, measure
from profiles.schema import DeviceProfile


@dataclass(frozen=True)
class Timing:
    """How long is timed, in seconds (`profiles.latency.measure`), and with how many threads."""

    warmup_s: float
    window_s: float
    max_s: float
    threads: int | None = None


def measure_variants(
    variants: Sequence[Variant],
    run_folder: Path,
    image_shape: tuple[int, int, int],
    target: DeviceProfile,
    timing: Timing,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """LatencyStats by the variant's key, or {"skipped": why}; batch 1 of a grey image."""
    latencies: dict[str, Any] = {}
    for variant in variants:
        reason = unmeasurable(variant, target)
        if reason is not None:
            latencies[variant.key] = {"skipped": reason}
            continue
        stats = _measured(variant, run_folder, image_shape, target, timing)
        latencies[variant.key] = stats.to_dict()
        state = "" if stats.stable else " (unstable)"
        times = f"p50 {stats.latency_p50_ms:.3g} ms, p99 {stats.latency_p99_ms:.3g} ms on this host"
        note(f"{variant.model} {variant.precision}: {times}{state}")
    return latencies


def unmeasurable(variant: Variant, target: DeviceProfile) -> str | None:
    """Why a latency on this host is not taken: there is no file, or it would mislead. None: take it."""
    if variant.file is None:
        return variant.note
    if target.runtime == "tensorrt" and variant.format == "onnx" and variant.precision != "fp32":
        return f"made for {variant.made_for}; ONNX Runtime on this host runs its types another way"
    return None


def _measured(
    variant: Variant, run_folder: Path, image_shape: tuple[int, int, int], target: DeviceProfile, timing: Timing
) -> LatencyStats:
    on_gpu = variant.format == "engine"
    threads = "its own choice of threads" if timing.threads is None else f"{timing.threads} threads"
    with variant.open(run_folder, threads=timing.threads) as runner:
        (spec,) = runner.inputs
        batch = spec.shape[0] if isinstance(spec.shape[0], int) else 1
        return measure(
            partial(runner.infer, {spec.name: np.full((batch, *image_shape), 0.5, np.float32)}),
            batch_size=batch,
            device=torch.cuda.get_device_name() if on_gpu else host_name(),
            runtime=variant.made_for if on_gpu else f"ONNX Runtime CPU, {threads}",
            versions={} if on_gpu else {"onnxruntime": onnxruntime_version()},
            warmup_s=timing.warmup_s,
            window_s=timing.window_s,
            max_s=timing.max_s,
            is_target=on_gpu or target.this_host,
        )


def onnxruntime_version() -> str:
    """Of whichever of its two packages is installed."""
    for package in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "none"
