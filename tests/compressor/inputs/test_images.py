"""One file to the pixels that the teacher sees: every odd image there is, and torchvision as the reference."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from compressor.inputs import images
from compressor.inputs.card import CHANNELS, TeacherCard
from compressor.inputs.images import UnusableImage, read_image

WHITE, RED = [255, 255, 255], [255, 0, 0]


def card(height: int = 8, width: int = 8, **fields: Any) -> TeacherCard:
    channels = CHANNELS[fields.get("channel_order", "RGB")]
    return TeacherCard(
        architecture="cifar_resnet8",
        num_classes=2,
        class_names=("a", "b"),
        input_shape=(channels, height, width),
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        **fields,
    )


GREY_CARD = card(channel_order="L")


def encoded(image: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def random_image(height: int, width: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def pixels_of(data: bytes, teacher: TeacherCard | None = None) -> NDArray[np.uint8]:
    return read_image(data, teacher or card())[0]


def reason(data: bytes, teacher: TeacherCard | None = None) -> str:
    with pytest.raises(UnusableImage) as caught:
        read_image(data, teacher or card())
    return str(caught.value)


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_lossless_formats_come_back_exactly(file_format: str) -> None:
    image = random_image(8, 8, "P" if file_format == "GIF" else "RGB")
    options = {"lossless": True} if file_format == "WEBP" else {}
    expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    assert np.array_equal(pixels_of(encoded(image, file_format, **options)), expected)


def test_jpeg_is_read() -> None:
    assert np.array_equal(pixels_of(encoded(Image.new("RGB", (8, 8), "white"), "JPEG")), np.full((3, 8, 8), 255))


@pytest.mark.parametrize("resize", [None, 20, 24, (18, 30)])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(40, 33), (33, 40), (15, 25), (16, 16)])
def test_resize_and_crop_equal_torchvisions(resize: Any, interpolation: str, size: tuple[int, int]) -> None:
    image, teacher = random_image(*size), card(16, 17, resize=resize, interpolation=interpolation)
    mode = v2.InterpolationMode(interpolation)
    steps = [v2.Resize(resize if resize is not None else (16, 17), mode, antialias=True), v2.CenterCrop((16, 17))]
    expected = v2.functional.pil_to_tensor(v2.Compose(steps)(image))
    assert torch.equal(torch.from_numpy(pixels_of(encoded(image), teacher).copy()), expected)


def test_a_crop_larger_than_the_image_is_padded_with_black_as_torchvision_does() -> None:
    image, teacher = random_image(28, 27), card(32, 32, resize=(28, 27))
    expected = v2.functional.pil_to_tensor(v2.CenterCrop(32)(image))
    assert torch.equal(torch.from_numpy(pixels_of(encoded(image), teacher).copy()), expected)


def test_an_upright_image_is_what_the_camera_meant() -> None:
    image = random_image(8, 8)
    exif = Image.Exif()
    exif[images.EXIF_ORIENTATION] = 6  # to be turned by a quarter clockwise
    for file_format in ("PNG", "TIFF"):
        turned = pixels_of(encoded(image, file_format, exif=exif))
        assert np.array_equal(turned, np.rot90(np.asarray(image), -1).transpose(2, 0, 1))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "I;16"])
@pytest.mark.parametrize("teacher", [card(), GREY_CARD], ids=["RGB", "L"])
def test_white_stays_white_in_every_mode(mode: str, teacher: TeacherCard) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((8, 8), 65535, dtype=np.uint16))
    else:
        image = Image.new("RGB", (8, 8), "white").convert(mode)
    file_format = {"CMYK": "JPEG", "YCbCr": "JPEG"}.get(mode, "PNG")
    found = pixels_of(encoded(image, file_format), teacher)
    assert found.shape == teacher.input_shape
    assert (found == 255).all()


def test_transparency_shows_white() -> None:
    image = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    image.putpixel((0, 0), (255, 0, 0, 255))
    found = pixels_of(encoded(image))
    assert found[:, 0, 0].tolist() == RED
    assert found[:, 5, 5].tolist() == WHITE
    palette = Image.new("RGB", (8, 8), "red").quantize()
    assert pixels_of(encoded(palette))[:, 0, 0].tolist() == RED
    assert pixels_of(encoded(palette, transparency=palette.getpixel((0, 0))))[:, 0, 0].tolist() == WHITE


def test_sixteen_bits_are_scaled_not_cut() -> None:
    values = np.array([[0, 128, 129, 32768, 65535]] * 8, dtype=np.uint16)
    teacher = card(8, 5, channel_order="L")
    found = pixels_of(encoded(Image.fromarray(values)), teacher)
    assert found[0, 0].tolist() == [0, 0, 1, 128, 255]


def test_grey_files_are_known_as_such() -> None:
    assert read_image(encoded(random_image(8, 8, "L")), card())[1]
    assert not read_image(encoded(random_image(8, 8)), GREY_CARD)[1]
    grey = pixels_of(encoded(random_image(8, 8, "L")))
    assert np.array_equal(grey[0], grey[1])
    assert np.array_equal(grey[0], grey[2])


def test_a_bgr_teachers_images_stay_rgb() -> None:
    image = encoded(Image.new("RGB", (8, 8), "red"))
    assert pixels_of(image, card(channel_order="BGR"))[:, 0, 0].tolist() == RED


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_animations_are_refused(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
    assert reason(data) == "it has 3 frames (it is animated) instead of one"


def test_pages_are_refused() -> None:
    pages = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green")]
    assert reason(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])) == "it has 2 pages instead of one"


def test_a_phones_photograph_with_a_preview_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("white", "black")]
    assert (pixels_of(encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])) == 255).all()


def test_damaged_files_say_so() -> None:
    whole = encoded(random_image(64, 64))
    assert reason(b"") == "it is empty (0 bytes)"
    assert reason(b"no image at all") == "it is not an image of a known format"
    assert "damaged" in reason(whole[: len(whole) // 2])
    assert "damaged" in reason(encoded(random_image(64, 64), "JPEG")[:1000])


def test_random_damage_raises_nothing_else() -> None:
    random = np.random.default_rng(0)
    for file_format in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        whole = encoded(random_image(16, 16), file_format)
        for _ in range(60):
            damaged = bytearray(whole)
            for position in random.integers(0, len(whole), size=4):
                damaged[position] = random.integers(256)
            try:
                assert pixels_of(bytes(damaged)).shape == (3, 8, 8)
            except UnusableImage:
                continue


def test_huge_images_are_refused_by_their_header(monkeypatch: pytest.MonkeyPatch) -> None:
    header = bytearray(encoded(Image.new("1", (8, 8))))
    header[16:24] = (20_000).to_bytes(4, "big") * 2
    header[29:33] = zlib.crc32(bytes(header[12:29])).to_bytes(4, "big")
    assert reason(bytes(header)) == "it has more than 178,956,970 pixels"
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    assert reason(encoded(random_image(10, 10))) == "it has 10 x 10 pixels, more than 99"


def test_a_sliver_is_not_blown_up() -> None:
    data = encoded(Image.new("1", (1, 60_000)))
    assert reason(data, card(64, 64, resize=64)) == "its sides 1 and 60000 differ too much to be resized"


def test_numbers_without_a_white_are_refused() -> None:
    for mode in ("I", "F"):
        assert "no white is defined" in reason(encoded(Image.new(mode, (8, 8)), "TIFF"))


def test_decoders_that_are_not_asked_for_stay_shut() -> None:
    assert reason(encoded(random_image(8, 8), "PPM")) == "it is not an image of a known format"


# Four bands


@pytest.mark.parametrize(("mode", "file_format"), [("RGBA", "PNG"), ("RGBA", "TIFF"), ("CMYK", "TIFF")])
def test_four_bands_are_taken_as_they_are(mode: str, file_format: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
    pixels[0, 0] = [10, 20, 30, 0]  # under an alpha of 0 colours count as well
    data = encoded(Image.fromarray(pixels, mode), file_format)
    assert np.array_equal(pixels_of(data, card(channel_order="RGBA")), pixels.transpose(2, 0, 1))


def test_four_bands_are_resized_each_by_itself() -> None:
    pixels = np.zeros((16, 16, 4), dtype=np.uint8)
    pixels[:, :8, 0] = 200  # Pillow, told that the fourth is alpha, would leave nothing of it
    resized = pixels_of(encoded(Image.fromarray(pixels)), card(channel_order="RGBA"))
    assert resized[0, :, :3].min() == 200
    assert resized[1:].max() == 0


@pytest.mark.parametrize(("mode", "count"), [("RGB", "3 bands"), ("L", "1 band"), ("LA", "2 bands"), ("P", "1 band")])
def test_fewer_bands_are_no_image_for_a_teacher_of_four(mode: str, count: str) -> None:
    found = reason(encoded(random_image(8, 8, mode)), card(channel_order="RGBA"))
    assert found == f"it has {count}, and the teacher takes images of 4"
