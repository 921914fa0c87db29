"""Reading a folder of images as people have them."""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from full_disk import file_size_limit
from PIL import Image

from compressor.errors import InputRefused
from compressor.inputs import image_files
from compressor.inputs.card import TeacherCard
from compressor.inputs.samples import UNKNOWN, SampleSet, read_samples

CARD = TeacherCard(
    architecture="cifar_resnet8",
    num_classes=3,
    class_names=("cat", "dog", "tree frog"),
    input_shape=(3, 8, 8),
    mean=(0.0,) * 3,
    std=(1.0,) * 3,
)


def write_image(path: Path, seed: int, mode: str = "RGB", size: int = 8) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def folder_of(root: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        write_image(root / name, seed)
    return root


def reasons(samples: SampleSet) -> dict[str, str]:
    return dict(samples.skipped)


def refusal(folder: Path, *parts: str) -> None:
    with pytest.raises(InputRefused) as caught:
        read_samples(folder, CARD)
    for sentence in (caught.value.received, caught.value.expected, caught.value.action):
        assert sentence.endswith((".", "?"))
    for part in parts:
        assert part in str(caught.value)


def test_a_flat_folder_has_images_and_no_labels(tmp_path: Path) -> None:
    folder_of(tmp_path, "b.png", "a.png", "c.PNG")
    samples = read_samples(tmp_path, CARD)
    assert samples.files == ("a.png", "b.png", "c.PNG")
    assert samples.labels.tolist() == [UNKNOWN] * 3
    assert (samples.skipped, samples.warnings) == ((), ())
    assert (samples.images.dtype, samples.images.shape) == (torch.uint8, (3, 3, 8, 8))
    assert samples.labels.dtype == torch.int64
    expected = np.asarray(Image.open(tmp_path / "b.png")).transpose(2, 0, 1)
    assert np.array_equal(samples.images[1].numpy(), expected)
    assert samples.sha256[1] == hashlib.sha256((tmp_path / "b.png").read_bytes()).hexdigest()


def test_class_folders_label_at_any_depth_and_the_nearest_wins(tmp_path: Path) -> None:
    folder_of(tmp_path, "cat/1.png", "train/Dog/2.png", "cat/tree_frog/night/3.png", "4.png")
    samples = read_samples(tmp_path, CARD)
    labels = dict(zip(samples.files, samples.labels.tolist(), strict=True))
    assert labels == {"4.png": UNKNOWN, "cat/1.png": 0, "cat/tree_frog/night/3.png": 2, "train/Dog/2.png": 1}
    assert samples.warnings == ()


def test_folders_that_name_no_class_are_explained(tmp_path: Path) -> None:
    folder_of(tmp_path, "cat/1.png", "dgo/2.png", "dgo/3.png", "zebra/4.png")
    samples = read_samples(tmp_path, CARD)
    assert samples.labels.tolist() == [0, UNKNOWN, UNKNOWN, UNKNOWN]
    assert "Folder 'dgo' names no class" in samples.warnings[0]
    assert "2 images without a label. Did you mean 'dog'?" in samples.warnings[0]
    assert "The classes are cat, dog, tree frog." in samples.warnings[1]


def test_many_strange_folders_make_few_warnings(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"x{index}/1.png" for index in range(9)))
    assert read_samples(tmp_path, CARD).warnings[-1] == "6 more folders name no class of the teacher."


def test_numbers_are_indices_with_a_warning(tmp_path: Path) -> None:
    folder_of(tmp_path, "0/1.png", "2/2.png")
    samples = read_samples(tmp_path, CARD)
    assert samples.labels.tolist() == [0, 2]
    assert "numbers were taken as class indices (folder '0' is 'cat')" in samples.warnings[0]


def test_one_bad_file_is_skipped_and_counted(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png", "b.png")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "noise.png").write_bytes(b"noise")
    (tmp_path / "half.png").write_bytes(write_image(tmp_path / "half.png", 9, size=64).read_bytes()[:5000])
    (tmp_path / "notes.txt").write_text("hello")
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green")]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    samples = read_samples(tmp_path, CARD)
    assert samples.files == ("a.png", "b.png")
    found = reasons(samples)
    assert found["empty.jpg"] == "it is empty (0 bytes)"
    assert found["noise.png"] == "it is not an image of a known format"
    assert "damaged" in found["half.png"]
    assert found["notes.txt"] == "its name does not end like an image's"
    assert "animated" in found["moving.gif"]
    assert samples.warnings[0].startswith("2 images can be used, left out: 5 (")


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png", "b.png", ".thumbnails/c.png")
    (tmp_path / "._a.png").write_bytes(b"a Mac's resource fork")
    samples = read_samples(tmp_path, CARD)
    assert (samples.files, samples.skipped) == (("a.png", "b.png"), ())


def test_links_are_followed_but_never_in_a_circle(tmp_path: Path) -> None:
    folder_of(tmp_path / "few", "cat/1.png", "cat/2.png")
    folder_of(tmp_path / "elsewhere", "3.png", "4.png", "5.png")
    (tmp_path / "few/dog").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "few/a_loop").symlink_to(tmp_path / "few")
    (tmp_path / "few/cat/up").symlink_to("..")
    (tmp_path / "few/a_copy").symlink_to(tmp_path / "few/cat")
    (tmp_path / "few/self.png").symlink_to("self.png")
    (tmp_path / "few/broken.png").symlink_to("nowhere.png")
    write_image(tmp_path / "elsewhere/3.png", 7)
    write_image(tmp_path / "elsewhere/4.png", 8)
    samples = read_samples(tmp_path / "few", CARD)
    assert samples.files == ("cat/1.png", "cat/2.png", "dog/3.png", "dog/4.png", "dog/5.png")
    assert samples.labels.tolist() == [0, 0, 1, 1, 1]
    found = reasons(samples)
    assert {name for name, reason in found.items() if "link to a folder that is read already" in reason} == {
        "a_loop",
        "a_copy",
        "cat/up",
    }
    assert found["broken.png"] == "it is a broken link"
    assert "self.png" in found


def test_what_looks_the_same_is_kept_once(tmp_path: Path) -> None:
    image = Image.open(write_image(tmp_path / "a.png", 0))
    image.save(tmp_path / "b.bmp")
    write_image(tmp_path / "c.png", 1)
    samples = read_samples(tmp_path, CARD)
    assert samples.files == ("a.png", "c.png")
    assert reasons(samples) == {"b.bmp": "it looks to the teacher exactly like a.png"}
    assert read_samples(tmp_path, CARD, keep_duplicates=True).files == ("a.png", "b.bmp", "c.png")


def test_one_picture_in_two_classes_has_no_class(tmp_path: Path) -> None:
    write_image(tmp_path / "cat/a.png", 0)
    write_image(tmp_path / "dog/a.png", 0)
    write_image(tmp_path / "dog/b.png", 1)
    write_image(tmp_path / "c.png", 1)
    samples = read_samples(tmp_path, CARD)
    assert dict(zip(samples.files, samples.labels.tolist(), strict=True)) == {"c.png": UNKNOWN, "cat/a.png": UNKNOWN}
    assert "cat/a.png and dog/a.png are one picture in two classes: its class is unknown." in samples.warnings


def test_colour_and_grey_are_noted(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png", "b.png")
    write_image(tmp_path / "g.png", 3, mode="L")
    assert read_samples(tmp_path, CARD).warnings == ("1 image in grey: seen with three equal channels.",)
    facts = {**CARD.model_dump(), "input_shape": (1, 8, 8), "channel_order": "L", "mean": (0.0,), "std": (1.0,)}
    grey = read_samples(tmp_path, TeacherCard.model_validate(facts))
    assert grey.images.shape == (3, 1, 8, 8)
    assert grey.warnings == ("2 images in colour: seen in grey.",)


def test_the_result_does_not_depend_on_when_files_were_made(tmp_path: Path) -> None:
    names = ["dog/b.png", "cat/a.png", "cat/z.png", "c.png"]
    for order, target in ((names, "one"), (names[::-1], "two")):
        for name in order:
            write_image(tmp_path / target / name, names.index(name))
    one, two = (read_samples(tmp_path / target, CARD) for target in ("one", "two"))
    assert torch.equal(one.images, two.images)
    assert (one.files, one.sha256) == (two.files, two.sha256)


def test_a_limit_takes_from_everywhere(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{name}/{index}.png" for name in ("cat", "dog") for index in range(6)))
    samples = read_samples(tmp_path, CARD, max_images=4)
    assert samples.files == ("cat/0.png", "cat/3.png", "dog/0.png", "dog/3.png")
    assert samples.warnings == ("4 of 12 images were read, spread evenly over the folder.",)
    assert len(read_samples(tmp_path, CARD, max_images=12).files) == 12


def test_names_that_are_not_text_can_be_printed(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png")
    os.rename(write_image(tmp_path / "b.png", 5), os.fsencode(tmp_path) + b"/b\xff.png")  # noqa: PTH104
    samples = read_samples(tmp_path, CARD)
    assert samples.files == ("a.png", "b?.png")


def test_files_that_are_too_large_or_locked_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder_of(tmp_path, "a.png", "b.png")
    (tmp_path / "large.bmp").write_bytes(b"BM" + bytes(2_000))
    monkeypatch.setattr(image_files, "MAX_FILE_BYTES", 1_000)
    assert reasons(read_samples(tmp_path, CARD)) == {"large.bmp": "it has 2,002 bytes, more than 1,000"}
    os.mkfifo(tmp_path / "pipe.png")
    assert reasons(read_samples(tmp_path, CARD))["pipe.png"] == "it is not a regular file"


def test_missing_folders_are_refused_with_a_neighbour(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    refusal(tmp_path / "sampels", "sampels", "Did you mean 'samples'?")
    refusal(tmp_path / "no" / "where", "given to --samples, does not exist", "Check the path given to --samples")
    refusal(
        write_image(tmp_path / "one.png", 0),
        "one.png, given to --samples, is not a folder",
        "flat or with one folder per class",
    )


@pytest.mark.parametrize("flag", ["--samples", "--pool", "--eval"])
def test_a_refusal_names_the_flag_that_the_folder_was_given_to(tmp_path: Path, flag: str) -> None:
    write_image(tmp_path / "one.png", 0)
    with pytest.raises(InputRefused, match="holds 1 image that") as few:
        read_samples(tmp_path, tiny.card(), flag=flag)
    assert few.value.action.startswith("Add images of")
    assert few.value.action.endswith(f"or check the folder given to {flag}.")
    with pytest.raises(InputRefused, match=f"given to {flag}, does not exist") as missing:
        read_samples(tmp_path / "no" / "where", tiny.card(), flag=flag)
    assert missing.value.action == f"Check the path given to {flag}."


def test_pixels_lie_in_a_file_that_leaves_nothing_behind(tmp_path: Path) -> None:
    folder_of(tmp_path / "few", "a.png", "b.png", "c.png")
    (tmp_path / "work").mkdir()
    images = read_samples(tmp_path / "few", CARD, scratch=tmp_path / "work").images
    assert list((tmp_path / "work").iterdir()) == []
    assert torch.equal(images, read_samples(tmp_path / "few", CARD).images)


def test_no_room_for_the_pixels_is_the_systems_error(tmp_path: Path) -> None:
    folder_of(tmp_path, *(f"{index}.png" for index in range(40)))
    with file_size_limit(2_000), pytest.raises(OSError, match="File too large"):
        read_samples(tmp_path, CARD)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    refusal(tmp_path, "0 images that can be used", "At least 2 different images", "Add images")
    write_image(tmp_path / "a.png", 0)
    refusal(tmp_path, "holds 1 image that can be used.")
    write_image(tmp_path / "b.png", 0)
    refusal(tmp_path, "1 image that can be used, left out: 1 (b.png: it looks to the teacher exactly like a.png)")


def test_thousands_of_small_images_take_seconds(tmp_path: Path) -> None:
    for index in range(5_000):
        Image.fromarray(np.full((8, 8, 3), index % 256, np.uint8)).save(tmp_path / f"{index}.png")
    started = time.perf_counter()
    assert len(read_samples(tmp_path, CARD, keep_duplicates=True).files) == 5_000
    assert time.perf_counter() - started < 5
