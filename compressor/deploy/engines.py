"""TensorRT engines, which only a machine with the target's own GPU can build; everywhere else the kit does it there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from compressor.deploy.variants import Variant
from exporters.engine_card import BatchProfile
from exporters.errors import ExportError
from exporters.golden import golden_patterns
from exporters.logits import logits_of, onnx_logits
from exporters.onnx_files import classifier_interface, load_onnx
from exporters.onnx_to_tensorrt import engine_from_onnx
from exporters.parity import compare
from exporters.runners import TensorRTRunner
from exporters.tensorrt_backend import Backend, TensorRTMissing, load_backend, usable_gpu
from profiles.schema import DeviceProfile

PATTERNS = 8


def engine_environment() -> dict[str, str]:
    """What decides whether and which engines can be built here, for the stage's fingerprint."""
    gpu = usable_gpu()
    try:
        tensorrt = str(load_backend("tensorrt"))
    except TensorRTMissing:
        tensorrt = "none"
    return {"tensorrt": tensorrt, "gpu": "none" if gpu is None else f"{gpu.name}, CUDA {gpu.cuda}"}


def why_no_engine(target: DeviceProfile) -> str | None:
    """Why this machine can build no engine for the target, in a sentence; None where it can."""
    if target.runtime != "tensorrt":
        return f"skipped: {target.title} runs ONNX Runtime."
    if target.kind == "jetson":
        return f"skipped: an engine for {target.title} can only be built on it, which the kit does."
    gpu = usable_gpu()
    if gpu is None or gpu.compute_capability != target.compute_capability:
        here = "no GPU" if gpu is None else f"{gpu.name} (compute capability {gpu.compute_capability})"
        return (
            f"skipped: an engine for {target.title} needs compute capability {target.compute_capability}, and this "
            f"machine has {here}; the kit builds it there."
        )
    try:
        backend = load_backend("tensorrt")
    except TensorRTMissing as error:
        return f"skipped: {error.received} {error.action}"
    if target.tensorrt is not None and not target.tensorrt.admits(backend.version):
        return (
            f"skipped: {backend} is installed, and {target.title} is said to run {target.tensorrt.min} to "
            f"{target.tensorrt.max}."
        )
    return None


def build_engines_here(
    variants: Sequence[Variant],
    run_folder: Path,
    folder: Path,
    target: DeviceProfile,
    *,
    max_batch: int,
    note: Callable[[str], None],
) -> tuple[list[dict[str, Any]], str | None]:
    """Build every ONNX variant as `<model>.<precision>.engine`, with its parity to the network's fp32 file.

    Returns:
        rows as `Made.rows` gives, and the sentence that says why there are none.
    """
    if (reason := why_no_engine(target)) is not None:
        return [], reason
    backend = load_backend("tensorrt")
    rows = []
    for variant in variants:
        if variant.file is None:
            continue
        engine = replace(
            variant, format="engine", file=None, made_for=f"{backend} on {target.title}", judged=True, note=None
        )
        try:
            rows.append(_built(variant, engine, backend, run_folder, folder, target, max_batch, note))
        except ExportError as error:
            rows.append(replace(engine, size_mib=None, sha256=None, note=f"not built: {error.received}").to_dict())
    return rows, None


def _built(
    variant: Variant,
    engine: Variant,
    backend: Backend,
    run_folder: Path,
    folder: Path,
    target: DeviceProfile,
    max_batch: int,
    note: Callable[[str], None],
) -> dict[str, Any]:
    path = folder / f"{variant.model}.{variant.precision}.engine"
    built = engine_from_onnx(
        run_folder / str(variant.file),
        path,
        backend=backend,
        precision=variant.precision,
        rebuild="compress run --config config.yaml, with the run's own config.yaml, on the machine that is to run it",
        preprocessing={"image": "float32 in [0, 1]; the normalisation is inside"},
        batch=BatchProfile(min=1, opt=1, max=max_batch),
        workspace_mib=target.workspace_mib,
        timing_cache_folder=run_folder / "timing-cache",
    )
    fp32 = run_folder / "onnx" / f"{variant.model}.onnx"
    patterns = golden_patterns(PATTERNS, classifier_interface(load_onnx(fp32)).image_shape).astype(np.float32)
    with TensorRTRunner(path) as runner:
        parity = compare(onnx_logits(fp32, patterns), logits_of(runner, patterns))
    note(
        f"{variant.model} {variant.precision} engine: {built.size_mib:.2f} MiB in {built.build_s:.0f} s, within "
        f"{parity.max_rel:.1e} of fp32"
    )
    made = replace(
        engine,
        file=path.relative_to(run_folder).as_posix(),
        size_mib=built.size_mib,
        sha256=built.card.engine_sha256,
    )
    return {**made.to_dict(), "parity": vars(parity)}
