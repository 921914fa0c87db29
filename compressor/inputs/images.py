"""One image file to the pixels that a teacher sees.

    bytes -> decode -> upright (EXIF) -> RGB, grey or four bands -> resize -> crop -> uint8 (C, H, W)

Resizing is Pillow's, on 8-bit pixels, with its antialiasing filter (`nearest` has none), which is what torchvision does
to PIL images. With the card's resize r and the input size h x w:

    r a number   the shorter side becomes r, the longer one int(r * longer / shorter)
    r a pair     the image becomes r exactly
    no r         the image becomes h x w exactly
    then, with the crop 'centre', the middle h x w is cut out, with black where the image is smaller
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from compressor.inputs.card import TeacherCard

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")  # no other decoder of Pillow's is let near the bytes
MAX_PIXELS = 178_956_970  # 512 MiB of RGB; where Pillow by default calls an image a decompression bomb
EXIF_ORIENTATION = 0x0112
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
FOUR_BANDS = ("RGBA", "RGBa", "RGBX", "CMYK")
GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")


class UnusableImage(Exception):
    """An image that is left out; the message is the reason, a clause without a period."""


def read_image(data: bytes, card: TeacherCard) -> tuple[NDArray[np.uint8], bool]:
    """Decode a file's bytes for a teacher.

    Returns:
        the pixels, uint8 (C, H, W), and whether the file is grey.

    Raises:
        UnusableImage: with the reason, whatever is wrong with the file.
    """
    if not data:
        raise UnusableImage("it is empty (0 bytes)")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check(image)
            is_grey = image.mode in GREY_MODES
            return _fit(_in_mode(_upright(image), card.channel_order), card), is_grey
    except UnusableImage:
        raise
    except UnidentifiedImageError:
        raise UnusableImage("it is not an image of a known format") from None
    except Image.DecompressionBombError:
        raise UnusableImage(f"it has more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # decoders fail on damaged bytes in any way there is, and the bytes are the cause
        reason = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise UnusableImage(f"it is damaged ({reason})") from error


def _check(image: Image.Image) -> None:
    """What the header alone tells."""
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise UnusableImage(f"it has {width} x {height} pixels, more than {MAX_PIXELS:,}")
    # An MPO file is a photograph with a preview or a second view behind it; its first frame is the photograph.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        frames = "pages" if image.format == "TIFF" else "frames (it is animated)"
        raise UnusableImage(f"it has {getattr(image, 'n_frames', 'several')} {frames} instead of one")


def _upright(image: Image.Image) -> Image.Image:
    if image.getexif().get(EXIF_ORIENTATION, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def _in_mode(image: Image.Image, channel_order: str) -> Image.Image:
    """RGB (a BGR teacher turns the channels round itself) or grey; alpha over white, 16 bits scaled to 8.

    For a teacher of four channels the file's own four bands, whatever they are.
    """
    if channel_order == "RGBA":
        return _four_bands(image)
    mode = "L" if channel_order == "L" else "RGB"
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        wide = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8)).convert(mode)
    if image.mode in ("I", "F"):
        raise UnusableImage("its pixels are 32-bit numbers, for which no white is defined")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image if image.mode == mode else image.convert(mode)


def _four_bands(image: Image.Image) -> Image.Image:
    """The bands as numbers: Pillow resizes what it knows as alpha with weights, so it is told that it is ink."""
    if image.mode not in FOUR_BANDS:
        count = len(image.getbands())
        raise UnusableImage(f"it has {count} band{'s' * (count != 1)}, and the teacher takes images of 4")
    return Image.frombytes("CMYK", image.size, image.tobytes())


def resized_and_cropped(image: Image.Image, card: TeacherCard, resample: Image.Resampling) -> Image.Image:
    """An upright image, or its mask, at the card's input size; beyond the image's edge is 0.

    Raises:
        UnusableImage: its sides differ too much.
    """
    _, height, width = card.input_shape
    size = _resized(image.size, card.resize, (height, width))
    if size[0] * size[1] > MAX_PIXELS:
        raise UnusableImage(f"its sides {image.size[0]} and {image.size[1]} differ too much to be resized")
    if image.size != size:
        image = image.resize(size, resample)
    if image.size != (width, height):
        left, top = _margin(image.size[0], width), _margin(image.size[1], height)
        image = image.crop((left, top, left + width, top + height))
    return image


def _fit(image: Image.Image, card: TeacherCard) -> NDArray[np.uint8]:
    pixels = np.asarray(resized_and_cropped(image, card, FILTERS[card.interpolation]))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _resized(size: tuple[int, int], resize: tuple[int, int] | int | None, target: tuple[int, int]) -> tuple[int, int]:
    """Width and height after resizing, of an image of `size` (width, height); the other pairs are (height, width)."""
    if not isinstance(resize, int):
        height, width = resize or target
        return width, height
    shorter, longer = min(size), max(size)
    other = int(resize * longer / shorter)
    return (resize, other) if size[0] <= size[1] else (other, resize)


def _margin(size: int, wanted: int) -> int:
    """Where the middle `wanted` pixels of `size` begin, below zero where there are fewer; torchvision's rounding."""
    return round((size - wanted) / 2) if size >= wanted else -((wanted - size) // 2)
