"""What `compress profile` measures on this machine: latency, memory, and where the time goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from compressor.deploy.child_process import ChildFailed
from compressor.deploy.latencies import Timed, Timing, in_words, measure_files, threads_in_words, unmeasurable
from compressor.deploy.layer_profiles import engine_layers, onnx_layers
from compressor.deploy.peak_memory import peak_memory
from compressor.deploy.profile_record import ProfiledFile
from compressor.deploy.profile_sources import Source
from compressor.report import text
from compressor.report.layers_picture import layers_picture
from exporters.errors import ExportError
from profiles.host_speed import HostSpeed, host_speed
from profiles.latency import LatencyStats
from profiles.layer_times import LayerTimes
from profiles.schema import DeviceProfile


def measured_files(
    sources: Sequence[Source],
    target: DeviceProfile,
    batches: Sequence[int] | None,
    timing: Timing,
    folder: Path,
    note: Callable[[str], None],
) -> tuple[list[ProfiledFile], HostSpeed | None]:
    """Every file at every batch size, all in turn; then memory, layers and their picture at the first batch size.

    Returns:
        the files, and this machine's peaks where fp32 files could be set against them.

    Raises:
        ExportError: a file does not open or does not run here.
    """
    reasons = {source.name: unmeasurable(source.variant, target) for source in sources}
    timed = [
        Timed(source.variant, source.folder, source.image_shape, size)
        for source in sources
        if reasons[source.name] is None
        for size in source.batches_of(batches)
    ]
    note(f"timing {len(timed)} in turn, each in sessions of its own")
    try:
        stats = iter(measure_files(timed, target, timing))
    except ExportError as error:
        raise _blaming_the_batch(error, timed) from error
    speed = host_speed() if any(_against_peak(source) for source in sources) else None
    if speed is not None and speed.warnings:
        speed = None  # a peak that others took part of is none
    files = []
    for source in sources:
        reason = reasons[source.name]
        if reason is not None:
            files.append(source.record(notes=(reason,)))
            continue
        latencies = tuple(next(stats) for _ in source.batches_of(batches))
        for latency in latencies:
            note(f"{source.name}, batch {latency.batch_size}: {in_words(latency)}")
        files.append(_looked_into(source, latencies, source.left_out(batches), speed, folder))
    return files, speed


def _blaming_the_batch(error: ExportError, timed: Sequence[Timed]) -> ExportError:
    """The same refusal; where memory may have run out, with the largest batch as the likely cause."""
    sizes = [(file.batch_size or 1, file.image_shape) for file in timed]
    images, shape = max(sizes, key=lambda size: size[0] * math.prod(size[1]))
    # A process that gave no answer was killed or could not hold the images; ONNX Runtime speaks of allocation.
    no_memory = isinstance(error.__cause__, ChildFailed) or "alloc" in error.received.lower()
    if images == 1 or not no_memory:
        return error
    images_gib = images * math.prod(shape) * 4 / 2**30
    return ExportError(
        error.received,
        f"The batch of {images:,} is the likely cause: its images alone take "
        f"{text.significant(images_gib)} GiB of memory.",
        "Give a smaller --batch.",
    )


def _looked_into(
    source: Source, latencies: tuple[LatencyStats, ...], notes: list[str], speed: HostSpeed | None, folder: Path
) -> ProfiledFile:
    """With its memory and its layers at the first batch size. A batch that the file does not take has left none."""
    if not latencies:
        return source.record(notes=notes)
    batch_size, threads = latencies[0].batch_size, latencies[0].threads
    memory = picture = layers = None
    if source.variant.format == "onnx":
        memory = peak_memory(source.path, threads=threads or 1, batch_size=batch_size, optimise=source.variant.optimise)
    try:
        layers = _layers(source, batch_size, threads, speed)
        picture = f"layers-{source.name}.png"
        layers_picture(layers, folder / picture, title=_title(source, layers))
    except ExportError as error:
        notes = [*notes, f"No layers: {error.received}"]
    return source.record(measured=latencies, memory=memory, layers=layers, layers_picture=picture, notes=notes)


def _layers(source: Source, batch_size: int, threads: int | None, speed: HostSpeed | None) -> LayerTimes:
    images = np.full((batch_size, *source.image_shape), 0.5, np.float32)
    if source.variant.format == "engine":
        beside = source.folder / "onnx" / f"{source.variant.model}.onnx"
        return engine_layers(source.path, images, beside if beside.exists() else None)
    found = onnx_layers(source.path, images, threads=threads, optimise=source.variant.optimise)
    peak_tflops = speed.fp32_gflops / 1e3 if speed is not None and _against_peak(source) else None
    return found.against_peak(peak_tflops)


def _against_peak(source: Source) -> bool:
    """The only peak of a CPU that is measured is that of fp32."""
    return source.variant.format == "onnx" and source.variant.precision == "fp32"


def _title(source: Source, layers: LayerTimes) -> str:
    threads = "" if layers.threads is None else f", {threads_in_words(layers.threads)}"
    return f"{source.name}: where the time goes, batch {layers.batch_size}{threads}"
