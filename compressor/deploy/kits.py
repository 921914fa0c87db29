"""The device kit of a run or an export, and what the report says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.deploy.variants import Variant
from exporters.device_kit import KitModel, write_kit
from exporters.routes import route_for
from profiles.schema import DeviceProfile

FOLDER = Path("kit", "kit")


def make_kit(
    run_folder: Path,
    variants: Iterable[Variant],
    target: DeviceProfile,
    *,
    opset: int,
    golden_images: NDArray[np.float32] | None = None,
    metadata: Mapping[str, str],
) -> dict[str, Any]:
    """Write `kit/kit/` and `kit/kit.tar.gz`; returns the record `Kit` of the report.

    Args:
        variants: ONNX files; those that were not made are left out.
        golden_images: (N, C, H, W) as the files take them; None for seeded patterns.

    Raises:
        ExportError: see `write_kit`.
    """
    # TensorRT 8 builds fp16 from the fp32 file, so that two variants may have one file.
    files = {variant.file: variant for variant in variants if variant.file is not None}.values()
    kit = write_kit(
        run_folder / FOLDER,
        target=target,
        route=route_for(target, opset),
        models=[
            KitModel(variant.model, variant.file_precision, run_folder / str(variant.file), str(variant.sha256))
            for variant in files
        ],
        golden_images=golden_images,
        metadata=metadata,
    )
    return {
        "path": f"{FOLDER.as_posix()}.tar.gz",
        "sha256": kit.manifest_sha256,
        "files": [f"{FOLDER.as_posix()}/{name}" for name in kit.files],
        "notes": list(kit.notes),
    }
