"""The image files below a folder, whatever else is there."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from compressor.inputs.images import SUFFIXES, UnusableImage

MAX_FILE_BYTES = 2**30
IMAGES, MASKS = "images/", "masks/"


def find_images(folder: Path) -> tuple[list[str], list[tuple[str, str]]]:
    """Image files below `folder` as sorted relative paths with forward slashes, and what was passed over and why.

    Names that begin with a dot are not looked at. Links are followed, and no folder is read twice.
    """
    files: list[str] = []
    skipped: list[tuple[str, str]] = []
    seen: set[tuple[int, int]] = set()
    # Real folders come first, so that no link claims a folder before its own place in the tree.
    folders, links = deque([""]), deque[str]()
    while folders or links:
        current = folders.popleft() if folders else links.popleft()
        try:
            place = (folder / current).stat()
            if (place.st_dev, place.st_ino) in seen:
                skipped.append((current, "it is a link to a folder that is read already"))
                continue
            seen.add((place.st_dev, place.st_ino))
            entries = sorted(os.scandir(folder / current), key=lambda entry: entry.name)
        except OSError as error:
            skipped.append((current or ".", _reason(error)))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{current}/{entry.name}" if current else entry.name
            try:
                if entry.is_dir():
                    (links if entry.is_symlink() else folders).append(path)
                elif not entry.is_file():
                    skipped.append((path, "it is a broken link" if entry.is_symlink() else "it is not a regular file"))
                elif not entry.name.lower().endswith(SUFFIXES):
                    skipped.append((path, "its name does not end like an image's"))
                else:
                    files.append(path)
            except OSError as error:  # a link to itself
                skipped.append((path, _reason(error)))
    return sorted(files), skipped


def images_beside_masks(files: Sequence[str]) -> list[str]:
    """Those that are images where `masks/` is a folder of answers: what lies in `images/`, or else everywhere else."""
    others = [file for file in files if not file.startswith(MASKS)]
    images = [file for file in others if file.startswith(IMAGES)]
    return images if images and len(others) < len(files) else others


def mask_of(file: str) -> str:
    """Where the mask of an image is: `masks/a/b.png` for `images/a/b.jpg`, or for `a/b.jpg`."""
    return str(PurePosixPath(MASKS, file.removeprefix(IMAGES)).with_suffix(".png"))


def read_bytes(path: Path) -> bytes:
    """A file's bytes.

    Raises:
        UnusableImage: the file is too large, or the system does not give it.
    """
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UnusableImage(f"it has {size:,} bytes, more than {MAX_FILE_BYTES:,}")
        return path.read_bytes()
    except OSError as error:
        raise UnusableImage(_reason(error)) from error


def _reason(error: OSError) -> str:
    """What the system says, without the path that its messages repeat."""
    return error.strerror or str(error)
