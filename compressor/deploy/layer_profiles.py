"""Runs a file with its runtime's profiler on, and gives the table of its layers (`profiles.layer_times`)."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.deploy.variants import Variant
from compressor.report.schema import LayerProfile
from exporters.causes import one_line
from exporters.errors import ExportError
from exporters.runners import TensorRTRunner
from exporters.tensorrt_backend import load_backend
from profiles.host import host_name
from profiles.layer_times import LayerNames, LayerTime, LayerTimes, onnxruntime_layers, tensorrt_layers

WARMUP_CALLS = 3
FEWEST_CALLS, MOST_CALLS = 8, 200
PROFILE_S = 0.5
MOST_LAYERS = 40


def onnx_layers(path: Path, images: NDArray[np.float32], *, threads: int | None, optimise: bool) -> LayerTimes:
    """The layers of an ONNX file on this machine's CPU, as ONNX Runtime has merged them.

    Raises:
        ExportError: the file does not load or run, or ONNX Runtime wrote no profile.
    """
    import onnxruntime

    from exporters.onnx_files import load_onnx

    names = LayerNames(load_onnx(path))
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        if threads is not None:
            options.intra_op_num_threads = threads
        if not optimise:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            feed = {session.get_inputs()[0].name: images}
            for _ in _calls():
                session.run(None, feed)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception as error:  # its exceptions share no base class
            raise ExportError(
                f"ONNX Runtime {onnxruntime.__version__} gave no profile of {path.name}: {one_line(error)}.",
                "A file that runs, and a profile of it, were expected.",
                "Check that the disk for temporary files has room; the latency itself does not need the profile.",
            ) from error
    return onnxruntime_layers(events, names, batch_size=len(images), threads=threads, warmup_calls=WARMUP_CALLS)


def profiles_of_networks(
    variants: Sequence[Variant],
    latencies: Mapping[str, Any],
    run_folder: Path,
    image_shape: tuple[int, int, int],
    note: Callable[[str], None],
) -> list[LayerProfile]:
    """Of the fp32 ONNX files of student and teacher, those of which a latency was taken, with as many threads as it.

    A file without a profile is passed over with a note: nothing that is decided needs one.

    Args:
        latencies: of `latencies.measure_variants`, of the same files.
    """
    profiles = []
    for variant in variants:
        latency = latencies.get(variant.key, {})
        if variant.format != "onnx" or variant.precision != "fp32" or "batch_size" not in latency:
            continue
        images = np.full((latency["batch_size"], *image_shape), 0.5, np.float32)
        file, threads = run_folder / str(variant.file), latency["threads"]
        try:
            times = onnx_layers(file, images, threads=threads, optimise=variant.optimise)
        except ExportError as error:
            note(error.received)
            continue
        profiles.append(
            LayerProfile(
                artefact=f"{variant.model} {variant.precision}",
                device=host_name(),
                batch_size=times.batch_size,
                num_layers=len(times.layers),
                sum_ms=times.sum_ms,
                layers=longest_layers(times),
            )
        )
    return profiles


def longest_layers(times: LayerTimes) -> tuple[LayerTime, ...]:
    """At most the 40 that take longest, in the order of execution."""
    longest = sorted(range(len(times.layers)), key=lambda index: -times.layers[index].time_ms)[:MOST_LAYERS]
    return tuple(times.layers[index] for index in sorted(longest))


def engine_layers(path: Path, images: NDArray[np.float32], onnx_file: Path | None) -> LayerTimes:
    """The layers of an engine on this machine's GPU; the ONNX file that it was built from names their parts.

    Raises:
        ExportError: the engine does not open or run here.
    """
    from exporters.onnx_files import load_onnx

    with ProfiledEngine(path) as engine:
        calls = [engine.layer_times(images) for _ in _calls()]
    names = LayerNames(load_onnx(onnx_file) if onnx_file is not None else None)
    return tensorrt_layers(calls[WARMUP_CALLS:], names, batch_size=len(images))


class ProfiledEngine(TensorRTRunner):
    """An engine whose layers are timed one by one, which costs it its overlaps and its CUDA graph."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        module = load_backend(self.card.backend).module

        class Profiler(module.IProfiler):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                module.IProfiler.__init__(self)
                self.times: list[tuple[str, float]] = []

            def report_layer_time(self, layer_name: str, ms: float) -> None:
                self.times.append((layer_name, ms))

        self._profiler = Profiler()
        self._context.profiler = self._profiler
        self._context.enqueue_emits_profile = True

    def layer_times(self, images: NDArray[np.float32]) -> list[tuple[str, float]]:
        """Run one batch; (name, ms) of every layer in order."""
        self._profiler.times = []
        self.infer({self.inputs[0].name: images})
        return list(self._profiler.times)


def _calls() -> Iterator[int]:
    """Counts the calls to make: those that warm up, and then for `PROFILE_S` within the bounds."""
    yield from range(WARMUP_CALLS)
    start, call = time.perf_counter(), 0
    while call < FEWEST_CALLS or (call < MOST_CALLS and time.perf_counter() - start < PROFILE_S):
        yield call
        call += 1
