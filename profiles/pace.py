"""How fast the processor runs at this very moment, relative to a pace that was once measured on it.

The clock of a processor follows heat, power and, on a shared host, neighbours that nobody sees: the same work takes a
tenth longer now than a minute ago, and no account of the system says so. So a fixed small work, the probe, is timed
between the calls of a measurement, and each call is scaled to the pace that the probes around it had:

    time at the reference pace = time as it was * (probe at the reference pace / probe around the call)

The probe is a product of two matrices of 192 x 192 by one thread of numpy's BLAS: 14 million operations on 0.4 MiB,
which stay in a core's own caches, so that it feels the clock and hardly the memory. Its time at the reference pace is
measured together with the machine's peaks and kept with them (`host_speed`), so that measurements of different days
compare. benchmarks/latency_repeatability.py counts what this is worth.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

SIDE = 192
PROBE_S = 0.01
SLICE_S = 0.05  # of calls between two probes

Probe = Callable[[], float]
"""Seconds that the work takes now."""


def pace_probe(seconds: float = PROBE_S) -> Probe:
    """What times the work for `seconds`, warmed up. From now on this process computes products with one thread."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")
    left, right = np.random.default_rng(0).random((2, SIDE, SIDE), dtype=np.float32)
    product = np.empty_like(left)

    def probe() -> float:
        times = []
        start = now = time.perf_counter()
        while now - start < seconds:
            np.matmul(left, right, out=product)
            earlier, now = now, time.perf_counter()
            times.append(now - earlier)
        return statistics.median(times)

    probe()
    return probe


def probe_library() -> str:
    """What computes the probe: numpy's version, its BLAS and the kernels that this chose. With another of these the
    probe takes another time at the same pace."""
    from threadpoolctl import threadpool_info

    blas = [library for library in threadpool_info() if library["user_api"] == "blas"]
    own = [library for library in blas if "numpy" in library["filepath"]] or blas
    found = [str(own[0].get(key)) for key in ("internal_api", "version", "architecture")] if own else ["no known BLAS"]
    return " ".join([f"numpy {np.__version__},", *found])


def reference_s(seconds: float) -> float:
    """What the work takes at this machine's reference pace: the fastest probe within `seconds`."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(None):  # gives the threads back that the probe takes
        probe, end = pace_probe(), time.perf_counter() + seconds
        fastest = probe()
        while time.perf_counter() < end:
            fastest = min(fastest, probe())
    return fastest
