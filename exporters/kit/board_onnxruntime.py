"""One model of this kit in ONNX Runtime on this board: do its outputs agree with the golden ones, and how fast is it?

    python3 board_onnxruntime.py NAME PRECISION SECONDS

run_on_board.sh calls it once for every model, each in a process of its own, and reads the lines `parity`, `latency`
and `warning` (name, tab, value). Where something is wrong, the last line says what and the exit code is 1. It needs
Python 3.7, numpy and onnxruntime, and nothing of the tool that made the kit.

The latency is measured as that tool measures it on its own machine: a warm-up, then windows of calls back to back
until the medians of the last six windows vary by 5 % at most, or until SECONDS are over.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

KIT = Path(__file__).resolve().parent
WARMUP_S = 0.5
WINDOW_S = 0.25
STABLE_WINDOWS = 6
CV_BOUND = 0.05


def main(name: str, precision: str, seconds: str) -> str | None:
    """Print what was found; the reason where the model failed."""
    kit = json.loads((KIT / "manifest.json").read_text(encoding="utf-8"))
    model = next(row for row in kit["models"] if (row["name"], row["precision"]) == (name, precision))
    images = [_array(file, (kit["batch"], *kit["image_shape"])) for file in kit["golden"]["images"]]
    stride = kit["golden"]["stride"]
    pixels = range(0, int(np.prod(kit["output_size"])), stride)  # one where an image has one answer
    reference = _array(model["reference"], (-1, kit["num_classes"], len(pixels)))
    session = _session(KIT / model["file"])

    def infer(image: Any) -> Any:
        return session.run([kit["output_name"]], {kit["input_name"]: image})[0]

    def golden(logits: Any) -> Any:
        return logits.reshape(logits.shape[0], logits.shape[1], -1)[:, :, ::stride]

    logits = np.concatenate([golden(infer(image)) for image in images])
    if logits.shape != reference.shape or not np.isfinite(logits).all():
        return f"It gave {logits.shape} values, not {reference.shape} finite ones."
    parity = _parity(reference.astype(np.float64), logits.astype(np.float64))
    if parity["max_rel"] > model["tolerance"]:
        return (
            f"Its outputs differ from the golden ones by {parity['max_rel']:.3g} of the largest logit, "
            f"more than {model['tolerance']:g}."
        )
    print(f"parity\t{json.dumps(parity)}")

    windows, stable = _windows(lambda: infer(images[0]), float(seconds))
    times_ms = np.concatenate(windows) * 1e3
    p50, p90, p99 = np.quantile(times_ms, (0.5, 0.9, 0.99))
    latency = {
        "p50_ms": float(p50),
        "p90_ms": float(p90),
        "p99_ms": float(p99),
        "mean_ms": float(times_ms.mean()),
        "count": len(times_ms),
        "batch_size": kit["batch"],
        "throughput_ips": kit["batch"] * 1e3 / float(times_ms.mean()),
        "what": "wall clock",
    }
    print(f"latency\t{json.dumps(latency)}")
    if not stable:
        print(f"warning\tUnstable: the last windows' medians still varied by more than {CV_BOUND:.0%}.")
    if len(times_ms) < 100:
        print(f"warning\tOnly {len(times_ms)} calls: p99 is close to the slowest of them.")
    return None


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; its warnings are about graph clean-up
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _array(file: str, shape: tuple[int, ...]) -> Any:
    return np.fromfile(KIT / file, dtype="<f4").reshape(shape)


def _parity(reference: Any, logits: Any) -> dict[str, float]:
    max_abs = float(np.abs(logits - reference).max())
    scale = float(np.abs(reference).max())
    return {
        "count": len(reference),
        "max_abs": max_abs,
        "max_rel": max_abs / scale if scale else max_abs,
        "top1_agreement": float((reference.argmax(axis=1) == logits.argmax(axis=1)).mean()),
    }


def _windows(infer: Any, max_s: float) -> tuple[list[Any], bool]:
    """Seconds of each call by window, only those of the last six windows where these agree; and whether they do."""
    _window(infer, WARMUP_S)
    windows = []
    deadline = time.perf_counter() + max_s
    while True:
        windows.append(_window(infer, WINDOW_S))
        medians = [statistics.median(window) for window in windows[-STABLE_WINDOWS:]]
        if len(medians) == STABLE_WINDOWS and statistics.stdev(medians) <= CV_BOUND * statistics.mean(medians):
            return windows[-STABLE_WINDOWS:], True
        if time.perf_counter() >= deadline:
            return windows, False


def _window(infer: Any, seconds: float) -> list[float]:
    times: list[float] = []
    start = now = time.perf_counter()
    while now - start < seconds or not times:
        infer()
        earlier, now = now, time.perf_counter()
        times.append(now - earlier)
    return times


if __name__ == "__main__":
    try:
        REASON = main(*sys.argv[1:])
    except Exception as error:  # one line for the result; whatever failed, the next model still has its turn
        REASON = f"{type(error).__name__}: {' '.join(str(error).split())}"
    if REASON:
        print(REASON)
        sys.exit(1)
