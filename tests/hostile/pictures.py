"""Image files that mean harm: bombs, broken ones, and what only looks like a file. None stops a run."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

from hostile.corpus import INPUT, TAKEN, Entry, Place
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", *more: bytes) -> bytes:
    """A PNG that says how large it is."""
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return SIGNATURE + header + b"".join(more) + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")


def _saved(kind: str, size: tuple[int, int] = (8, 8), **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, kind, **options)
    return buffer.getvalue()


def _frames(kind: str, number: int) -> bytes:
    frames = [Image.new("RGB", (8, 8), (k % 256, 0, 0)) for k in range(number)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def _tiff_that_returns() -> bytes:
    """A TIFF whose directory is followed by itself."""
    data = bytearray(_saved("TIFF"))
    first = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[first : first + 2])[0]
    data[first + 2 + 12 * count : first + 6 + 12 * count] = struct.pack("<I", first)
    return bytes(data)


def _tiff_of(width: int, height: int) -> bytes:
    """A TIFF that says how large it is."""
    data = bytearray(_saved("TIFF"))
    first = struct.unpack("<I", data[4:8])[0]
    for entry in range(struct.unpack("<H", data[first : first + 2])[0]):
        place = first + 2 + 12 * entry
        tag = struct.unpack("<H", data[place : place + 2])[0]
        if tag in (256, 257):
            data[place + 2 : place + 12] = struct.pack("<HII", 4, 1, width if tag == 256 else height)
    return bytes(data)


TEXT_BOMB = _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(64 * 2**20)))
PROFILE_BOMB = _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(64 * 2**20)))
GOOD = _saved("PNG")

FILES: Mapping[str, Callable[[], bytes]] = {
    "bomb.png": lambda: png(2**31 - 1, 2**31 - 1),
    "wide.png": lambda: png(2**31 - 1, 1),
    "gigapixel.png": lambda: png(40_000, 40_000, bytes(1000)),
    "text-bomb.png": lambda: png(8, 8, bytes(8 * 25), TEXT_BOMB),
    "profile-bomb.png": lambda: png(8, 8, bytes(8 * 25), PROFILE_BOMB),
    "more-data.png": lambda: png(8, 8, bytes(200 * 2**20)),
    "no-data.png": lambda: png(8, 8),
    "zero.png": lambda: png(0, 0),
    "animated.png": lambda: _frames("PNG", 3),
    "animated.gif": lambda: _frames("GIF", 50),
    "bomb.gif": lambda: b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00;",
    "pages.tiff": lambda: _frames("TIFF", 3),
    "returns.tiff": _tiff_that_returns,
    "bomb.tiff": lambda: _tiff_of(2**31, 2**31),
    "bomb.bmp": lambda: _saved("BMP")[:18] + struct.pack("<ii", 2**31 - 1, 2**31 - 1) + _saved("BMP")[26:],
    "bomb.webp": lambda: (
        b"RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00/\xff\xff\xff\xff\x07\x10\x11\x11\x88\x88\xfe\x07\x00"
    ),
    "cut-header.png": lambda: GOOD[:12],
    "cut-middle.png": lambda: GOOD[: len(GOOD) // 2],
    "cut-tail.jpg": lambda: _saved("JPEG", (64, 64))[:-100],
    "turned.png": lambda: GOOD[:45] + bytes([GOOD[45] ^ 0xFF]) + GOOD[46:],
    "empty.png": lambda: b"",
    "a-script.png": lambda: b"#!/bin/sh\ntouch x\n",
    "postscript.png": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(x) (w) file\n",
    "vector.png": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "a-fits.png": lambda: b"SIMPLE  =                    T" + bytes(5000),
}
NAMES = (
    "line\nbreak.png", "\x1b[31mred.png", "::error::x.png", "<img src=x onerror=alert(1)>.png", "-oProxyCommand=x.png",
    "\u202egnp.exe.png", "$(touch x).png", "`touch x`.png", "; touch x.png", "x" * 240 + ".png",
)  # fmt: skip


def write_bad(folder: Path) -> None:
    """All of them, and what is no file at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        (folder / name).write_bytes(make())
    for name in NAMES:
        (folder / name).write_bytes(b"no image")
    with Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.png")).open("wb") as file:
        file.write(b"no image")
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "up").symlink_to("..")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "nowhere.png").symlink_to("/nowhere.png")
    (folder / "outside.png").symlink_to("/etc/passwd")


def _bad(place: Place) -> Path:
    write_bad(place.given / "few")
    return place.given / "few"


def _among_good(place: Place) -> Path:
    shutil.copytree(place.good / "few", place.given / "few")
    return _bad(place)


def _masks(place: Place) -> Path:
    write_bad(place.given / "few" / "masks")
    shutil.copytree(place.good / "few", place.given / "few" / "images")
    return place.given / "few"


ENTRIES = (
    Entry("images, none of them good", "images", "--samples", (*INPUT, *TAKEN), _bad),
    Entry("images among good ones", "images", "--samples", TAKEN, _among_good),
    Entry("images among those to report on", "images", "--eval", TAKEN, _among_good),
    Entry("images among those of a pool", "images", "--pool", TAKEN, _among_good),
    Entry("images where masks should be", "images", "--samples", TAKEN, _masks),
)
