"""The proof that nothing is judged on an image that a stage has trained or chosen on, by the hashes of the files.

    samples/split.json    file, SHA-256 and part of every sample, and of every image of the pool
    report/judged.json    file, SHA-256 and set of every image that the report judges on

What comes into a run is compared by pixels and left out where it is a copy (`inputs.near_copies`); this looks at the
records that were left, and knows nothing of how they came about. A copy that was encoded anew has another hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from compressor.errors import StageFailed
from compressor.report.schema import ImageSet

SetName: TypeAlias = Literal["train", "select", "evidence", "pool", "eval"]
Files: TypeAlias = Sequence[Mapping[str, str]]
"""Of each image its `file`, relative to the folder that the user gave, and the `sha256` of its bytes."""


def checked_image_sets(split: Mapping[str, Files], judged: Mapping[str, Files]) -> tuple[ImageSet, ...]:
    """What each set of a run is, once it is sure that no image is in two of them.

    Args:
        split: split.json: `files`, which have a `part` as well, and `pool` where the user gave one.
        judged: judged.json: `evidence`, and `eval` where the user gave one.

    Raises:
        StageFailed: a file that is judged is among those that were trained or chosen on, under whichever name; or
            there is any other file in two sets.
    """
    sets: dict[SetName, Files] = {
        "train": [entry for entry in split["files"] if entry["part"] == "train"],
        "select": [entry for entry in split["files"] if entry["part"] == "select"],
        **({"pool": split["pool"]} if "pool" in split else {}),
        "evidence": judged["evidence"],
        **({"eval": judged["eval"]} if "eval" in judged else {}),
    }
    first_with: dict[str, tuple[SetName, str]] = {}
    for name, files in sets.items():
        for entry in files:
            other, file = first_with.setdefault(entry["sha256"], (name, entry["file"]))
            if other != name:
                raise _leak(name, entry["file"], other, file)
    return tuple(_image_set(name, files) for name, files in sets.items())


def records_of(files: Iterable[str], hashes: Iterable[str]) -> list[dict[str, str]]:
    """As both files hold them."""
    return [{"file": file, "sha256": sha256} for file, sha256 in zip(files, hashes, strict=True)]


def _image_set(name: SetName, files: Files) -> ImageSet:
    listed = "".join(sorted(f"{entry['sha256']}\n" for entry in files))
    return ImageSet(name=name, num_images=len(files), sha256=hashlib.sha256(listed.encode()).hexdigest())


def _leak(name: SetName, file: str, other: SetName, its_file: str) -> StageFailed:
    return StageFailed(
        f"{file!r} of the set {name!r} is byte for byte {its_file!r} of the set {other!r}.",
        "Every image was expected in one set alone, since those that judge a student must be new to it.",
        "Delete one of the two files, and run the same command again.",
    )
