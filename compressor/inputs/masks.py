"""What is known of the pixels of a segmentation's images: one PNG of class indices for each, in a folder beside them.

    images/street/7.jpg    masks/street/7.png      or, without a folder `images`:    street/7.jpg    masks/street/7.png

A pixel's value is the index of its class; values from the number of classes up, such as the usual 255, are void: no
class is known. Grey and palette files both hold such indices. A mask is resized and cropped exactly as its image is,
without mixing neighbours, and beyond its edge it is void.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from compressor.errors import InputRefused
from compressor.inputs.card import VOID, TeacherCard
from compressor.inputs.image_files import MASKS, find_images, images_beside_masks, mask_of, read_bytes
from compressor.inputs.images import EXIF_ORIENTATION, MAX_PIXELS, UnusableImage, resized_and_cropped
from compressor.inputs.pixels import pixel_file

SHOWN = 3
INDEXED = ("1", "L", "P", "I", "I;16", "I;16B")  # modes of one whole number a pixel
EXPECTED = "One class index a pixel was expected, as PNG in mode L or P, as large as its image."
_NO_INDEX = "it has the mode {}, not one class index a pixel"
TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


class Masks(NamedTuple):
    """Answers for the pixels of N images.

    Attributes:
        masks: uint8 (N, H, W), VOID (255) wherever no class is known: everywhere for an image without a usable mask;
            mapped from a file, like the images.
        warnings: what the report must say, in sentences.
    """

    masks: Tensor
    warnings: tuple[str, ...]


def read_masks(folder: Path, files: Sequence[str], card: TeacherCard, scratch: Path | None = None) -> Masks | None:
    """The masks of images below `folder`; None where no image has one.

    Args:
        files: N paths of images, as `SampleSet.files` has them.
        card: how an image is resized and cropped, and the number of classes.
        scratch: where the masks lie while they are in use; see `read_samples`.

    Raises:
        OSError: there is no room for the masks.
    """
    missing = [file for file in files if not (folder / mask_of(file)).is_file()]
    if len(missing) == len(files):
        return None
    nothing = np.full(card.input_shape[1:], VOID, dtype=np.uint8)
    without, unusable, says_something = set(missing), list[str](), False
    with pixel_file(nothing.shape, scratch) as decoded:
        for file in files:
            mask = nothing
            if file not in without:
                try:
                    mask = _read_mask(folder / mask_of(file), folder / file, card)
                except UnusableImage as error:
                    unusable.append(f"{mask_of(file)}: {error}")
            says_something = says_something or bool((mask != VOID).any())
            decoded.append(mask)
        masks = decoded.mapped()
    notes = []
    if missing:
        notes.append(f"{len(missing)} of {len(files)} images have no mask ({_listed(missing)}).")
    if unusable:
        notes.append(f"{len(unusable)} of {len(files)} masks cannot be used ({_listed(unusable)}). {EXPECTED}")
    elif not says_something:
        notes.append(f"No pixel of a mask names a class: values from 0 to {card.num_classes - 1} were expected.")
    return Masks(masks, tuple(notes))


def check_masks(folder: Path) -> None:
    """Refuse masks of which none can be used, by their names and headers alone; no image is opened.

    Raises:
        InputRefused: there are masks, and none of them is a PNG of indices beside an image.
    """
    names, _ = find_images(folder)
    given = [name for name in names if name.startswith(MASKS)]
    wanted = {mask_of(file) for file in images_beside_masks(names)}
    problems = []
    for name in given:
        problem = _header_problem(folder / name) if name in wanted else "no image has its name, or it is no .png"
        if problem is None:
            return
        problems.append(f"{name}: {problem}")
    if problems:
        raise InputRefused(
            f"None of the {len(given):,} masks in {folder} can be used ({_listed(problems)}).",
            EXPECTED,
            "Convert colours to indices, or remove masks/ to judge agreement alone.",
        )


def _header_problem(path: Path) -> str | None:
    try:
        with Image.open(path, formats=("PNG",)) as mask:
            return None if mask.mode in INDEXED else _NO_INDEX.format(mask.mode)
    except Exception as error:  # as in `_read_mask`
        return _damaged(error)


def _damaged(error: Exception) -> str:
    return f"it is no PNG file or damaged ({(str(error) or type(error).__name__).splitlines()[0][:120]})"


def _read_mask(path: Path, image: Path, card: TeacherCard) -> NDArray[np.uint8]:
    """uint8 (H, W).

    Raises:
        UnusableImage: with the reason, whatever is wrong with the file.
    """
    data = read_bytes(path)
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as mask:
            if mask.mode not in INDEXED:
                raise UnusableImage(_NO_INDEX.format(mask.mode))
            if mask.width * mask.height > MAX_PIXELS:
                raise UnusableImage(f"it has more than {MAX_PIXELS:,} pixels")
            _check_sides(mask.size, image)
            values = np.asarray(mask)
    except UnusableImage:
        raise
    except Exception as error:  # as in `read_image`
        raise UnusableImage(_damaged(error)) from error
    classes = np.where(values < card.num_classes, values, VOID).astype(np.uint8)
    # Cropping puts 0 beyond the edge; of the complement, that is VOID.
    complement = Image.fromarray(VOID - classes)
    return VOID - np.asarray(resized_and_cropped(complement, card, Image.Resampling.NEAREST))


def _check_sides(size: tuple[int, int], image: Path) -> None:
    """A mask of another size than its image's, but of the same shape, fits; one of another shape lies elsewhere."""
    with Image.open(image) as picture:
        width, height = picture.size
        if picture.getexif().get(EXIF_ORIENTATION, 1) in TURNED:
            width, height = height, width
    if abs(size[0] - width * size[1] / height) > 1.0:  # a pixel for rounding
        raise UnusableImage(f"it has {size[0]} x {size[1]} pixels, and its image {width} x {height}")


def _listed(names: Sequence[str]) -> str:
    shown = "; ".join(names[:SHOWN]) + ("; ..." if len(names) > SHOWN else "")
    return shown.encode("utf-8", "replace").decode("utf-8")
