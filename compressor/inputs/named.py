"""What a flag names, checked before anything is read: a folder of images, a list of class names."""

from __future__ import annotations

import errno
from pathlib import Path

from compressor.errors import InputRefused
from compressor.inputs.image_files import find_images
from compressor.inputs.images import SUFFIXES
from compressor.inputs.nearest import did_you_mean

MOST_BYTES = 2**20


def check_image_folder(flag: str, folder: Path) -> None:
    """Look at names only: what is in the images is for the stage that reads them.

    Raises:
        InputRefused: the folder is not there or holds no file that is named like an image.
    """
    if folder.is_dir():
        if find_images(folder)[0]:
            return
        raise InputRefused(
            f"The folder {folder}, given to {flag}, holds no images.",
            f"Images ({', '.join(SUFFIXES)}) were expected, flat or in one folder per class.",
            f"Put images there, or give another folder to {flag}.",
        )
    siblings = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
    raise InputRefused(
        f"{folder}, given to {flag}, {'is not a folder' if folder.exists() else 'does not exist'}.",
        "A folder of images, flat or with one folder per class, was expected.",
        did_you_mean(folder.name, siblings) or f"Check the path given to {flag}.",
    )


def check_file(flag: str, file: Path) -> None:
    """Refuse what would be waited for, or has no end, before it is hashed; that it is not there, its reader says.

    Raises:
        InputRefused: it is a folder, a pipe or a device.
    """
    if file.exists() and not file.is_file():
        raise InputRefused(
            f"{file}, given to {flag}, is no file.",
            "An ordinary file was expected.",
            f"Check the path given to {flag}.",
        )


def read_class_names(path: Path) -> tuple[str, ...]:
    """The non-empty lines of a text file, in order.

    Raises:
        InputRefused: the file cannot be read as text.
    """
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= MOST_BYTES):
            raise OSError(errno.EINVAL, f"it is no text file of at most {MOST_BYTES // 2**20} MiB")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise InputRefused(
            f"The class names in {path} cannot be read: {reason}.",
            "A text file with one class name a line, in index order, was expected.",
            "Check the path given to --class-names.",
        ) from error
    return tuple(line.strip() for line in lines if line.strip())
