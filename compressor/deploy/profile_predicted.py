"""What `compress profile` says of a device that is not here: predictions, and what the device has sent back."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.deploy.profile_record import KernelShare, ProfiledFile
from compressor.deploy.profile_sources import Found, Source
from compressor.report import text
from compressor.report.predicted import Prediction
from exporters.errors import ExportError
from exporters.tensorrt_operators import check_operators
from profiles.errors import ProfileError
from profiles.latency import LatencyStats
from profiles.schema import DeviceProfile, Precision

if TYPE_CHECKING:
    from profiles.kernels import Kernel
    from profiles.predict import Anchor


BYTES: dict[Precision, int] = {"fp32": 4, "fp16": 2, "int8": 1}


def predicted_files(
    sources: Sequence[Source], found: Found, folder: Path, target: DeviceProfile, batches: Sequence[int] | None
) -> list[ProfiledFile]:
    """Every ONNX file at every batch size; of a lone fp32 file also what could be made of it.

    Raises:
        StaleResult, BoardResultError: what the device sent back is not of the run in `folder` as it is now.
        ExportError: the target's runtime does not read a lone file; of one in a run it is a note.
    """
    sent, anchors, why_none = _sent_back(folder, found, target)
    files = []
    for source in sources:
        for precision in _precisions(source, found, target):
            own = precision == source.variant.precision
            made = _predicted(source, precision, target, batches, anchors, alone=found.kind == "onnx")
            files.append(
                source.record(
                    name=source.name if own else f"{source.name}, as {precision}",
                    precision=precision,
                    merged=[stats for key, stats in sent.items() if key == source.name],
                    **made | {"notes": [*made["notes"], *why_none]},
                )
            )
    return files


def how_to_measure(
    source: Path, found: Found, files: Sequence[ProfiledFile], target: DeviceProfile, named: str
) -> tuple[str, ...]:
    """Of which files nothing was measured, and how it can be; nothing where the device has sent back all.

    Args:
        named: the target as the user typed it.
    """
    left = [file.name for file in files if not file.merged]
    if not left:
        return ()
    which = "" if len(left) == len(files) else f"{text.joined(left)}: "
    if found.kind == "run":
        merge = shlex.join(["compress", "merge", str(source), "result.json"])
        how = f"run its kit on the device and bring the result back with `{merge}`; "
        how += "`compress run --board <ssh name>` does all of it itself."
    else:
        export = ["compress", "export", "--from", str(source), "--samples", "./images", "--target", named]
        how = f"make a kit with `{shlex.join(export)}` and run it on the device."
    return f"{which}Predicted, not measured: {target.title} is not this machine.", f"To measure, {how}"


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
    alone: bool,
) -> dict[str, Any]:
    """Fields of the record: the predictions, and what they are made of at the first batch size."""
    from profiles.kernels import fused_kernels
    from profiles.predict import expected_parts_ms, predict_latency

    assert source.graph is not None
    made: dict[str, Any] = {"predicted": [], "notes": source.left_out(batches)}
    try:
        check_operators(source.graph, target)
        for size in source.batches_of(batches):
            kernels = fused_kernels(source.graph, batch_size=size)
            if (too_large := _beyond_memory(kernels, precision, target, size)) is not None:
                made["notes"].append(too_large)
                continue
            made.setdefault("kernels", _shares(kernels))
            found = predict_latency(kernels, target, precision, batch_size=size, anchors=anchors)
            made.setdefault("parts_ms", expected_parts_ms(kernels, target, precision, anchors=anchors))
            made["predicted"].append(Prediction.model_validate(found.to_dict()))
    except (ExportError, ProfileError) as error:  # not read there, kernels that cannot be counted, or a guess
        if alone and isinstance(error, ExportError):
            raise
        made["notes"].insert(0, f"{error.received} {error.expected}")
    return made


def _beyond_memory(
    kernels: Sequence[Kernel], precision: Precision, target: DeviceProfile, batch_size: int
) -> str | None:
    """Why there is no latency: the least that any runtime needs, all weights and one kernel's values, does not fit."""
    values = sum(kernel.weight_elements for kernel in kernels)
    values += max((kernel.input_elements + kernel.output_elements for kernel in kernels), default=0)
    needed_gib = values * BYTES[precision] / 2**30
    if target.memory_gib is None or needed_gib <= target.memory_gib.value:
        return None
    needed = text.beside(needed_gib, target.memory_gib.value)
    return (
        f"Batch {batch_size:,} has no latency in {precision}: it needs at least {needed} GiB for weights and "
        f"activations, and {target.title} has {target.memory_gib.value:g} GiB."
    )


def _sent_back(
    folder: Path, found: Found, target: DeviceProfile
) -> tuple[dict[str, LatencyStats], Sequence[Anchor], tuple[str, ...]]:
    """What the device itself measured of this run, the anchors that it gives to predictions, or why it gives none."""
    from compressor.deploy.board_results import latencies_of, merged_result

    result = merged_result(folder, target.name) if found.kind == "run" else None
    if result is None:
        return {}, (), ()
    from compressor.deploy.expected_latency import other_mode, run_anchors

    if (reason := other_mode(result, target)) is not None:
        return {}, (), (reason,)
    return latencies_of(result, target), run_anchors(folder, target), ()


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
