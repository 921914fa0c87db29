"""The folder of an export. A new one is made inside it and moves in when it is whole; a failure leaves the earlier one.

    CACHEDIR.TAG  .lock
    onnx/  precision/  kit/  facts.json  export.json   the export
    merged/                                            what its device has sent back
    .new/                                              one that is being made, or was interrupted
    .old/                                              the earlier one, while the new one moves in

export.json leaves first and arrives last: where it is, it is of the files beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compressor.deploy.board_results import MERGED
from compressor.errors import UsageFault
from compressor.stage_files import FACTS
from compressor.stages import TAG, create_run_folder, exclusive, writable

EXPORT = "export.json"
FOLDERS = ("onnx", "precision", "kit")
PARTS = (*FOLDERS, FACTS, EXPORT)
NEW, OLD = ".new", ".old"
OF_A_RUN = ("config.yaml", "report.json")


def check_out(out: Path) -> None:
    """Refuse a folder whose files are another command's.

    Raises:
        UsageFault: it holds a run, or something else that is marked as a cache.
        NotWritable: it cannot be read.
    """
    with writable(out):
        held = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if run := [name for name in OF_A_RUN if name in held]:
        raise UsageFault(
            f"{out} holds a run: {run[0]} is there.",
            "An export needs a folder of its own, since it replaces what lies there.",
            "Name another folder with --out.",
        )
    ours = {EXPORT, NEW} & held or held <= {TAG, ".lock"}
    if TAG in held and not ours:
        raise UsageFault(
            f"{out} holds {', '.join(sorted(held - {TAG})[:3])} and no {EXPORT}.",
            "A new folder, an empty one, or that of an earlier export was expected.",
            "Name another folder with --out.",
        )


@contextmanager
def room_for(out: Path) -> Iterator[Path]:
    """An existing folder on the disk where `out` will be, for files without a name; nothing is left in it.

    Raises:
        NotWritable: it cannot be written.
    """
    with writable(out):
        yield next(folder for folder in (out, *out.parents) if folder.is_dir())


@contextmanager
def new_export(out: Path) -> Iterator[Path]:
    """A folder to make an export in; at the end of the block it becomes the export in `out`.

    Raises:
        UsageFault, NotARunFolder, NotWritable, FolderBusy: `out` is not ours, cannot be written or is in use.
    """
    check_out(out)
    with writable(out):
        create_run_folder(out)
        with exclusive(out):
            _settle(out)
            new = out / NEW
            _remove(new)
            for part in FOLDERS:
                (new / part).mkdir(parents=True)
            try:
                yield new
                _move_in(out)
            finally:
                shutil.rmtree(new, ignore_errors=True)


@contextmanager
def earlier_export(out: Path) -> Iterator[None]:
    """Hold the folder of a finished export, to change it.

    Raises:
        NotWritable, FolderBusy: it cannot be written, or is in use.
    """
    with writable(out), exclusive(out):
        _settle(out)
        yield


def _move_in(out: Path) -> None:
    (out / OLD).mkdir()
    try:
        for name in (*reversed(PARTS), MERGED):
            if (out / name).exists():
                (out / name).rename(out / OLD / name)
        for name in PARTS:
            (out / NEW / name).rename(out / name)
    finally:
        _settle(out)


def _settle(out: Path) -> None:
    """End a move: it was finished, or the earlier export comes back, also after a kill."""
    old, new = out / OLD, out / NEW
    if not old.is_dir():
        return
    if not (out / EXPORT).exists():
        for name in (MERGED, *PARTS):
            came = name in PARTS and new.is_dir() and not (new / name).exists()
            if came or (old / name).exists():
                _remove(out / name)
            if (old / name).exists():
                (old / name).rename(out / name)
    shutil.rmtree(old)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
