"""The latency that a network would have on its target, for choosing a student before any is trained.

this host       measured with ONNX Runtime, as `compress run` does it in the end
any other one   predicted from the kernels of the graph (`profiles.predict`), carried by published measurements and
                by those that the user's own boards have sent back
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from compressor.deploy.board_results import StaleResult, latencies_of, merged_result
from compressor.deploy.latencies import Timed, Timing, measure_files
from compressor.deploy.variants import Variant
from compressor.stage_files import read_facts
from exporters.errors import ExportError
from exporters.onnx_files import classifier_interface, load_onnx
from exporters.tensorrt_operators import check_operators
from profiles.board_result import Board, BoardResult, BoardResultError
from profiles.kernels import fused_kernels
from profiles.latency import LatencyStats
from profiles.predict import Anchor, Prediction, predict_latency
from profiles.schema import DeviceProfile, Precision, mode_key

LatencyOf: TypeAlias = Callable[[Path], Prediction | LatencyStats]

# Two thread settings with six to twelve short sessions each: one to two seconds for a file.
QUICK = Timing(warmup_s=0.02, window_s=0.05, max_s=1.0)


def expected_precision(profile: DeviceProfile, wanted: Sequence[Precision] | None = None) -> Precision:
    """What would ship, as far as it is known before a student is trained.

    That is fp16 where TensorRT takes it: it costs next to nothing. Whether int8 holds its limit of quality shows only
    in the end, and on CPUs whether fp16 or int8 is faster depends on the processor.

    Args:
        wanted: the precisions that the user asks for; None: all that the profile has.
    """
    made = profile.precisions if wanted is None else wanted
    return "fp16" if profile.runtime == "tensorrt" and "fp16" in made and "fp16" in profile.precisions else "fp32"


def latency_source(
    profile: DeviceProfile,
    precision: Precision,
    *,
    anchors: Sequence[Anchor] = (),
    timing: Timing = QUICK,
) -> LatencyOf:
    """What tells the latency of an fp32 ONNX file for one image on this target in this precision.

    Args:
        anchors: the user's own measurements on this very device (`run_anchors`).
        timing: how long is measured, where the target is this host.

    What is returned raises ExportError where a graph cannot run on the target, and PredictionRefused where a
    prediction would be a guess.
    """
    if profile.this_host:
        return lambda path: _measured(path, profile, precision, timing)

    def predicted(path: Path) -> Prediction:
        model = load_onnx(path)
        check_operators(model, profile)
        return predict_latency(fused_kernels(model), profile, precision, anchors=anchors)

    return predicted


def run_anchors(run_folder: Path, profile: DeviceProfile) -> tuple[Anchor, ...]:
    """What a board measured of a finished run's own files in the profile's power mode; nothing where none did, or where
    the files have changed.
    """
    try:
        result = merged_result(run_folder, profile.name)
    except (StaleResult, BoardResultError):
        return ()
    if result is None or other_mode(result, profile) is not None:
        return ()
    variants = {row["model"] + "." + row["precision"]: row for row in read_facts(run_folder / "precision")["variants"]}
    anchors = []
    for key, stats in latencies_of(result, profile).items():
        variant = Variant.from_dict(variants[key])
        try:
            model = load_onnx(run_folder / str(variant.file))
        except ExportError:  # somebody cleaned the run's files away
            continue
        anchors.append(
            Anchor(
                kernels=fused_kernels(model, batch_size=stats.batch_size),
                precision=variant.precision,
                batch_size=stats.batch_size,
                latency_p50_ms=stats.latency_p50_ms,
                source=f"the {variant.model} of the run {run_folder.name} on {stats.device}",
            )
        )
    return tuple(anchors)


def other_mode(result: BoardResult, profile: DeviceProfile) -> str | None:
    """Why a result says nothing of the profile's power mode, in a sentence; None where it is of this mode."""
    mode, ran = profile.peaks.power_mode, _mode_of(result.board, profile)
    if mode is None or (ran is not None and mode_key(ran) == mode_key(mode)):
        return None
    where = "did not say its power mode" if ran is None else f"ran in power mode {ran}"
    return f"What the board sent back is left out: it {where}, and this is about {mode}."


def _mode_of(board: Board, profile: DeviceProfile) -> str | None:
    """The power mode that a board ran in.

    Only a Jetson tells it. Of others, where there is a choice at all, the CPU's highest clock stands for it.
    """
    if board.power_mode is not None or profile.kind == "jetson":
        return board.power_mode
    if len(profile.power_modes) == 1:
        return profile.power_modes[0].name
    highest = board.clocks.get("cpu_max")
    return next((mode.name for mode in profile.power_modes if mode.cpu_mhz and mode.cpu_mhz.value == highest), None)


def _measured(path: Path, profile: DeviceProfile, precision: Precision, timing: Timing) -> LatencyStats:
    shape = classifier_interface(load_onnx(path), path.name).image_shape
    variant = Variant("student", precision, path.name, made_for="ONNX Runtime")
    (stats,) = measure_files([Timed(variant, path.parent, shape)], profile, timing)
    return stats
