"""The few real images: found, checked, decoded, matched to the teacher's classes, and split once for the whole run.

N images, C channels, H and W pixels, G groups.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from compressor.errors import InputRefused
from compressor.inputs.card import TeacherCard
from compressor.inputs.class_folders import match_class_folders
from compressor.inputs.image_files import find_images, images_beside_masks, read_bytes
from compressor.inputs.images import SUFFIXES, UnusableImage, read_image
from compressor.inputs.nearest import did_you_mean
from compressor.inputs.pixels import pixel_file

SHOWN = 3
MIN_IMAGES = 2
MIN_IMAGES_TO_SELECT = 100
UNKNOWN = -1
_ADVICE = {
    "--samples": "Add images of the kind that the teacher was trained on",
    "--pool": "Add images of any kind, the more the better",
    "--eval": "Add images of the task that are not among the samples",
}


@dataclass(frozen=True)
class SampleSet:
    """The images that can be used.

    Attributes:
        images: uint8 (N, C, H, W), as the teacher's card prepares them; mapped from a file, so that they may be more
            than the memory holds, and read-only.
        labels: int64 (N,), UNKNOWN (-1) where no folder names the class, and everywhere for other tasks.
        files: N paths relative to the folder, with forward slashes, in their order.
        sha256: N hashes of the files' bytes.
        skipped: files left out and why.
        warnings: what the report must say, in sentences.
    """

    images: Tensor
    labels: Tensor
    files: tuple[str, ...]
    sha256: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Split:
    """Indices into a sample set, int64 and ascending; disjoint, and together all of it.

    `select` is empty where there are too few images: choices are then made on synthetic ones.
    """

    train: Tensor
    select: Tensor
    evidence: Tensor

    def to_dict(self, samples: SampleSet) -> dict[str, list[dict[str, str]]]:
        """Under "files", one record per image: its file, its hash and its part."""
        part = {
            int(index): name
            for name, indices in (("train", self.train), ("select", self.select), ("evidence", self.evidence))
            for index in indices
        }
        records = zip(samples.files, samples.sha256, strict=True)
        return {
            "files": [
                {"file": file, "sha256": digest, "part": part[index]} for index, (file, digest) in enumerate(records)
            ]
        }


def read_samples(
    folder: Path,
    card: TeacherCard,
    *,
    max_images: int | None = None,
    keep_duplicates: bool = False,
    labelled: bool = True,
    flag: str = "--samples",
    scratch: Path | None = None,
) -> SampleSet:
    """Read every usable image below `folder`, in the order of the paths.

    Names that begin with a dot are passed over. A file that cannot be used is skipped with its reason, and so is one
    that looks to the teacher exactly like an earlier one: the same picture in two parts of the split would be evidence
    of nothing.

    Args:
        folder: flat, or with folders named like classes at any depth; see `match_class_folders`. That of a segmentation
            may hold `masks/` as well, which are no images; see `masks`.
        card: how to prepare an image (`images`), and the names of the classes.
        max_images: read only this many files, spread evenly over all.
        keep_duplicates: for a set that is only ever measured on, where every file counts.
        labelled: False where the names of folders are not meant as classes.
        flag: what the folder was given to, for refusals.
        scratch: where the pixels lie while they are in use, on a disk with room for them; see `pixel_file`.

    Raises:
        InputRefused: the folder is missing, or holds fewer than two usable images.
        OSError: there is no room for the pixels.
    """
    _check_folder(folder, flag)
    files, skipped = find_images(folder)
    if card.task == "segmentation":
        files = images_beside_masks(files)
    notes = []
    if max_images is not None and len(files) > max_images:
        notes.append(f"{max_images} of {len(files)} images were read, spread evenly over the folder.")
        files = [files[index * len(files) // max_images] for index in range(max_images)]
    named = labelled and card.task == "classification"
    label_of, label_notes = _label(files, card.class_names) if named else (dict.fromkeys(files, UNKNOWN), [])

    kept: list[str] = []
    digests: list[str] = []
    labels: list[int] = []
    first_with: dict[bytes, int] = {}
    num_grey = 0
    with pixel_file(card.input_shape, scratch) as decoded, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on odd metadata and large images; what matters is checked
        for file in files:
            position = len(kept)
            try:
                data = read_bytes(folder / file)
                pixels, is_grey = read_image(data, card)
            except UnusableImage as error:
                skipped.append((file, str(error)))
                continue
            looks = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
            earlier = first_with.setdefault(looks, position)
            if earlier != position and not keep_duplicates:
                skipped.append((file, f"it looks to the teacher exactly like {kept[earlier]}"))
                if UNKNOWN not in (label_of[file], labels[earlier]) and label_of[file] != labels[earlier]:
                    notes.append(f"{kept[earlier]} and {file} are one picture in two classes: its class is unknown.")
                    labels[earlier] = UNKNOWN
                continue
            decoded.append(pixels)
            kept.append(file)
            digests.append(hashlib.sha256(data).hexdigest())
            labels.append(label_of[file])
            num_grey += is_grey
        images = decoded.mapped()

    if len(kept) < MIN_IMAGES:
        raise InputRefused(
            f"The folder {folder} holds {_images(len(kept))} that can be used{_left_out(skipped)}.",
            f"At least {MIN_IMAGES} different images were expected ({', '.join(SUFFIXES)}).",
            f"{_ADVICE.get(flag, 'Add images')}, or check the folder given to {flag}.",
        )
    if skipped:
        notes.append(f"{_images(len(kept))} can be used{_left_out(skipped)}.")
    if card.channel_order == "L" and num_grey < len(kept):
        notes.append(f"{_images(len(kept) - num_grey)} in colour: seen in grey.")
    if card.channel_order in ("RGB", "BGR") and num_grey:
        notes.append(f"{_images(num_grey)} in grey: seen with three equal channels.")
    return SampleSet(
        images=images,
        labels=torch.tensor(labels, dtype=torch.int64),
        files=tuple(map(_printable, kept)),
        sha256=tuple(digests),
        skipped=tuple((_printable(file), _printable(reason)) for file, reason in skipped),
        warnings=tuple(map(_printable, notes + label_notes)),
    )


def no_samples(card: TeacherCard) -> SampleSet:
    """The set of a user who has no image."""
    images = torch.empty(0, *card.input_shape, dtype=torch.uint8)
    return SampleSet(images, torch.empty(0, dtype=torch.int64), (), (), (), ())


def split_samples(
    samples: SampleSet, groups: Tensor, *, seed: int, select_fraction: float, evidence_fraction: float
) -> Split:
    """Divide the samples once, before anything trains.

    Evidence gets round(N * evidence_fraction) images and at least one, select gets round(N * select_fraction) where
    N is 100 or more and none below, and train keeps at least one. Every group gives its proportion to a part, rounded
    down or up. Who goes where follows from the hashes of the files and the seed, not from names or order. Without
    samples all parts are empty.

    Args:
        groups: int64 (N,), what to balance over, such as the teacher's opinions.
    """
    count = len(samples.files)
    if count == 0:
        return Split(*(torch.empty(0, dtype=torch.int64) for _ in range(3)))
    num_evidence = min(max(round(count * evidence_fraction), 1), count - 1)
    num_select = round(count * select_fraction) if count >= MIN_IMAGES_TO_SELECT else 0
    num_select = min(num_select, count - 1 - num_evidence)

    keys = [hashlib.sha256(f"{seed} {digest}".encode()).digest() for digest in samples.sha256]
    queues: dict[int, deque[int]] = {}  # by group, the groups in the order of their first keys
    for index in sorted(range(count), key=keys.__getitem__):
        queues.setdefault(int(groups[index]), deque()).append(index)
    evidence = _draw(list(queues.values()), num_evidence)
    select = _draw(list(queues.values()), num_select)
    train = [index for queue in queues.values() for index in queue]
    return Split(*(torch.tensor(sorted(part), dtype=torch.int64) for part in (train, select, evidence)))


def _draw(queues: list[deque[int]], total: int) -> list[int]:
    """Take `total` indices off the queues in proportion to their lengths; the largest remainders are rounded up."""
    available = sum(map(len, queues))
    shares = [divmod(total * len(queue), available) for queue in queues]
    left_over = total - sum(whole for whole, _ in shares)
    by_remainder = sorted(range(len(queues)), key=lambda group: -shares[group][1])
    favoured = set(by_remainder[:left_over])
    return [
        queue.popleft()
        for group, (queue, (whole, _)) in enumerate(zip(queues, shares, strict=True))
        for _ in range(whole + (group in favoured))
    ]


def _check_folder(folder: Path, flag: str) -> None:
    if folder.is_dir():
        return
    siblings = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
    raise InputRefused(
        f"{folder}, given to {flag}, {'is not a folder' if folder.exists() else 'does not exist'}.",
        "A folder of images, flat or with one folder per class, was expected.",
        did_you_mean(folder.name, siblings) or f"Check the path given to {flag}.",
    )


def _label(files: Sequence[str], class_names: Sequence[str]) -> tuple[dict[str, int], list[str]]:
    """Class index of every file by the nearest folder above it that names a class, and what the report should say."""
    folders_of = {file: file.split("/")[:-1] for file in files}
    folders = sorted({name for path in folders_of.values() for name in path})
    index_of, by_number = match_class_folders(folders, class_names)
    labels: dict[str, int] = {}
    unmatched: Counter[str] = Counter()
    for file, path in folders_of.items():
        labels[file] = next((index_of[name] for name in reversed(path) if name in index_of), UNKNOWN)
        if path and labels[file] == UNKNOWN:
            unmatched[path[-1]] += 1
    notes = []
    if by_number:
        example = min(index_of, key=lambda name: index_of[name])
        notes.append(
            f"No folder is named like a class, so numbers were taken as class indices "
            f"(folder '{example}' is '{class_names[index_of[example]]}')."
        )
    for folder, count in unmatched.most_common(SHOWN):
        hint = did_you_mean(folder, class_names) or f"The classes are {_listed(class_names)}."
        notes.append(f"Folder '{folder}' names no class of the teacher: {_images(count)} without a label. {hint}")
    if len(unmatched) > SHOWN:
        notes.append(f"{len(unmatched) - SHOWN} more folders name no class of the teacher.")
    return labels, notes


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def _left_out(skipped: Sequence[tuple[str, str]]) -> str:
    if not skipped:
        return ""
    shown = _printable("; ".join(f"{file}: {reason}" for file, reason in skipped[:SHOWN]))
    return f", left out: {len(skipped)} ({shown}{'; ...' if len(skipped) > SHOWN else ''})"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _printable(text: str) -> str:
    """File names need not be text; what is not becomes a question mark, so that it can be printed and stored."""
    return text.encode("utf-8", "replace").decode("utf-8")
