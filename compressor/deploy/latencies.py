"""The latency of every file on this machine, under the same conditions.

All files take turns, and every round is a fresh process (`profiles.latency.measure_in_turn`). An ONNX file is tried
with one thread and with one for every core: on small machines and for small networks two threads can lose to one.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from compressor.deploy.timed_sessions import OnnxSession, sessions_in_a_child
from compressor.deploy.variants import Variant
from profiles.host import gpu_conditions, host_conditions, host_name, usable_cores
from profiles.host_speed import host_speed
from profiles.latency import LatencyStats, Session, Subject, ThreadTrial, measure_in_turn, timed_session
from profiles.schema import DeviceProfile


@dataclass(frozen=True)
class Timing:
    """How long is timed, in seconds, how often, and with how many threads (None: try): `profiles.latency`."""

    warmup_s: float = 0.1
    window_s: float = 0.1
    max_s: float = 10.0
    threads: int | None = None
    least_sessions: int = 6


@dataclass(frozen=True)
class Timed:
    """A file in a folder to time at one batch size; None: the one that is fixed in the file, else a single image."""

    variant: Variant
    folder: Path
    image_shape: tuple[int, ...]
    batch_size: int | None = None


def measure_variants(
    variants: Sequence[Variant],
    run_folder: Path,
    image_shape: tuple[int, int, int],
    target: DeviceProfile,
    timing: Timing,
    note: Callable[[str], None],
) -> dict[str, Any]:
    """LatencyStats by the variant's key, or {"skipped": why}; one grey image a call, or the batch that is fixed."""
    reasons = {variant.key: unmeasurable(variant, target) for variant in variants}
    measurable = [variant for variant in variants if reasons[variant.key] is None]
    stats = measure_files([Timed(variant, run_folder, image_shape) for variant in measurable], target, timing)
    measured = {variant.key: found for variant, found in zip(measurable, stats, strict=True)}
    for variant in measurable:
        note(f"{variant.model} {variant.precision}: {in_words(measured[variant.key])} on this host")
    return {key: measured[key].to_dict() if reason is None else {"skipped": reason} for key, reason in reasons.items()}


def unmeasurable(variant: Variant, target: DeviceProfile) -> str | None:
    """Why a latency on this host is not taken: there is no file, or it would mislead. None: take it."""
    if variant.file is None:
        return variant.note
    for_tensorrt = target.runtime == "tensorrt" or variant.made_for.startswith("TensorRT")
    if for_tensorrt and variant.format == "onnx" and variant.precision != "fp32":
        return f"made for {variant.made_for}; ONNX Runtime on this host runs its types another way"
    return None


def measure_files(files: Sequence[Timed], target: DeviceProfile, timing: Timing) -> list[LatencyStats]:
    """Of each file the faster of its thread settings, with all that were tried.

    Raises:
        ExportError: a file does not open or does not run here.
    """
    tried = [setting for file in files for setting in _settings(file, target, timing)]
    stats = measure_in_turn(
        [setting.subject for setting in tried],
        partial(_sessions, tried, timing),
        window_s=timing.window_s,
        max_s=timing.max_s,
        least_sessions=timing.least_sessions,
        probe_s=_probe_s(),
    )
    return [
        _fastest([found for found, setting in zip(stats, tried, strict=True) if setting.file is file]) for file in files
    ]


def in_words(stats: LatencyStats) -> str:
    """`p50 1.21 ms (1.16 to 1.25; as timed 1.3), p99 1.4 ms, 1 thread (2: 1.8 ms)`."""
    between = stats.latency_p50_interval_ms
    told = [f"{between[0]:.3g} to {between[1]:.3g}"] if between else []
    told += [] if stats.latency_p50_as_timed_ms is None else [f"as timed {stats.latency_p50_as_timed_ms:.3g}"]
    interval = f" ({'; '.join(told)})" if told else ""
    others = [f"{trial.threads}: {trial.latency_p50_ms:.3g} ms" for trial in slower_trials(stats)]
    threads = "" if stats.threads is None else f", {threads_in_words(stats.threads)}"
    tried = f" ({', '.join(others)})" if others else ""
    state = "" if stats.stable else ", unstable"
    return f"p50 {stats.latency_p50_ms:.3g} ms{interval}, p99 {stats.latency_p99_ms:.3g} ms{threads}{tried}{state}"


def slower_trials(stats: LatencyStats) -> tuple[ThreadTrial, ...]:
    """The thread settings that were tried and are not the one that is reported."""
    return tuple(trial for trial in stats.thread_trials if trial.threads != stats.threads)


def threads_in_words(threads: int) -> str:
    return f"{threads} thread{'' if threads == 1 else 's'}"


def onnxruntime_version() -> str:
    """Of whichever of its two packages is installed."""
    for package in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "none"


def _probe_s() -> float | None:
    """What the probe takes at this machine's reference pace; None where that cannot be measured undisturbed."""
    speed = host_speed()
    return None if speed.warnings or speed.probe_us is None else speed.probe_us / 1e6


@dataclass(frozen=True)
class _Setting:
    """A file with one number of threads, and how its latency will be described."""

    file: Timed
    subject: Subject


def _settings(file: Timed, target: DeviceProfile, timing: Timing) -> list[_Setting]:
    """The file once for each number of threads to try; it is opened, so that one that does not open is refused here."""
    with file.variant.open(file.folder, threads=1) as runner:
        fixed = runner.inputs[0].shape[0]
    batch_size = file.batch_size or (fixed if isinstance(fixed, int) else 1)
    if file.variant.format == "engine":
        subject = Subject(
            batch_size=batch_size,
            device=torch.cuda.get_device_name(),
            runtime=file.variant.made_for,
            conditions=("transfers to and from the GPU included", *gpu_conditions()),
            is_target=True,
        )
        return [_Setting(file, subject)]
    tried = (timing.threads,) if timing.threads is not None else tuple(dict.fromkeys((1, usable_cores())))
    return [
        _Setting(
            file,
            Subject(
                batch_size=batch_size,
                device=host_name(),
                runtime=f"ONNX Runtime CPU, {threads_in_words(threads)}",
                versions={"onnxruntime": onnxruntime_version()},
                conditions=host_conditions(),
                is_target=target.this_host,
                threads=threads,
            ),
        )
        for threads in tried
    ]


def _sessions(settings: Sequence[_Setting], timing: Timing, indices: Sequence[int]) -> list[Session]:
    """One session of each: ONNX files in one fresh process, engines here, where torch and the GPU are ready."""
    chosen = [settings[index] for index in indices]
    onnx = [setting for setting in chosen if setting.file.variant.format == "onnx"]
    files = [
        OnnxSession(
            path=str((setting.file.folder / str(setting.file.variant.file)).absolute()),
            threads=setting.subject.threads or 1,
            batch_size=setting.subject.batch_size,
            image_shape=setting.file.image_shape,
            optimise=setting.file.variant.optimise,
        )
        for setting in onnx
    ]
    found = iter(sessions_in_a_child(files, timing.warmup_s, timing.window_s) if files else ())
    return [
        next(found)
        if setting.file.variant.format == "onnx"
        else timed_session(partial(_opened, setting), timing.warmup_s, timing.window_s)
        for setting in chosen
    ]


@contextmanager
def _opened(setting: _Setting) -> Iterator[Callable[[], object]]:
    """What runs one batch of grey images in an engine."""
    file = setting.file
    with file.variant.open(file.folder) as runner:
        (spec,) = runner.inputs
        batch = np.full((setting.subject.batch_size, *file.image_shape), 0.5, np.float32)
        yield partial(runner.infer, {spec.name: batch})


def _fastest(tried: Sequence[LatencyStats]) -> LatencyStats:
    best = min(tried, key=lambda stats: stats.latency_p50_ms)
    if best.threads is None:
        return best
    trials = tuple(
        ThreadTrial(
            threads=stats.threads or 0,
            latency_p50_ms=stats.latency_p50_ms,
            latency_p50_interval_ms=stats.latency_p50_interval_ms,
            stable=stats.stable,
        )
        for stats in tried
    )
    return best.model_copy(update={"thread_trials": trials})
