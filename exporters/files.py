"""Files: never seen half-written, and told apart by their hash. `compressor.stages` has its own, without an import."""

from __future__ import annotations

import hashlib
from pathlib import Path


def write_atomically(content: bytes, path: Path) -> None:
    """Write beside `path` and rename; on failure nothing is left."""
    temporary = path.with_name(f".tmp-{path.name}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Of the whole file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
