"""What `compress profile` says of a device that is not here: predictions, and what the device has sent back."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.deploy.profile_record import KernelShare, ProfiledFile
from compressor.deploy.profile_sources import Found, Source
from compressor.report.predicted import Prediction
from profiles.errors import ProfileError
from profiles.latency import LatencyStats
from profiles.schema import DeviceProfile, Precision

if TYPE_CHECKING:
    from profiles.kernels import Kernel
    from profiles.predict import Anchor


def predicted_files(
    sources: Sequence[Source], found: Found, folder: Path, target: DeviceProfile, batches: Sequence[int] | None
) -> list[ProfiledFile]:
    """Every ONNX file at every batch size; of a lone fp32 file also what could be made of it.

    Raises:
        StaleResult, BoardResultError: what the device sent back is not of the run in `folder` as it is now.
    """
    sent, anchors = _sent_back(folder, found, target)
    files = []
    for source in sources:
        for precision in _precisions(source, found, target):
            own = precision == source.variant.precision
            files.append(
                source.record(
                    name=source.name if own else f"{source.name}, as {precision}",
                    precision=precision,
                    merged=[stats for key, stats in sent.items() if key == source.name],
                    **_predicted(source, precision, target, batches, anchors),
                )
            )
    return files


def how_to_measure(source: Path, found: Found, target: DeviceProfile) -> tuple[str, str]:
    """That nothing was measured, and how it can be."""
    if found.kind == "run":
        how = f"run its kit on the device and bring the result back with `compress merge {source} result.json`"
    else:
        how = f"make a kit with `compress export --from {source} --samples ./images --target {target.name}`"
    return (
        f"Predicted, not measured: {target.title} is not this machine.",
        f"To measure, {how}; `compress run --board <ssh name>` does all of it itself.",
    )


def _precisions(source: Source, found: Found, target: DeviceProfile) -> tuple[Precision, ...]:
    """A run holds a file for each precision; of a lone fp32 file others can be made."""
    own = source.variant.precision
    return target.precisions if found.kind == "onnx" and own == "fp32" else (own,)


def _predicted(
    source: Source,
    precision: Precision,
    target: DeviceProfile,
    batches: Sequence[int] | None,
    anchors: Sequence[Anchor],
) -> dict[str, Any]:
    """Fields of the record: the predictions, and what they are made of at the first batch size."""
    from profiles.kernels import fused_kernels
    from profiles.predict import expected_parts_ms, predict_latency

    assert source.graph is not None
    made: dict[str, Any] = {"predicted": [], "notes": source.left_out(batches)}
    try:
        for size in source.batches_of(batches):
            kernels = fused_kernels(source.graph, batch_size=size)
            made.setdefault("kernels", _shares(kernels))
            found = predict_latency(kernels, target, precision, batch_size=size, anchors=anchors)
            made.setdefault("parts_ms", expected_parts_ms(kernels, target, precision, anchors=anchors))
            made["predicted"].append(Prediction.model_validate(found.to_dict()))
    except ProfileError as error:  # a graph whose kernels cannot be counted, or what would be a guess
        made["notes"].insert(0, f"{error.received} {error.action}")
    return made


def _sent_back(folder: Path, found: Found, target: DeviceProfile) -> tuple[dict[str, LatencyStats], Sequence[Anchor]]:
    """What the device itself measured of this run, and the anchors that it gives to predictions."""
    from compressor.deploy.board_results import latencies_of, merged_result

    result = merged_result(folder, target.name) if found.kind == "run" else None
    if result is None:
        return {}, ()
    from compressor.deploy.expected_latency import run_anchors

    return latencies_of(result, target), run_anchors(folder, target)


def _shares(kernels: Sequence[Kernel]) -> tuple[KernelShare, ...]:
    kinds: dict[str, list[Kernel]] = defaultdict(list)
    for kernel in kernels:
        kinds[kernel.kind].append(kernel)
    shares = [
        KernelShare(
            kind=kind,
            count=len(group),
            macs=sum(kernel.macs for kernel in group),
            elements=sum(k.input_elements + k.weight_elements + k.output_elements for k in group),
        )
        for kind, group in kinds.items()
    ]
    return tuple(sorted(shares, key=lambda share: -share.macs))
