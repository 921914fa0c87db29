"""Masks beside images: found, read as indices, moved exactly as their images are, and void where nothing is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from numpy.typing import NDArray
from PIL import Image

from compressor.errors import InputRefused
from compressor.inputs.card import VOID, TeacherCard
from compressor.inputs.evaluation import evaluation_set
from compressor.inputs.image_files import images_beside_masks, mask_of
from compressor.inputs.masks import Masks, check_masks, read_masks
from compressor.inputs.near_copies import thumbnails
from compressor.inputs.samples import read_samples


def card(height: int = 8, width: int = 8, **changes: Any) -> TeacherCard:
    return tiny.card(tiny.DENSE, image_shape=(3, height, width), **changes)


def write(folder: Path, name: str, mask: NDArray[np.uint8] | None, *, seed: int = 0, mode: str = "L") -> str:
    """An image and its mask, of the same size; the image's name in the sample set."""
    height, width = (8, 8) if mask is None else mask.shape
    image = folder / "images" / name
    image.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(image)
    if mask is not None:
        path = folder / mask_of(f"images/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        made = Image.fromarray(mask)
        if mode == "P":
            made.putpalette([value for index in range(256) for value in (index, 255 - index, 7)])
        made.convert(mode).save(path)
    return f"images/{name}"


def classes(height: int = 8, width: int = 8, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, tiny.NUM_CLASSES, (height, width), dtype=np.uint8)


def read(folder: Path, files: list[str], **changes: int) -> Masks:
    found = read_masks(folder, files, card(**changes))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.jpg", "masks/a.png"),
        ("images/street/7.png", "masks/street/7.png"),
        ("street/7.b.jpeg", "masks/street/7.b.png"),
    ],
)
def test_a_mask_lies_where_its_image_does(image: str, mask: str) -> None:
    assert mask_of(image) == mask


def test_masks_are_no_images() -> None:
    assert images_beside_masks(["images/a.png", "masks/a.png", "overview.png"]) == ["images/a.png"]
    assert images_beside_masks(["a.png", "b/c.png", "masks/a.png"]) == ["a.png", "b/c.png"]
    assert images_beside_masks(["images/a.png", "b.png"]) == ["images/a.png", "b.png"]


@pytest.mark.parametrize("mode", ["L", "P"])
def test_grey_and_palette_files_hold_indices(tmp_path: Path, mode: str) -> None:
    mask = classes()
    file = write(tmp_path, "a.png", mask, mode=mode)
    found = read(tmp_path, [file])
    assert found.warnings == ()
    assert found.masks.dtype == torch.uint8
    assert np.array_equal(found.masks[0].numpy(), mask)


def test_sixteen_bits_are_not_cut(tmp_path: Path) -> None:
    file = write(tmp_path, "a.png", classes())
    wide = np.full((8, 8), 256 + 1, dtype=np.uint16)
    wide[0] = 2
    Image.fromarray(wide).save(tmp_path / "masks/a.png")
    found = read(tmp_path, [file]).masks[0]
    assert found[0].tolist() == [2] * 8
    assert (found[1:] == VOID).all()


def test_values_beyond_the_classes_are_void(tmp_path: Path) -> None:
    mask = classes()
    mask[:2], mask[2:4] = tiny.NUM_CLASSES, 255
    found = read(tmp_path, [write(tmp_path, "a.png", mask)]).masks[0].numpy()
    assert (found[:4] == VOID).all()
    assert np.array_equal(found[4:], mask[4:])


@pytest.mark.parametrize("changes", [{}, {"resize": 12}, {"resize": (10, 14)}, {"resize": 6}])
def test_a_mask_moves_as_its_image_does(tmp_path: Path, changes: dict[str, object]) -> None:
    mask = classes(16, 24)
    file = write(tmp_path, "a.png", mask)
    # The image shows its mask: grey by class, resized without mixing.
    Image.fromarray(mask * 60).convert("RGB").save(tmp_path / file)
    write(tmp_path, "b.png", None, seed=1)
    its_card = card(8, 12, interpolation="nearest", **changes)
    image = read_samples(tmp_path, its_card).images[0, 0]
    masks = read_masks(tmp_path, [file], its_card)
    assert masks is not None
    inside = masks.masks[0] != VOID
    assert torch.equal(image[inside], masks.masks[0][inside] * 60)
    assert (image[~inside] == 0).all()
    assert inside.all() == (changes.get("resize") != 6)  # a crop larger than the image


def test_a_mask_of_half_the_size_fits(tmp_path: Path) -> None:
    file = write(tmp_path, "a.png", classes(16, 16))
    half = classes(8, 8, seed=3)
    Image.fromarray(half).save(tmp_path / "masks/a.png")
    assert np.array_equal(read(tmp_path, [file]).masks[0].numpy(), half)


def test_what_is_missing_or_unusable_is_void_and_said(tmp_path: Path) -> None:
    files = [write(tmp_path, f"{index}.png", classes(seed=index), seed=index) for index in range(5)]
    (tmp_path / "masks/1.png").unlink()
    Image.new("RGB", (8, 8)).save(tmp_path / "masks/2.png")
    (tmp_path / "masks/3.png").write_bytes(b"no image")
    Image.new("L", (8, 4)).save(tmp_path / "masks/4.png")
    found = read(tmp_path, files)
    assert (found.masks[1:] == VOID).all()
    assert (found.masks[0] != VOID).all()
    missing, unusable = found.warnings
    assert missing == "1 of 5 images have no mask (images/1.png)."
    assert unusable.startswith("3 of 5 masks cannot be used (masks/2.png: it has the mode RGB, not one class index")
    assert "masks/3.png: it is no PNG file or damaged" in unusable
    assert "masks/4.png: it has 8 x 4 pixels, and its image 8 x 8" in unusable


def test_masks_without_any_class_are_said(tmp_path: Path) -> None:
    found = read(tmp_path, [write(tmp_path, "a.png", np.full((8, 8), 200, dtype=np.uint8))])
    assert found.warnings == ("No pixel of a mask names a class: values from 0 to 3 were expected.",)


def test_images_without_masks_have_none(tmp_path: Path) -> None:
    assert read_masks(tmp_path, [write(tmp_path, "a.png", None)], card()) is None


# --- the sets that are made of them -----------------------------------------------------------------------------------


def test_the_samples_are_the_images_alone_and_folders_are_no_classes(tmp_path: Path) -> None:
    for index in range(3):
        write(tmp_path, f"class 0/{index}.png", classes(seed=index), seed=index)
    samples = read_samples(tmp_path, card())
    assert samples.files == tuple(f"images/class 0/{index}.png" for index in range(3))
    assert samples.labels.tolist() == [-1] * 3
    assert samples.warnings == ()


def test_the_labels_of_an_evaluation_are_its_masks(tmp_path: Path) -> None:
    masks = [classes(seed=index) for index in range(4)]
    for index, mask in enumerate(masks):
        write(tmp_path, f"{index}.png", mask, seed=index)
    seen = read_samples(tmp_path, card()).images[:1]
    found = evaluation_set(tmp_path, card(), {"samples": thumbnails(seen)})
    assert len(found.images) == 3
    assert np.array_equal(found.labels.numpy(), np.stack(masks[1:]))
    assert found.warnings[-1].startswith("1 image of --eval is also among the samples")


def test_an_evaluation_without_masks_has_no_labels(tmp_path: Path) -> None:
    for index in range(2):
        write(tmp_path, f"{index}.png", None, seed=index)
    found = evaluation_set(tmp_path, card(), {})
    assert found.labels.tolist() == [-1, -1]


def test_the_folders_of_a_regression_are_no_labels(tmp_path: Path) -> None:
    for index in range(2):
        write(tmp_path, f"class 1/{index}.png", None, seed=index)
    samples = read_samples(tmp_path, tiny.card(task="regression"))
    assert samples.labels.tolist() == [-1, -1]
    assert samples.warnings == ()


# --- masks of which none can be used, before anything trains ----------------------------------------------------------


def test_masks_in_colour_are_refused_by_their_headers(tmp_path: Path) -> None:
    for index in range(5):
        write(tmp_path, f"{index}.png", classes(), mode="RGB")
    for image in (tmp_path / "images").iterdir():
        image.write_bytes(b"never opened")
    with pytest.raises(InputRefused, match=r"None of the 5 masks in .* it has the mode RGB, not one class") as refusal:
        check_masks(tmp_path)
    assert refusal.value.expected == (
        "One class index a pixel was expected, as PNG in mode L or P, as large as its image."
    )
    assert refusal.value.action == "Convert colours to indices, or remove masks/ to judge agreement alone."


def test_masks_that_belong_to_no_image_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.png", classes())
    (tmp_path / "masks/a.png").rename(tmp_path / "masks/a_mask.png")
    with pytest.raises(InputRefused, match=r"masks/a_mask\.png: no image has its name"):
        check_masks(tmp_path)


def test_damaged_masks_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.png", classes())
    (tmp_path / "masks/a.png").write_bytes(b"no PNG")
    with pytest.raises(InputRefused, match="it is no PNG file or damaged"):
        check_masks(tmp_path)


def test_one_usable_mask_is_enough_and_the_others_are_told_what_to_become(tmp_path: Path) -> None:
    check_masks(tmp_path)  # no mask at all: agreement alone is judged
    files = [write(tmp_path, f"{index}.png", classes(), mode="RGB") for index in range(2)]
    files.append(write(tmp_path, "2.png", classes()))
    check_masks(tmp_path)
    (warning,) = read(tmp_path, files).warnings
    assert warning.startswith("2 of 3 masks cannot be used (masks/0.png: it has the mode RGB")
    assert warning.endswith("as PNG in mode L or P, as large as its image.")
