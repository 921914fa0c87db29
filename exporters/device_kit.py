"""A kit for a board that this machine cannot build for: models, golden outputs, and a script that does the rest there.

    kit/  run_on_board.sh   checks the board, builds, checks the outputs, times, writes result.json
          README.md         for the person at the board
          infer.py, infer.cpp   one image to one class or one class map, to copy from
          models/*.onnx     what the target's runtime takes
          golden/*.bin      raw float32, little-endian: one input for each call, and the outputs of every model file, of
                            class maps every so many pixels (`golden_stride`)
          plan.tsv          what the script reads; manifest.json is the same and more for programs, with every SHA-256
    kit.tar.gz              all of it; the same content gives the same bytes

The plan and the manifest are made in `kit_manifest`; what the board's outputs are compared with, in `golden`.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import string
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from exporters.errors import ExportError
from exporters.files import sha256_of, write_atomically
from exporters.golden import golden_calls, reference_logits
from exporters.kit_manifest import manifest_of, model_entry, plan_of
from exporters.onnx_files import ClassifierInterface, classifier_interface, load_onnx
from exporters.routes import Build, Route
from profiles.schema import DeviceProfile, Precision

FILES = Path(__file__).parent / "kit"
MANIFEST = "manifest.json"
SCRIPT = "run_on_board.sh"


@dataclass(frozen=True)
class KitModel:
    """One ONNX file that goes into a kit.

    Attributes:
        name: whose it is.
        precision: of the file; what is built from it is the route's matter.
        path: where it lies now.
        sha256: of that file, as it was recorded when it was made.
    """

    name: Literal["student", "teacher"]
    precision: Precision
    path: Path
    sha256: str


@dataclass(frozen=True)
class Kit:
    """A kit on disk.

    Attributes:
        folder, archive: the folder, and the .tar.gz beside it that unpacks to a folder of the same name.
        manifest_sha256: of manifest.json, which names the hash of every other file: the board's result repeats it.
        archive_sha256: of the archive.
        files: paths within the folder, sorted.
        notes: what is not proven about the target's route, and what was left out.
    """

    folder: Path
    archive: Path
    manifest_sha256: str
    archive_sha256: str
    files: tuple[str, ...]
    notes: tuple[str, ...]


def write_kit(
    folder: Path,
    *,
    target: DeviceProfile,
    route: Route,
    models: Sequence[KitModel],
    golden_images: NDArray[np.float32] | None = None,
    metadata: Mapping[str, str],
) -> Kit:
    """Write `folder` and `folder`.tar.gz, each whole or not at all; a kit that is already there is replaced.

    Args:
        folder: where the kit goes; its parent exists.
        target, route: the board, and how each of its precisions is built. Precisions whose file is not among the
            models are left out.
        models: all with the same interface.
        golden_images: (N, C, H, W) float32 in [0, 1], the first 16 are taken and leave this machine with the
            kit; None for seeded patterns.
        metadata: provenance, copied into the manifest.

    Raises:
        ExportError: no models, a changed file, models that are fed differently, unusable images, outputs that are not
            finite, or a folder that holds something else.
        OSError: the kit could not be written.
    """
    builds = _builds(route, models)
    models = list(dict.fromkeys(model for model, _ in builds))
    interface = _common_interface(models)
    images = golden_calls(golden_images, interface)
    _check_folder(folder)

    temporary = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        for part in ("models", "golden"):
            (temporary / part).mkdir(parents=True)
        for model in models:
            copy = temporary / _file_of(model)
            shutil.copyfile(model.path, copy)  # of the copy, so that a file with weights beside it is noticed here
            _write_array(reference_logits(copy, images, interface), temporary / _reference_of(model))
        for index, image in enumerate(images):
            _write_array(image, temporary / _image_of(index))
        entries = [
            model_entry(target, m.name, build, file=_file_of(m), sha256=m.sha256, reference=_reference_of(m))
            for m, build in builds
        ]
        manifest = manifest_of(
            target,
            interface,
            entries,
            golden=[_image_of(index) for index in range(len(images))],
            origin="seeded patterns" if golden_images is None else "images of the user",
            notes=(*route.notes, *_left_out(route, models)),
            metadata=metadata,
        )
        (temporary / "plan.tsv").write_text(plan_of(manifest), encoding="utf-8")
        _copy_programs(temporary, manifest)
        manifest["files"] = {name: sha256_of(temporary / name) for name in _files(temporary)}
        text = json.dumps(manifest, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        (temporary / MANIFEST).write_text(text, encoding="utf-8")
        archive = folder.with_name(f"{folder.name}.tar.gz")
        content = _archive(temporary, folder.name)
        shutil.rmtree(folder, ignore_errors=True)
        temporary.rename(folder)
        write_atomically(content, archive)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Kit(
        folder,
        archive,
        sha256_of(folder / MANIFEST),
        hashlib.sha256(content).hexdigest(),
        tuple(_files(folder)),
        tuple(manifest["notes"]),
    )


def _builds(route: Route, models: Sequence[KitModel]) -> list[tuple[KitModel, Build]]:
    for model in models:
        if (found := sha256_of(model.path)) != model.sha256:
            raise ExportError(
                f"{model.path} has changed: its SHA-256 is {found[:12]}…, not {model.sha256[:12]}….",
                "The file as it was exported was expected.",
                "Run the stage that makes it again.",
            )
    builds = [(model, build) for model in models for build in route.builds if build.file == model.precision]
    if not builds:
        raise ExportError(
            f"A kit was asked for with {len(models)} models, none of them in a precision that the target takes.",
            f"The target takes {', '.join(route.files)}.",
            "Export one of these first.",
        )
    return builds


def _common_interface(models: Sequence[KitModel]) -> ClassifierInterface:
    interfaces = {classifier_interface(load_onnx(model.path), model.path.name): model for model in models}
    if len(interfaces) > 1:
        (one, first), (other, second) = list(interfaces.items())[:2]
        raise ExportError(
            f"{first.path.name} and {second.path.name} are fed differently: {one} and {other}.",
            "The models of one kit are checked with the same images, so their inputs and outputs must be the same.",
            "Make a kit for each of them.",
        )
    interface = next(iter(interfaces))
    if awkward := sorted(set(interface.input_name) & set("\t\n\r'\",")):
        raise ExportError(
            f"The model's input is named {interface.input_name!r}, with {', '.join(map(repr, awkward))} in it.",
            "trtexec takes a name without quotes, commas and line breaks.",
            "Rename the input and export the model again.",
        )
    return interface


def _left_out(route: Route, models: Sequence[KitModel]) -> list[str]:
    notes = []
    for name in dict.fromkeys(model.name for model in models):
        files = {model.precision for model in models if model.name == name}
        if missing := [build.precision for build in route.builds if build.file not in files]:
            notes.append(f"The kit holds no {' or '.join(missing)} of the {name}.")
    return notes


def _copy_programs(folder: Path, manifest: Mapping[str, Any]) -> None:
    runtime, models = manifest["runtime"], manifest["models"]
    for name in ("infer.py", "infer.cpp"):
        stem, suffix = name.split(".")
        shutil.copyfile(FILES / f"{stem}_{runtime}.{suffix}", folder / name)
    if runtime == "onnxruntime":
        shutil.copyfile(FILES / "board_onnxruntime.py", folder / "board_onnxruntime.py")
    script = Path(shutil.copyfile(FILES / SCRIPT, folder / SCRIPT))
    mode = script.stat().st_mode
    script.chmod(mode | (mode & 0o444) >> 2)  # whoever may read it may run it
    readme = string.Template((FILES / f"README_{runtime}.md").read_text(encoding="utf-8"))
    text = readme.substitute(
        title=manifest["title"],
        software=", ".join(
            f"{name} {' to '.join(manifest[key].values())}"
            for key, name in (("jetpack", "JetPack"), ("tensorrt", "TensorRT"))
            if manifest[key]
        ),
        models="\n".join(f"| {row['name']} | {row['precision']} | `{row['file']}` |" for row in models),
        example=models[0]["file"],
        engine=f"{models[-1]['name']}.{models[-1]['precision']}.plan",
        notes="\n".join(f"- {note}" for note in manifest["notes"]) or "- nothing that this tool knows of",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _image_of(index: int) -> str:
    return f"golden/image-{index}.bin"


def _file_of(model: KitModel) -> str:
    return f"models/{model.name}.{model.precision}.onnx"


def _reference_of(model: KitModel) -> str:
    return f"golden/{model.name}.{model.precision}.bin"


def _write_array(array: NDArray[np.float32], path: Path) -> None:
    path.write_bytes(np.ascontiguousarray(array, dtype="<f4").tobytes())


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _archive(folder: Path, name: str) -> bytes:
    """A .tar.gz of the files in a folder `name`, without anything of this machine or this moment in it."""
    content = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=content, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for file in _files(folder):
            data = (folder / file).read_bytes()
            entry = tarfile.TarInfo(f"{name}/{file}")
            entry.size, entry.mode = len(data), 0o755 if file.endswith(".sh") else 0o644
            tar.addfile(entry, io.BytesIO(data))
    return content.getvalue()


def _check_folder(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "plan.tsv").is_file():
        raise ExportError(
            f"{folder} holds files that are no device kit.",
            "A folder that does not exist yet, is empty, or holds an earlier kit was expected.",
            "Choose another folder; nothing in this one was touched.",
        )
