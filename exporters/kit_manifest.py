"""What a device kit says about itself: `manifest.json` for programs, and `plan.tsv`, the part for the board's awk.

The plan is made from the manifest, so the two cannot disagree. Its lines are fields between tabs, `-` where there is
nothing (tabs next to each other would be one to a shell).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from exporters.golden import TOLERANCE, golden_stride
from exporters.onnx_files import ClassifierInterface
from exporters.routes import Build
from profiles.schema import DeviceProfile, VersionRange

SCHEMA_VERSION = "1.0"

# Where a profile sets none: trtexec 8.2 would take 16 MiB, which loses tactics in silence.
DEFAULT_WORKSPACE_MIB = 1024


def manifest_of(
    target: DeviceProfile,
    interface: ClassifierInterface,
    models: Sequence[Mapping[str, Any]],
    *,
    golden: Sequence[str],
    origin: str,
    notes: Sequence[str],
    metadata: Mapping[str, str],
) -> dict[str, Any]:
    """The manifest without its last entry, `files`: the SHA-256 of every other file of the kit.

    models: rows of `model_entry`; golden: the input file of each call; origin: of these inputs, in words.
    """
    return {
        "schema_version": SCHEMA_VERSION,
        "target": target.name,
        "title": " ".join(target.title.split()),
        "kind": target.kind,
        "runtime": target.runtime,
        "compute_capability": target.compute_capability,
        "jetpack": _ends(target.jetpack),
        "tensorrt": _ends(target.tensorrt),
        "cuda": _ends(target.cuda),
        "workspace_mib": target.workspace_mib or DEFAULT_WORKSPACE_MIB,
        "input_name": interface.input_name,
        "output_name": interface.output_name,
        "image_shape": list(interface.image_shape),
        "num_classes": interface.num_classes,
        "output_size": list(interface.output_size),
        "batch": interface.batch or 1,
        "fixed_batch": interface.batch is not None,
        "golden": {"images": list(golden), "origin": origin, "stride": golden_stride(interface)},
        "models": list(models),
        "notes": list(notes),
        "metadata": dict(sorted(metadata.items())),
    }


def model_entry(
    target: DeviceProfile, name: str, build: Build, *, file: str, sha256: str, reference: str
) -> dict[str, Any]:
    """One model in one precision; file and reference are paths within the kit."""
    return {
        "name": name,
        "precision": build.precision,
        "file": file,
        "sha256": sha256,
        "reference": reference,
        "tolerance": TOLERANCE[target.runtime, build.precision],
        "flags": list(build.flags),
    }


def plan_of(manifest: Mapping[str, Any]) -> str:
    """The plan.tsv of a manifest."""
    name = manifest["input_name"]
    # trtexec separates a name from what follows with a colon, unless the name stands in quotes.
    quoted = f"'{name}'" if ":" in name else name
    shape = f"{quoted}:{'x'.join(map(str, (manifest['batch'], *manifest['image_shape'])))}"
    lines: list[Sequence[object]] = [
        *((key, manifest[key]) for key in ("target", "title", "kind", "runtime")),
        *((key, *(manifest[key] or {"min": "-", "max": "-"}).values()) for key in ("jetpack", "tensorrt")),
        ("compute_capability", manifest["compute_capability"] or "-"),
        ("workspace_mib", manifest["workspace_mib"]),
        ("input", quoted),
        ("shape", "-" if manifest["fixed_batch"] else shape),  # trtexec refuses shapes for a graph of fixed size
        ("batch", manifest["batch"]),
        ("classes", manifest["num_classes"]),
        ("pixels", math.prod(manifest["output_size"]), manifest["golden"]["stride"]),  # of a class map, else 1 and 1
        ("calls", len(manifest["golden"]["images"])),
    ]
    keys = ("name", "precision", "file", "sha256", "reference", "tolerance")
    lines += [("model", *(row[key] for key in keys), ",".join(row["flags"]) or "-") for row in manifest["models"]]
    return "".join("\t".join(map(str, line)) + "\n" for line in lines)


def _ends(versions: VersionRange | None) -> dict[str, str] | None:
    return {"min": versions.min, "max": versions.max} if versions else None
