"""How fast this machine computes and copies, measured at first use and then read from the user's cache.

A peak from a data sheet is of little use for a CPU: cores, clocks and vector units of a virtual machine are its
host's secret. So both are measured, as the best of many short tries over less than three seconds:

    fp32    matrix products of 1024 x 1024, by numpy's BLAS and by ONNX Runtime with all cores; the faster counts
    memory  copies between two arrays, with one thread and with all cores; reading and writing both count
    pace    the small work by which later measurements tell how fast the processor runs just then (`pace`)

The cache is one file for each machine name, in $XDG_CACHE_HOME/compress or ~/.cache/compress.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from profiles.host import contention, host_name, host_snapshot, usable_cores
from profiles.pace import probe_library, reference_s
from profiles.schema import DeviceProfile, Figure

SIDE = 1024
TRY_S = 0.5
MOST_COPY_BYTES = 256 << 20
SHARE_OF_MEMORY = 16  # of what is free, one part for each of the two arrays


class HostSpeed(BaseModel):
    """What was measured, on which machine and when.

    Attributes:
        fp32_gflops: 10^9 operations a second; a multiply-add is two.
        copy_gb_s: 10^9 bytes a second, read and written.
        copy_mib: size of the arrays; a cache of the processor that is larger makes this the speed of the cache.
        fp32_by, copy_threads: what was fastest.
        probe_us: what the probe of the pace takes at the reference pace, in microseconds; None in older records.
        probe_by: the library that it was measured with; for another one it says nothing.
        warnings: what cast doubt on it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str
    measured_at: datetime
    fp32_gflops: float = Field(gt=0)
    fp32_by: str
    copy_gb_s: float = Field(gt=0)
    copy_mib: float = Field(gt=0)
    copy_threads: int = Field(ge=1)
    probe_us: float | None = Field(default=None, gt=0)
    probe_by: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """Where the figures come from, as the sheets of the devices say it."""
        doubts = "".join(f"; {warning.rstrip('.')}" for warning in self.warnings)
        return f"measured on {self.host} at {self.measured_at:%Y-%m-%d %H:%M} UTC{doubts}"


def host_speed(*, remeasure: bool = False, cache: Path | None = None) -> HostSpeed:
    """The speed of this machine, from the cache where it is known; `remeasure` replaces what is there.

    A cache that cannot be read or written, or is of another machine, costs three seconds and nothing else. What was
    measured while others used the machine is returned with its warnings and not kept.
    """
    path = cache_file(cache)
    known = None if remeasure else _read(path)
    if known is not None:
        return known
    measured = measure_host_speed()
    if measured.warnings:
        return measured
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
        temporary.write_text(measured.model_dump_json(indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError:
        pass  # a read-only home: the next call measures again
    return measured


def with_host_speed(profile: DeviceProfile, speed: HostSpeed) -> DeviceProfile:
    """The profile of this machine with the measured figures; those that its file gives stay."""
    assert profile.this_host
    compute = f"{speed.source}; best of {SIDE} x {SIDE} matrix products by {speed.fp32_by}"
    threads = f"{speed.copy_threads} thread{'' if speed.copy_threads == 1 else 's'}"
    copies = f"{speed.source}; best copy of {speed.copy_mib:.0f} MiB with {threads}, read and written"
    peaks = profile.peaks
    if peaks.fp32_tflops is None:
        peaks = peaks.model_copy(
            update={"fp32_tflops": Figure(value=float(f"{speed.fp32_gflops / 1e3:.3g}"), source=compute)}
        )
    bandwidth = profile.memory_bandwidth_gb_s or Figure(value=float(f"{speed.copy_gb_s:.3g}"), source=copies)
    return profile.model_copy(update={"peaks": peaks, "memory_bandwidth_gb_s": bandwidth})


def cache_file(cache: Path | None = None) -> Path:
    """Where the speed of the machine of this name is kept."""
    root = cache or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = host_name()
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40]
    return root / "compress" / f"host-speed-{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.json"


def measure_host_speed(seconds: float = TRY_S) -> HostSpeed:
    """Measure now; each of the five tries takes `seconds` and its preparation."""
    before, cores = host_snapshot(), usable_cores()
    compute = {"numpy": _numpy_product(), **_onnxruntime_product(cores)}
    gflops = {by: 2 * SIDE**3 / _shortest_s(work, seconds) / 1e9 for by, work in compute.items()}
    size = _copy_bytes()
    copied = {threads: 2 * size / _copy_s(size, threads, seconds) / 1e9 for threads in dict.fromkeys((1, cores))}
    fp32_by, threads = max(gflops, key=gflops.__getitem__), max(copied, key=copied.__getitem__)
    return HostSpeed(
        host=host_name(),
        measured_at=datetime.now(UTC),
        fp32_gflops=gflops[fp32_by],
        fp32_by=fp32_by,
        copy_gb_s=copied[threads],
        copy_mib=size / 2**20,
        copy_threads=threads,
        probe_us=reference_s(seconds) * 1e6,
        probe_by=probe_library(),
        warnings=tuple(contention(before, host_snapshot())),
    )


def _read(path: Path) -> HostSpeed | None:
    try:
        known = HostSpeed.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return known if (known.host, known.probe_by) == (host_name(), probe_library()) else None


def _shortest_s(work: Callable[[], object], seconds: float) -> float:
    """The shortest of the calls that fit into `seconds`, after one that does not count."""
    work()
    shortest, start = float("inf"), time.perf_counter()
    now = start
    while now - start < seconds:
        work()
        earlier, now = now, time.perf_counter()
        shortest = min(shortest, now - earlier)
    return shortest


def _numpy_product() -> Callable[[], object]:
    left, right = _matrices()
    return partial(np.matmul, left, right, out=np.empty_like(left))


def _onnxruntime_product(cores: int) -> dict[str, Callable[[], object]]:
    """The same in ONNX Runtime, which uses all cores whatever OMP_NUM_THREADS says; nothing where it is missing."""
    try:
        import onnx
        import onnxruntime

        session = onnxruntime.InferenceSession
    except (ImportError, AttributeError):
        return {}
    matrices = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (SIDE, SIDE)) for name in "abc"]
    node = onnx.helper.make_node("MatMul", ["a", "b"], ["c"])
    graph = onnx.helper.make_graph([node], "product", matrices[:2], matrices[2:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = cores, 3
    runner = session(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    left, right = _matrices()
    return {"ONNX Runtime": partial(runner.run, None, {"a": left, "b": right})}


def _matrices() -> tuple[np.ndarray[tuple[int, int], np.dtype[np.float32]], ...]:
    random = np.random.default_rng(0)
    return tuple(random.random((SIDE, SIDE), dtype=np.float32) for _ in range(2))


def _copy_bytes() -> int:
    """The size of an array: small enough for boards with little memory, whole pages."""
    try:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        free = MOST_COPY_BYTES * SHARE_OF_MEMORY
    return max(1 << 20, min(MOST_COPY_BYTES, free // SHARE_OF_MEMORY)) >> 12 << 12


def _copy_s(size: int, threads: int, seconds: float) -> float:
    """Shortest time to copy `size` bytes with so many threads; numpy copies without Python's lock."""
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        return _shortest_s(lambda: [*pool.map(lambda part: np.copyto(*part), parts)], seconds)
